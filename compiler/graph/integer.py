"""The operators of an integer graph: one table, as `compiler.graph.operators` has one for floats.

A value is int16 at the power of two that its `Type` states: value = raw · 2**exponent. What each operator computes is
docs/numerics.md, section 7, and nothing here: `sim.golden` is written from that page.

Attributes of one name mean the same everywhere, those of a float graph what they mean there. `exponent` is that of the
result; operators that only move or compare numbers have none, and keep that of what they read. `shift` is the right
shift of the write-back, `activation` what comes before it. `exact` says that weights and biases were not rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ModelError
from compiler.graph import shapes
from compiler.graph.functions import TAILS
from compiler.graph.ir import Graph, Node, Type
from compiler.graph.operators import REQUIRED, infer, scan_rule
from compiler.graph.segments import SEGMENTS
from compiler.graph.shapes import need

__all__ = [
    "ARRAY_AXES",
    "HIGH",
    "INTEGER",
    "LOW",
    "MAX_SHIFT",
    "TABLE_SIZE",
    "IntegerOperator",
    "everywhere",
    "integer_types",
    "verify_integer",
]

Rule = Callable[[Node, Sequence[Type]], list[Type]]

HIGH, LOW = (1 << 15) - 1, -(1 << 15)
"""Ends of int16."""

MAX_SHIFT = 31
"""Largest shift: it has five bits."""

ARRAY_AXES = ("C", "CW", "WC", "CHW", "HWC")
"""Orders of axes of a value that the array can read or make: channels first or last, then rows and columns."""

TABLE_SIZE = 513
"""Entries of a function's table: both ends of 512 straight pieces."""


@dataclass(frozen=True)
class IntegerOperator:
    """One row of the table; the fields are those of `compiler.graph.operators.Operator`."""

    reads: tuple[int, int]
    types: Rule
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, bool] = field(default_factory=dict)


def verify_integer(graph: Graph, acc_bits: int) -> None:
    """Check everything that must hold in an integer graph for an array with accumulators of `acc_bits`.

    The overflow proof is not asked for: graphs that were not made by the compiler need not satisfy it.

    Raises
    ------
    ModelError
        Listing every violation: what `compiler.graph.operators.verify` checks, exponents that do not fit each other,
        a number outside its format.
    """
    _, wrong = infer(graph, INTEGER)
    wrong += [f"{node.name}: {problem}" for node in everywhere(graph) for problem in _too_wide(node, acc_bits)]
    if wrong:
        raise ModelError("; ".join(wrong))


def integer_types(graph: Graph) -> dict[str, Type]:
    """The type of every value of an integer graph, exponents included; raises `ModelError` for one that has none."""
    found, wrong = infer(graph, INTEGER)
    if wrong:
        raise ModelError("; ".join(wrong))
    return found


def everywhere(graph: Graph) -> list[Node]:
    """The nodes of a graph and of the bodies in it."""
    return [n for node in graph for n in (node, *(everywhere(node.body) if node.body is not None else ()))]


def _too_wide(node: Node, acc_bits: int) -> list[str]:
    limit = 1 << (acc_bits - 1)
    given = [(name, node.tensors.get(name)) for name in ("bias", "offset")]
    return [
        f"{name} does not fit {acc_bits} bits"
        for name, tensor in given
        if tensor is not None and tensor.size and not -limit <= int(tensor.min()) <= int(tensor.max()) < limit
    ]


def _number(node: Node, name: str, low: int, high: int) -> None:
    value = node[name]
    need(type(value) is int and low <= value <= high, f"{name} is {value!r}; expected an integer {low} to {high}")


