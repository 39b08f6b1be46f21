"""Which values of a graph must have one exponent."""

from __future__ import annotations

from collections.abc import Mapping

from scipy.cluster.hierarchy import DisjointSet

from compiler.graph.ir import Graph, Node

__all__ = ["agreed", "keeps"]

KEEPS = frozenset({"Clamp", "MaxPool", "Output", "Pad", "Reshape", "Slice", "Transpose"})
"""Operators of one value whose result has the exponent of what they read."""


NEAR = 3
"""Bits that a value gives up at most to agree; beyond, it keeps its exponent and is shifted where it meets others."""


def keeps(node: Node) -> bool:
    """Whether a node of a float graph leaves the exponent as it is."""
    return node.op in KEEPS or (node.op == "Activation" and node["function"] in ("none", "relu"))


def agreed(graph: Graph, exponents: Mapping[str, int | None]) -> dict[str, int]:
    """The common exponent of the values that must agree and do not: the largest of those that they would choose.

    Values that would lose more than `NEAR` bits by it are left out.

    Parameters
    ----------
    exponents : what each value would choose by itself; None: anything. Values in the body of a Scan are
        "scan/value".
    """
    found = DisjointSet(exponents)
    _join(graph, found, "")
    targets = {}
    for group in found.subsets():
        chosen = {exponents[name] for name in group}
        known = [exponent for exponent in chosen if exponent is not None]
        if len(chosen) > 1 and known:
            common = max(known)
            near = [name for name in group if common - _known(exponents[name], common) <= NEAR]
            targets.update(dict.fromkeys(near, common))
    return targets


def _known(exponent: int | None, otherwise: int) -> int:
    return otherwise if exponent is None else exponent


def _join(graph: Graph, found: DisjointSet, prefix: str) -> None:
    for node in graph:
        reads = [prefix + name for name in node.inputs]
        if keeps(node):
            found.merge(reads[0], prefix + node.output)
        elif node.op == "Add":
            found.merge(*reads)
        elif node.op == "Concat":
            for name in reads:
                found.merge(name, prefix + node.output)
        elif node.op == "Scan" and node.body is not None:
            inner = f"{prefix}{node.name}/"
            _join(node.body, found, inner)
            for outer, made in zip(reads, node.body.inputs, strict=True):
                found.merge(outer, inner + made.output)
            ends = [inner + end.inputs[0] for end in node.body.outputs]
            for name, end in zip(node.outputs, ends, strict=True):
                found.merge(prefix + name, end)
            count = len(reads) - node["sequences"]
            for outer, end in zip(reads[node["sequences"] :], ends[len(ends) - count :], strict=True):
                found.merge(outer, end)
