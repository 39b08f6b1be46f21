"""Convolutions rewritten into others with fewer products, to be trained on: small kernels, separable, bottleneck.

Sources: kernels of 7x7 and 5x5 as 3x3 in a row: Rethinking the Inception Architecture (Szegedy et al., 2016), section
3.1. Depthwise separable: MobileNets (Howard et al., 2017), section 3.1. Bottleneck of 1x1: Deep Residual Learning (He
et al., 2016), figure 5.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from compiler.errors import ModelError
from compiler.train.factored import Factored, check_convolution, convolution, put
from compiler.train.layers import weights
from compiler.train.select import Patterns

__all__ = ["FORMS", "bottleneck", "rewrite", "separable", "small_kernels"]

_BOTH, _NONE = (True, True), (False, False)


def small_kernels(layer: nn.Conv2d) -> Factored:
    """Convolutions 3x3 in a row that see as much as one of odd sides from 5 on, with normalization and ReLU between.

    The first one has the stride. The weights are fresh: train the network on.
    """
    side = layer.kernel_size[0]
    if layer.kernel_size != (side, side) or side < 5 or side % 2 == 0 or layer.dilation != (1, 1):
        raise ModelError(
            f"a kernel of {layer.kernel_size}, dilation {layer.dilation}; expected 5x5, 7x7, …, dilation 1"
        )
    if layer.padding != (side // 2, side // 2):
        raise ModelError(f"a padding of {layer.padding} around {side}x{side}; expected {side // 2}")
    count = side // 2
    widths = [layer.in_channels, *[layer.out_channels] * count]
    rows, columns = layer.stride
    strides = [(rows, columns), *[(1, 1)] * (count - 1)]
    parts = [
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        for (inputs, outputs), stride in zip(pairwise(widths), strides, strict=True)
    ]
    return _row(parts, layer)


def separable(layer: nn.Conv2d) -> Factored:
    """A depthwise convolution and 1x1, the nearest ones to the layer: of each input channel the first singular vectors.

    The squared Frobenius error of the weight is the sum of the squares of the others' singular values.
    """
    weight = layer.weight.detach()
    outputs, inputs, rows, columns = weight.shape
    left, values, right = torch.linalg.svd(weight.transpose(0, 1).flatten(2).double(), full_matrices=False)
    root = values[:, 0].sqrt()
    depthwise = convolution(layer, inputs, inputs, _BOTH, groups=inputs)
    pointwise = convolution(layer, inputs, outputs, _NONE, layer.bias is not None)
    with torch.no_grad():
        depthwise.weight.copy_((right[:, 0] * root[:, None]).view(inputs, 1, rows, columns))
        pointwise.weight.copy_((left[:, :, 0] * root[:, None]).t().reshape(outputs, inputs, 1, 1))
        if layer.bias is not None and pointwise.bias is not None:
            pointwise.bias.copy_(layer.bias)
    return Factored(OrderedDict(depthwise=depthwise, pointwise=pointwise))


def bottleneck(layer: nn.Conv2d, share: float = 0.25) -> Factored:
    """1x1 to fewer channels, the window among these, 1x1 to the layer's, with normalization and ReLU between.

    share : of the output channels that are in between. The weights are fresh: train the network on.
    """
    inner = max(1, round(share * layer.out_channels))
    parts = [
        convolution(layer, layer.in_channels, inner, _NONE),
        convolution(layer, inner, inner, _BOTH),
        convolution(layer, inner, layer.out_channels, _NONE, layer.bias is not None),
    ]
    return _row(parts, layer)


FORMS: dict[str, Any] = {"small": small_kernels, "separable": separable, "bottleneck": bottleneck}
"""Name of a form, as recipes write it → function of a convolution that gives the layers in its place."""


def rewrite(
    module: nn.Module, form: str, only: Patterns | None = None, ignore: Patterns = (), seed: int = 0
) -> dict[str, list[int]]:
    """Rewrite the convolutions of a module in place; key → its weights before and after.

    Convolutions with more than one position in their window are rewritten; with form "small", those of 5x5 and more.

    Parameters
    ----------
    form : one of `FORMS`. seed : of fresh weights.
    only, ignore : patterns of the layers that are rewritten (None: all), or left, see `select.chosen`.

    Raises
    ------
    ModelError
        Patterns match nothing, weights are masked or shared, a convolution cannot be rewritten, or there is none.
    """
    if form not in FORMS:
        raise ModelError(f"form is {form!r}; expected one of {', '.join(FORMS)}")
    least = 5 if form == "small" else 2
    found: dict[str, Factored] = {}
    counts: dict[str, list[int]] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for site in weights(module, only, ignore):
            layer = site.module
            if not isinstance(layer, nn.Conv2d) or max(layer.kernel_size) < least or layer.groups > 1:
                continue
            why = check_convolution(layer)
            if parametrize.is_parametrized(layer, "weight"):
                why = "its weights are masked or shared; expected plain ones: rewrite before pruning"
            if why:
                raise ModelError(f"{site.key} cannot be rewritten: {why}")
            try:
                found[site.key] = FORMS[form](layer)
            except ModelError as error:
                raise ModelError(f"{site.key} cannot be rewritten: {error}") from None
            after = sum(each.value.numel() for each in weights(found[site.key]))
            counts[site.key] = [layer.weight.numel(), after]
    if not found:
        raise ModelError(f"no convolution of {least}x{least} or more is there to be rewritten as {form}")
    for path, made in found.items():
        put(module, path, made.train(module.training))
    return counts


def _row(parts: list[nn.Conv2d], layer: nn.Conv2d) -> Factored:
    """Convolutions with normalization and ReLU between them; the last one has a bias where the layer had one."""
    last = parts[-1]
    if layer.bias is not None and last.bias is None:
        last.bias = nn.Parameter(torch.zeros(last.out_channels))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, part in enumerate(parts):
        layers[f"conv{number}"] = part
        if part is not last:
            layers[f"norm{number}"] = nn.BatchNorm2d(part.out_channels)
            layers[f"relu{number}"] = nn.ReLU()
    return Factored(layers)
