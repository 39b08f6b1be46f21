"""Small graphs for tests: a network written down in a line, comparison on random inputs, and random graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph import evaluate
from compiler.graph.ir import Graph, Node
from compiler.graph.operators import make, types

Array = NDArray[Any]


class Net:
    """Nodes as they are called; every method gives back the name of the value it makes."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[Node] = []

    def add(self, op: str, *reads: str, name: str = "", **given: Any) -> str:
        name = name or f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(make(op, name, *reads, **given))
        return name

    def input(self, *shape: int, kind: str = "real") -> str:
        return self.add("Input", shape=shape, kind=kind)

    def numbers(self, *shape: int) -> Array:
        return self.rng.normal(size=shape).astype(np.float32)

    def linear(self, x: str, out: int, **given: Any) -> str:
        tensors = {"weight": self.numbers(out, self.shape(x)[-1]), "bias": self.rng.normal(size=out)}
        return self.add("Linear", x, tensors=tensors, **given)

    def conv(self, x: str, out: int, *kernel: int, groups: int = 1, bias: bool = True, **given: Any) -> str:
        tensors = {"weight": self.numbers(out, self.shape(x)[0] // groups, *kernel)}
        tensors |= {"bias": self.rng.normal(size=out)} if bias else {}
        return self.add("Conv", x, tensors=tensors, groups=groups, **given)

    def affine(self, x: str, *shape: int, offset: bool = True, **given: Any) -> str:
        tensors = {"scale": self.numbers(*shape), "offset": self.numbers(*shape) * offset}
        return self.add("Affine", x, tensors=tensors, **given)

    def relu(self, x: str) -> str:
        return self.add("Activation", x, function="relu")

    def flat(self, x: str) -> str:
        return self.add("Reshape", x, shape=(int(np.prod(self.shape(x))),))

    def output(self, x: str) -> str:
        return self.add("Output", x)

    def shape(self, value: str) -> tuple[int, ...]:
        probe = Graph((*self.nodes, make("Output", "probe", value)))
        return types(probe)[value].shape

    def graph(self) -> Graph:
        return Graph(tuple(self.nodes))


def ops(graph: Graph) -> list[str]:
    """Operators in order, without the ends; with their ReLU."""
    return [
        node.op + ("+relu" if node.attributes.get("activation") == "relu" else "")
        for node in graph
        if node.op not in ("Input", "Output")
    ]


def random_inputs(graph: Graph, rng: np.random.Generator, batch: int = 3) -> list[Array]:
    sizes = [len(node.tensors["table"]) for node in graph if node.op == "Gather"]
    return [
        rng.integers(0, min(sizes, default=1), (batch, *node["shape"]))
        if node["kind"] == "index"
        else rng.normal(scale=20.0, size=(batch, *node["shape"]))
        for node in graph.inputs
    ]


def differ(first: Graph, second: Graph, inputs: Sequence[Array], rtol: float = 1e-9) -> bool:
    """Whether two graphs compute something else; relative to the largest number of each output."""
    for one, two in zip(evaluate.outputs(first, inputs), evaluate.outputs(second, inputs), strict=True):
        if one.shape != two.shape or not np.allclose(one, two, rtol=0, atol=rtol * max(1e-6, np.abs(one).max())):
            return True
    return False


def random_graph(rng: np.random.Generator, steps: int = 12) -> Graph:
    """Random operators on random values, with values that are read twice and several outputs."""
    net = Net(rng)
    values = [net.input(*rng.integers(1, 6, rng.integers(1, 4)).tolist())]
    for _ in range(steps):
        x = values[-1] if rng.random() < 0.8 else values[rng.integers(len(values))]
        made = _random_step(net, rng, x, values)
        if np.prod(net.shape(made)) <= 4096:
            values.append(made)
    net.output(values[-1])
    if rng.random() < 0.5:
        net.output(values[rng.integers(len(values))])
    return net.graph()


def _random_step(net: Net, rng: np.random.Generator, x: str, values: list[str]) -> str:
    shape = net.shape(x)
    rank = len(shape)
    kind = rng.choice(
        ["Linear", "Affine", "Affine", "relu", "Reshape", "Transpose", "Slice", "Pad", "Concat", "Add", "Clamp", "same"]
        + ["Conv", "Conv", "AveragePool", "MaxPool", "Scan"] * (rank in (2, 3))
    )
    relu = {"activation": str(rng.choice(["none", "relu"]))}
    match kind:
        case "Linear":
            return net.linear(x, int(rng.integers(1, 6)), **relu)
        case "Affine":
            sizes = [int(n) if rng.random() < 0.5 else 1 for n in shape]
            return net.affine(x, *sizes, offset=bool(rng.random() < 0.7), **relu)
        case "relu":
            return net.relu(x)
        case "Reshape":
            total = int(np.prod(shape))
            first = int(rng.choice([n for n in range(1, total + 1) if total % n == 0]))
            options = [(total,), (first, total // first), (1, first, total // first)]
            return net.add("Reshape", x, shape=options[rng.integers(3)])
        case "Transpose":
            return net.add("Transpose", x, order=tuple(int(n) for n in rng.permutation(rank)))
        case "Slice":
            axis = int(rng.integers(rank))
            begin = int(rng.integers(shape[axis]))
            end, step = int(rng.integers(begin + 1, shape[axis] + 1)), int(rng.integers(1, 3))
            drop = end - begin <= step and rank > 1
            return net.add("Slice", x, axis=axis, begin=begin, end=end, step=step, drop=drop)
        case "Pad":
            sides = [tuple(int(n) for n in rng.integers(0, 2, rank)) for _ in range(2)]
            return net.add("Pad", x, before=sides[0], after=sides[1])
        case "Concat":
            axis = int(rng.integers(rank))
            parts = [value for value in values if net.shape(value) == shape] + [x]
            if rng.random() < 0.3:
                parts.append(net.add("Constant", tensors={"value": net.numbers(*shape)}))
            return net.add("Concat", *parts[-3:], axis=axis)
        case "Add":
            others = [value for value in values if net.shape(value) == shape]
            other = others[rng.integers(len(others))]
            if rng.random() < 0.3:
                other = net.add("Constant", tensors={"value": net.numbers(*shape)})
            return net.add(str(rng.choice(["Add", "Multiply"])), x, other, **relu)
        case "Clamp":
            return net.add("Clamp", x, low=float(rng.choice([0.0, -1.0])), high=float(rng.choice([np.inf, 6.0])))
        case "Conv":
            groups = int(rng.choice([n for n in range(1, shape[0] + 1) if shape[0] % n == 0]))
            kernel = [1] * (rank - 1) if rng.random() < 0.3 else [int(rng.integers(1, n + 1)) for n in shape[1:]]
            padding = int(rng.integers(0, 2))
            out = groups * int(rng.integers(1, 3))
            stride = int(rng.integers(1, 3))
            return net.conv(x, out, *kernel, groups=groups, stride=stride, padding=padding, **relu)
        case "AveragePool" | "MaxPool":
            kernel = tuple(int(rng.integers(1, n + 1)) for n in shape[1:])
            padding = int(min(kernel) > 1 and rng.random() < 0.5)
            return net.add(kind, x, kernel=kernel, padding=padding, stride=int(rng.integers(1, 3)))
        case "Scan" if rank == 2:
            return _random_scan(net, rng, x, shape[1])
    return (
        net.add("Activation", x, function="none") if rng.random() < 0.5 else net.add("Activation", x, function="tanh")
    )


def _random_scan(net: Net, rng: np.random.Generator, x: str, width: int) -> str:
    body = Net(rng)
    step, state = body.input(width), body.input(3)
    gates = body.linear(body.affine(body.add("Concat", step, state), 1), 3)
    after = body.add("Activation", body.affine(gates, 3), function="tanh")
    body.output(after)
    body.output(after)
    start = net.add("Constant", tensors={"value": net.numbers(3)})
    name = f"scan{len(net.nodes)}"
    return net.add("Scan", x, start, name=name, body=body.graph(), outputs=(name, f"{name}.h"))
