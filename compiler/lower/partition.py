"""Which parts of an integer graph the array computes: connected pieces, each as one `Array` node with an image.

What is left over runs on the host: operators that the array does not have, and the bodies of loops, whose state would
have to leave the array at every step.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.cluster.hierarchy import DisjointSet

from compiler.graph.integer import integer_types
from compiler.graph.ir import Graph, Node, Type, unique
from compiler.lower.draft import Draft, Key, draft, folded
from compiler.lower.program import MapForm, Program
from compiler.lower.views import Views
from hw.params import Params

__all__ = ["Partition", "partition"]


@dataclass(frozen=True, eq=False)
class Partition:
    """A graph in which each part that the array computes is one node, and these parts.

    Attributes
    ----------
    graph : the integer graph with `Array` nodes; attribute `image` is the number of the program.
    programs : what each of them computes.
    """

    graph: Graph
    programs: tuple[Program, ...]


def partition(graph: Graph, params: Params, densities: Mapping[str, float] | None = None) -> Partition:
    """Cut what the array computes out of a verified integer graph.

    Nodes that are connected are one part unless a node of the host stands between them. Operators that only move
    numbers are absorbed by who reads them, and stay in the graph only where the host needs their result.

    densities : the share of numbers that are not zero, for values of which it is known.
    """
    types = integer_types(graph)
    drafts, stages = _drafts(graph, types, params)
    regions = [part for region in _regions(drafts, stages) for part in _fitting(region, params)]
    regions = [region for region in regions if any(each.weighted for each in region)]
    return _rebuilt(graph, types, regions, densities or {})


def _drafts(graph: Graph, types: Mapping[str, Type], params: Params) -> tuple[list[Draft], dict[str, int]]:
    """The layers that the array can compute, in order, and for each value how many images run before it is there."""
    uses = Counter(name for node in graph for name in node.inputs)
    made: dict[str, str] = {}  # values of the array → order of their axes
    views = Views(graph, types, made)
    found: dict[str, Draft] = {}
    stages: dict[str, int] = {}
    for node in graph:
        before = found.get(node.inputs[0]) if len(node.inputs) == 1 else None
        if before is not None and uses[before.value] == 1 and (more := folded(before, node, types, params)):
            del found[before.value], made[before.value]
            found[more.value], made[more.value] = more, more.axes
            stages[more.value] = stages[before.value]
            continue
        each = draft(node, views, types, params)
        if each is None:
            stage = max((stages[name] for name in node.inputs), default=0)
            stages.update(dict.fromkeys(node.outputs, stage))
            continue
        stages[each.value] = max(stages[name] + (name not in made) for name, _ in each.reads)
        found[each.value], made[each.value] = each, each.axes
    return list(found.values()), stages


def _regions(drafts: Sequence[Draft], stages: Mapping[str, int]) -> list[list[Draft]]:
    """Layers of one stage that are connected."""
    by_value = {each.value: each for each in drafts}
    joined = DisjointSet(by_value)
    for each in drafts:
        for name, _ in each.reads:
            if name in by_value and stages[name] == stages[each.value]:
                joined.merge(name, each.value)
    groups: dict[str, list[Draft]] = {}
    for each in drafts:
        groups.setdefault(joined[each.value], []).append(each)
    return list(groups.values())


def _fitting(region: Sequence[Draft], params: Params) -> list[list[Draft]]:
    """A region in pieces that have descriptors and codebooks enough."""
    pieces: list[list[Draft]] = [[]]
    books: set[bytes] = set()
    segments = 0
    for each in region:
        own = {segment.codebook.tobytes() for segment in each.layer.segments}
        full = segments + len(each.reads) >= params.descriptors or len(books | own) > params.codebooks
        if pieces[-1] and full:
            pieces.append([])
            books, segments = set(), 0
        pieces[-1].append(each)
        books |= own
        segments += len(each.reads)
    return pieces


def _rebuilt(
    graph: Graph, types: Mapping[str, Type], regions: Sequence[Sequence[Draft]], densities: Mapping[str, float]
) -> Partition:
    taken = {id(node) for region in regions for each in region for node in each.nodes}
    owner = {each.value: number for number, region in enumerate(regions) for each in region}
    left = [node for node in graph if id(node) not in taken]
    needed = _needed(left, regions, owner)
    places = {id(node): n for n, node in enumerate(graph)}
    items: list[tuple[int, Node]] = [
        (places[id(node)], node) for node in left if node.op in ("Input", "Output") or needed & set(node.outputs)
    ]
    programs = []
    for number, region in enumerate(regions):
        program, inputs, leaving = _program(region, types, needed, densities)
        programs.append(program)
        items.append((places[id(region[-1].nodes[-1])], _array(region, number, inputs, leaving, types)))
    nodes = _sorted(items)
    order = [node["image"] for node in nodes if node.op == "Array"]  # images in the order of their nodes
    for n, node in enumerate(nodes):
        if node.op == "Array":
            nodes[n] = node.replace(attributes={**node.attributes, "image": order.index(node["image"])})
    return Partition(Graph(tuple(nodes)), tuple(programs[n] for n in order))


def _needed(left: Sequence[Node], regions: Sequence[Sequence[Draft]], owner: Mapping[str, int]) -> set[str]:
    """Values that leave a region, or that nodes of the host make for someone."""
    wanted = {name for number, region in enumerate(regions) for each in region for name, _ in each.reads
              if owner.get(name) != number}  # fmt: skip
    for node in reversed(left):
        moves = node.op in ("Constant", "Reshape", "Transpose", "Slice", "Pad", "Concat")
        if not moves or wanted & set(node.outputs):
            wanted |= {*node.inputs, *(node.outputs if not moves and node.op != "Output" else ())}
    return wanted


def _program(
    region: Sequence[Draft], types: Mapping[str, Type], needed: set[str], densities: Mapping[str, float]
) -> tuple[Program, list[Key], list[Draft]]:
    """The program of a region, its inputs, and the layers whose results leave it."""
    own = {each.key for each in region}
    maps: list[MapForm] = []
    numbers: dict[Key, int] = {}

    def number(key: Key) -> int:
        if key not in numbers:
            value, axes = key
            sizes = dict(zip(axes, types[value].shape, strict=True))
            name = unique(value, {each.name for each in maps})
            numbers[key] = len(maps)
            exponent = types[value].exponent or 0
            form = sizes["C"], sizes.get("H", 1), sizes.get("W", 1)
            maps.append(MapForm(name, *form, exponent, densities.get(value), axes))
        return numbers[key]

    layers = []
    inputs: dict[Key, None] = {}
    for each in region:
        inputs.update(dict.fromkeys(key for key in each.reads if key not in own))
        segments = tuple(
            dataclasses.replace(segment, source=number(key))
            for segment, key in zip(each.layer.segments, each.reads, strict=True)
        )
        layers.append(dataclasses.replace(each.layer, result=number(each.key), segments=segments))
    leaving = [each for each in region if each.value in needed]
    program = Program(
        tuple(maps), tuple(layers), tuple(numbers[key] for key in inputs), tuple(numbers[each.key] for each in leaving)
    )
    return program, list(inputs), leaving


def _array(region: Sequence[Draft], number: int, inputs: Sequence[Key], leaving: Sequence[Draft],
           types: Mapping[str, Type]) -> Node:  # fmt: skip
    first, last = region[0].nodes[0], region[-1].nodes[-1]
    made = [types[each.value] for each in leaving]
    attributes = {
        "image": number,
        "reads": tuple(axes for _, axes in inputs), "makes": tuple(each.axes for each in leaving),
        "shape": tuple(size for kind in made for size in kind.shape),
        "layouts": tuple(kind.layout for kind in made),
        "exponents": tuple(kind.exponent or 0 for kind in made),
    }  # fmt: skip
    name = first.name if len(region) == 1 and len(region[0].nodes) == 1 else f"{first.name}…{last.name}"
    outputs = tuple(each.value for each in leaving)
    return Node(name, "Array", tuple(value for value, _ in inputs), attributes, outputs=outputs, source=first.source)


def _sorted(items: Sequence[tuple[int, Node]]) -> list[Node]:
    """Nodes in an order in which every value is made before it is read, otherwise by place."""
    ordered = sorted(items, key=lambda item: item[0])
    makers = {name: n for n, (_, node) in enumerate(ordered) for name in node.outputs}
    waits = [{makers[name] for name in node.inputs} for _, node in ordered]
    readers: list[list[int]] = [[] for _ in ordered]
    for n, sources in enumerate(waits):
        for source in sources:
            readers[source].append(n)
    ready = [n for n, sources in enumerate(waits) if not sources]
    heapq.heapify(ready)
    done = []
    while ready:
        n = heapq.heappop(ready)
        done.append(ordered[n][1])
        for reader in readers[n]:
            waits[reader].discard(n)
            if not waits[reader]:
                heapq.heappush(ready, reader)
    assert len(done) == len(ordered)
    return done
