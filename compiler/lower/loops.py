"""A Scan as a loop of the array's program: what its body is in layers and operations, and where its states lie.

A state whose steps are a result of the Scan lies in the pixels of that sequence: the initial state in a pixel of its
own in front of the first step (behind the last one, if the steps run backwards), so that step t reads the pixel before
the one that it writes. Other states stay in place, if the operation that makes the new one is the last to read the old
one; where it is not, they have a sequence as well.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compiler.graph.integer import integer_types
from compiler.graph.ir import Graph, Node, Type, unique
from compiler.lower.draft import Draft, draft, folded
from compiler.lower.draft_segments import Key
from compiler.lower.elementwise import Elementwise, elementwise, function_of, renamed
from compiler.lower.views import Views
from hw.params import FUNCTIONS, Params

__all__ = ["Looped", "State", "looped", "placed"]

_MOVES = ("Input", "Output", "Slice", "Concat", "Reshape", "Transpose")


@dataclass(frozen=True)
class State:
    """What a loop carries: value `old` of the body begins as `initial` and becomes `new`, which ends as `final`.

    ``steps``: the value with all steps that it lies in; "" if it stays in place.
    """

    old: str
    initial: str
    new: str
    final: str
    steps: str


@dataclass(frozen=True, eq=False)
class Looped:
    """A Scan as a loop.

    Attributes
    ----------
    node : the Scan. types : of the values of the body. body : in order; names of values are "scan/value".
    sequences : value of the body → what it is a step of. states : what is carried.
    stacked : value of the body → the value whose steps it makes.
    count, reverse : of the loop.
    reads : where each sequence is read, once that is known (`placed`).
    """

    node: Node
    types: Mapping[str, Type]
    body: tuple[Draft | Elementwise, ...]
    sequences: Mapping[str, str]
    states: tuple[State, ...]
    stacked: Mapping[str, str]
    count: int
    reverse: bool
    parts: Mapping[str, tuple[Key, ...]] = dataclasses.field(default_factory=dict)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The Scan."""
        return (self.node,)

    @property
    def weighted(self) -> bool:
        """Whether it has trained weights."""
        return any(each.weighted for each in self.body)

    @property
    def made(self) -> tuple[Key, ...]:
        """The values that it makes."""
        inside = tuple((state.final, "C") for state in self.states if not state.steps)
        return (*((value, "WC") for value in dict.fromkeys(self.stacked.values())), *inside)

    @property
    def reads(self) -> tuple[Key, ...]:
        """The sequences that it reads, and the initial states."""
        return (*(key for keys in self.parts.values() for key in keys), *((each.initial, "C") for each in self.states))

    def outside(self) -> list[Node]:
        """The Scan, and last states out of the steps of their sequences."""
        results = {state.final: f"{state.final}.end" for state in self.states if state.steps}
        scan = self.node.replace(outputs=tuple(results.get(name, name) for name in self.node.outputs))
        last = 0 if self.reverse else self.count - 1
        ends = [
            Node(
                f"{state.final}.last", "Slice", (state.steps,),
                {"axis": 0, "begin": last, "end": last + 1, "step": 1, "drop": True}, outputs=(state.final,),
                source=self.node.source,
            )
            for state in self.states if state.steps
        ]  # fmt: skip
        return [scan, *ends]


def looped(node: Node, types: Mapping[str, Type], params: Params) -> Looped | None:
    """The loop of a Scan; None if the array cannot run it."""
    assert node.body is not None
    body = _prefixed(node.body, f"{node.name}/")
    inner = dict(integer_types(body))
    inputs = [each.output for each in body.inputs]
    if any(inner[name].kind != "real" or len(inner[name].shape) != 1 for name in inputs):
        return None
    body = _with_functions(body, inner, params)
    count = node["sequences"]
    ends = [each.inputs[0] for each in body if each.op == "Output"]
    results, new = ends[: len(ends) - len(inputs) + count], ends[len(ends) - len(inputs) + count :]
    steps = _body(body, inner, ends, params)
    if steps is None:
        return None
    makers = {each.value: place for place, each in enumerate(steps)}
    if len(set(results)) < len(results) or len(set(new)) < len(new) or not {*results, *new} <= set(makers):
        return None
    stacked = dict(zip(results, node.outputs, strict=False))
    finals = node.outputs[len(results) :]
    states = []
    for old, initial, value, final in zip(inputs[count:], node.inputs[count:], new, finals, strict=True):
        if value not in stacked and not _in_place(steps, old, makers[value]):
            stacked[value] = f"{final}.steps"
        states.append(State(old, initial, value, final, stacked.get(value, "")))
    shape = types[node.inputs[0]].shape
    return Looped(
        node, inner, tuple(steps), dict(zip(inputs[:count], node.inputs[:count], strict=True)), tuple(states), stacked,
        shape[0], node["reverse"],
    )  # fmt: skip


