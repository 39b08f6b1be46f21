"""A network cut into parts that are networks by themselves: an operator with weights and what follows it."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.graph.ir import Graph, Node, unique
from compiler.graph.operators import make, types

__all__ = ["Block", "blocks"]

_WEIGHTED = ("Accumulate", "Conv", "Linear", "Scan")


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a network.

    Attributes
    ----------
    name : of its operator with weights. graph : what it computes, verified.
    reads : the values of the whole network that its inputs are, in their order.
    """

    name: str
    graph: Graph
    reads: tuple[str, ...]


def blocks(graph: Graph) -> tuple[Block, ...]:
    """Cut a float graph after its passes into blocks, in their order.

    A block begins with an operator that has weights (a Scan as a whole) and holds what follows up to the next one; the
    first one also holds what stands before it. Constants are in every block that reads them.

    Raises
    ------
    ModelError
        The graph does not verify.
    """
    found = types(graph)
    place: dict[str, int] = {}  # values → the block that makes them, -1 for inputs and constants
    members: list[list[Node]] = [[]]
    names: list[str] = []
    constants = {node.output: node for node in graph if node.op == "Constant"}
    for node in graph:
        if node.op in ("Input", "Output", "Constant"):
            place.update(dict.fromkeys(node.outputs, -1))
            continue
        number = max([0, *(place[name] for name in node.inputs)])
        if node.op in _WEIGHTED:
            if names:
                members.append([])
            number = len(members) - 1
            names.append(node.name)
        members[number].append(node)
        place.update(dict.fromkeys(node.outputs, number))
    ends = {node.inputs[0] for node in graph.outputs}
    made: list[Block] = []
    for number, own in enumerate(members):
        inside = {name for node in own for name in node.outputs}
        read = dict.fromkeys(name for node in own for name in node.inputs if name not in inside)
        fixed = [constants[name] for name in read if name in constants]
        reads = tuple(name for name in read if name not in constants)
        others = {name for n, rest in enumerate(members) if n != number for node in rest for name in node.inputs}
        leaving = [name for node in own for name in node.outputs if name in others | ends]
        inputs = [make("Input", name, shape=found[name].shape, layout=found[name].layout, kind=found[name].kind)
                  for name in reads]  # fmt: skip
        taken = {node.name for node in (*inputs, *own, *fixed)}
        outputs = [make("Output", unique(f"{name}.out", taken), name) for name in leaving]
        if own and leaving:
            block = Graph((*inputs, *fixed, *own, *outputs))
            types(block)
            made.append(Block(names[number] if names else own[0].name, block, reads))
    return tuple(made)
