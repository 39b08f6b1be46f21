"""Trained weight sharing: the weights of a layer are a few centroids, and the centroids are what is trained.

Code 0 is the weight zero and stays it, so pruned weights stay pruned. The gradient of a centroid is the sum of
the gradients of all weights that share it.

Source: Deep Compression (Han et al., ICLR 2016), section 3.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compiler.share import share

__all__ = ["SharedWeight", "attach"]


class SharedWeight(nn.Module):
    """Parametrization: weight = (0, centroids)[codes].

    Attributes
    ----------
    codes : uint8 buffer of the weight's shape; 0 is the weight zero.

    Notes
    -----
    What the module holds as ``parametrizations.weight.original`` is the parameter of the centroids, float
    (2**code_bits - 1,), of codes 1, 2, …; those that no weight uses are 0.
    """

    codes: Tensor

    def __init__(self, weight: Tensor, code_bits: int) -> None:
        super().__init__()
        self.code_bits = code_bits
        self.register_buffer("codes", torch.zeros(weight.shape, dtype=torch.uint8, device=weight.device))

    def forward(self, centroids: Tensor) -> Tensor:
        """The weight that codes and `centroids` stand for."""
        table = torch.cat((centroids.new_zeros(1), centroids))
        # index_select adds the gradients up in a fixed order and eight times faster than an embedding.
        return table.index_select(0, self.codes.flatten().int()).view(self.codes.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Choose codes and centroids for `weight` by exact one-dimensional k-means over its nonzero values."""
        array = weight.detach().to("cpu", torch.float32).numpy()
        codes, centroids = share(np.ascontiguousarray(array), self.code_bits)
        self.codes.copy_(torch.from_numpy(codes).to(weight.device))
        return torch.from_numpy(centroids[1:]).to(weight.device, weight.dtype)


def attach(module: nn.Module, code_bits: int, name: str = "weight") -> SharedWeight:
    """Replace parameter `name` of `module`, which must have no parametrization, by shared weights.

    Parameters
    ----------
    code_bits : 2 … 8; there are 2**code_bits - 1 centroids beside the zero.
    """
    if parametrize.is_parametrized(module, name):
        raise ValueError(f"{name} is parametrized already; write its values out first")
    shared = SharedWeight(getattr(module, name), code_bits)
    parametrize.register_parametrization(module, name, shared)
    return shared
