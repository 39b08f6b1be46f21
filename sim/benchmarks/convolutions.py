"""Layers of published networks as random sparse maps and weights of their shapes and densities."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.graph.ir import Graph, Node
from compiler.graph.operators import make, verify

__all__ = ["SETS", "ConvCase", "ConvShape", "choose_set", "make_conv"]

# Fifteen weights, as many as a 4-bit codebook holds beside zero.
_WEIGHTS = np.array([-97, -71, -53, -37, -27, -15, -7, 3, 11, 19, 29, 43, 59, 77, 95], np.float32)


@dataclass(frozen=True)
class ConvShape:
    """One layer: a convolution over a map, or a fully connected layer (kernel 1 over one pixel).

    Attributes
    ----------
    name : unique in its network. kind : "conv", "depthwise", "pointwise" or "full".
    inputs, outputs : channels. height, width : of the input map.
    kernel, stride, padding, groups : as in torch; `kernel` and `padding` (vertical, horizontal).
    weights, activations : densities.
    shortcut : channels of a second map that is added: as many as `outputs` for an identity, others for a projection
        by a 1x1 convolution of density `weights` with `shortcut_stride`. 0: none.
    times : how often the layer occurs in its network.
    pool : the result is the largest of so many by so many pixels; 1: no pooling.
    """

    name: str
    kind: str
    inputs: int
    outputs: int
    height: int
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    weights: float = 1.0
    activations: float = 1.0
    shortcut: int = 0
    shortcut_stride: int = 1
    times: int = 1
    pool: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        given = (self.height, self.width)
        made = [
            (n + 2 * p - k) // self.stride + 1 for n, p, k in zip(given, self.padding, self.kernel, strict=True)
        ]  # fmt: skip
        return made[0], made[1]

    @property
    def dense_products(self) -> int:
        """Multiplications without any zero skipped, borders included."""
        own = math.prod(self.kernel) * self.inputs // self.groups
        other = 0 if not self.shortcut else 1 if self.shortcut == self.outputs else self.shortcut
        return math.prod(self.size) * self.outputs * (own + other)


@dataclass(frozen=True, eq=False)
class ConvCase:
    """A layer with its weights and a batch.

    graph : the layer as a network. inputs : int16 maps (batch, channels, height, width), one for each input.
    useful : products of a nonzero weight and a nonzero activation, summed over the batch.
    """

    shape: ConvShape
    graph: Graph
    inputs: tuple[NDArray[np.int16], ...]
    useful: int


def _conv(name: str, inputs: int, outputs: int, size: int, weights: float, acts: float, **other: int) -> ConvShape:
    kernel, stride, groups = other.get("kernel", 3), other.get("stride", 1), other.get("groups", 1)
    padding = other.get("padding", kernel // 2)
    kind = "depthwise" if groups == inputs > 1 else "pointwise" if kernel == 1 else "conv"
    return ConvShape(
        name, kind, inputs, outputs, size, size, (kernel, kernel), stride, (padding, padding), groups, weights, acts,
        other.get("shortcut", 0), other.get("shortcut_stride", 1), other.get("times", 1),
    )  # fmt: skip


def _vgg16() -> tuple[ConvShape, ...]:
    """Weights and activations left after pruning: Han et al., Learning both Weights and Connections (2015), table 5."""
    rows = [
        ("conv1_1", 3, 64, 224, 0.58, 1.0), ("conv1_2", 64, 64, 224, 0.22, 0.53), ("conv2_1", 64, 128, 112, 0.34, 0.89),
        ("conv2_2", 128, 128, 112, 0.36, 0.80), ("conv3_1", 128, 256, 56, 0.53, 0.81),
        ("conv3_2", 256, 256, 56, 0.24, 0.68), ("conv3_3", 256, 256, 56, 0.42, 0.70),
        ("conv4_1", 256, 512, 28, 0.32, 0.64), ("conv4_2", 512, 512, 28, 0.27, 0.51),
        ("conv4_3", 512, 512, 28, 0.34, 0.45), ("conv5_1", 512, 512, 14, 0.35, 0.34),
        ("conv5_2", 512, 512, 14, 0.29, 0.32), ("conv5_3", 512, 512, 14, 0.36, 0.29),
    ]  # fmt: skip
    return tuple(_conv(*row) for row in rows)


def _vgg16_224() -> tuple[ConvShape, ...]:
    """The whole network: with its pooling, which keeps every map within the activation memory, and its last layers.

    Densities of the last layers: Han et al., EIE (2016), table III.
    """
    pooled = {"conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"}
    layers = [replace(each, pool=2 if each.name in pooled else 1) for each in _vgg16()]
    rows = [("fc6", 25088, 4096, 0.04, 0.183), ("fc7", 4096, 4096, 0.04, 0.375), ("fc8", 4096, 1000, 0.23, 0.411)]
    full = (ConvShape(name, "full", inputs, outputs, 1, 1, weights=weights, activations=acts)
            for name, inputs, outputs, weights, acts in rows)  # fmt: skip
    return (*layers, *full)


def _alexnet() -> tuple[ConvShape, ...]:
    """Densities: Han et al., Learning both Weights and Connections (2015), table 4."""
    return (
        _conv("conv1", 3, 96, 227, 0.84, 1.0, kernel=11, stride=4, padding=0),
        _conv("conv2", 96, 256, 27, 0.38, 0.88, kernel=5, groups=2),
        _conv("conv3", 256, 384, 13, 0.35, 0.52),
        _conv("conv4", 384, 384, 13, 0.37, 0.37, groups=2),
        _conv("conv5", 384, 256, 13, 0.37, 0.40, groups=2),
    )


def _resnet20() -> tuple[ConvShape, ...]:
    """He et al., Deep Residual Learning (2016), for 32x32 images; 30 % of the weights, half of the activations."""
    layers = [_conv("conv1", 3, 16, 32, 0.3, 1.0)]
    for stage, (channels, size) in enumerate([(16, 32), (32, 16), (64, 8)], 1):
        before, stride = (channels, 1) if stage == 1 else (channels // 2, 2)
        for block in range(3):
            first = block == 0
            inputs, step = (before, stride) if first else (channels, 1)
            layers.append(_conv(f"conv{stage}_{block}a", inputs, channels, size * step, 0.3, 0.5, stride=step))
            layers.append(_conv(
                f"conv{stage}_{block}b", channels, channels, size, 0.3, 0.5, shortcut=inputs, shortcut_stride=step,
            ))  # fmt: skip
    return tuple(layers)


def _resnet50() -> tuple[ConvShape, ...]:
    """He et al. (2016), for 224x224 images; 35 % of the weights, half of the activations."""
    layers = [_conv("conv1", 3, 64, 224, 0.35, 1.0, kernel=7, stride=2)]
    for stage, (width, blocks, size) in enumerate([(64, 3, 56), (128, 4, 28), (256, 6, 14), (512, 3, 7)], 2):
        before, step = (64, 1) if stage == 2 else (2 * width, 2)
        wide = 4 * width
        layers += [
            _conv(f"conv{stage}_1a", before, width, size * step, 0.35, 0.5, kernel=1),
            _conv(f"conv{stage}_1b", width, width, size * step, 0.35, 0.5, stride=step),
            _conv(f"conv{stage}_1c", width, wide, size, 0.35, 0.5, kernel=1, shortcut=before, shortcut_stride=step),
            _conv(f"conv{stage}_a", wide, width, size, 0.35, 0.5, kernel=1, times=blocks - 1),
            _conv(f"conv{stage}_b", width, width, size, 0.35, 0.5, times=blocks - 1),
            _conv(f"conv{stage}_c", width, wide, size, 0.35, 0.5, kernel=1, shortcut=wide, times=blocks - 1),
        ]
    return tuple(layers)


def _mobilenet() -> tuple[ConvShape, ...]:
    """Howard et al., MobileNets (2017), table 1; half of the weights of pointwise layers, all of depthwise ones."""
    layers = [_conv("conv1", 3, 32, 224, 0.5, 1.0, stride=2)]
    channels, size = 32, 112
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for n, (outputs, stride) in enumerate(plan, 1):
        layers.append(_conv(f"dw{n}", channels, channels, size, 1.0, 0.5, stride=stride, groups=channels))
        size = -(-size // stride)
        layers.append(_conv(f"pw{n}", channels, outputs, size, 0.5, 0.5, kernel=1))
        channels = outputs
    return tuple(layers)


def _dscnn() -> tuple[ConvShape, ...]:
    """Zhang et al., Hello Edge (2017), DS-CNN small; half of the weights, depthwise layers dense."""
    first = ConvShape("conv1", "conv", 1, 64, 49, 10, (10, 4), 2, (5, 1), 1, 0.5, 1.0)
    layers = [first]
    for n in range(1, 5):
        layers.append(replace(
            _conv(f"dw{n}", 64, 64, 1, 1.0, 0.5, groups=64), height=first.size[0], width=first.size[1],
        ))  # fmt: skip
        layers.append(replace(
            _conv(f"pw{n}", 64, 64, 1, 0.5, 0.5, kernel=1), height=first.size[0], width=first.size[1],
        ))  # fmt: skip
    return (*layers, ConvShape("fc", "full", 64, 12, 1, 1, weights=0.5, activations=1.0))


def _squeezenet() -> tuple[ConvShape, ...]:
    """Iandola et al., SqueezeNet (2016), version 1.1; a third of the weights, half of the activations."""
    layers = [_conv("conv1", 3, 64, 227, 0.33, 1.0, stride=2, padding=0)]
    plan = [
        (64, 16, 64, 56), (128, 16, 64, 56), (128, 32, 128, 28), (256, 32, 128, 28), (256, 48, 192, 14),
        (384, 48, 192, 14), (384, 64, 256, 14), (512, 64, 256, 14),
    ]  # fmt: skip
    for n, (inputs, squeeze, expand, size) in enumerate(plan, 2):
        layers.append(_conv(f"fire{n}_squeeze", inputs, squeeze, size, 0.33, 0.5, kernel=1))
        layers.append(_conv(f"fire{n}_expand1", squeeze, expand, size, 0.33, 0.5, kernel=1))
        layers.append(_conv(f"fire{n}_expand3", squeeze, expand, size, 0.33, 0.5))
    return (*layers, _conv("conv10", 512, 1000, 14, 0.33, 0.5, kernel=1))


def _lstm() -> tuple[ConvShape, ...]:
    """The gates of an LSTM of 1024 units, a tenth of the weights; Han et al., ESE (2017): inputs without zeros."""
    return (ConvShape("gates", "full", 2048, 4096, 1, 1, weights=0.1, activations=1.0),)


SETS = {
    "vgg-16": _vgg16, "vgg16-224": _vgg16_224, "alexnet": _alexnet, "resnet-50": _resnet50, "resnet-20": _resnet20,
    "mobilenet-v1": _mobilenet, "ds-cnn": _dscnn, "squeezenet": _squeezenet, "lstm-1024": _lstm,
}  # fmt: skip
"""Networks by name."""


def choose_set(name: str) -> tuple[ConvShape, ...]:
    """The layers of a network.

    Raises
    ------
    InputError
        There is no such network; the message lists those that exist.
    """
    if name not in SETS:
        raise InputError(f"unknown network {name!r}; expected one of {', '.join(SETS)}")
    return SETS[name]()


def make_conv(shape: ConvShape, seed: int, *, batch: int = 1) -> ConvCase:
    """Random weights and maps of a layer: each weight and activation is there by itself, with the stated density."""
    rng = np.random.default_rng([seed, *shape.name.encode(), shape.inputs, shape.outputs])
    own = _sparse(rng, (shape.outputs, shape.inputs // shape.groups, *shape.kernel), shape.weights)
    maps = [_map(rng, (batch, shape.inputs, shape.height, shape.width), shape.activations)]
    useful = _useful(own, maps[0], shape.stride, shape.padding, shape.groups)
    padding = (*shape.padding, *shape.padding)
    nodes = [make("Input", "x", shape=maps[0].shape[1:])]
    fused: dict[str, Any] = {"activation": "relu"} if not shape.shortcut else {}
    nodes.append(make(
        "Conv", shape.name, "x", stride=shape.stride, padding=padding, groups=shape.groups, tensors={"weight": own},
        **fused,
    ))  # fmt: skip
    if shape.shortcut:
        step, size = shape.shortcut_stride, shape.size
        given = (batch, shape.shortcut, size[0] * step, size[1] * step)
        maps.append(_map(rng, given, shape.activations))
        nodes.append(make("Input", "y", shape=given[1:]))
        other: Node = nodes[-1]
        if shape.shortcut == shape.outputs and step == 1:
            useful += int(np.count_nonzero(maps[1]))
        else:
            weight = _sparse(rng, (shape.outputs, shape.shortcut, 1, 1), shape.weights)
            useful += _useful(weight, maps[1], step, (0, 0), 1)
            other = make("Conv", f"{shape.name}_shortcut", "y", stride=step, padding=0, tensors={"weight": weight})
            nodes.append(other)
        nodes.append(make("Add", "sum", shape.name, other.output, activation="relu"))
    if shape.pool > 1:
        size = (shape.pool,) * 2
        nodes.append(make("MaxPool", "pool", nodes[-1].output, kernel=size, stride=size, padding=(0,) * 4,
                          dilation=(1, 1)))  # fmt: skip
    inputs = [node for node in nodes if node.op == "Input"]
    rest = [node for node in nodes if node.op != "Input"]
    graph = Graph((*inputs, *rest, make("Output", "output", rest[-1].output)))
    verify(graph)
    return ConvCase(shape, graph, tuple(maps), useful)


def _sparse(rng: np.random.Generator, shape: tuple[int, ...], density: float) -> NDArray[np.float32]:
    values = _WEIGHTS[rng.integers(0, len(_WEIGHTS), shape)]
    return np.where(rng.random(shape) < density, values, np.float32(0)).astype(np.float32)


def _map(rng: np.random.Generator, shape: tuple[int, ...], density: float) -> NDArray[np.int16]:
    there = rng.random(shape) < density
    return np.where(there, rng.integers(1, 1 << 12, shape), 0).astype(np.int16)


def _useful(
    weight: NDArray[np.float32], x: NDArray[np.int16], stride: int, padding: tuple[int, int], groups: int
) -> int:
    """Products of a nonzero weight and a nonzero activation inside the map."""
    (top, left), (kernel_y, kernel_x) = padding, weight.shape[2:]
    active = np.pad(x != 0, ((0, 0), (0, 0), (top, top), (left, left)))
    height, width = active.shape[2:]
    rows, columns = (height - kernel_y) // stride + 1, (width - kernel_x) // stride + 1
    outputs = weight.shape[0] // groups
    # How many rows of weights meet each input channel at each place of the kernel.
    meets = (weight != 0).reshape(groups, outputs, *weight.shape[1:]).sum(axis=1).reshape(-1, kernel_y, kernel_x)
    total = 0
    for y in range(kernel_y):
        for z in range(kernel_x):
            window = active[:, :, y : y + stride * rows : stride, z : z + stride * columns : stride]
            total += int(np.count_nonzero(window, axis=(0, 2, 3)) @ meets[:, y, z])
    return total
