"""The network as a graph of operators, and the passes that rewrite it."""
