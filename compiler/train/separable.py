"""Networks of depthwise separable convolutions.

Sources: MobileNets (Howard et al., 2017); Hello Edge (Zhang et al., 2017), and MLPerf Tiny (Banbury et al., 2021).
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import nn

__all__ = ["convolution", "ds_cnn", "mobilenet"]


def convolution(
    inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution that keeps the sides where its stride is 1, batch normalization, ReLU: conv, norm, relu."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = ((sides[0] - 1) // 2, (sides[1] - 1) // 2)
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, sides, stride, padding, groups=groups, bias=False),
            norm=nn.BatchNorm2d(outputs),
            relu=nn.ReLU(),
        )
    )


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(depthwise=convolution(inputs, inputs, 3, stride, inputs), pointwise=convolution(inputs, outputs, 1))
    )


def ds_cnn(
    width: int = 64,
    classes: int = 10,
    channels: int = 1,
    kernel: int | tuple[int, int] = (10, 4),
    stride: int = 2,
    blocks: int = 4,
) -> nn.Sequential:
    """Keyword spotting of MLPerf Tiny: a convolution 10x4 of stride 2, four separable ones, average, Linear.

    Parameters
    ----------
    width : channels of every layer.
    channels : of a sample.
    kernel, stride : of the first convolution.
    blocks : separable convolutions.
    """
    middle = OrderedDict((f"block{n}", _separable(width, width)) for n in range(1, blocks + 1))
    head = {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": nn.Linear(width, classes)}
    return nn.Sequential(OrderedDict(stem=convolution(channels, width, kernel, stride), **middle, **head))


def mobilenet(multiplier: float = 0.25, classes: int = 10) -> nn.Sequential:
    """MobileNet-v1 (Howard et al., 2017, table 1) of a given width: 13 separable convolutions, average, Linear."""
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    widths = [max(1, int(width * multiplier)) for width in (32, *(width for width, _ in plan))]
    blocks = OrderedDict(
        (f"block{n}", _separable(inputs, outputs, stride))
        for n, ((inputs, outputs), (_, stride)) in enumerate(zip(pairwise(widths), plan, strict=True), start=1)
    )
    head = {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": nn.Linear(widths[-1], classes)}
    return nn.Sequential(OrderedDict(stem=convolution(1, widths[0], 3, 2), **blocks, **head))
