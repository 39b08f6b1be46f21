"""From a network to the image of one array: fixed point, rows to PEs, encoded entries, memory words."""
