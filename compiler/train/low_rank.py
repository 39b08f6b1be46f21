"""Layers as products of smaller ones: SVD of Linear and Conv2d, Tucker-2 of Conv2d; functions of any module.

Sources: SVD over channels: Accelerating Very Deep Convolutional Networks (Zhang et al., 2015), section 2.1. Over rows
and columns: Speeding up Convolutional Neural Networks with Low Rank Expansions (Jaderberg et al., 2014), scheme 2.
Tucker-2: Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications (Kim et al., ICLR
2016), section 3.1; factors by higher-order orthogonal iteration (De Lathauwer et al., 2000).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compiler.errors import ModelError
from compiler.train.factored import Factored, check_convolution, convolution, put
from compiler.train.layers import weights
from compiler.train.select import Patterns
from compiler.train.ties import places

__all__ = ["WAYS", "channels", "linear", "low_rank", "spatial", "tucker"]

WAYS = ("channels", "spatial", "tucker")
"""Ways to factor a convolution."""

_TURNS = 20
"""Iterations of Tucker-2, each of which makes the error no greater."""

_BOTH, _NONE = (True, True), (False, False)


def linear(layer: nn.Linear, rank: int) -> Factored:
    """Two Linear layers in the place of one: in → rank → out, the best approximation of its weight (Eckart-Young).

    The squared Frobenius error of the weight is the sum of the squares of the discarded singular values.
    """
    left, right = _split(layer.weight.detach(), rank)
    first = nn.Linear(layer.in_features, rank, bias=False)
    second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
    return _filled(OrderedDict(first=first, second=second), [right, left], layer.bias)


def channels(layer: nn.Conv2d, rank: int) -> Factored:
    """The window of the convolution with `rank` outputs, then 1x1. Error as of `linear`, of (out, in·rows·columns)."""
    weight = layer.weight.detach()
    left, right = _split(weight.flatten(1), rank)
    first = convolution(layer, layer.in_channels, rank, _BOTH)
    second = convolution(layer, rank, layer.out_channels, _NONE, layer.bias is not None)
    values = [right.view(rank, *weight.shape[1:]), left.view(-1, rank, 1, 1)]
    return _filled(OrderedDict(first=first, second=second), values, layer.bias)


def spatial(layer: nn.Conv2d, rank: int) -> Factored:
    """A column of the window, then a row of it. Error as of `linear`, of the matrix (in·rows, out·columns)."""
    weight = layer.weight.detach()
    outputs, inputs, rows, columns = weight.shape
    left, right = _split(weight.permute(1, 2, 0, 3).reshape(inputs * rows, outputs * columns), rank)
    first = convolution(layer, inputs, rank, (True, False))
    second = convolution(layer, rank, outputs, (False, True), layer.bias is not None)
    values = [
        left.t().reshape(rank, inputs, rows, 1),
        right.reshape(rank, outputs, 1, columns).transpose(0, 1),
    ]
    return _filled(OrderedDict(column=first, row=second), values, layer.bias)


def tucker(layer: nn.Conv2d, inputs: int, outputs: int) -> Factored:
    """1x1 to `inputs` channels, the window from these to `outputs` channels, 1x1 to those of the layer.

    The squared Frobenius error is at most the sum of the squares of the discarded singular values of both unfoldings.
    """
    weight = layer.weight.detach().double()
    into, out = _leading(_unfold(weight, 1), inputs), _leading(_unfold(weight, 0), outputs)
    for _ in range(_TURNS if inputs < weight.shape[1] or outputs < weight.shape[0] else 0):
        out = _leading(_unfold(torch.einsum("oiyx,ir->oryx", weight, into), 0), outputs)
        into = _leading(_unfold(torch.einsum("oiyx,or->riyx", weight, out), 1), inputs)
    core = torch.einsum("oiyx,or,is->rsyx", weight, out, into)
    layers = OrderedDict(
        first=convolution(layer, layer.in_channels, inputs, _NONE),
        core=convolution(layer, inputs, outputs, _BOTH),
        last=convolution(layer, outputs, layer.out_channels, _NONE, layer.bias is not None),
    )
    return _filled(layers, [into.t()[:, :, None, None], core, out[:, :, None, None]], layer.bias)


def low_rank(
    module: nn.Module, keep: float, way: str = "channels", only: Patterns | None = None, ignore: Patterns = ()
) -> dict[str, dict[str, Any]]:
    """Factor the Linear and Conv2d layers of a module in place, each at the greatest rank within its share of weights.

    Layers that no factors of rank 1 save anything at stay as they are. Train on afterwards.

    Parameters
    ----------
    keep : share of a layer's weights that its factors may have together, above 0 and at most 1.
    way : one of `WAYS`, for convolutions.
    only, ignore : patterns of the layers that are factored (None: all), or left, see `select.chosen`.

    Returns
    -------
    dict
        Key of each layer that was factored → ``ranks``, ``weights`` before and after, and ``error``: Frobenius norm of
        the difference of the weight, as a share of its own.

    Raises
    ------
    ModelError
        Patterns match nothing, weights are masked, shared or tied, a convolution cannot be factored, or nothing was.
    """
    if way not in WAYS or not 0 < keep <= 1:
        raise ModelError(f"way is {way!r} and keep is {keep!r}; expected one of {', '.join(WAYS)}, and 0 < keep <= 1")
    sites = [site for site in weights(module, only, ignore) if isinstance(site.module, nn.Linear | nn.Conv2d)]
    found: dict[str, dict[str, Any]] = {}
    new: dict[str, Factored] = {}
    for site in sites:
        layer: Any = site.module
        if why := _refused(layer):
            raise ModelError(f"{site.key} cannot be factored: {why}")
        ranks = _ranks(layer, keep, way)
        if min(ranks) < 1:
            continue
        made = linear(layer, *ranks) if isinstance(layer, nn.Linear) else _FACTOR[way](layer, *ranks)
        after = sum(each.value.numel() for each in weights(made))
        found[site.key] = {
            "ranks": list(ranks), "weights": [layer.weight.numel(), after], "error": _error(layer, made),
        }  # fmt: skip
        new[site.key] = made
    if not found:
        raise ModelError(f"no layer has factors of rank 1 with {keep:.0%} of its weights; give a greater share")
    for path, made in new.items():
        put(module, path, made.train(module.training))
    return found


_FACTOR: dict[str, Any] = {"channels": channels, "spatial": spatial, "tucker": tucker}


def _refused(layer: nn.Linear | nn.Conv2d) -> str:
    if parametrize.is_parametrized(layer, "weight"):
        return "its weights are masked or shared; expected plain ones: factor before pruning"
    if len(places(layer, "weight")) > 1:
        return "it is tied to another layer"
    return check_convolution(layer) if isinstance(layer, nn.Conv2d) else ""


def _ranks(layer: nn.Linear | nn.Conv2d, keep: float, way: str) -> tuple[int, ...]:
    """The greatest ranks whose factors have at most a share of the layer's weights; zeros where there are none."""
    outputs, inputs, *sides = layer.weight.shape
    rows, columns = sides if sides else (1, 1)
    most = keep * layer.weight.numel()
    if sides and way == "tucker":
        for step in range(max(inputs, outputs), 0, -1):
            into, out = (max(1, round(step / max(inputs, outputs) * size)) for size in (inputs, outputs))
            if inputs * into + rows * columns * into * out + out * outputs <= most:
                return into, out
        return 0, 0
    if sides and way == "spatial":
        return (min(math.floor(most / (inputs * rows + outputs * columns)), inputs * rows, outputs * columns),)
    width = inputs * rows * columns
    return (min(math.floor(most / (width + outputs)), width, outputs),)


