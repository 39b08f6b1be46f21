"""The networks that recipes name. All take flat inputs, float32 (n, channels · height · width)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from compiler.errors import RecipeError
from compiler.train.bypass import Bypassed
from compiler.train.separable import ds_cnn
from compiler.train.table import Table

__all__ = ["LENET_300_100", "MODELS", "ModelSpec", "build", "lenet_5", "mlp", "resnet", "rows", "separable"]

LENET_300_100 = (300, 100)
"""Hidden layers of LeNet-300-100 (LeCun et al., 1998), the paper's fully connected network on MNIST."""


@dataclass(frozen=True)
class ModelSpec:
    """What a recipe says of its network.

    Attributes
    ----------
    name : one of `MODELS`, or ``module:function`` of the user's own code, which returns an nn.Module.
    options : of a named one, such as {"hidden": (100, 50)}.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def foreign(self) -> bool:
        """Whether it is built by the user's own code."""
        return ":" in self.name

    @classmethod
    def parse(cls, table: Table) -> ModelSpec:
        """From a recipe's table. Raises `RecipeError`."""
        if ":" in str(table.content.get("name")):
            spec = cls(table.text("name"), {"flat": table.flag("flat", default=True)})
        else:
            name = table.choice("name", MODELS)
            spec = cls(name, {key: _option(table, key, value) for key, value in MODELS[name].options.items()})
        table.finish()
        return spec

    @property
    def flat(self) -> bool:
        """Whether it takes flat samples; the user's own may take (n, channels, height, width)."""
        return bool(self.options.get("flat", True))

    def asdict(self) -> dict[str, Any]:
        """As a recipe says it."""
        return {
            "name": self.name,
            **{key: list(value) if isinstance(value, tuple) else value for key, value in self.options.items()},
        }


