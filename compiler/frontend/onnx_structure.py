"""The nodes of an ONNX model in order, its own functions written out: what is checked before anything is translated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from compiler.errors import ModelError

__all__ = ["LISTED", "in_order", "inlined", "live"]

MAX_NODES, MAX_DEPTH = 1 << 20, 64
"""Of a model whose own functions are written out, and how deep these call each other."""

LISTED = 20
"""Names or problems that a message lists."""


def inlined(model: Any) -> Any:
    """Functions that the model brings written out."""
    if not model.functions:
        return model
    import onnx.inliner

    bodies = {(function.domain, function.name): function.node for function in model.functions}
    if _count(model.graph.node, bodies, {}, 0) > MAX_NODES:
        raise ModelError(f"the model's own functions make more than {MAX_NODES} nodes, or call themselves")
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # whatever onnx raises here is about the user's model
        raise ModelError(f"the model's own functions cannot be written out: {error}") from error


def _count(nodes: Any, bodies: Mapping[Any, Any], found: dict[Any, int], depth: int) -> int:
    """Nodes that there are when functions are written out."""
    total = 0
    for node in nodes:
        key = (node.domain, node.op_type)
        if key in bodies and key not in found:
            deep = depth >= MAX_DEPTH
            found[key] = MAX_NODES + 1 if deep else _count(bodies[key], bodies, found, depth + 1)
        total += found.get(key, 1)
    return total


def in_order(graph: Any, problems: list[str]) -> list[Any]:
    """The nodes, each behind those whose results it reads; what is wrong with their names goes to `problems`."""
    makers: dict[str, int] = {}
    given = {item.name for item in (*graph.initializer, *graph.input)}
    for what, items in (("initializer", graph.initializer), ("input", graph.input)):
        counted = Counter(item.name for item in items)
        problems += [f"{what} {name!r} is there {count} times" for name, count in counted.items() if count > 1]
    if graph.sparse_initializer:
        problems.append("the model has sparse initializers; expected dense ones")
    for number, node in enumerate(graph.node):
        for name in node.output:
            if name and (name in makers or name in given):
                problems.append(f"{_label(node, number)}: it makes {name!r}, which exists already")
            elif name:
                makers[name] = number
    waiting = []
    for number, node in enumerate(graph.node):
        missing = sorted({name for name in node.input if name and name not in makers and name not in given})
        if missing:
            problems.append(f"{_label(node, number)}: it reads {', '.join(missing)}, which nothing makes")
        waiting.append({makers[name] for name in node.input if name in makers})
    return _ordered(graph.node, waiting, problems)


def _ordered(nodes: Any, waiting: list[set[int]], problems: list[str]) -> list[Any]:
    readers: list[list[int]] = [[] for _ in nodes]
    for number, before in enumerate(waiting):
        for maker in before:
            readers[maker].append(number)
    ready = [number for number, before in enumerate(waiting) if not before][::-1]
    ordered = []
    while ready:
        number = ready.pop()
        ordered.append(number)
        for reader in readers[number]:
            waiting[reader].discard(number)
            if not waiting[reader]:
                ready.append(reader)
    if len(ordered) < len(nodes):
        stuck = [_label(nodes[number], number) for number in sorted(set(range(len(nodes))) - set(ordered))]
        more = f" and {len(stuck) - LISTED} more" if len(stuck) > LISTED else ""
        problems.append(f"the nodes {', '.join(stuck[:LISTED])}{more} read each other in a cycle, or follow one")
    return [nodes[number] for number in ordered]


def live(graph: Any, nodes: list[Any]) -> list[Any]:
    """Those that an output needs."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def _label(node: Any, number: int) -> str:
    return f"{node.name or f'node {number}'} ({node.op_type})"
