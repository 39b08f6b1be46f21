"""Compression to a target on the array: densities by layer from the exact model, then the stages of training."""
