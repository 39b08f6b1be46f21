"""Placeholder until the passes are merged."""

from compiler.graph.ir import Graph


def run_passes(graph: Graph, show: object = None) -> Graph:
    return graph
