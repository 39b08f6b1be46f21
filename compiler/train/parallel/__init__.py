"""Training on several processes by torch's own ways: data, sharded data, tensor, data x tensor, pipeline."""
