"""Whole convolutional networks with random pruned weights: what their maps and weights ask of an array.

Weights take fifteen values beside zero, as many as a 4-bit codebook holds, at a scale that keeps activations of all
layers alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ImageError, InputError
from compiler.graph.ir import Graph, Node
from compiler.graph.operators import make, types, verify
from compiler.graph.passes import run_passes
from compiler.image.image import Image
from compiler.image.rings import off_chip
from compiler.lower.build import build
from compiler.lower.partition import partition
from compiler.lower.quantize import quantize_graph
from compiler.network import Network
from compiler.options import DEFAULT, Options
from hw.params import Params
from sim import golden, timing
from sim.compare import compare_networks
from sim.network import run_network, to_map
from sim.run import LayerStats, model_cycles
from sim.streams import BEAT

__all__ = [
    "WHOLE",
    "Builder",
    "Compiled",
    "compile_for",
    "compile_whole",
    "image_batch",
    "measure_whole",
    "whole_network",
]

# Fifteen weights around zero, their root mean square about one.
_WEIGHTS = np.array([-27, -22, -18, -15, -12, -9, -5, 4, 8, 11, 14, 17, 21, 24, 29], np.float32) / 16


class Builder:
    """A float graph, node by node; `shapes` of its values follow. `density` : of the weights."""

    def __init__(self, shape: tuple[int, ...], density: float, rng: np.random.Generator) -> None:
        self.density, self.rng = density, rng
        self.nodes: list[Node] = [make("Input", "image", shape=shape)]
        self.shapes: dict[str, tuple[int, ...]] = {"image": shape}

    def add(self, op: str, name: str, *reads: str, tensors: Mapping[str, NDArray[np.float32]] | None = None,
            **rest: Any) -> str:  # fmt: skip
        """Another node; its name."""
        self.nodes.append(make(op, name, *reads, tensors=tensors, **rest))
        self.shapes[name] = types(Graph((*self.nodes, make("Output", "probe", name))))[name].shape
        return name

    def conv(
        self, name: str, read: str, channels: int, kernel: int, stride: int = 1, padding: int = 0,
        activation: str = "relu",
    ) -> str:  # fmt: skip
        """A convolution and what comes behind it."""
        shape = (channels, self.shapes[read][0], kernel, kernel)
        values = _WEIGHTS[self.rng.integers(0, len(_WEIGHTS), shape)]
        fan = math.prod(shape[1:]) * self.density
        scale = 2.0 ** round(math.log2(math.sqrt(2 / fan)))
        weight = np.where(self.rng.random(shape) < self.density, values * scale, 0).astype(np.float32)
        bias = (self.rng.normal(size=channels) * 0.1).astype(np.float32)
        tensors = {"weight": weight, "bias": bias}
        return self.add("Conv", name, read, tensors=tensors, stride=stride, padding=padding, activation=activation)

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
        of = Builder((3, size, size), density, np.random.default_rng([seed, size]))
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
    """Random images (count, channels, height, width): smooth, as pictures are."""
    channels, height, width = graph.inputs[0]["shape"]
    rng = np.random.default_rng([seed, height])
    coarse = rng.normal(size=(count, channels, -(-height // 8), -(-width // 8)))
    smooth = np.repeat(np.repeat(coarse, 8, axis=2), 8, axis=3)[:, :, :height, :width]
    return (smooth + 0.3 * rng.normal(size=(count, channels, height, width))).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Compiled:
    """A network for an array, the integer graph that it was cut out of, and raw images (count, 3, size, size)."""

    network: Network
    graph: Graph
    x: NDArray[np.int16]


def compile_whole(
    graph: Graph, params: Params, options: Options = DEFAULT, *, count: int = 1, seed: int = 1
) -> Compiled:
    """A network of `whole_network` in fixed point, with ranges chosen on the images that it is run on.

    Raises
    ------
    ImageError
        It does not fit the array.
    """
    return compile_for(run_passes(graph), image_batch(graph, count, seed), params, options)


def compile_for(graph: Graph, data: NDArray[np.float32], params: Params, options: Options) -> Compiled:
    """A network after its passes in fixed point, with ranges chosen on the inputs that it is run on.

    Raises
    ------
    ImageError
        It does not fit the array.
    """
    made = quantize_graph(graph, params, [data])
    parts = partition(made.graph, params, made.densities)
    built = tuple(build(program, params, options) for program in parts.programs)
    x = golden.quantize_input(data, made.graph.inputs[0]["exponent"] or 0)[0]
    return Compiled(Network(params, parts.graph, built), made.graph, x)


SMALL = 35
"""Pixels of a side of the image with which a network runs as Verilog."""


def measure_whole(
    names: Sequence[str],
    params: Params,
    *,
    size: int = 227,
    density: float = 0.33,
    seed: int = 1,
    rtl: bool = False,
    options: Options = DEFAULT,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[dict[str, Any]]:
    """A row a network, for one random image.

    ``layers`` : of each ``cycles`` (exact model), ``resident`` (the same if all maps and weights were on chip),
    ``stream`` and ``refill`` (what its streams of maps and of weights need at least, `sim.timing.Bounds`), ``bound``
    (the largest of the three), the maps that it ``reads`` and ``writes`` off chip, ``ring_rows`` and ``out_rows`` of
    its rings, and ``weights`` that are not zero. The row has the sums of the figures, ``off_chip`` bytes of maps,
    ``equal`` (every value of the array, from its memories, is that of the integer graph on the host) and ``values``;
    ``memory`` : used words. ``rtl`` : of an image of `SMALL` pixels, on an array with as much less activation memory,
    what was compared with the models.

    Parameters
    ----------
    names : of `WHOLE`. params : the array. size, density, seed : as of `whole_network`. rtl : run the small image as
        Verilog.

    Raises
    ------
    InputError
        There is no such network.
    ImageError
        It does not fit the array.
    """
    for name in names:
        progress(f"{name}: compiling")
        graph = whole_network(name, size=size, density=density, seed=seed)
        made = compile_whole(graph, params, options, seed=seed)
        progress(f"{name}: golden and cycle model")
        right = golden.run_graph(made.graph, [made.x], params.acc_bits)
        result = run_network(made.network, made.x, engine="cycles")
        equal = all(np.array_equal(raw, right[key].raw) for key, raw in result.values.items() if key in right)
        row: dict[str, Any] = {
            "network": name, "size": size, "density": density, "cycles": result.cycles, "equal": equal,
            "values": sum(raw.size for raw in result.values.values()), "layers": [],
            "off_chip": 0, "host": [node.name for node in made.network.host],
            "memory": {},
        }  # fmt: skip
        for node in (node for node in made.network.graph if node.op == "Array"):
            image = made.network.image(node)
            inputs = [
                to_map(result.values[key] if key in result.values else right[key].raw, axes)
                for key, axes in zip(node.inputs, node["reads"], strict=True)
            ]
            row["layers"] += _layers(image, model_cycles(image, inputs), model_cycles(image, inputs, resident=True))
            row["off_chip"] += sum(each.lines for each in image.maps if each.off_chip) * params.groups * BEAT
            used = {
                "weight_words": image.entries.shape[1], "pointer_blocks": image.pointers.shape[1],
                "output_words": image.table.shape[1], "act_lines": image.rings + image.frame,
                "descriptors": len(image.descriptors),
            }  # fmt: skip
            row["memory"] = {key: max(value, row["memory"].get(key, 0)) for key, value in used.items()}
        for key in ("resident", "stream", "refill", "bound", "weights"):
            row[key] = sum(layer[key] for layer in row["layers"])
        if rtl:
            progress(f"{name}: Verilog, {SMALL} x {SMALL} pixels")
            row["rtl"] = _rtl(name, params, density, seed, options, size)
        yield row


def _layers(image: Image, times: Sequence[LayerStats], resident: Sequence[LayerStats]) -> list[dict[str, Any]]:
    streams = {each.layer: each for each in off_chip(image)}
    found = []
    for number, (info, limit, each, other) in enumerate(
        zip(image.layers, timing.bounds(image), times, resident, strict=True)
    ):
        if number in image.operations:
            continue
        mine, step, result = streams.get(number), image.steps[number][0], image.maps[info.result]
        figures = {"resident": other.cycles or 0, "stream": limit.stream, "refill": limit.refill}
        found.append({
            "layer": info.name, "makes": [result.channels, result.height, result.width], "weights": info.nonzeros,
            "tile": [info.tile_y, info.tile_x], "cycles": each.cycles or 0, **figures, "bound": max(figures.values()),
            "reads": [image.maps[n].name for n in mine.reads] if mine else [],
            "writes": image.maps[mine.writes].name if mine and mine.writes >= 0 else "",
            "ring_rows": step.ring_rows, "out_rows": step.out_rows,
        })  # fmt: skip
    return found


def _rtl(name: str, params: Params, density: float, seed: int, options: Options, size: int) -> dict[str, Any]:
    """The small image in Verilog, with the least activation memory, from the share of the pixels on, that it fits."""
    graph = whole_network(name, size=SMALL, density=density, seed=seed, classes=16)
    lines = params.act_lines * SMALL**2 // size**2
    while True:
        try:
            small = compile_whole(graph, params.replace(act_lines=lines), options, seed=seed)
            break
        except ImageError:
            if lines >= params.act_lines:
                raise
            lines += -(-lines // 8)
    model = run_network(small.network, small.x, engine="cycles")
    compared = compare_networks(run_network(small.network, small.x, engine="rtl"), model)
    return {
        "size": SMALL, "act_lines": lines, "cycles": model.cycles, "values": compared.values,
        "records": compared.records, "equal": compared.equal,
        "off_chip": [each.name for image in small.network.images for each in image.maps if each.off_chip],
    }  # fmt: skip
