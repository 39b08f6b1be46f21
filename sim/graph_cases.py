"""Random small networks of all operators that the array computes, as float graphs; every case replays from its seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.graph.ir import Graph, Node
from compiler.graph.operators import make, types
from compiler.graph.passes import run_passes
from compiler.lower.build import build
from compiler.lower.partition import partition
from compiler.lower.quantize import quantize_graph
from compiler.network import Network
from compiler.options import Options
from hw.params import Params
from sim import golden
from sim.cases import random_options

__all__ = ["GraphCase", "graph_case", "lower_case", "random_float_graph", "random_graph_case"]

MOST = 1500
"""Numbers of a value; larger ones are not computed with any more."""


@dataclass(frozen=True)
class GraphCase:
    """A network, raw inputs or indices (batch, *shape), and every value as golden computes it from the whole graph."""

    seed: int
    network: Network
    x: NDArray[np.int16] | NDArray[np.int64]
    right: Mapping[str, NDArray[Any]]


class _Grower:
    """A float graph, node by node; `last` is the value that the next node reads."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...], kind: str = "real") -> None:
        self.rng = rng
        self.nodes: list[Node] = [make("Input", "x", shape=shape, kind=kind)]
        self.shapes: dict[str, tuple[int, ...]] = {"x": shape}
        self.last = "x"

    def add(self, op: str, *reads: str, **rest: Any) -> None:
        name = f"n{len(self.nodes)}"
        self.nodes.append(make(op, name, *reads, **rest))
        self.shapes[name] = types(Graph((*self.nodes, make("Output", "end", name))))[name].shape
        self.last = name

    def weights(self, *shape: int) -> NDArray[np.float32]:
        density = float(self.rng.choice([0.05, 0.3, 1.0]))
        made = self.rng.normal(size=shape) * (self.rng.random(shape) < density)
        return (made / math.sqrt(max(1, math.prod(shape[1:])))).astype(np.float32)

    def window(self, conv: bool) -> dict[str, tuple[int, ...]]:
        """A kernel up to the whole map; the stride may be larger than the kernel."""
        sizes = self.shapes[self.last][1:]
        kernel = tuple(int(self.rng.choice([1, min(2, n), min(3, n), n])) for n in sizes)
        dilation = tuple(
            2 if conv and k > 1 and 2 * (k - 1) < n and self.rng.random() < 0.3 else 1
            for k, n in zip(kernel, sizes, strict=True)
        )
        stride = tuple(int(self.rng.choice([1, 1, 2, 4])) for _ in sizes)
        padding = tuple(int(self.rng.integers(0, k)) if self.rng.random() < 0.5 else 0 for k in kernel * 2)
        return {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}

    def conv(self) -> None:
        inputs = self.shapes[self.last][0]
        window = self.window(True)
        kernel = window.pop("kernel")
        groups = int(self.rng.choice([1, 1, inputs, math.gcd(inputs, 2)]))
        outputs = groups * int(self.rng.integers(1, 4)) if groups > 1 else int(self.rng.choice([1, 3, 8, 12]))
        tensors = {"weight": self.weights(outputs, inputs // groups, *kernel), "bias": self.rng.normal(size=outputs)}
        self.add("Conv", self.last, groups=groups, tensors=tensors, activation=self.activation(), **window)

    def activation(self) -> str:
        return str(self.rng.choice(["relu", "none"]))

    def linear(self) -> None:
        outputs = int(self.rng.integers(1, 25))
        tensors = {"weight": self.weights(outputs, self.shapes[self.last][-1]), "bias": self.rng.normal(size=outputs)}
        self.add("Linear", self.last, tensors=tensors, activation=self.activation())

    def flat(self) -> None:
        self.add("Reshape", self.last, shape=(math.prod(self.shapes[self.last]),))
        self.linear()

    def pool(self) -> None:
        op = str(self.rng.choice(["MaxPool", "AveragePool"]))
        self.add(op, self.last, **{**self.window(False)})

    def other(self) -> str:
        """Another value of the same shape, or the same one."""
        shape = self.shapes[self.last]
        return str(self.rng.choice([name for name, found in self.shapes.items() if found == shape]))

    def sum(self) -> None:
        self.add("Add", self.last, self.other(), activation=self.activation())

    def product(self) -> None:
        self.add("Multiply", self.last, self.other())

    def function(self) -> None:
        self.add("Activation", self.last, function=str(self.rng.choice(["sigmoid", "tanh", "gelu"])))

    def gate(self) -> None:
        """Half of the channels times a function of the other half."""
        value, channels = self.last, self.shapes[self.last][0]
        if channels % 2:
            return
        parts = []
        for begin in (0, channels // 2):
            self.add("Slice", value, begin=begin, end=begin + channels // 2)
            parts.append(self.last)
        self.function()
        self.add("Multiply", parts[0], self.last)

    def embedding(self) -> None:
        """Rows of a table; every other one has few different numbers."""
        shape = int(self.rng.integers(1, 40)), int(self.rng.integers(1, 20))
        table = self.rng.normal(size=shape) * (self.rng.random(shape) < self.rng.uniform(0.3, 1))
        if self.rng.random() < 0.5:
            table = np.sign(table)
        self.add("Gather", self.last, tensors={"table": table.astype(np.float32)})

    def concat(self) -> None:
        self.add("Concat", self.last, self.other(), axis=0)

    def clamp(self) -> None:
        self.add("Clamp", self.last, low=-0.5, high=float(self.rng.choice([0.7, 6.0])))

    def pad(self) -> None:
        shape = self.shapes[self.last]
        ends = [(0, *(int(self.rng.integers(0, 3)) for _ in shape[1:])) for _ in range(2)]
        self.add("Pad", self.last, before=ends[0], after=ends[1])


def random_float_graph(rng: np.random.Generator) -> Graph:
    """One to six operators on a vector, a sequence, a map or rows of a table.

    Edges come often: one pixel, one channel.
    """
    if rng.random() < 0.12:
        return _ended(_embedded(rng))
    channels = int(rng.choice([1, 2, 3, 8, 9, 257], p=[0.2, 0.2, 0.2, 0.15, 0.2, 0.05]))
    most = 2 if channels > 9 else 9
    sizes = tuple(
        int(rng.integers(1, most)) if rng.random() < 0.5 else 1
        for _ in range(int(rng.choice([0, 1, 2], p=[0.2, 0.3, 0.5])))
    )
    grower = _Grower(rng, (channels, *sizes))
    for _ in range(int(rng.integers(1, 6))):
        shape = grower.shapes[grower.last]
        if math.prod(shape) > MOST:
            break
        ways = ["sum", "clamp", "product", "function", "gate", "concat"]
        ways += ["linear"] * 2 if len(shape) == 1 else ["conv"] * 6 + ["pool"] * 3 + ["pad"]
        getattr(grower, str(rng.choice(ways)))()
    # Only a part with trained weights is computed by the array.
    (grower.linear if len(grower.shapes[grower.last]) == 1 else grower.conv)()
    if len(grower.shapes[grower.last]) > 1 and rng.random() < 0.3:
        grower.flat()
    return _ended(grower)


def _embedded(rng: np.random.Generator) -> _Grower:
    """Rows of a table, of each index of an input or of the only one, and what a network makes of them."""
    grower = _Grower(rng, [(), (1,), (4,), (2, 3)][int(rng.integers(4))], "index")
    grower.embedding()
    for _ in range(int(rng.integers(0, 3))):
        getattr(grower, str(rng.choice(["linear", "linear", "sum", "clamp", "product", "function"])))()
    grower.linear()
    return grower


def _ended(grower: _Grower) -> Graph:
    """The graph of all that nobody reads."""
    read = {name for node in grower.nodes for name in node.inputs}
    ends = [name for name in grower.shapes if name not in read]
    return Graph((*grower.nodes, *(make("Output", f"y{n}", name) for n, name in enumerate(ends))))


def random_graph_case(seed: int, params: Params) -> GraphCase:
    """The case of a seed on an array; networks that do not fit it are drawn again."""
    rng = np.random.default_rng([seed, 7])
    options = random_options(rng)
    for _ in range(100):
        graph = random_float_graph(rng)
        shape = graph.inputs[0]["shape"]
        tables = [len(node.tensors["table"]) for node in graph if node.op == "Gather"]
        data: NDArray[Any]
        if tables:
            data = rng.integers(0, min(tables), (12, *shape))
        else:
            data = rng.normal(size=(4, *shape)) * (rng.random((4, *shape)) < 0.7)
            data[-1].flat[0] = 1.0  # calibration says something about ranges
        lowered = lower_case(graph, data, params, options)
        if lowered is None or not lowered[1].images:
            continue
        made, network = lowered
        batch = int(rng.integers(1, 4))
        x: NDArray[Any] = data[:batch] if tables else golden.quantize_input(data[:batch], made.inputs[0]["exponent"])[0]
        if rng.random() < 0.15:
            x[rng.integers(0, batch)] = 0
        return graph_case(seed, made, network, x)
    raise ImageError(f"seed {seed}: none of 100 random networks fits {params}")


def lower_case(
    graph: Graph, data: NDArray[Any], params: Params, options: Options
) -> tuple[Graph, Network] | None:  # fmt: skip
    """The integer graph of a float graph, and its network; None if it does not fit the array."""
    made = quantize_graph(run_passes(graph), params, [data]).graph
    parts = partition(made, params)
    try:
        images = tuple(build(program, params, options) for program in parts.programs)
    except ImageError:
        return None
    return made, Network(params, parts.graph, images)


def graph_case(seed: int, made: Graph, network: Network, x: NDArray[np.int16] | NDArray[np.int64]) -> GraphCase:
    """A network of the integer graph `made` with inputs, and what is right for them."""
    right = {name: value.raw for name, value in golden.run_graph(made, [x], network.params.acc_bits).items()}
    return GraphCase(seed, network, x, right)
