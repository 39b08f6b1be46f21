"""From a network to an image for the accelerator: frontend, quantization, encoding, packing."""
