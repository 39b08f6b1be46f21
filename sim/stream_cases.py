"""Random small networks whose maps stream: those that do not fit an array, or all inputs and outputs.

Every case replays from its seed.
"""

from __future__ import annotations

import numpy as np

from compiler.errors import ImageError
from compiler.graph.ir import Graph
from compiler.graph.operators import make, verify
from hw.params import Params
from sim import golden
from sim.benchmarks.whole import Builder
from sim.cases import random_options
from sim.graph_cases import GraphCase, graph_case, lower_case, random_float_graph

__all__ = ["random_ends_case", "random_stream_case", "random_stream_graph"]

_TRIES = 400


def random_stream_graph(rng: np.random.Generator) -> Graph:
    """A random float graph that ends in a map or in its mean.

    Convolutions with and without stride and border, pools that lead out of their map, modules that end side by side,
    sums of maps.
    """
    shape = (int(rng.integers(1, 10)), int(rng.integers(6, 20)), int(rng.integers(4, 14)))
    of = Builder(shape, float(rng.choice([0.1, 0.33, 0.7])), rng)
    last = "image"
    for n in range(int(rng.integers(2, 6))):
        channels, height, width = of.shapes[last]
        way = str(rng.choice(["conv", "conv", "point", "pool", "fire", "sum"]))
        if way == "pool" and min(height, width) >= 4:
            last = of.pool(f"pool{n}", last)
        elif way == "fire":
            last = of.fire(f"fire{n}", last, int(rng.integers(1, 7)), int(rng.integers(2, 12)))
        elif way == "sum":
            own = of.conv(f"part{n}", last, channels, 3, 1, 1, str(rng.choice(["relu", "none"])))
            last = of.add("Add", f"sum{n}", own, last, activation="relu")
        else:
            kernel = 1 if way == "point" else int(rng.integers(2, 5))
            stride = int(rng.integers(1, 3)) if min(height, width) > 6 else 1
            padding = int(rng.integers(0, 2)) if kernel > 1 else 0
            if min(height, width) + 2 * padding >= kernel:
                last = of.conv(f"conv{n}", last, int(rng.integers(2, 20)), kernel, stride, padding)
    last = of.conv("last", last, int(rng.integers(1, 12)), 1)
    if rng.random() < 0.4:
        last = of.add("AveragePool", "mean", last, kernel=of.shapes[last][1:])
    graph = Graph((*of.nodes, make("Output", "output", last)))
    verify(graph)
    return graph


def random_stream_case(seed: int, params: Params) -> GraphCase:
    """The case of a seed on an array; what fits it whole, or not at all, is drawn again."""
    rng = np.random.default_rng([seed, 11])
    options = random_options(rng)
    for _ in range(_TRIES):
        graph = random_stream_graph(rng)
        shape = graph.inputs[0]["shape"]
        data = (rng.normal(size=(3, *shape)) * (rng.random((3, *shape)) < 0.7)).astype(np.float32)
        lowered = lower_case(graph, data, params, options)
        if lowered is None or not any(each.off_chip for image in lowered[1].images for each in image.maps):
            continue
        made, network = lowered
        x = golden.quantize_input(data[: int(rng.integers(1, 4))], made.inputs[0]["exponent"] or 0)[0]
        return graph_case(seed, made, network, x)
    raise ImageError(f"seed {seed}: none of {_TRIES} random networks streams on {params}")


def random_ends_case(seed: int, params: Params) -> GraphCase:
    """A network of any operators whose inputs and outputs stream; what does not fit is drawn again."""
    rng = np.random.default_rng([seed, 13])
    options = random_options(rng).replace(stream_io=True)
    for _ in range(_TRIES):
        graph = random_float_graph(rng)
        if graph.inputs[0]["kind"] == "index":  # indices do not stream
            continue
        shape = graph.inputs[0]["shape"]
        data = (rng.normal(size=(6, *shape)) * (rng.random((6, *shape)) < 0.7)).astype(np.float32)
        data[-1].flat[0] = 1.0  # calibration says something about ranges
        lowered = lower_case(graph, data, params, options)
        if lowered is None or not lowered[1].images:
            continue
        made, network = lowered
        x = golden.quantize_input(data[: int(rng.integers(1, 6))], made.inputs[0]["exponent"] or 0)[0]
        return graph_case(seed, made, network, x)
    raise ImageError(f"seed {seed}: none of {_TRIES} random networks has inputs and outputs that stream on {params}")
