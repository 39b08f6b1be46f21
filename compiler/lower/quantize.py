"""From a graph of floats to a graph of integers; docs/numerics.md is the specification.

Nodes are taken in order. Each chooses the finest exponent at which its results fit, for all inputs or for the
calibration data; the integers made so far are what the next node is fitted to. Where values must have one exponent and
chose different ones, a second run gives all of them the largest; a Shift is inserted at those that cannot take it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ModelError
from compiler.graph.integer import HIGH, LOW, verify_integer
from compiler.graph.ir import Graph, Node, unique
from compiler.graph.operators import verify
from compiler.lower.activity import Density, density_of
from compiler.lower.agree import agreed, keeps
from compiler.lower.formats import exponent_of, input_exponent, peak_of, to_raw
from compiler.lower.rules import RULES, clamp_exponent, rescale
from compiler.lower.scan import float_states
from compiler.lower.value import Context, Made, PerChannel, Value
from compiler.lower.weights import Target
from hw.params import Params

__all__ = ["NodeReport", "Quantized", "quantize_graph"]


@dataclass(frozen=True)
class NodeReport:
    """What quantization did to a node.

    Attributes
    ----------
    name : that of the node; "scan/node" in the body of a Scan.
    op : its float operator.
    exact : its weights, biases or constants are represented without any rounding.
    halved : how often its weights were halved so that no sum can overflow.
    clustered : its weights had more distinct values than the codebook holds.
    per_channel : its output channels have scales of their own.
    saturations : how many of its results saturated on the calibration data.
    """

    name: str
    op: str
    exact: bool
    halved: int
    clustered: bool
    per_channel: bool
    saturations: int


@dataclass(frozen=True, eq=False)
class Quantized:
    """A network in integers.

    Attributes
    ----------
    graph : the integer graph.
    report : what was done, node by node.
    results : for each Output, what it reads for the calibration data, as quantities (batch, *shape); none without. In a
        Scan, each step begins with the float network's states.
    densities : of values that have calibration data, how often their numbers are not zero: each, or all together
        (`compiler.lower.activity`).
    """

    graph: Graph
    report: tuple[NodeReport, ...]
    results: tuple[NDArray[np.float64], ...]
    densities: Mapping[str, Density] = field(default_factory=dict)


def quantize_graph(
    graph: Graph,
    params: Params,
    calibration: Sequence[NDArray[Any]] | None = None,
    *,
    percentile: float = 100.0,
    per_channel: PerChannel = "auto",
    context: Context | None = None,
) -> Quantized:
    """A network in fixed point.

    Parameters
    ----------
    graph : float graph behind the passes; it is verified.
    params : the array; code_bits and acc_bits matter.
    calibration : for each Input, (batch, *shape). Floats decide its exponent and all that follow; int16 is taken raw
        (exponent 0) and decides those that follow; None means exponent 0 and ranges by bound.
    percentile : share of calibration values, in percent of magnitudes, that must not saturate.
    per_channel : scales of their own for the output channels of convolutions; "auto": where they lower the error on the
        calibration data by 5 %.
    context : that of an earlier call for the same graph, whose shared weights are used again.

    Raises
    ------
    ModelError
        The graph is not well-formed, the calibration data does not fit it or is all zero, or a loop has none.
    """
    verify(graph)
    if not 0 < percentile <= 100:
        raise ModelError(f"percentile is {percentile}; expected more than 0 and at most 100")
    shared = {} if context is None else context.shared
    context = Context(params, percentile, per_channel, shared)
    given = _inputs(graph, calibration)
    run = _Run(context, {})
    made, ends = run.graph(graph, "", given)
    targets = agreed(graph, run.chosen)
    if targets:
        run = _Run(context, targets)
        made, ends = run.graph(graph, "", given)
    verify_integer(made, params.acc_bits)
    if calibration is None:
        return Quantized(made, tuple(run.report), ())
    results = [end.floats() for end in ends if end.exponent is not None]
    repeated = tuple(_repeated(result, len(calibration[0])) for result in results)
    return Quantized(made, tuple(run.report), repeated, run.densities)


def _repeated(result: NDArray[np.float64], batch: int) -> NDArray[np.float64]:
    """A result for every sample; one that does not depend on the inputs is there once."""
    return np.broadcast_to(result, (batch, *result.shape[1:]))


Given = Mapping[str, NDArray[Any] | Value | None]


def _inputs(graph: Graph, calibration: Sequence[NDArray[Any]] | None) -> dict[str, NDArray[Any] | Value | None]:
    """Calibration data by Input, checked."""
    nodes = graph.inputs
    if calibration is None:
        return {node.output: None for node in nodes}
    if len(calibration) != len(nodes):
        raise ModelError(f"calibration data for {len(calibration)} inputs; the network has {len(nodes)}")
    for node, data in zip(nodes, calibration, strict=True):
        _check(node, data, len(nodes))
        if len(data) != len(calibration[0]):
            raise ModelError(
                f"calibration data of {node.name}: {len(data)} samples; the first has {len(calibration[0])}"
            )
    return {node.output: data for node, data in zip(nodes, calibration, strict=True)}


def _check(node: Node, data: NDArray[Any], inputs: int) -> None:
    what = "calibration data" + (f" of {node.name}" if inputs > 1 else "")
    form = ", ".join(["n", *map(str, node["shape"])])
    if data.ndim == 0 or data.shape[1:] != tuple(node["shape"]) or not len(data):
        raise ModelError(f"{what} is {data.shape}; expected ({form}) with n at least 1")
    if node["kind"] == "index":
        if not np.issubdtype(data.dtype, np.integer):
            raise ModelError(f"{what} is {data.dtype}; expected integers, which are indices")
        return
    if data.dtype != np.int16 and not np.issubdtype(data.dtype, np.floating):
        raise ModelError(f"{what} is {data.dtype}; expected int16 or float")
    if not np.isfinite(data).all():
        raise ModelError(f"{what} is not finite everywhere")
    if not data.any():
        raise ModelError(f"{what} is all zero, which says nothing about ranges; give samples of real inputs")


class _Run:
    """One run over a graph and the bodies in it.

    Attributes
    ----------
    chosen : the exponent that each value got by itself, by name; None where any would do.
    report : in order of computation.
    densities : of values of the outermost integer graph.
    """

    def __init__(self, context: Context, targets: Mapping[str, int]) -> None:
        self.context = context
        self.targets = targets
        self.chosen: dict[str, int | None] = {}
        self.report: list[NodeReport] = []
        self.densities: dict[str, Density] = {}

    def graph(self, graph: Graph, prefix: str, given: Given) -> tuple[Graph, list[Value]]:
        """The integer graph, and what its Outputs read."""
        scope = _Scope(self, graph, prefix)
        ends = []
        for node in graph:
            if node.op == "Input":
                scope.input(node, given[node.output])
            elif node.op == "Scan":
                scope.scan(node)
            else:
                scope.rule(node)
            if node.op == "Output":
                ends.append(scope.values[node.output])
            scope.forget(node)
        if not prefix:
            self.densities = {scope.names[name]: share for name, share in scope.densities.items()}
        return Graph(tuple(scope.nodes)), ends


class _Scope:
    """The integer nodes of one graph so far, and the values that they make."""

    def __init__(self, run: _Run, graph: Graph, prefix: str) -> None:
        self.run, self.context, self.prefix = run, run.context, prefix
        self.nodes: list[Node] = []
        self.values: dict[str, Value] = {}
        self.densities: dict[str, Density] = {}
        self.names: dict[str, str] = {}  # value of the float graph → value of the integer graph
        self.taken = {name for node in graph for name in (node.name, *node.outputs)}
        self.fixed = _fixed(graph)
        self.readers: dict[str, int] = {}
        for node in graph:
            for name in node.inputs:
                self.readers[name] = self.readers.get(name, 0) + 1

    def forget(self, node: Node) -> None:
        """Drop samples that nothing reads any more."""
        for name in node.inputs:
            self.readers[name] -= 1
            if not self.readers[name]:
                self.values.pop(name, None)

    def target(self, value: str) -> Target | None:
        if value in self.fixed:
            return Target(self.fixed[value], True)
        wanted = self.run.targets.get(self.prefix + value)
        return None if wanted is None else Target(wanted, False)

    def _keep(self, value: str, made: Value) -> None:
        self.values[value] = made
        if made.samples is not None and made.samples.size:
            self.densities[value] = density_of(made.samples)
        self.run.chosen[self.prefix + value] = None if made.zero else made.exponent

    def _at(self, read: str, value: Value, exponent: int | None) -> tuple[str, Value]:
        """A value brought to an exponent, by as many Shifts as it takes."""
        while exponent is not None and value.exponent is not None and value.exponent != exponent:
            name = unique(f"{read}.shift", self.taken)
            self.taken.add(name)
            node, value = rescale(name, read, value, exponent)
            self.nodes.append(node)
            read = name
        return read, value

    def _reads(self, names: Sequence[str], agree: bool) -> tuple[list[str], list[Value]]:
        """Names in the integer graph and values of what a node reads, at one exponent if they must agree."""
        values = [self.values[name] for name in names]
        known = [value.exponent for value in values if value.exponent is not None and not value.zero]
        known = known or [value.exponent for value in values if value.exponent is not None]
        common = max(known) if agree and known else None
        found = [
            self._at(self.names[name], value, value.exponent if common is None else common)
            for name, value in zip(names, values, strict=True)
        ]
        return [name for name, _ in found], [value for _, value in found]

    def input(self, node: Node, given: NDArray[Any] | Value | None) -> None:
        """An Input at the exponent of its data; in a body, `given` is what it is."""
        shape = tuple(node["shape"])
        if isinstance(given, Value):
            value = given
        elif node["kind"] == "index":
            zero = np.zeros(shape, np.int64)
            value = Value(None, zero, zero, None if given is None else given.astype(np.int64))
        else:
            exponent, samples = 0, None
            if given is not None and given.dtype == np.int16:
                samples = given.astype(np.int64)
            elif given is not None:
                target = self.target(node.output)
                exponent = input_exponent(given, self.context.percentile) if target is None else target.exponent
                samples = to_raw(given, exponent)
            value = Value(exponent, np.full(shape, LOW, np.int64), np.full(shape, HIGH, np.int64), samples)
        self.nodes.append(node.replace(attributes={**node.attributes, "exponent": value.exponent or 0}))
        self.names[node.output] = node.output
        self._keep(node.output, value)

    def rule(self, node: Node) -> None:
        """A node by its rule, behind the Shifts that it needs."""
        names, reads = self._reads(node.inputs, node.op in ("Add", "Concat"))
        if node.op in ("FakeQuantize", "Clamp"):
            exponent = node["exponent"] if node.op == "FakeQuantize" else clamp_exponent(node, reads[0])
            names[0], reads[0] = self._at(names[0], reads[0], exponent)
        target = None if keeps(node) else self.target(node.output)
        made = RULES[node.op](node, reads, self.context, target)
        while made.asked:
            found = [self._at(*each) for each in zip(names, reads, made.asked, strict=True)]
            names, reads = [name for name, _ in found], [value for _, value in found]
            made = RULES[node.op](node, reads, self.context, target)
        name, value = names[0] if names else "", made.value
        if made.node is not None:
            self.nodes.append(made.node.replace(inputs=tuple(names)))
            name = node.output
        self._keep(node.output, value)
        self._note(node, made)
        wanted = None if node.op == "Output" else self.target(node.output)
        if wanted is not None and (wanted.strict or value.scale < wanted.exponent):
            name, value = self._at(name, value, wanted.exponent)
        self.names[node.output], self.values[node.output] = name, value

    def _note(self, node: Node, made: Made) -> None:
        name = self.prefix + node.name
        self.run.report.append(
            NodeReport(name, node.op, made.exact, made.halved, made.clustered, made.per_channel, made.clipped)
        )

    def scan(self, node: Node) -> None:
        """A Scan: its body is fitted to all steps of the calibration data at once."""
        assert node.body is not None
        count, inner = node["sequences"], f"{self.prefix}{node.name}/"
        names, reads = self._reads(node.inputs, False)
        if any(read.samples is None for read in reads):
            raise ModelError(
                f"{node.name}: the range of what a loop carries on has no bound without data; give calibration data"
            )
        batch, steps = max(len(read.samples) for read in reads if read.samples is not None), reads[0].low.shape[0]
        begins, finals = float_states(node, [read.floats() for read in reads])
        given: dict[str, Value] = {}
        votes: dict[str, int | None] = {}
        for number, (begin, read) in enumerate(zip(node.body.inputs, reads, strict=True)):
            if number < count:
                given[begin.output] = _unstacked(read, batch)
                continue
            states = begins[number - count]
            peak = peak_of(np.concatenate([states, finals[number - count]]), self.context.percentile)
            exponent = self.run.targets.get(inner + begin.output)
            if exponent is None:
                exponent = exponent_of(peak) if peak else read.scale
            names[number], _ = self._at(names[number], read, exponent)
            low, high = np.full(read.low.shape, LOW, np.int64), np.full(read.low.shape, HIGH, np.int64)
            given[begin.output] = Value(exponent, low, high, to_raw(states, exponent))
            votes[inner + begin.output] = exponent if peak else None
        body, ends = self.run.graph(node.body, inner, given)
        self.run.chosen.update(votes)
        carried = [given[begin.output] for begin in node.body.inputs[count:]]
        body, ends = _returned(body, ends, carried)
        self.nodes.append(node.replace(inputs=tuple(names), body=body))
        first = len(ends) - len(carried)
        for number, (name, end) in enumerate(zip(node.outputs, ends, strict=True)):
            value = _stacked(end, batch, steps)
            if number >= first:
                assert value.samples is not None
                value = Value(end.exponent, end.low, end.high, value.samples[:, 0 if node["reverse"] else -1])
            self.names[name] = name
            self._keep(name, value)


def _unstacked(read: Value, batch: int) -> Value:
    """One step of a sequence; its samples are all steps of all samples."""
    assert read.samples is not None
    samples = np.broadcast_to(read.samples, (batch, *read.low.shape)).reshape(-1, *read.low.shape[1:])
    return Value(read.exponent, read.low.min(axis=0), read.high.max(axis=0), samples)


def _stacked(end: Value, batch: int, steps: int) -> Value:
    """A sequence of which `end` is one step."""
    assert end.samples is not None
    samples = np.broadcast_to(end.samples, (batch * steps, *end.low.shape)).reshape(batch, steps, *end.low.shape)
    low, high = (np.broadcast_to(x, (steps, *x.shape)) for x in (end.low, end.high))
    return Value(end.exponent, low, high, samples)


def _returned(body: Graph, ends: Sequence[Value], carried: Sequence[Value]) -> tuple[Graph, list[Value]]:
    """A body whose last Outputs read their values at the exponents of the states."""
    nodes, made = list(body.nodes), list(ends)
    taken = {name for node in nodes for name in (node.name, *node.outputs)}
    first = len(ends) - len(carried)
    for number, state in enumerate(carried):
        output = body.outputs[first + number]
        value, read = made[first + number], output.inputs[0]
        place = nodes.index(output)
        while value.exponent != state.exponent and value.exponent is not None and state.exponent is not None:
            name = unique(f"{read}.shift", taken)
            taken.add(name)
            shift, value = rescale(name, read, value, state.exponent)
            nodes.insert(place, shift)
            place, read = place + 1, name
        nodes[place] = output.replace(inputs=(read,))
        made[first + number] = value
    return Graph(tuple(nodes)), made


def _fixed(graph: Graph) -> dict[str, int]:
    """The exponents that nodes FakeQuantize ask for, of the values that only they read."""
    found: dict[str, int] = {}
    for node in graph:
        if node.op != "FakeQuantize":
            continue
        value = node.inputs[0]
        while len(graph.users(value)) == 1:
            found[value] = node["exponent"]
            producer = graph.producer(value)
            if not keeps(producer) or len(producer.inputs) != 1:
                break
            value = producer.inputs[0]
    return found
