"""Which parts of an integer graph the array computes: connected pieces, each as one `Array` node with an image.

What is left over runs on the host: operators that the array does not have, and loops with one of them in their body,
whose state would have to leave the array at every step.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.cluster.hierarchy import DisjointSet

from compiler.graph.integer import integer_types
from compiler.graph.ir import Graph, Node, Type
from compiler.lower.activity import Density
from compiler.lower.assemble import AnyDraft, assemble
from compiler.lower.draft import Draft, draft, folded
from compiler.lower.draft_segments import Key
from compiler.lower.elementwise import Elementwise, renamed
from compiler.lower.lookups import Lookup, lookups, with_lookups
from compiler.lower.loops import Looped, looped, placed
from compiler.lower.operations import Operations
from compiler.lower.program import Program
from compiler.lower.views import Views
from hw.params import LANES, Params

__all__ = ["Partition", "partition"]

_FILLED = 0.8
"""Share of the weight memory that nonzeros of loops may take: there are padding entries, and PEs differ."""


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


def partition(
    graph: Graph, params: Params, densities: Mapping[str, Density] | None = None, *, tables: bool = True
) -> Partition:
    """Cut what the array computes out of a verified integer graph.

    Nodes that are connected are one part unless a node of the host stands between them. Operators that only move
    numbers are absorbed by who reads them, and stay in the graph only where the host needs their result.

    densities : how often numbers are not zero, for values of which it is known.
    tables : the array may look up rows of tables, where it computes with them.
    """
    chosen = lookups(graph, params) if tables else []
    while True:
        whole = with_lookups(graph, chosen)
        types = integer_types(whole)
        whole, loops, types = _with_loops(whole, types, params)
        drafts, stages = _drafts(whole, loops, types, params)
        regions = [part for region in _regions(drafts, stages) for part in _fitting(region, params)]
        regions = [region for region in regions if _worthwhile(region, chosen)]
        useful = [each for each in chosen if _together(each, regions)]
        if len(useful) == len(chosen):
            return _rebuilt(whole, types, regions, params, densities or {})
        chosen = useful  # the host looks up the others; what was with them may be cut otherwise now


def _worthwhile(region: Sequence[AnyDraft], chosen: Sequence[Lookup]) -> bool:
    """Whether a part has trained weights other than those of tables: only then it is worth the way to the array."""
    looked_up = {id(node) for each in chosen for node in each.layers}
    return any(each.weighted and id(each.nodes[0]) not in looked_up for each in region)


def _together(lookup: Lookup, regions: Sequence[Sequence[AnyDraft]]) -> bool:
    """Whether one part has all layers of a lookup."""
    wanted = {id(node) for node in lookup.layers}
    return any(wanted <= {id(node) for each in region for node in each.nodes} for region in regions)


def _with_loops(
    graph: Graph, types: Mapping[str, Type], params: Params
) -> tuple[Graph, dict[str, Looped], dict[str, Type]]:
    """The graph in which last states are steps of their sequences, the Scans that are loops by name, and all types."""
    nodes: list[Node] = []
    loops: dict[str, Looped] = {}
    known = dict(types)
    for node in graph:
        loop = looped(node, types, params) if node.op == "Scan" else None
        if loop is None or not _roomy(loop, params):
            nodes.append(node)
            continue
        scan, *ends = loop.outside()
        nodes += [scan, *ends]
        loops[node.name] = dataclasses.replace(loop, node=scan)
        for state in loop.states:
            kind = loop.types[state.new]
            if state.steps:
                known[state.steps] = dataclasses.replace(kind, shape=(loop.count, *kind.shape))
                known[f"{state.final}.end"] = kind
    return Graph(tuple(nodes)), loops, known


def _roomy(loop: Looped, params: Params) -> bool:
    """Whether a loop by itself fits the array, by estimate: nothing of it is streamed."""
    codebooks, descriptors, tables, weights = _sizes(loop)
    rows = [*loop.sequences, *loop.stacked]
    pitch = max(params.lines(loop.types[name].shape[0]) for name in rows)
    inside = sum(params.lines(loop.types[name].shape[0]) for each in loop.body for name, _ in each.made)
    return (
        len(codebooks) <= params.codebooks and descriptors < params.descriptors and len(tables) <= params.tables
        and weights <= params.pes * params.weight_words * LANES * _FILLED
        and len(rows) * (loop.count + 1) * pitch + inside <= params.act_lines
    )  # fmt: skip


def _sizes(each: AnyDraft) -> tuple[set[bytes], int, set[tuple[int, ...]], int]:
    """Codebooks, descriptors and function tables of a layer, an operation or a loop; of a loop its nonzeros as well."""
    if isinstance(each, Looped):
        parts = [_sizes(step) for step in each.body]
        weights = sum(int(step.layer.work.sum()) for step in each.body if isinstance(step, Draft))
        return (
            set().union(*(books for books, _, _, _ in parts)), 1 + sum(count for _, count, _, _ in parts),
            set().union(*(tables for _, _, tables, _ in parts)), weights,
        )  # fmt: skip
    if isinstance(each, Elementwise):
        function = each.fields.get("function")
        return set(), 1, set() if function is None else {function.table}, 0
    books = {segment.codebook.tobytes() for segment in each.layer.segments}
    return books, len(each.reads), {function.table for function in each.layer.functions}, 0


def _drafts(
    graph: Graph, loops: Mapping[str, Looped], types: dict[str, Type], params: Params
) -> tuple[list[AnyDraft], dict[str, int]]:
    """What the array can compute, in order, and for each value how many images run before it is there."""
    uses = Counter(name for node in graph for name in node.inputs)
    made: dict[str, str] = {}  # values of the array → order of their axes
    views = Views(graph, types, made)
    found: dict[str, AnyDraft] = {}
    stages: dict[str, int] = {}
    operations = Operations(graph, views, types, made, loops, params)

    def note(each: AnyDraft, stage: int) -> None:
        for value, axes in each.made:
            found[value], made[value], stages[value] = each, axes, stage

    for node in graph:
        before = found.get(node.inputs[0]) if len(node.inputs) == 1 else None
        if before is not None and not isinstance(before, Looped) and uses[before.value] == 1:
            more = folded(before, node, types, params) if isinstance(before, Draft) else before.folded(node, params)
            if more is not None:
                del found[before.value], made[before.value]
                renamed(operations.units, before.value, more.value)
                note(more, stages[before.value])
                continue
        if node.name in loops and node.op == "Scan":
            loop = placed(loops[node.name], views)
            sequences = [key for keys in loop.parts.values() for key in keys]
            # An initial state has a place of its own, to which the host brings it.
            stage = max([
                *(stages[name] + (made.get(name) != axes) for name, axes in sequences),
                *(stages[state.initial] + 1 for state in loop.states),
            ])  # fmt: skip
            stages.update(dict.fromkeys(node.outputs, stage))
            note(loop, stage)
            continue
        layer = draft(node, views, types, params)
        steps = [layer] if layer is not None else operations.of(node)
        if not steps:
            stage = max((stages[name] for name in node.inputs), default=0)
            stages.update(dict.fromkeys(node.outputs, stage))
        for each in steps:
            note(each, max(stages[name] + (name not in made) for name, _ in each.reads))
    return list(dict.fromkeys(found.values())), stages


def _regions(drafts: Sequence[AnyDraft], stages: Mapping[str, int]) -> list[list[AnyDraft]]:
    """What is of one stage and connected."""
    makers = {value: number for number, each in enumerate(drafts) for value, _ in each.made}
    joined = DisjointSet(range(len(drafts)))
    for number, each in enumerate(drafts):
        for name, _ in each.reads:
            if name in makers and stages[name] == stages[each.made[0][0]]:
                joined.merge(makers[name], number)
    groups: dict[int, list[AnyDraft]] = {}
    for number, each in enumerate(drafts):
        groups.setdefault(joined[number], []).append(each)
    return list(groups.values())


def _fitting(region: Sequence[AnyDraft], params: Params) -> list[list[AnyDraft]]:
    """A region in pieces that have descriptors, codebooks and function tables enough, and room for loops."""
    pieces: list[list[AnyDraft]] = [[]]
    books: set[bytes] = set()
    tables: set[tuple[int, ...]] = set()
    descriptors = weights = 0
    for each in region:
        own_books, own, own_tables, own_weights = _sizes(each)
        full = (
            descriptors + own >= params.descriptors or len(books | own_books) > params.codebooks
            or len(tables | own_tables) > params.tables
            or weights + own_weights > params.pes * params.weight_words * LANES * _FILLED
        )  # fmt: skip
        if pieces[-1] and full:
            pieces.append([])
            books, tables, descriptors, weights = set(), set(), 0, 0
        pieces[-1].append(each)
        books |= own_books
        tables |= own_tables
        descriptors += own
        weights += own_weights
    return pieces


def _rebuilt(
    graph: Graph, types: Mapping[str, Type], regions: Sequence[Sequence[AnyDraft]], params: Params,
    densities: Mapping[str, Density],
) -> Partition:  # fmt: skip
    taken = {id(node) for region in regions for each in region for node in each.nodes}
    owner = {value: number for number, region in enumerate(regions) for each in region for value, _ in each.made}
    left = [node for node in graph if id(node) not in taken]
    needed = _needed(left, regions, owner)
    places = {id(node): n for n, node in enumerate(graph)}
    items: list[tuple[int, Node]] = [
        (places[id(node)], node) for node in left if node.op in ("Input", "Output") or needed & set(node.outputs)
    ]
    programs = []
    for number, region in enumerate(regions):
        program, inputs, leaving = assemble(region, types, needed, params, densities)
        programs.append(program)
        last = max(places[id(node)] for node in region[-1].nodes if id(node) in places)
        items.append((last, _array(region, number, inputs, leaving, types)))
    nodes = _sorted(items)
    order = [node["image"] for node in nodes if node.op == "Array"]  # images in the order of their nodes
    for n, node in enumerate(nodes):
        if node.op == "Array":
            nodes[n] = node.replace(attributes={**node.attributes, "image": order.index(node["image"])})
    return Partition(Graph(tuple(nodes)), tuple(programs[n] for n in order))


def _needed(left: Sequence[Node], regions: Sequence[Sequence[AnyDraft]], owner: Mapping[str, int]) -> set[str]:
    """Values that leave a region, or that nodes of the host make for someone."""
    wanted = {name for number, region in enumerate(regions) for each in region for name, _ in each.reads
              if owner.get(name) != number}  # fmt: skip
    for node in reversed(left):
        moves = node.op in ("Constant", "Reshape", "Transpose", "Slice", "Pad", "Concat", "Indices")
        if not moves or wanted & set(node.outputs):
            wanted |= {*node.inputs, *(node.outputs if not moves and node.op != "Output" else ())}
    return wanted


def _array(region: Sequence[AnyDraft], number: int, inputs: Sequence[Key], leaving: Sequence[Key],
           types: Mapping[str, Type]) -> Node:  # fmt: skip
    first, last = region[0].nodes[0], region[-1].nodes[-1]
    made = [types[value] for value, _ in leaving]
    attributes = {
        "image": number,
        "reads": tuple(axes for _, axes in inputs), "makes": tuple(axes for _, axes in leaving),
        "shape": tuple(size for kind in made for size in kind.shape),
        "layouts": tuple(kind.layout for kind in made),
        "exponents": tuple(kind.exponent or 0 for kind in made),
    }  # fmt: skip
    name = first.name if len(region) == 1 and len(region[0].nodes) == 1 else f"{first.name}…{last.name}"
    outputs = tuple(value for value, _ in leaving)
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