def _split(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors (n, rank) and (rank, m) of the best approximation, of equal norms."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]


def _unfold(weight: Tensor, axis: int) -> Tensor:
    return weight.movedim(axis, 0).flatten(1)


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """The leading left singular vectors, (n, rank), by the Gram matrix, whose side is the number of channels."""
    vectors: Tensor = torch.linalg.eigh(matrix @ matrix.t()).eigenvectors
    return vectors.flip(1)[:, :rank]


def _filled(layers: OrderedDict[str, Any], values: list[Tensor], bias: Tensor | None) -> Factored:
    """The layers with these weights, and the bias at the last one."""
    with torch.no_grad():
        for layer, value in zip(layers.values(), values, strict=True):
            layer.weight.copy_(value)
        if bias is not None:
            list(layers.values())[-1].bias.copy_(bias)
    return Factored(layers)


def _error(layer: nn.Linear | nn.Conv2d, made: Factored) -> float:
    """Frobenius norm of the difference of what both multiply by, as a share of the layer's."""
    weight = layer.weight.detach().double()
    parts = [each.value.detach().double() for each in weights(made)]
    if isinstance(layer, nn.Linear):
        whole = parts[1] @ parts[0]
    elif "column" in made._modules:
        whole = torch.einsum("riyt,orux->oiyx", parts[0], parts[1])
    elif len(parts) == 2:
        whole = torch.einsum("riyx,oruv->oiyx", parts[0], parts[1])
    else:
        whole = torch.einsum("situ,rsyx,orvw->oiyx", *parts)
    return float((whole - weight).norm() / weight.norm().clamp_min(1e-30))
