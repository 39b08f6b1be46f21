"""Random float graphs of all operators; the same seed gives the same graph on every machine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph.ir import Graph, Node, Type
from compiler.graph.operators import make, types
from compiler.graph.segments import joined

Array = NDArray[Any]

FUNCTIONS = ("sigmoid", "tanh", "hardsigmoid", "hardswish", "silu", "gelu", "gelu_tanh", "softplus", "relu", "none")

SAMPLES = 12


def random_graph(seed: int, *, loops: bool = True) -> tuple[Graph, list[Array]]:
    """A verified graph of up to about twenty nodes and inputs for it, (`SAMPLES`, *shape)."""
    builder = _Builder(np.random.default_rng(seed), loops)
    graph = builder.build()
    types(graph)
    return graph, [_data(builder.rng, node) for node in graph.inputs]


def _data(rng: np.random.Generator, node: Node) -> Array:
    if node["kind"] == "index":
        return rng.integers(0, 7, (SAMPLES, *node["shape"]))
    if rng.random() < 0.15:  # raw values, whose exponent is not free
        return rng.integers(-300, 300, (SAMPLES, *node["shape"])).astype(np.int16)
    data: Array = rng.normal(size=(SAMPLES, *node["shape"])) * 2.0 ** rng.integers(-6, 6)
    return data


class _Builder:
    """Grows a graph node by node from the values that are there."""

    def __init__(self, rng: np.random.Generator, loops: bool, prefix: str = "") -> None:
        self.rng, self.loops, self.prefix = rng, loops, prefix
        self.nodes: list[Node] = []
        self.found: dict[str, Type] = {}

    def number(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def pick(self, choices: Any) -> Any:
        return choices[self.number(0, len(choices) - 1)]

    def name(self) -> str:
        return f"{self.prefix}n{len(self.nodes)}"

    def add(self, op: str, *reads: str, **rest: Any) -> str:
        self.nodes.append(make(op, self.name(), *reads, **rest))
        node = self.nodes[-1]
        end = make("Output", "end", node.outputs[0])
        self.found = types(Graph((*self.nodes, end))) if self.nodes else {}
        self.found.pop("end", None)
        return node.outputs[0]

    def build(self) -> Graph:
        shape = self.pick([(self.number(1, 9),), (self.number(2, 5), self.number(1, 6)),
                           (self.number(1, 4), self.number(2, 7), self.number(2, 7))])  # fmt: skip
        self.add("Input", shape=shape)
        if self.rng.random() < 0.3:
            index = self.add("Input", shape=(self.number(1, 4),), kind="index")
            table = self.weights(7, self.number(1, 6))
            self.add("Gather", index, tensors={"table": table})
        self.grow(self.number(4, 12))
        return Graph((*self.nodes, *self.ends()))

    def grow(self, steps: int) -> None:
        for _ in range(steps):
            value = self.pick([name for name, kind in self.found.items() if kind.kind == "real"][-5:])
            self.step(value)

    def ends(self) -> list[Node]:
        read = {name for node in self.nodes for name in node.inputs}
        left = [name for name, kind in self.found.items() if name not in read and kind.kind == "real"]
        return [make("Output", f"{self.prefix}out{n}", name) for n, name in enumerate(left)]

    def weights(self, *shape: int) -> Array:
        fan = max(1, math.prod(shape[1:]))
        weight = self.rng.normal(size=shape) / math.sqrt(fan) * (self.rng.random(shape) < self.rng.uniform(0.2, 1))
        if len(shape) > 2 and self.rng.random() < 0.5:  # channels of very different sizes
            weight *= 2.0 ** self.rng.integers(-6, 1, (shape[0], *(1 for _ in shape[1:])))
        return weight.astype(np.float32)

    def fused(self, outputs: int) -> dict[str, Any]:
        tensors = {} if self.rng.random() < 0.3 else {"bias": self.rng.normal(size=outputs) * 0.2}
        return {"tensors": tensors, "activation": self.pick(["none", "relu"])}

    def step(self, value: str) -> None:
        """One more node, or a few that belong together."""
        shape = self.found[value].shape
        ways = ["linear", "affine", "sum", "multiply", "activation", "clamp", "reshape", "transpose", "slice", "pad"]
        ways += ["concat", "constant", "matrices"]
        if len(shape) in (2, 3):
            ways += ["conv", "conv", "conv", "pool", "pool", "convs"]
        if len(shape) == 2 and self.loops:
            ways += ["scan"] * 4
        getattr(self, self.pick(ways))(value, shape)

    def linear(self, value: str, shape: tuple[int, ...]) -> None:
        outputs = self.number(1, 8)
        rest = self.fused(outputs)
        rest["tensors"]["weight"] = self.weights(outputs, shape[-1])
        self.add("Linear", value, **rest)

    def window(self, sizes: tuple[int, ...], padded: bool) -> dict[str, Any]:
        kernel = tuple(self.number(1, min(4, size)) for size in sizes)
        room = [self.number(0, k - 1) if padded else 0 for k in kernel * 2]
        dilation = tuple(
            self.number(1, 2) if k > 1 and 2 * (k - 1) < n else 1 for k, n in zip(kernel, sizes, strict=True)
        )
        stride = tuple(self.number(1, 4) for _ in sizes)
        return {"kernel": kernel, "padding": tuple(room), "dilation": dilation, "stride": stride}

    def conv(self, value: str, shape: tuple[int, ...]) -> None:
        window = self.window(shape[1:], True)
        groups = shape[0] if self.rng.random() < 0.3 else 1
        outputs = groups * self.number(1, 3)
        rest = self.fused(outputs)
        rest["tensors"]["weight"] = self.weights(outputs, shape[0] // groups, *window.pop("kernel"))
        self.add("Conv", value, groups=groups, **window, **rest)

    def matrices(self, value: str, shape: tuple[int, ...]) -> None:
        """A sum of Linears and of values as they are."""
        outputs = shape[-1] if self.rng.random() < 0.5 else self.number(1, 8)
        made = (*shape[:-1], outputs)
        parts, reads = [], []
        for n in range(self.number(1, 4)):
            if n and made == shape and self.rng.random() < 0.5:
                parts.append(None)
            else:
                parts.append(make("Linear", "part", "x", tensors={"weight": self.weights(outputs, shape[-1])}))
            reads.append(self.partner(value, shape) if n else value)
        self.accumulate(reads, parts, 0, outputs)

    def convs(self, value: str, shape: tuple[int, ...]) -> None:
        """A sum of Convs and of values as they are, whose window is the first one's or leaves the map as large as it is."""
        axes, same = len(shape) - 1, self.rng.random() < 0.6
        outputs = shape[0] if self.rng.random() < 0.5 else self.number(1, 4)
        window = self.window(shape[1:], True)
        parts, reads = [], []
        for n in range(self.number(1, 4)):
            if same:
                kernel = tuple(self.number(0, 1) * 2 + 1 for _ in range(axes))
                around = tuple(k // 2 for k in kernel)
                window = {"kernel": kernel, "padding": around * 2, "dilation": 1, "stride": 1}
            groups = shape[0] if outputs == shape[0] and self.rng.random() < 0.3 else 1
            weight = self.weights(outputs, shape[0] // groups, *window["kernel"])
            rest = {key: given for key, given in window.items() if key != "kernel"}
            part = make("Conv", "part", "x", tensors={"weight": weight}, groups=groups, **rest)
            parts.append(None if n and same and outputs == shape[0] and self.rng.random() < 0.5 else part)
            reads.append(self.partner(value, shape) if n else value)
        self.accumulate(reads, parts, axes, outputs)

    def accumulate(self, reads: list[str], parts: list[Node | None], axes: int, outputs: int) -> None:
        rest = self.fused(outputs)
        weights = {f"weight{n}": part.tensors["weight"] for n, part in enumerate(parts) if part is not None}
        tensors = {**weights, **rest["tensors"]}
        self.add("Accumulate", *reads, tensors=tensors, activation=rest["activation"], **joined(parts, axes))

    def pool(self, value: str, shape: tuple[int, ...]) -> None:
        op = self.pick(["MaxPool", "AveragePool"])
        window = self.window(shape[1:], True)
        if op == "MaxPool":
            window["dilation"] = tuple(1 for _ in shape[1:])  # with dilation a window can miss a small map altogether
        self.add(op, value, **window)

    def affine(self, value: str, shape: tuple[int, ...]) -> None:
        over = tuple(self.pick([1, n]) for n in shape)
        tensors = {"scale": self.rng.normal(size=over), "offset": self.rng.normal(size=over)}
        self.add("Affine", value, tensors=tensors, activation=self.pick(["none", "relu"]))

    def partner(self, value: str, shape: tuple[int, ...]) -> str:
        """Another value of the same shape: one that is there, or one made for it at another scale."""
        same = [name for name, kind in self.found.items() if kind.shape == shape and kind.kind == "real"]
        if self.rng.random() < 0.6:
            return str(self.pick(same))
        scale = np.array(self.rng.normal() * 2.0 ** self.rng.integers(-5, 3))
        return self.add("Affine", value, tensors={"scale": scale, "offset": np.array(0.1)})

    def pair(self, op: str, value: str, shape: tuple[int, ...]) -> None:
        self.add(op, value, self.partner(value, shape), activation=self.pick(["none", "relu"]))

    def sum(self, value: str, shape: tuple[int, ...]) -> None:
        self.pair("Add", value, shape)

    def multiply(self, value: str, shape: tuple[int, ...]) -> None:
        self.pair("Multiply", value, shape)

    def concat(self, value: str, shape: tuple[int, ...]) -> None:
        if math.prod(shape) < 200:
            self.add("Concat", value, self.partner(value, shape), axis=self.number(0, len(shape) - 1))

    def constant(self, value: str, shape: tuple[int, ...]) -> None:
        zeros = self.rng.random() < 0.3
        made = self.add("Constant", tensors={"value": np.zeros(shape) if zeros else self.rng.normal(size=shape)})
        self.add("Add", value, made, activation="none")

    def activation(self, value: str, shape: tuple[int, ...]) -> None:
        self.add("Activation", value, function=self.pick(FUNCTIONS))

    def clamp(self, value: str, shape: tuple[int, ...]) -> None:
        low = float(self.rng.normal() - 1)
        self.add("Clamp", value, low=low, high=low + float(self.rng.uniform(0.5, 6)))

    def reshape(self, value: str, shape: tuple[int, ...]) -> None:
        total = math.prod(shape)
        divisors = [n for n in range(1, total + 1) if total % n == 0]
        first = self.pick(divisors)
        self.add("Reshape", value, shape=self.pick([(total,), (first, total // first), shape]))

    def transpose(self, value: str, shape: tuple[int, ...]) -> None:
        self.add("Transpose", value, order=tuple(int(n) for n in self.rng.permutation(len(shape))))

    def slice(self, value: str, shape: tuple[int, ...]) -> None:
        axis = self.number(0, len(shape) - 1)
        begin = self.number(0, shape[axis] - 1)
        end = self.number(begin + 1, shape[axis])
        drop = len(shape) > 1 and end == begin + 1
        self.add("Slice", value, axis=axis, begin=begin, end=end, step=self.number(1, 3), drop=drop)

    def pad(self, value: str, shape: tuple[int, ...]) -> None:
        before, after = (tuple(self.number(0, 2) for _ in shape) for _ in range(2))
        self.add("Pad", value, before=before, after=after)

    def scan(self, value: str, shape: tuple[int, ...]) -> None:
        """A cell with a gate and one state, over the steps of a sequence."""
        units = self.number(1, 6)
        self.add("Constant", tensors={"value": np.zeros(units) if self.rng.random() < 0.7 else self.weights(units)})
        begin = self.nodes[-1].output
        inner = _Builder(self.rng, False, f"{self.prefix}b")
        x, state = inner.add("Input", shape=shape[1:]), inner.add("Input", shape=(units,))
        joined = inner.add("Concat", x, state)
        gates = [
            inner.add("Linear", joined, tensors={"weight": inner.weights(units, shape[1] + units)}) for _ in range(2)
        ]
        gate = inner.add("Activation", gates[0], function="sigmoid")
        new = inner.add("Activation", gates[1], function="tanh")
        kept, taken = inner.add("Multiply", gate, state), inner.add("Multiply", gate, new)
        after = inner.add("Add", kept, taken)
        inner.grow(self.number(0, 2))
        made = self.pick([name for name, kind in inner.found.items() if kind.kind == "real"])
        body = Graph((*inner.nodes, make("Output", "y", made), make("Output", "h", after)))
        name = self.name()
        self.add("Scan", value, begin, body=body, outputs=(name, f"{name}.h"), reverse=bool(self.rng.random() < 0.5))
