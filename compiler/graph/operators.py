"""The operators of a float graph: one table, read by everyone.

A row states how many values an operator reads, the types that it makes (`shapes`), its meaning on floats (`meaning`),
its attributes with their defaults, and its constant tensors. The meaning in integers is docs/numerics.md.

Attributes of one name mean the same everywhere. `activation` is "none" or "relu" and comes last. `stride`, `dilation`
and `kernel` have a number for each spatial axis, `padding` those before each and then those after each. `axis` leaves
the batch out. FakeQuantize rounds to multiples of ``2**exponent``, between `low` and `high` of them. An Output's `then`
names what is left to the host (`functions.TAILS`). An Accumulate has one of everything for each segment
(`segments`).

A Scan's `body` reads one step of each of the first `sequences` values, and then the states, which begin as the other
values. It makes what a step makes and then the states after it; the node makes the former, stacked, and the latter as
they end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ModelError
from compiler.graph import meaning, shapes
from compiler.graph.attributes import attribute_error
from compiler.graph.functions import FUNCTIONS, TAILS
from compiler.graph.ir import Graph, Node, Type
from compiler.graph.segments import SEGMENTS
from compiler.graph.shapes import Wrong, need

__all__ = ["OPERATORS", "REQUIRED", "Operator", "Row", "infer", "made_by", "make", "scan_rule", "types", "verify"]

Array = NDArray[Any]

REQUIRED: Final = object()
"""An attribute without a default."""

MAX_VALUES = 1 << 28
"""Numbers in one value: beyond, a shape is a mistake or an attack and not a network."""

MAX_AXES = 16
"""Axes of one value: far fewer than arrays can have, since windows and groups add some."""


class Row(Protocol):
    """What a node is checked against; see `Operator`."""

    @property
    def reads(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def types(self) -> Callable[[Node, Sequence[Type]], list[Type]]: ...  # noqa: D102
    @property
    def attributes(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def tensors(self) -> Mapping[str, bool]: ...  # noqa: D102


@dataclass(frozen=True)
class Operator:
    """One row of the table.

    Attributes
    ----------
    reads : least and most values that it reads.
    types : its node and the types that it reads → the types that it makes.
    meaning : its node, the arrays that it reads, and how to run a body → the arrays that it makes.
    attributes : name → default, or `REQUIRED`.
    tensors : name → whether it must be there.
    """

    reads: tuple[int, int]
    types: Callable[[Node, Sequence[Type]], list[Type]]
    meaning: Callable[[Node, Sequence[Array], meaning.Run], list[Array]]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, bool] = field(default_factory=dict)


def make(
    op: str,
    name: str,
    *reads: str,
    tensors: Mapping[str, Array] | None = None,
    body: Graph | None = None,
    outputs: tuple[str, ...] = (),
    source: str = "",
    **attributes: Any,
) -> Node:
    """A node with every attribute that is not given at its default; one number stands for all axes."""
    tensors = tensors or {}
    complete = {key: value for key, value in OPERATORS[op].attributes.items() if value is not REQUIRED} | attributes
    axes = tensors["weight"].ndim - 2 if op == "Conv" else len(complete.get("kernel", ()))
    for key in ("stride", "dilation", "padding"):
        if isinstance(complete.get(key), int):
            complete[key] = (complete[key],) * (axes * (1 + (key == "padding")))
    return Node(name, op, reads, complete, dict(tensors), body, outputs, source)


def verify(graph: Graph) -> None:
    """Check everything that must hold in a float graph.

    Raises
    ------
    ModelError
        Listing every violation: an unknown operator or attribute, a value that is used before it is made or made
        twice, a shape, number format or count that the operator does not take, a tensor that is not finite.
    """
    types(graph)


def types(graph: Graph) -> dict[str, Type]:
    """The type of every value of a graph, which is verified.

    Raises
    ------
    ModelError
        As `verify`.
    """
    found, wrong = infer(graph)
    if wrong:
        raise ModelError("; ".join(wrong))
    return found


def infer(graph: Graph, table: Mapping[str, Row] | None = None) -> tuple[dict[str, Type], list[str]]:
    """The type of every value, as far as it can be told, and everything that is wrong with the graph.

    Parameters
    ----------
    table : the rows that the graph is checked against; usually `OPERATORS`.
    """
    table = OPERATORS if table is None else table
    found: dict[str, Type] = {}
    broken: set[str] = set()  # values whose type could not be told; who reads them is not blamed
    wrong: list[str] = []
    names: set[str] = set()
    for node in graph:
        problems = [f"the name {node.name!r} is used twice"] if node.name in names else []
        names.add(node.name)
        # Two look-ups a name and no union of both: a file can list very many nodes.
        exist = [name for name in node.outputs if name in found or name in broken]
        absent = [name for name in node.inputs if name not in found and name not in broken]
        problems += [f"it makes {name!r}, which exists" for name in exist]
        problems += [f"it reads {name!r}, which is not made before it" for name in absent]
        made: list[Type] = []
        if not problems and not broken.intersection(node.inputs):
            try:
                made = made_by(node, [found[name] for name in node.inputs], table)
            except Wrong as error:
                problems.append(str(error))
        wrong += [f"{node.name}: {problem}" for problem in problems]
        if made:
            found.update(zip(node.outputs, made, strict=True))
        else:
            broken.update(node.outputs)
    wrong += [f"the graph has no {op}" for op in ("Input", "Output") if not any(node.op == op for node in graph)]
    return found, wrong


def made_by(node: Node, reads: Sequence[Type], table: Mapping[str, Row] | None = None) -> list[Type]:
    """The types that a node makes; raises `Wrong` for whatever its row of the table does not allow."""
    table = OPERATORS if table is None else table
    need(node.op in table, f"unknown operator {node.op!r}; expected one of {', '.join(table)}")
    row = table[node.op]
    least, most = row.reads
    expected = str(least) if least == most else f"{least} to {most}"
    need(least <= len(reads) <= most, f"it reads {len(reads)} values; {node.op} takes {expected}")
    needed = {name for name, must in row.tensors.items() if must}
    for what, given, allowed, least_of in (
        ("attributes", node.attributes.keys(), row.attributes.keys(), row.attributes.keys()),
        ("tensors", node.tensors.keys(), row.tensors.keys(), needed),
    ):
        unknown, missing = ", ".join(sorted(given - allowed)), ", ".join(sorted(least_of - given))
        need(not unknown, f"unknown {what} {unknown}; {node.op} has {', '.join(allowed) or 'none'}")
        need(not missing, f"{what} {missing} of {node.op} are missing")
    wrong = attribute_error(node.attributes)
    need(not wrong, wrong)
    for name, tensor in node.tensors.items():
        need(tensor.dtype.kind != "f" or bool(np.isfinite(tensor).all()), f"{name} is not finite everywhere")
    need((node.body is not None) == (node.op == "Scan"), "a Scan has a body, and nothing else does")
    made = row.types(node, reads)
    need(len(made) == len(node.outputs), f"{len(node.outputs)} results are named; it makes {len(made)}")
    for kind in made:
        need(len(kind.shape) <= MAX_AXES, f"its result has {len(kind.shape)} axes; expected at most {MAX_AXES}")
        need(math.prod(kind.shape) <= MAX_VALUES, f"its result has shape {kind.shape}: more than {MAX_VALUES} values")
    return made


def _member(key: str, allowed: Mapping[str, Any], rule: Callable[[Node, Sequence[Type]], list[Type]]) -> Any:
    """A rule of types for nodes whose attribute `key` is one of a few names."""

    def types_of(node: Node, reads: Sequence[Type]) -> list[Type]:
        need(node[key] in allowed, f"{key} is {node[key]!r}; expected one of {', '.join(map(repr, allowed))}")
        return rule(node, reads)

    return types_of


def scan_rule(table: Callable[[], Mapping[str, Row]]) -> Callable[[Node, Sequence[Type]], list[Type]]:
    """The rule of Scan, whose body is checked against a table that does not exist yet when its row is written."""

    def types_of(node: Node, reads: Sequence[Type]) -> list[Type]:
        assert node.body is not None
        inner, wrong = infer(node.body, table())
        need(not wrong, f"in its body, {'; '.join(wrong)}")
        count, body = node["sequences"], node.body
        need(0 < count <= len(reads), f"{count} of its {len(reads)} values are sequences; expected at least one")
        states = reads[count:]
        steps = {given.shape[0] if given.shape else 0 for given in reads[:count]}
        need(len(steps) == 1 and 0 not in steps, f"its sequences have {sorted(steps)} steps; expected equally many")
        wanted = [(given.shape[1:], given.kind, given.exponent) for given in reads[:count]]
        wanted += [(given.shape, given.kind, given.exponent) for given in states]
        found = [(given.shape, given.kind, given.exponent) for given in (inner[node.output] for node in body.inputs)]
        need(found == wanted, f"its body reads {found}; expected {wanted}")
        made = [inner[output.inputs[0]] for output in body.outputs]
        need(len(made) >= len(states), f"its body makes {len(made)} values; expected the {len(states)} states at least")
        first = len(made) - len(states)
        after = [(given.shape, given.kind, given.exponent) for given in made[first:]]
        need(after == wanted[count:], f"its states are {after} after a step; expected {wanted[count:]}")
        stacked = [replace(g, shape=(*steps, *g.shape), layout="T" + g.layout) for g in made[:first]]
        return stacked + made[first:]

    return types_of


_NO_TENSORS: Mapping[str, bool] = {}
_WINDOW: Mapping[str, Any] = {"stride": 1, "padding": 0, "dilation": 1}
_FUSED: Mapping[str, Any] = {"activation": "none"}
_WEIGHTS: Mapping[str, bool] = {"weight": True, "bias": False}
_ANY = 1 << 10

# One line a row: this is the page on which a reader sees the whole IR.
# fmt: off
OPERATORS: Mapping[str, Operator] = {
    # name                reads      types               meaning on floats, batch first            attributes, tensors
    "Input": Operator((0, 0), shapes.input_, lambda n, x, run: [], {"shape": REQUIRED, "layout": "", "kind": "real"}),
    "Output": Operator((1, 1), _member("then", TAILS, shapes.output), lambda n, x, run: [*x], {"then": "", "axis": 0}),
    "Constant": Operator((0, 0), shapes.constant, lambda n, x, run: [n.tensors["value"][None]],
                         {"layout": ""}, {"value": True}),
    "Linear": Operator((1, 1), shapes.linear, lambda n, x, run: meaning.linear(n, x), _FUSED, _WEIGHTS),
    "Conv": Operator((1, 1), shapes.conv, lambda n, x, run: meaning.conv(n, x),
                     {**_WINDOW, "groups": 1, **_FUSED}, _WEIGHTS),
    "Accumulate": Operator((1, SEGMENTS), shapes.accumulate, lambda n, x, run: meaning.accumulate(n, x),
                           {"kinds": REQUIRED, "strides": (), "paddings": (), "dilations": (), "group_counts": (),
                            **_FUSED}, {**{f"weight{n}": False for n in range(SEGMENTS)}, "bias": False}),
    "Affine": Operator((1, 1), shapes.affine, lambda n, x, run: meaning.affine(n, x),
                       _FUSED, {"scale": True, "offset": True}),
    "Add": Operator((2, 2), shapes.elementwise, lambda n, x, run: meaning.fused(n, x[0] + x[1]), _FUSED),
    "Multiply": Operator((2, 2), shapes.elementwise, lambda n, x, run: meaning.fused(n, x[0] * x[1]), _FUSED),
    "Concat": Operator((1, _ANY), shapes.concat, lambda n, x, run: meaning.concat(n, x), {"axis": 0}),
    "MaxPool": Operator((1, 1), shapes.pool, lambda n, x, run: meaning.pool(np.max, -np.inf)(n, x),
                        {"kernel": REQUIRED, **_WINDOW}),
    "AveragePool": Operator((1, 1), shapes.pool, lambda n, x, run: meaning.pool(np.mean, 0.0)(n, x),
                            {"kernel": REQUIRED, **_WINDOW}),
    "Activation": Operator((1, 1), _member("function", FUNCTIONS, shapes.unary),
                           lambda n, x, run: [FUNCTIONS[n["function"]](x[0])], {"function": REQUIRED}),
    "Clamp": Operator((1, 1), shapes.clamp, lambda n, x, run: [np.clip(x[0], n["low"], n["high"])],
                      {"low": REQUIRED, "high": REQUIRED}),
    "FakeQuantize": Operator((1, 1), shapes.fake_quantize, lambda n, x, run: [meaning.fake_quantize(n, x[0])],
                             {"exponent": REQUIRED, "low": REQUIRED, "high": REQUIRED}),
    "Reshape": Operator((1, 1), shapes.reshape, lambda n, x, run: [x[0].reshape(len(x[0]), *n["shape"])],
                        {"shape": REQUIRED}),
    "Transpose": Operator((1, 1), shapes.transpose, lambda n, x, run: [x[0].transpose(0, *(a + 1 for a in n["order"]))],
                          {"order": REQUIRED}),
    "Slice": Operator((1, 1), shapes.slice_, lambda n, x, run: meaning.slice_(n, x),
                      {"axis": 0, "begin": 0, "end": REQUIRED, "step": 1, "drop": False}),
    "Pad": Operator((1, 1), shapes.pad, lambda n, x, run: meaning.pad(n, x), {"before": REQUIRED, "after": REQUIRED}),
    "Gather": Operator((1, 1), shapes.gather, lambda n, x, run: [meaning.rows(n, x)],
                       _NO_TENSORS, {"table": True}),
    "Scan": Operator((1, _ANY), scan_rule(lambda: OPERATORS), meaning.scan, {"sequences": 1, "reverse": False}),
}
# fmt: on
"""The operators of the IR."""
