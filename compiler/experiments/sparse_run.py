"""Networks run with their zeros left out, as compressed sparse rows, to be timed against dense ones.

A convolution is lowered to a product with the patches of its input, as sparse kernels have it; the same lowering with a
dense matrix shows what of the time is the lowering's. Two kernels: torch's (MKL where it has it) and SciPy's.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, cast

import scipy.sparse
import torch
from torch import Tensor, nn

__all__ = ["FORMS", "run_as"]

FORMS = ("lowered", "torch-csr", "scipy-csr")
"""How the matrices of a network are kept: dense but lowered, or without their zeros by one of two libraries."""


def run_as(module: nn.Module, form: str) -> nn.Module:
    """A copy of a network with plain parameters whose Linear and Conv2d multiply in one of `FORMS`; to be run only."""
    twin = copy.deepcopy(module).eval()
    for path, layer in list(twin.named_modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            parent, _, name = path.rpartition(".")
            setattr(twin.get_submodule(parent), name, _Product(layer, form))
    return twin


class _Product(nn.Module):
    """A Linear or Conv2d as a matrix of rows that takes columns."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, form: str) -> None:
        super().__init__()
        matrix = layer.weight.detach().flatten(1).contiguous()
        self.form, self.rows = form, len(matrix)
        self.bias = None if layer.bias is None else layer.bias.detach()[:, None]
        self.matrix: Any = matrix
        if form == "torch-csr":
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
                self.matrix = matrix.to_sparse_csr()
        elif form == "scipy-csr":
            self.matrix = scipy.sparse.csr_array(matrix.numpy())
        self.window = (
            {}
            if isinstance(layer, nn.Linear)
            else {"kernel_size": layer.kernel_size, "padding": cast(Any, layer.padding), "stride": layer.stride}
        )

    def forward(self, x: Tensor) -> Tensor:
        if not self.window:
            return self._times(x.t()).t()
        height, width = (
            (side + 2 * pad - kernel) // stride + 1
            for side, pad, kernel, stride in zip(
                x.shape[2:], self.window["padding"], self.window["kernel_size"], self.window["stride"], strict=True
            )
        )
        patches = nn.functional.unfold(x, **self.window)  # (n, in · kernel, places)
        columns = patches[0] if len(x) == 1 else patches.movedim(0, 1).flatten(1)
        outputs = self._times(columns).view(self.rows, len(x), height, width)
        return outputs.movedim(0, 1)

    def _times(self, columns: Tensor) -> Tensor:
        if self.form == "scipy-csr":
            product = torch.from_numpy(self.matrix @ columns.numpy())
        else:
            product = self.matrix @ columns
        return product if self.bias is None else product + self.bias