def build(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A fresh network for samples of `shape` (channels, height, width); weights come from torch's random numbers.

    Raises
    ------
    RecipeError
        The network does not take such samples.
    InputError
        The user's function is not there or fails.
    """
    if spec.foreign:
        from compiler.train import foreign

        module, _ = foreign.call(spec.name)
        return module
    return MODELS[spec.name].make(shape, classes, **spec.options)


def mlp(features: int, hidden: Sequence[int], classes: int) -> nn.Sequential:
    """Linear layers fc1, fc2, … with ReLU relu1, relu2, … between them, none after the last."""
    sizes = [features, *hidden, classes]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        layers[f"fc{number}"] = nn.Linear(inputs, outputs)
        layers[f"relu{number}"] = nn.ReLU()
    layers.popitem()
    return nn.Sequential(layers)


def lenet_5(
    shape: tuple[int, ...], classes: int, channels: Sequence[int] = (20, 50), hidden: int = 500, padding: int = 0
) -> nn.Sequential:
    """LeNet-5 as Caffe has it: two convolutions 5x5, each with a pool of 2, then two Linear.

    With the default widths, 28x28 pixels and 10 classes it has 431,080 parameters. The only ReLU is the one between
    the Linear layers. Caffe's convolutions have no padding; 2 keeps the sides, and so takes images down to 4x4.
    """
    lost = 4 - 2 * padding
    sides = tuple(((side - lost) // 2 - lost) // 2 for side in shape[1:])
    if len(shape) != 3 or padding > 2 or min(sides) < 1:
        least = 4 + 3 * lost
        raise RecipeError(
            f"lenet-5 takes images of at least {least}x{least} and padding up to 2; the padding is {padding}, and the "
            f"data has samples of shape {shape}"
        )
    height, width = sides
    return nn.Sequential(
        OrderedDict(
            image=nn.Unflatten(1, shape),
            conv1=nn.Conv2d(shape[0], channels[0], 5, padding=padding),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(channels[0], channels[1], 5, padding=padding),
            pool2=nn.MaxPool2d(2),
            flat=nn.Flatten(),
            fc1=nn.Linear(channels[1] * height * width, hidden),
            relu1=nn.ReLU(),
            fc2=nn.Linear(hidden, classes),
        )
    )


class _Block(nn.Module):
    """Two convolutions with batch normalization, and a shortcut around them (He et al., 2016, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel, 1, kernel // 2, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                OrderedDict(conv=nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm=nn.BatchNorm2d(outputs))
            )

    def branch(self) -> list[nn.Module]:
        """The convolutions under the shortcut."""
        return [self.conv1, self.conv2]

    def bypassed(self) -> nn.Module:
        """What is left where they give nothing."""
        return Bypassed(self.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


def resnet(
    shape: tuple[int, ...],
    classes: int,
    widths: Sequence[int] = (8, 16, 32),
    blocks: int = 1,
    stride: int = 2,
    kernel: int = 3,
) -> nn.Sequential:
    """A small residual network: a convolution, blocks of each width, mean over the image, Linear.

    With widths 16, 32, 64 and stride 1 it is ResNet-20 with three blocks (He et al., 2016, section 4.2), and with one
    block ResNet-8 as MLPerf Tiny has it.

    blocks : of each width; the first of each but the first width has stride 2.
    stride : of the first convolution.
    kernel : side of the windows in the blocks, odd.
    """
    if len(shape) != 3:
        raise RecipeError(f"resnet takes images; the data has samples of shape {shape}")
    if kernel % 2 == 0:
        raise RecipeError(f"resnet keeps the sides of its maps; kernel is {kernel}, expected an odd number")
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        image=nn.Unflatten(1, shape),
        conv=nn.Conv2d(shape[0], widths[0], 3, stride, 1, bias=False),
        norm=nn.BatchNorm2d(widths[0]),
        relu=nn.ReLU(),
    )
    every = [widths[0], *(width for width in widths for _ in range(blocks))]
    for number, (inputs, outputs) in enumerate(pairwise(every)):
        layers[f"block{number + 1}"] = _Block(inputs, outputs, 2 if number and number % blocks == 0 else 1, kernel)
    layers.update(pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(widths[-1], classes))
    return nn.Sequential(layers)


def separable(shape: tuple[int, ...], classes: int, width: int = 64, blocks: int = 4, stride: int = 2) -> nn.Sequential:
    """DS-CNN (Zhang et al., Hello Edge, 2017): a convolution 3x3, depthwise separable ones, mean, Linear.

    stride : of the first convolution.
    """
    if len(shape) != 3:
        raise RecipeError(f"ds-cnn takes images; the data has samples of shape {shape}")
    return nn.Sequential(
        OrderedDict(image=nn.Unflatten(1, shape), **ds_cnn(width, classes, shape[0], 3, stride, blocks)._modules)
    )


class _Rows(nn.Module):
    """Reads an image row by row with a recurrent layer and classifies from its last output."""

    def __init__(self, layer: type[nn.GRU | nn.LSTM], shape: tuple[int, ...], classes: int, hidden: int) -> None:
        super().__init__()
        self.shape = shape
        channels, _, width = shape
        self.rnn = layer(channels * width, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.view(len(x), *self.shape).movedim(1, 2).flatten(2)
        outputs, _ = self.rnn(rows)
        scores: Tensor = self.fc(outputs[:, -1])
        return scores


def rows(layer: type[nn.GRU | nn.LSTM], shape: tuple[int, ...], classes: int, hidden: int = 64) -> nn.Module:
    """A recurrent network that reads an image from top to bottom, a row (of all channels) a step: rnn, then fc."""
    if len(shape) != 3:
        raise RecipeError(f"{layer.__name__.lower()} takes images; the data has samples of shape {shape}")
    return _Rows(layer, shape, classes, hidden)


def _mlp_for(shape: tuple[int, ...], classes: int, hidden: Sequence[int]) -> nn.Sequential:
    features = 1
    for side in shape:
        features *= side
    return mlp(features, hidden, classes)


def _option(table: Table, key: str, default: Any) -> Any:
    if default is None:
        return table.integers(key, 1, 1 << 16)
    if isinstance(default, int):
        return table.integer(key, min(default, 1), 1 << 16, default=default)
    found = table.integers(key, 1, 1 << 16, default=list(default))
    if (key == "channels" and len(found) != len(default)) or not found:
        raise RecipeError(f"{table.source}: {table.where}.{key} has {len(found)} numbers; expected {len(default)}")
    return found


@dataclass(frozen=True)
class _Entry:
    """A named network.

    Attributes
    ----------
    make : function of (shape, classes, **options).
    options : option → its default as a list of integers, an integer, or None where it must be given (a list).
    """

    make: Callable[..., nn.Module]
    options: Mapping[str, Any] = field(default_factory=dict)


MODELS: dict[str, _Entry] = {
    "mlp": _Entry(_mlp_for, {"hidden": None}),
    "lenet-300-100": _Entry(lambda shape, classes: _mlp_for(shape, classes, LENET_300_100)),
    "lenet-5": _Entry(lenet_5, {"channels": (20, 50), "hidden": 500, "padding": 0}),
    "resnet": _Entry(resnet, {"widths": (8, 16, 32), "blocks": 1, "stride": 2, "kernel": 3}),
    "ds-cnn": _Entry(separable, {"width": 64, "blocks": 4, "stride": 2}),
    "gru": _Entry(partial(rows, nn.GRU), {"hidden": 64}),
    "lstm": _Entry(partial(rows, nn.LSTM), {"hidden": 64}),
}
"""Name → how it is built and what may be said of it."""
