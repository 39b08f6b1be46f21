"""Networks that small boards are compared with, and how many of their inferences an array makes in a second.

The shapes are those of MLPerf Tiny (Banbury et al., NeurIPS 2021) and of LeNet-300-100; weights are random, those that
are left at random places. Cycles are the exact model's, for a batch, back to back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ImageError, InputError
from compiler.graph.ir import Graph
from compiler.graph.operators import make, verify
from compiler.graph.passes import run_passes
from compiler.image.image import Image
from compiler.options import DEFAULT, Options
from hw.frames import MOST_WORDS
from hw.params import Params
from sim import golden
from sim.benchmarks.whole import Builder, compile_for
from sim.network import run_network
from sim.streams import BEAT

__all__ = ["NETWORKS", "PUBLISHED", "Shape", "line_bytes", "measure_boards", "stream_beats"]

_OVERHEAD = 15
"""Bytes of a request and its answer beside their words."""

_SELECT = 4
"""Accesses that point the host's window at a word: SELECT and ADDRESS, a request each, for inputs and outputs."""


@dataclass(frozen=True)
class Shape:
    """A network: how it is made of a density and random numbers, and what is usual for it.

    make : (density of its weights, random numbers) → float graph. density : of the weights. inputs : of the inputs.
    """

    text: str
    make: Callable[[float, np.random.Generator], Graph]
    density: float
    inputs: float


class _Maker(Builder):
    """Adds what these networks have beside what others have."""

    def linear(self, name: str, read: str, outputs: int, activation: str = "relu") -> str:
        """A fully connected layer."""
        inputs = self.shapes[read][0]
        kept = self.rng.random((outputs, inputs)) < self.density
        weight = np.where(kept, self.rng.normal(size=kept.shape) / math.sqrt(inputs * self.density / 2), 0)
        tensors = {"weight": weight.astype(np.float32), "bias": self._bias(outputs)}
        return self.add("Linear", name, read, tensors=tensors, activation=activation)

    def window(
        self, name: str, read: str, channels: int, kernel: tuple[int, int], stride: int, padding: tuple[int, ...],
        depthwise: bool = False,
    ) -> str:  # fmt: skip
        """A convolution of any window, or one of a channel each, whose few weights all stay."""
        shape = (channels, 1 if depthwise else self.shapes[read][0], *kernel)
        kept = self.rng.random(shape) < (1.0 if depthwise else self.density)
        scale = math.sqrt(2 / (math.prod(shape[1:]) * (1.0 if depthwise else self.density)))
        weight = np.where(kept, self.rng.normal(size=shape) * scale, 0).astype(np.float32)
        tensors = {"weight": weight, "bias": self._bias(channels)}
        return self.add(
            "Conv", name, read, tensors=tensors, stride=(stride, stride), padding=padding, activation="relu",
            groups=channels if depthwise else 1,
        )  # fmt: skip

    def _bias(self, channels: int) -> NDArray[np.float32]:
        return (self.rng.normal(size=channels) * 0.1).astype(np.float32)

    def graph(self, read: str) -> Graph:
        """The graph that ends with a value."""
        graph = Graph((*self.nodes, make("Output", "output", read)))
        verify(graph)
        return graph


def _connected(widths: Sequence[int]) -> Callable[[float, np.random.Generator], Graph]:
    def build_one(density: float, rng: np.random.Generator) -> Graph:
        of = _Maker((widths[0],), density, rng)
        last = "image"
        for n, width in enumerate(widths[1:], 1):
            last = of.linear(f"fc{n}", last, width, "none" if n == len(widths) - 1 else "relu")
        return of.graph(last)

    return build_one


def _dscnn(density: float, rng: np.random.Generator) -> Graph:
    of = _Maker((1, 49, 10), density, rng)
    last = of.window("conv", "image", 64, (10, 4), 2, (4, 1, 5, 1))
    for n in range(1, 5):
        last = of.window(f"depthwise{n}", last, 64, (3, 3), 1, (1, 1, 1, 1), depthwise=True)
        last = of.window(f"pointwise{n}", last, 64, (1, 1), 1, (0, 0, 0, 0))
    last = of.add("AveragePool", "mean", last, kernel=of.shapes[last][1:])
    return of.graph(of.linear("fc", of.add("Reshape", "flat", last, shape=(64,)), 12, "none"))


def _resnet8(density: float, rng: np.random.Generator) -> Graph:
    of = _Maker((3, 32, 32), density, rng)
    last = of.conv("conv", "image", 16, 3, 1, 1)
    for n, channels in enumerate((16, 32, 64)):
        stride = 2 if n else 1
        inner = of.conv(f"block{n}.conv2", of.conv(f"block{n}.conv1", last, channels, 3, stride, 1), channels, 3, 1, 1,
                        "none")  # fmt: skip
        beside = of.conv(f"block{n}.short", last, channels, 1, stride, 0, "none") if n else last
        last = of.add("Add", f"block{n}.sum", inner, beside, activation="relu")
    last = of.add("AveragePool", "mean", last, kernel=of.shapes[last][1:])
    return of.graph(of.linear("fc", of.add("Reshape", "flat", last, shape=(64,)), 10, "none"))