def placed(loop: Looped, views: Views) -> Looped:
    """The loop with what it reads of its sequences: parts that lie side by side in the array, or each as it is."""
    parts = {}
    for value, name in loop.sequences.items():
        found = views.view(name, "WC")
        keys = [(name, "WC")]
        if found is not None and not found.flat and all(
            part.offset == (0, 0) and np.array_equal(part.channels, np.arange(views.shape(part.value)[1]))
            and views.shape(part.value)[0] == loop.count and part.axes == "WC" for part in found.parts
        ):  # fmt: skip
            keys = [(part.value, part.axes) for part in found.parts]
        if len(keys) > 1 and any(key[0] == value for each in loop.body if isinstance(each, Elementwise)
                                 for key in each.reads):  # fmt: skip
            keys = [(name, "WC")]
        parts[value] = tuple(keys)
    return dataclasses.replace(loop, parts=parts)


def _in_place(steps: Sequence[Draft | Elementwise], old: str, maker: int) -> bool:
    """Whether a new state may be written over the old one: by an operation, when nobody reads it any more."""
    if not isinstance(steps[maker], Elementwise):
        return False
    return all(key[0] != old for each in steps[maker + 1 :] for key in each.reads)


def _prefixed(body: Graph, prefix: str) -> Graph:
    return Graph(tuple(
        each.replace(
            name=prefix + each.name, inputs=tuple(prefix + name for name in each.inputs),
            outputs=tuple(prefix + name for name in each.outputs),
        )
        for each in body
    ))  # fmt: skip


def _body(
    body: Graph, types: Mapping[str, Type], ends: Sequence[str], params: Params
) -> list[Draft | Elementwise] | None:
    """Layers and operations of a body in order; None if there is a node that the array does not have.

    ends : what a step makes, for a sequence or as a state: like what it is given, it is not in parts.
    """
    made = {each.output: "C" for each in body.inputs}
    views = Views(body, types, made)
    uses = Counter(name for node in body for name in node.inputs)
    found: dict[str, Draft | Elementwise] = {}
    units = {name: types[name].shape[0] for name in (*(each.output for each in body.inputs), *ends)}
    for node in body:
        if node.op in _MOVES:
            continue
        before = found.get(node.inputs[0]) if len(node.inputs) == 1 else None
        if before is not None and uses[before.value] == 1:
            more = (
                folded(before, node, types, params) if isinstance(before, Draft) else before.folded(node, params)
            )  # fmt: skip
            if more is not None:
                del found[before.value], made[before.value]
                renamed(units, before.value, more.value)
                found[more.value], made[more.value] = more, "C"
                continue
        if any(len(types[name].shape) != 1 for name in (*node.inputs, *node.outputs)):
            return None
        operation = elementwise(node, views, types, "C", params)
        fits = operation is not None and operation.fits(units, types)
        each: Draft | Elementwise | None = operation if fits else draft(node, views, types, params)
        if each is None or each.axes != "C":
            return None
        found[each.value], made[each.value] = each, "C"
    return list(found.values())


def _with_functions(body: Graph, types: dict[str, Type], params: Params) -> Graph:
    """Tables of parts of a layer's result, which nobody else reads, become functions of the layer.

    The layer's attribute `functions` then holds (begin, end, function) for each Table, and what that made is this part
    of its result, which has a name of its own: it is not what the layer made before.
    """
    readers: dict[str, list[Node]] = {}
    for node in body:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    nodes = {node.name: node for node in body}
    for layer in body:
        if layer.op not in ("Linear", "Accumulate") or not params.tables:
            continue
        size = len(layer.tensors["bias"])
        made = unique(f"{layer.output}.functions", types)
        parts = []  # (channels that are read, the Slice, the only reader of these if it is a Table)
        for reader in readers.get(layer.output, []):
            plain = reader.op == "Slice" and not reader["drop"] and reader["step"] == 1
            behind = readers.get(reader.output, []) if plain else []
            table = behind[0] if len(behind) == 1 and behind[0].op == "Table" else None
            parts.append(((reader["begin"], reader["end"]) if plain else (0, size), reader, table))
        taken: list[tuple[int, int, Node]] = []
        functions: list[object] = []
        for (begin, end), reader, table in parts:
            alone = all(last <= begin or end <= first for (first, last), other, _ in parts if other is not reader)
            if table is None or not alone:
                continue
            function = function_of(table)
            if function not in functions:
                if len(functions) == FUNCTIONS:
                    continue
                functions.append(function)
            taken.append((begin, end, table))
            nodes[table.name] = table.replace(
                op="Slice", inputs=(made,), tensors={},
                attributes={"axis": 0, "begin": begin, "end": end, "step": 1, "drop": False},
            )  # fmt: skip
        if taken:
            types[made] = types[layer.output]
            nodes[layer.name] = layer.replace(outputs=(made,), attributes={
                **layer.attributes, "functions": tuple((b, e, function_of(table)) for b, e, table in taken),
            })  # fmt: skip
            for reader in readers[layer.output]:
                node = nodes[reader.name]
                inputs = tuple(made if name == layer.output else name for name in node.inputs)
                nodes[reader.name] = node.replace(inputs=inputs)
    return Graph(tuple(nodes[node.name] for node in body))
