"""Trained weight sharing: the weights of a layer are a few values, and those values are what is trained.

Code 0 is the weight zero and stays it, so pruned weights stay pruned. The gradient of a centroid is the sum of
the gradients of all weights that share it. Two updates:

- *fixed* labels (the thesis' "-c"): only centroids move; a weight keeps the centroid that it was given.
- *free* labels ("-c+1"): a float copy of the weights is trained beside the centroids, with the gradient of the weight
  that it stands for; `reassign` gives each the centroid that is now next to it.

Centroids are free values (non-uniform), or multiples of one step (uniform). What is trained of a uniform grid is its
reach, the greatest of its levels: weights and reach are of one size and can be trained at one rate, which for the step
of a grid of 255 levels would be a hundred times too fast.

Source: Deep Compression (Han et al., ICLR 2016), section 3; S. Han, Efficient Methods and Hardware for Deep Learning
(thesis, 2017), section 4.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compiler.errors import ModelError
from compiler.train import cluster
from compiler.train.layers import Site, make_plain, weights
from compiler.train.parametrized import finite, register
from compiler.train.select import Patterns

__all__ = ["SharedWeight", "attach", "find", "reassign", "share", "values_of"]


class SharedWeight(nn.Module):
    """Parametrization: weight = (0, centroids)[codes].

    Parameters
    ----------
    codes : uint8 of the weight's shape; 0 is the weight zero.
    values : what is trained: float (2**code_bits - 1,) the centroids of codes 1, 2, …, those that no weight uses 0;
        on a uniform grid float (1,), its reach: the step times the greatest magnitude of `levels`.
    levels : on a uniform grid the multiples of the step, integers (2**code_bits - 1,); else None.
    shadow : float copy of the weight where labels are free, else None.

    Notes
    -----
    The module holds `values` as ``parametrizations.weight.original``; with free labels the shadow as ``…original0``
    and the values as ``…original1``.
    """

    kind = "shared"
    codes: Tensor
    levels: Tensor | None

    def __init__(self, codes: Tensor, values: Tensor, levels: Tensor | None = None, shadow: Tensor | None = None):
        super().__init__()
        self.free = shadow is not None
        self.bits = len(values if levels is None else levels).bit_length()
        self.register_buffer("codes", codes)
        self.register_buffer("levels", levels)
        # For right_inverse, which torch calls once when the parametrization is registered.
        self._first: tuple[Tensor, ...] | None = (values,) if shadow is None else (shadow, values)

    def forward(self, *originals: Tensor) -> Tensor:
        """The weight that codes and centroids stand for."""
        table = self.table(originals[-1])
        # index_select adds the gradients up in a fixed order and eight times faster than an embedding.
        weight = table.index_select(0, self.codes.flatten().int()).view(self.codes.shape)
        if self.codes.dim() == 4:  # convolutions are trained with channels last
            weight = weight.contiguous(memory_format=torch.channels_last)
        if not self.free:
            return weight
        return cast(Tensor, _ShadowGradient.apply(weight, originals[0], self.codes))  # type: ignore[no-untyped-call]

    def table(self, values: Tensor) -> Tensor:
        """Weight of each code, float (2**code_bits,)."""
        points = values if self.levels is None else values / self.levels.abs().max().clamp_min(1) * self.levels
        return torch.cat((points.new_zeros(1), points))

    def right_inverse(self, weight: Tensor) -> Any:
        """The first values; later assignments to the weight are refused, for codes cannot follow them."""
        if self._first is None:
            raise RuntimeError("a shared weight cannot be assigned to; write it out with layers.make_plain first")
        first, self._first = self._first, None
        return first if self.free else first[0]

    def describe(self) -> dict[str, Any]:
        """What `structure.rebuild` needs to make the same parametrization; "reach" says what a uniform grid trains."""
        return {"kind": self.kind, "free": self.free, "reach": self.levels is not None}


class _ShadowGradient(torch.autograd.Function):
    """The shared weight; its gradient reaches the shadow as well, except where the code is 0."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, shadow: Tensor, codes: Tensor) -> Tensor:
        ctx.save_for_backward(codes)
        return weight.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (codes,) = ctx.saved_tensors
        return gradients[0], gradients[0] * (codes != 0), None


