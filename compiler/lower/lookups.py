"""Rows of tables that the array looks up: a Gather as two layers, which compute the same numbers.

The host sends indices as they are, one number each. Row v of the first layer is ``index - v``, and a function that is 1
at 0 and 0 elsewhere makes of it the vector that has a one at the index. The second layer reads this vector; a number
of the table is the sum of its digits, of as many bits as codes have, a segment each with a codebook of its own. So all
16 bits of a number are there, and nothing is rounded. A table of few different numbers needs one segment.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph.integer import TABLE_SIZE, integer_types
from compiler.graph.ir import Graph, Node, unique
from compiler.graph.segments import SEGMENTS
from hw.params import LANES, Params

__all__ = ["Lookup", "lookups", "with_lookups"]

_SHARE = 4
"""A table takes at most one of so many parts of each memory: others need them, and each vector is a cycle."""

_BITS = 16

Digits = list[tuple[NDArray[np.uint8], NDArray[np.int16]]]
"""Codes (features, rows) and codebook of each segment."""


@dataclass(frozen=True, eq=False)
class Lookup:
    """A Gather as other nodes.

    Attributes
    ----------
    gather : the node. index : on the host, indices as numbers. layers : on the array; the last makes the rows.
    """

    gather: Node
    index: Node
    layers: tuple[Node, ...]


def lookups(graph: Graph, params: Params) -> list[Lookup]:
    """The Gathers that an array can compute: it has functions, and the memories are large beside the table."""
    if not params.tables:
        return []
    types = integer_types(graph)
    taken = {name for node in graph for name in (node.name, *node.outputs)}
    found = []
    for node in graph:
        if node.op != "Gather" or len(types[node.output].shape) > 3:
            continue
        pixels = int(np.prod(types[node.inputs[0]].shape, dtype=np.int64))
        digits = _digits(node.tensors["table"], params.code_bits)
        if digits is not None and _roomy(node.tensors["table"], digits, pixels, params):
            found.append(_lookup(node, digits, taken))
    return found


def with_lookups(graph: Graph, chosen: Collection[Lookup]) -> Graph:
    """The graph in which these take the place of their Gathers."""
    instead = {id(each.gather): (each.index, *each.layers) for each in chosen}
    return Graph(tuple(node for given in graph for node in instead.get(id(given), (given,))))


def _digits(table: NDArray[np.int16], bits: int) -> Digits | None:
    """Codes (features, rows) and codebook of each segment; None if it takes more than a sum has."""
    size = 1 << bits
    values = table.T
    distinct = np.unique(values[values != 0])
    if len(distinct) < size:
        book = np.zeros(size, np.int16)
        book[1 : len(distinct) + 1] = distinct
        return [(np.where(values != 0, np.searchsorted(distinct, values) + 1, 0).astype(np.uint8), book)]
    if -(-_BITS // bits) > SEGMENTS:
        return None
    found = []
    for low in range(0, _BITS, bits):
        width = min(bits, _BITS - low)
        code = values.astype(np.int64) >> low & ((1 << width) - 1)
        digit = np.arange(1 << width)
        if low + width == _BITS:  # the highest one has the sign
            digit -= (digit >> (width - 1)) << width
        book = np.zeros(size, np.int16)
        book[: len(digit)] = digit << low
        found.append((code.astype(np.uint8), book))
    return found


def _roomy(table: NDArray[np.int16], digits: Digits, pixels: int, params: Params) -> bool:
    rows, features = table.shape
    entries = rows + sum(int(np.count_nonzero(codes)) for codes, _ in digits)
    needs = {
        "weight_words": -(-entries // (LANES * params.pes)),
        "pointer_blocks": 1 + len(digits) * params.act_vectors(rows),
        "act_lines": pixels * (1 + params.lines(rows) + params.lines(features)),
        "output_words": -(-(rows + features) // params.groups), "codebooks": 1 + len(digits),
        "descriptors": 1 + len(digits),
    }  # fmt: skip
    return rows <= 1 << (_BITS - 1) and all(_SHARE * need <= getattr(params, name) for name, need in needs.items())


def _lookup(node: Node, digits: Digits, taken: set[str]) -> Lookup:
    rows = len(node.tensors["table"])
    names = []
    for end in ("index", "row", "one"):
        names.append(unique(f"{node.output}.{end}", taken))
        taken.add(names[-1])
    index = Node(names[0], "Indices", node.inputs, {"rows": rows}, source=node.source)
    plain: dict[str, object] = {"activation": "none", "exact": True}
    book = np.zeros(4, np.int16)
    book[1] = 1
    difference = Node(
        names[1], "Linear", (names[0],), {"shift": 0, "exponent": 0, "weight_exponent": 0, **plain},
        {"codes": np.ones((rows, 1), np.uint8), "codebook": book, "bias": -np.arange(rows)}, source=node.source,
    )  # fmt: skip
    peak = np.zeros(TABLE_SIZE, np.int16)
    peak[TABLE_SIZE // 2] = 1
    # A step of the index is a whole piece of the table: no number lies between 1 and 0.
    one = Node(names[2], "Table", (names[1],), {"left": 7, "right": 0, "exponent": 0}, {"table": peak})
    count, features = len(digits), node.tensors["table"].shape[1]
    tensors: dict[str, NDArray[Any]] = {}
    for n, (codes, codebook) in enumerate(digits):
        tensors |= {f"codes{n}": codes, f"codebook{n}": codebook}
    row = Node(
        node.name, "Accumulate", (names[2],) * count,
        {"kinds": ("linear",) * count, "strides": (), "paddings": (), "dilations": (), "group_counts": (),
         "weights": (0,) * count, "weight_exponents": (node["exponent"],) * count, "exponent": node["exponent"],
         **plain},
        {**tensors, "bias": np.zeros(features, np.int64), "shift": np.zeros(features, np.int64)},
        outputs=node.outputs, source=node.source,
    )  # fmt: skip
    return Lookup(node, index, (difference, one, row))
