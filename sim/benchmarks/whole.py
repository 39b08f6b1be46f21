"""Whole convolutional networks with random pruned weights: what their maps and weights ask of an array.

Weights take fifteen values beside zero, as many as a 4-bit codebook holds, at a scale that keeps activations of all
layers alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.graph.ir import Graph, Node
from compiler.graph.operators import make, types, verify

__all__ = ["WHOLE", "image_batch", "whole_network"]

# Fifteen weights around zero, their root mean square about one.
_WEIGHTS = np.array([-27, -22, -18, -15, -12, -9, -5, 4, 8, 11, 14, 17, 21, 24, 29], np.float32) / 16


class _Builder:
    """A float graph, node by node; sizes of a reduced image follow from its operators."""

    def __init__(self, size: int, density: float, seed: int) -> None:
        self.density, self.rng = density, np.random.default_rng([seed, size])
        self.nodes: list[Node] = [make("Input", "image", shape=(3, size, size))]
        self.shapes: dict[str, tuple[int, ...]] = {"image": (3, size, size)}

    def add(self, op: str, name: str, *reads: str, tensors: Mapping[str, NDArray[np.float32]] | None = None,
            **rest: Any) -> str:  # fmt: skip
        """Another node; its name."""
        self.nodes.append(make(op, name, *reads, tensors=tensors, **rest))
        self.shapes[name] = types(Graph((*self.nodes, make("Output", "end", name))))[name].shape
        return name

    def conv(self, name: str, read: str, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> str:
        """A convolution and ReLU."""
        shape = (channels, self.shapes[read][0], kernel, kernel)
        values = _WEIGHTS[self.rng.integers(0, len(_WEIGHTS), shape)]
        fan = math.prod(shape[1:]) * self.density
        scale = 2.0 ** round(math.log2(math.sqrt(2 / fan)))
        weight = np.where(self.rng.random(shape) < self.density, values * scale, 0).astype(np.float32)
        bias = (self.rng.normal(size=channels) * 0.1).astype(np.float32)
        tensors = {"weight": weight, "bias": bias}
        return self.add("Conv", name, read, tensors=tensors, stride=stride, padding=padding, activation="relu")

    def pool(self, name: str, read: str) -> str:
        """The maximum of 3 x 3 pixels, 2 apart; the last one may lead out of the map, as with torch's ``ceil_mode``."""
        after = [-(-(size - 3) // 2) * 2 + 3 - size for size in self.shapes[read][1:]]
        return self.add("MaxPool", name, read, kernel=(3, 3), stride=(2, 2), padding=(0, 0, *after))

    def fire(self, name: str, read: str, squeeze: int, expand: int) -> str:
        """A fire module: 1 x 1 down to few channels, then 1 x 1 and 3 x 3 side by side."""
        small = self.conv(f"{name}.squeeze", read, squeeze, 1)
        parts = self.conv(f"{name}.expand1", small, expand, 1), self.conv(f"{name}.expand3", small, expand, 3, 1, 1)
        return self.add("Concat", name, *parts, axis=0)

    def end(self, read: str, classes: int) -> Graph:
        """The classifier: a 1 x 1 convolution and the average over the map."""
        last = self.conv("conv10", read, classes, 1)
        mean = self.add("AveragePool", "mean", last, kernel=self.shapes[last][1:])
        flat = self.add("Reshape", "scores", mean, shape=(classes,))
        graph = Graph((*self.nodes, make("Output", "output", flat)))
        verify(graph)
        return graph


_FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


def _squeezenet(version: str) -> Callable[[int, float, int, int], Graph]:
    """Iandola et al., SqueezeNet (2016), of 26 convolutions; pools stand behind other modules in version 1.1."""
    channels, kernel, pooled = (96, 7, (3, 7)) if version == "1.0" else (64, 3, (2, 4))

    def build(size: int, density: float, seed: int, classes: int) -> Graph:
        of = _Builder(size, density, seed)
        last = of.pool("pool1", of.conv("conv1", "image", channels, kernel, 2))
        for n, (squeeze, expand) in enumerate(_FIRES):
            last = of.fire(f"fire{n + 2}", last, squeeze, expand)
            if n + 1 in pooled:
                last = of.pool(f"pool{n + 2}", last)
        return of.end(last, classes)

    return build


WHOLE: dict[str, Callable[[int, float, int, int], Graph]] = {
    "squeezenet-1.0": _squeezenet("1.0"), "squeezenet-1.1": _squeezenet("1.1"),
}  # fmt: skip
"""Networks by name, of a size of image, a density of weights, a seed and a number of classes."""


def whole_network(name: str, *, size: int = 227, density: float = 0.33, seed: int = 1, classes: int = 1000) -> Graph:
    """A network as a float graph.

    Parameters
    ----------
    name : one of `WHOLE`. size : pixels of a side of the image. density : of the weights. seed : of weights and biases.

    Raises
    ------
    InputError
        There is no such network; the message lists those that exist.
    """
    if name not in WHOLE:
        raise InputError(f"unknown network {name!r}; expected one of {', '.join(WHOLE)}")
    return WHOLE[name](size, density, seed, classes)


def image_batch(graph: Graph, count: int, seed: int = 1) -> NDArray[np.float32]:
    """Random images (count, 3, size, size): smooth, as pictures are, so that activations differ from place to place."""
    _, height, width = graph.inputs[0]["shape"]
    rng = np.random.default_rng([seed, height])
    coarse = rng.normal(size=(count, 3, -(-height // 8), -(-width // 8)))
    smooth = np.repeat(np.repeat(coarse, 8, axis=2), 8, axis=3)[:, :, :height, :width]
    return (smooth + 0.3 * rng.normal(size=(count, 3, height, width))).astype(np.float32)