def _tensor(node: Node, name: str, dtype: type, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    tensor = node.tensors[name]
    good = tensor.dtype == dtype and (shape is None or tensor.shape == shape)
    need(good, f"{name} is {tensor.dtype} {tensor.shape}; expected {np.dtype(dtype)} {'' if shape is None else shape}")
    return tensor


def _stated(rule: Rule) -> Rule:
    """The types of a rule, at the exponent that the node states."""

    def types_of(node: Node, reads: Sequence[Type]) -> list[Type]:
        _number(node, "exponent", -1 << 20, 1 << 20)
        return [replace(made, exponent=node["exponent"]) for made in rule(node, reads)]

    return types_of


def _kept(rule: Rule) -> Rule:
    """The types of a rule, at the one exponent of all that is read."""

    def types_of(node: Node, reads: Sequence[Type]) -> list[Type]:
        made, exponents = rule(node, reads), [given.exponent for given in reads]
        need(len(set(exponents)) == 1, f"it reads values at exponents {exponents}; expected equal ones")
        return [replace(kind, exponent=exponents[0]) for kind in made]

    return types_of


def _adds_up(node: Node, *parts: int | None) -> None:
    """The exponent of the result is that of the exact numbers plus the shift."""
    _number(node, "shift", 0, MAX_SHIFT)
    total = sum(part for part in parts if part is not None) + node["shift"]
    need(node["exponent"] == total, f"exponent is {node['exponent']}; what it reads and its shift make {total}")


def _weights(node: Node, codes_dimensions: int, segment: str = "") -> tuple[int, ...]:
    codes, codebook = _tensor(node, f"codes{segment}", np.uint8), _tensor(node, f"codebook{segment}", np.int16)
    size = len(codebook) if codebook.ndim == 1 else 0
    need(size in (4, 8, 16, 32, 64, 128, 256), f"codebook is {codebook.shape}; expected a power of two from 4 to 256")
    need(not codebook[0], f"code 0 is {codebook[0]}; expected 0")
    good = codes.ndim == codes_dimensions and 0 not in codes.shape
    need(good, f"codes are {codes.shape}; expected {codes_dimensions} axes, none empty")
    need(int(codes.max()) < size, f"code {int(codes.max())}; expected less than {size}")
    _tensor(node, "bias", np.int64, codes.shape[:1])
    return codes.shape


def _input(node: Node, reads: Sequence[Type]) -> list[Type]:
    (made,) = shapes.input_(node, reads)
    _number(node, "exponent", -1 << 20, 1 << 20)
    return [made if made.kind == "index" else replace(made, exponent=node["exponent"])]


def _output(node: Node, reads: Sequence[Type]) -> list[Type]:
    need(node["then"] in TAILS, f"then is {node['then']!r}; expected one of {', '.join(map(repr, TAILS))}")
    return shapes.output(node, reads)


def _constant(node: Node, reads: Sequence[Type]) -> list[Type]:
    _tensor(node, "value", np.int16)
    return shapes.constant(node, reads)


def _linear(node: Node, reads: Sequence[Type]) -> list[Type]:
    made = shapes.last_axis(node, reads, _weights(node, 2))
    _adds_up(node, reads[0].exponent, node["weight_exponent"])
    return made


def _conv(node: Node, reads: Sequence[Type]) -> list[Type]:
    shape = _weights(node, len(reads[0].shape) + 1)
    made, shift = shapes.filtered(node, reads, shape), _shifts(node, shape[0])
    total = (reads[0].exponent or 0) + node["weight_exponent"] + int(shift.max())
    need(node["exponent"] == total, f"exponent is {node['exponent']}; input, weights and largest shift make {total}")
    return made


def _shifts(node: Node, rows: int) -> NDArray[Any]:
    """A shift for each channel or output."""
    shift = _tensor(node, "shift", np.int64, (rows,))
    need(0 <= int(shift.min()) <= int(shift.max()) <= MAX_SHIFT, f"shifts are {shift}; expected 0 to {MAX_SHIFT}")
    return shift


def _accumulate(node: Node, reads: Sequence[Type]) -> list[Type]:
    count, linear = len(reads), "conv" not in node["kinds"]
    for name in ("weights", "weight_exponents"):
        need(len(node[name]) == count, f"{name} are {node[name]}; expected {count}, one for each segment")
    found: list[tuple[int, ...] | None] = []
    for n, weight in enumerate(node["weights"]):
        there = [name for name in (f"codes{n}", f"codebook{n}") if name in node.tensors]
        need(len(there) != 1, f"it has {there} of segment {n}; expected codes and codebook, or none of them")
        found.append(_weights(node, 2 if linear else len(reads[n].shape) + 1, str(n)) if there else None)
        need(LOW <= weight <= HIGH and not (there and weight), f"weight {n} is {weight}; expected int16, 0 with codes")
    (made,) = shapes.summed(node, reads, found)
    rows = made.shape[-1 if linear else 0]
    _tensor(node, "bias", np.int64, (rows,))
    shift = int(_shifts(node, rows).max())
    totals = [(x.exponent or 0) + own + shift for x, own in zip(reads, node["weight_exponents"], strict=True)]
    need(set(totals) == {node["exponent"]}, f"exponent is {node['exponent']}; its segments and shift make {totals}")
    return [made]


def _affine(node: Node, reads: Sequence[Type]) -> list[Type]:
    _tensor(node, "scale", np.int16)
    _tensor(node, "offset", np.int64)
    _number(node, "shift", 0, MAX_SHIFT)
    return shapes.affine(node, reads)


def _add(node: Node, reads: Sequence[Type]) -> list[Type]:
    made = _kept(shapes.elementwise)(node, reads)
    _adds_up(node, reads[0].exponent)
    return made


def _multiply(node: Node, reads: Sequence[Type]) -> list[Type]:
    made = shapes.elementwise(node, reads)
    _adds_up(node, *(given.exponent for given in reads))
    return made


def _shift(node: Node, reads: Sequence[Type]) -> list[Type]:
    made = _scaled(node, reads)
    total = (reads[0].exponent or 0) - node["left"] + node["right"]
    need(node["exponent"] == total, f"exponent is {node['exponent']}; what it reads and its shifts make {total}")
    return made


def _scaled(node: Node, reads: Sequence[Type]) -> list[Type]:
    _number(node, "left", 0, MAX_SHIFT)
    _number(node, "right", 0, MAX_SHIFT)
    return shapes.unary(node, reads)


def _table(node: Node, reads: Sequence[Type]) -> list[Type]:
    _tensor(node, "table", np.int16, (TABLE_SIZE,))
    return _scaled(node, reads)


def _average(node: Node, reads: Sequence[Type]) -> list[Type]:
    _number(node, "weight", LOW, HIGH)
    _number(node, "shift", 0, MAX_SHIFT)
    return shapes.pool(node, reads)


def _clamp(node: Node, reads: Sequence[Type]) -> list[Type]:
    _number(node, "low", LOW, HIGH)
    _number(node, "high", LOW, HIGH)
    return shapes.clamp(node, reads)


def _gather(node: Node, reads: Sequence[Type]) -> list[Type]:
    table = _tensor(node, "table", np.int16)
    need(table.ndim == 2 and 0 not in table.shape, f"table is {table.shape}; expected (rows, features)")
    return shapes.looked_up(reads, table.shape)


def _indices(node: Node, reads: Sequence[Type]) -> list[Type]:
    _number(node, "rows", 1, HIGH + 1)
    need(reads[0].kind == "index", "it reads quantities; expected indices")
    return [Type((*reads[0].shape, 1), exponent=0)]


def _array(node: Node, reads: Sequence[Type]) -> list[Type]:
    need(len(node["reads"]) == len(reads), f"reads are {node['reads']}; expected the axes of {len(reads)} values")
    for given, axes in zip(reads, node["reads"], strict=True):
        good = given.kind == "real" and axes in ARRAY_AXES and len(axes) == len(given.shape)
        need(good, f"it reads {given} as {axes!r}; expected one of {', '.join(ARRAY_AXES)}")
    count, sizes = len(node.outputs), list(node["shape"])
    for name in ("makes", "layouts", "exponents"):
        need(len(node[name]) == count, f"{name} are {node[name]}; expected {count}, one for each result")
    need(len(sizes) == sum(map(len, node["makes"])), f"shape is {node['shape']}; the axes are {node['makes']}")
    need(all(0 < size < 1 << 24 for size in sizes), f"shape is {node['shape']}; expected sizes of 1 to 16777215")
    made = []
    for axes, layout, exponent in zip(node["makes"], node["layouts"], node["exponents"], strict=True):
        need(axes in ARRAY_AXES, f"a result has axes {axes!r}; expected one of {', '.join(ARRAY_AXES)}")
        need(len(layout) == len(axes), f"layout {layout!r} is not one of {len(axes)} axes")
        need(abs(exponent) <= 1 << 20, f"exponent is {exponent}; expected {-1 << 20} to {1 << 20}")
        made.append(Type(tuple(sizes[: len(axes)]), layout, exponent=exponent))
        del sizes[: len(axes)]
    return made


_WINDOW = {"stride": REQUIRED, "padding": REQUIRED, "dilation": REQUIRED}
_BACK = {"shift": REQUIRED, "exponent": REQUIRED, "activation": "none"}
_WEIGHTS = {"codes": True, "codebook": True, "bias": True}
_MOVE: Mapping[str, Any] = {"left": 0, "right": 0, "exponent": REQUIRED}
_ANY = 1 << 10

# fmt: off
INTEGER: Mapping[str, IntegerOperator] = {
    # name                         reads      types                         attributes
    "Input": IntegerOperator((0, 0), _input, {"shape": REQUIRED, "layout": "", "kind": "real", "exponent": 0}),
    "Output": IntegerOperator((1, 1), _output, {"then": "", "axis": 0}),
    "Constant": IntegerOperator((0, 0), _stated(_constant), {"layout": "", "exponent": REQUIRED}, {"value": True}),
    "Linear": IntegerOperator((1, 1), _stated(_linear),
                              {**_BACK, "weight_exponent": REQUIRED, "exact": False}, _WEIGHTS),
    "Conv": IntegerOperator((1, 1), _stated(_conv),
                            {**_WINDOW, "groups": 1, "exponent": REQUIRED, "activation": "none",
                             "weight_exponent": REQUIRED, "exact": False}, {**_WEIGHTS, "shift": True}),
    "Accumulate": IntegerOperator((1, SEGMENTS), _stated(_accumulate),
                                  {"kinds": REQUIRED, "strides": (), "paddings": (), "dilations": (),
                                   "group_counts": (), "weights": REQUIRED, "weight_exponents": REQUIRED,
                                   "exponent": REQUIRED, "activation": "none", "exact": False},
                                  {**{f"{name}{n}": False for name in ("codes", "codebook") for n in range(SEGMENTS)},
                                   "bias": True, "shift": True}),
    "Affine": IntegerOperator((1, 1), _stated(_affine), {**_BACK, "exact": False}, {"scale": True, "offset": True}),
    "Add": IntegerOperator((2, 2), _stated(_add), _BACK),
    "Multiply": IntegerOperator((2, 2), _stated(_multiply), _BACK),
    "Shift": IntegerOperator((1, 1), _stated(_shift), _MOVE),
    "Concat": IntegerOperator((1, _ANY), _kept(shapes.concat), {"axis": 0}),
    "MaxPool": IntegerOperator((1, 1), _kept(shapes.pool), {"kernel": REQUIRED, **_WINDOW}),
    "AveragePool": IntegerOperator((1, 1), _stated(_average),
                                   {"kernel": REQUIRED, **_WINDOW, "weight": REQUIRED, "shift": REQUIRED,
                                    "exponent": REQUIRED}),
    "Table": IntegerOperator((1, 1), _stated(_table), _MOVE, {"table": True}),
    "Clamp": IntegerOperator((1, 1), _kept(_clamp), {"low": REQUIRED, "high": REQUIRED}),
    "Reshape": IntegerOperator((1, 1), _kept(shapes.reshape), {"shape": REQUIRED}),
    "Transpose": IntegerOperator((1, 1), _kept(shapes.transpose), {"order": REQUIRED}),
    "Slice": IntegerOperator((1, 1), _kept(shapes.slice_),
                             {"axis": 0, "begin": 0, "end": REQUIRED, "step": 1, "drop": False}),
    "Pad": IntegerOperator((1, 1), _kept(shapes.pad), {"before": REQUIRED, "after": REQUIRED}),
    "Gather": IntegerOperator((1, 1), _stated(_gather), {"exponent": REQUIRED}, {"table": True}),
    # What of a Gather is left to the host if the array looks up the rows: indices below `rows`, as numbers.
    "Indices": IntegerOperator((1, 1), _indices, {"rows": REQUIRED}),
    "Scan": IntegerOperator((1, _ANY), scan_rule(lambda: INTEGER), {"sequences": 1, "reverse": False}),
    # What the array computes, in an image of its own: `reads` and `makes` say which axis of each value is channels,
    # rows and columns of its map, `shape` has the sizes of all results one behind the other.
    "Array": IntegerOperator((1, _ANY), _array,
                             {"image": REQUIRED, "reads": REQUIRED, "makes": REQUIRED, "shape": REQUIRED,
                              "layouts": REQUIRED, "exponents": REQUIRED}),
}
# fmt: on
"""The operators of an integer graph."""