NETWORKS: dict[str, Shape] = {
    "lenet-300-100": Shape("784-300-100-10", _connected((784, 300, 100, 10)), 0.08, 0.2),
    "autoencoder": Shape(
        "MLPerf Tiny anomaly detection: 640-128x4-8-128x4-640",
        _connected((640, *[128] * 4, 8, *[128] * 4, 640)), 0.25, 1.0,
    ),
    "ds-cnn": Shape("MLPerf Tiny keyword spotting: 49 x 10, 64 channels, 4 depthwise separable", _dscnn, 0.25, 1.0),
    "resnet-8": Shape("MLPerf Tiny image classification: 32 x 32 x 3, 16-32-64 channels", _resnet8, 0.25, 1.0),
}  # fmt: skip
"""Networks by name. Of ds-cnn the depthwise weights are all there."""

PUBLISHED: dict[str, tuple[tuple[str, str], ...]] = {
    "lenet-300-100": (),
    "autoencoder": (("hls4ml, Pynq-Z2 (Zynq-7020)", "53,365/s"), ("hls4ml, Arty A7-100T", "30,686/s")),
    "ds-cnn": (
        ("FINN, Pynq-Z2, another network of 82.5 %", "57,268/s"), ("fpgaConvNet, ZedBoard, 91 %", "3,088/s"),
        ("fpgaConvNet, Zybo, 91 %", "465/s"), ("fpgaConvNet, Cora Z7, 91 %", "237/s"),
        ("open tools, iCE40UP5K", "25.2 M cycles"),
    ),
    "resnet-8": (
        ("hls4ml", "36.6 to 130.8/s"), ("FINN", "661/s"), ("fpgaConvNet", "2,431 to 6,790/s"),
    ),
}  # fmt: skip
"""Inferences a second that were published in rounds of MLPerf Tiny; networks and accuracies are the submitters'."""


def measure_boards(
    names: Sequence[str], arrays: Mapping[str, Params], *, mhz: float, baud: int, densities: Mapping[str, float],
    samples: int = 4, seed: int = 1, options: Options = DEFAULT, progress: Callable[[str], None] = lambda text: None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A row for each network on each array.

    ``cycles`` of an inference, back to back in a batch; ``per_second`` at the clock. ``stream_beats`` (the longer of
    inputs and outputs, a cycle each) and ``line_ms`` (a serial line with its requests) are the time of getting inputs
    in and outputs out, apart. ``equal``: every value of the array is that of the integer graph. ``busy``: share of the
    cycles of all PEs in which one takes an entry. A network that does not fit has ``fits`` false and ``why``.

    Parameters
    ----------
    arrays : by name. mhz, baud : clock; bits a second of the line. densities : of a network's weights, instead of its
        own. samples : of the batch.

    Raises
    ------
    InputError
        There is no such network.
    """
    if unknown := [name for name in names if name not in NETWORKS]:
        raise InputError(f"unknown network {', '.join(unknown)}; expected some of {', '.join(NETWORKS)}")
    for name in names or NETWORKS:
        shape = NETWORKS[name]
        density = densities.get(name, shape.density)
        graph = run_passes(shape.make(density, np.random.default_rng([seed, 3])))
        rng = np.random.default_rng([seed, 4])
        size = (samples, *graph.inputs[0]["shape"])
        data = (rng.normal(size=size) * (rng.random(size) < shape.inputs)).astype(np.float32)
        for array, params in arrays.items():
            progress(f"{name} on {array}")
            row: dict[str, Any] = {
                "network": name, "array": array, "pes": params.pes, "density": density, "mhz": mhz,
                "weights": sum(node.tensors["weight"].size for node in graph if "weight" in node.tensors),
            }  # fmt: skip
            try:
                row |= _row(graph, data, params, options, mhz, baud)
            except ImageError as error:
                row |= {"fits": False, "why": str(error)}
            yield row


def _row(
    graph: Graph, data: NDArray[np.float32], params: Params, options: Options, mhz: float, baud: int
) -> dict[str, Any]:  # fmt: skip
    made = compile_for(graph, data, params, options)
    network, x = made.network, made.x
    right = golden.run_graph(made.graph, [x], params.acc_bits)
    found = run_network(network, x, engine="cycles")
    equal = all(np.array_equal(raw, right[name].raw) for name, raw in found.values.items() if name in right)
    assert found.cycles is not None
    cycles = found.cycles / len(x)
    entries = sum(record["entries"] for ran in found.runs for run in ran.records for record in run)
    return {
        "fits": True, "equal": equal, "cycles": cycles, "per_second": mhz * 1e6 / cycles,
        "busy": entries / (params.pes * found.cycles),
        "products": sum(info.products for image in network.images for info in image.layers),
        "nonzeros": sum(info.nonzeros for image in network.images for info in image.layers),
        "stream_beats": max((stream_beats(image) for image in network.images), default=0),
        "line_ms": 10e3 * sum(line_bytes(image) for image in network.images) / baud,
        "host": [node.name for node in network.host],
    }  # fmt: skip


def stream_beats(image: Image) -> int:
    """Vectors of the inputs or of the outputs of a sample, whichever are more: one a cycle, both at a time."""
    groups = image.params.groups
    return max(sum(image.maps[n].lines * groups for n in numbers) for numbers in (image.inputs, image.outputs))


def line_bytes(image: Image) -> int:
    """Bytes of a serial line for the inputs and outputs of a sample, with all requests and answers (docs/driver.md)."""
    words = [image.maps[n].lines * image.params.groups * BEAT // 4 for n in (*image.inputs, *image.outputs)]
    units = (len(image.inputs) + len(image.outputs)) * image.params.groups
    requests = sum(-(-count // MOST_WORDS) for count in words) + _SELECT * units // 2
    return 4 * sum(words) + 4 * _SELECT // 2 * units + _OVERHEAD * requests