def attach(
    module: nn.Module,
    code_bits: int,
    name: str = "weight",
    *,
    start: str = "exact",
    uniform: bool = False,
    free: bool = False,
    seed: int = 0,
    key: str | None = None,
) -> SharedWeight:
    """Replace parameter `name` of one layer by shared weights; a mask or an earlier sharing is written out first.

    Layers that are tied to it share the same values. The parameter object stays, though it is the centroids now (the
    float copy where labels are free, with the centroids beside it): optimizers that hold it go on, see `optimizers`.

    Parameters
    ----------
    code_bits : 1 … 8; there are 2**code_bits - 1 centroids beside the zero.
    start : one of `cluster.STARTS`.
    uniform : centroids are the multiples of one step; `start` then has no meaning.
    free : whether labels may change later, by `reassign`.
    seed : of the random start.
    key : what messages call the tensor; `name` if it is not given.

    Raises
    ------
    ModelError
        A weight is not finite.
    """
    if not 1 <= code_bits <= 8:
        raise ValueError(f"code_bits is {code_bits}; expected 1 … 8")
    if not isinstance(getattr(module, name, None), Tensor):
        raise ModelError(
            f"{type(module).__name__} has no parameter {name}; for all layers of a network use quantize.share"
        )
    finite(module, name, key)
    if parametrize.is_parametrized(module, name):
        make_plain(module, name)
    weight = cast(Tensor, getattr(module, name)).detach()
    array = np.ascontiguousarray(weight.to("cpu", torch.float32).numpy())
    nonzero = array[array != 0]
    clusters = (1 << code_bits) - 1
    points, reach, levels = np.zeros(0), 0.0, np.arange(1.0, clusters + 1)
    if uniform and nonzero.size:
        step, levels = cluster.grid(nonzero, code_bits)
        points, reach = step * levels, step * np.abs(levels).max()
    elif nonzero.size:
        points = cluster.centroids(nonzero, clusters, start, seed)
    codes = np.zeros(array.shape, np.uint8)
    if len(points):
        codes[array != 0] = cluster.nearest(array[array != 0], points) + 1
    values = np.array([reach]) if uniform else np.concatenate([points, np.zeros(clusters - len(points))])
    shared = SharedWeight(
        torch.from_numpy(codes).to(weight.device),
        torch.from_numpy(values).to(weight.device, weight.dtype),
        torch.from_numpy(levels).to(weight.device, weight.dtype) if uniform else None,
        weight.clone() if free else None,
    )
    register(module, name, shared, beside=free)
    return shared


def share(
    module: nn.Module, code_bits: int, only: Patterns | None = None, ignore: Patterns = (), **options: Any
) -> dict[str, SharedWeight]:
    """Share the weights of every layer of a network, each with values of its own; key → what was attached.

    Parameters
    ----------
    only, ignore : patterns of the weights that are shared, or left as they are, see `select.chosen`.
    options : of `attach`.

    Raises
    ------
    ModelError
        A pattern matches no weight, there is none, or one is not finite: no weight is shared then.
    """
    sites: list[Site] = list(weights(module, only, ignore))
    if not sites:
        raise ModelError(f"{type(module).__name__} has no weights that can be shared")
    for site in sites:
        finite(site.module, site.name, site.key)
    return {site.key: attach(site.module, code_bits, site.name, key=site.key, **options) for site in sites}


def find(module: nn.Module, name: str = "weight") -> SharedWeight | None:
    """The sharing of parameter `name`, if it is shared."""
    if not parametrize.is_parametrized(module, name):
        return None
    chain = getattr(module.parametrizations, name)
    return next((step for step in chain if isinstance(step, SharedWeight)), None)


def values_of(module: nn.Module, name: str = "weight") -> nn.Parameter:
    """What is trained of shared parameter `name`: its centroids, or the reach of its grid."""
    chain = cast(Any, module.get_submodule(f"parametrizations.{name}"))
    values: nn.Parameter = chain.original if chain.is_tensor else chain.original1
    return values


def reassign(module: nn.Module, name: str = "weight") -> int:
    """Give every weight with free labels the centroid next to its float copy; how many labels changed.

    Code 0 is neither left nor reached. The squared distance between copy and shared weight never grows.
    """
    shared = find(module, name)
    if shared is None or not shared.free:
        return 0
    originals = cast(Any, module.parametrizations)[name]
    with torch.no_grad():
        points = shared.table(originals.original1)[1:]
        used = torch.nonzero(points).flatten()
        if not len(used):
            return 0
        ordered, order = points[used].sort()
        shadow = originals.original0
        spot = torch.bucketize(shadow.contiguous(), (ordered[1:] + ordered[:-1]) / 2)
        codes = (used[order][spot] + 1).to(torch.uint8)
        codes[shared.codes == 0] = 0
        # Rounding of a middle between two centroids must not make anything worse.
        table = shared.table(originals.original1)
        worse = (table[codes.int()] - shadow).abs() >= (table[shared.codes.int()] - shadow).abs()
        codes = torch.where(worse, shared.codes, codes)
        changed = int((codes != shared.codes).sum())
        shared.codes.copy_(codes)
    return changed
