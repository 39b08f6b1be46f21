"""From the user's format to the operator graph: `torch.export`, ONNX, and layers as `.npz`."""
