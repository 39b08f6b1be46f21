"""The passes: each rewrites one pattern of a float graph into another that computes the same.

Two Linears one behind the other are never merged: the product of two sparse matrices is dense.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from compiler.errors import ModelError
from compiler.graph.ir import Graph
from compiler.graph.passes.affine_folds import affine_behind, affine_in_front
from compiler.graph.passes.affine_moves import lift_pointwise, sink_affines
from compiler.graph.passes.constants import constant_folding, constant_operands
from compiler.graph.passes.conv_to_linear import full_conv, pointwise_conv
from compiler.graph.passes.dead_code import dead_code
from compiler.graph.passes.editor import verified
from compiler.graph.passes.identities import identities
from compiler.graph.passes.linear_columns import columns, rows
from compiler.graph.passes.merge_affines import merge_affines
from compiler.graph.passes.merge_moves import merge_reshapes, merge_transposes
from compiler.graph.passes.pad_folding import pad_folding
from compiler.graph.passes.relu_fusion import relu_fusion
from compiler.graph.passes.sums import parts_of_concat, sums
from compiler.graph.passes.transposes import cancel_transposes

__all__ = ["PASSES", "Pass", "run_passes"]

MAX_ROUNDS = 50
"""Rounds of all passes; the longest chain of them seen needs five."""


@dataclass(frozen=True)
class Pass:
    """One rewriting.

    Attributes
    ----------
    name : for the command line and messages.
    description : pattern → replacement.
    function : returns the graph itself where the pattern is not there.
    late : runs only in a round in which no pass before it found anything.
    """

    name: str
    description: str
    function: Callable[[Graph], Graph]
    late: bool = False


# fmt: off
PASSES: tuple[Pass, ...] = (
    Pass("dead-code", "what no output needs goes", dead_code),
    Pass("constant-folding", "f(constants) → constant", constant_folding),
    Pass("constant-operands", "x + constant, x · constant → Affine", constant_operands),
    Pass("identities", "what changes nothing goes; Clamp(0, ∞) → ReLU; moves of one place → Reshape", identities),
    Pass("merge-reshapes", "Reshape(Reshape) → Reshape", merge_reshapes),
    Pass("merge-transposes", "Transpose(Transpose) → Transpose", merge_transposes),
    Pass("merge-affines", "Affine(Affine) → Affine", merge_affines),
    Pass("affine-behind", "Affine(Linear | Conv | Gather) → its weights and bias", affine_behind),
    Pass("relu-fusion", "ReLU(Linear | Conv | Affine | Add | Multiply) → its activation", relu_fusion),
    Pass("lift-pointwise", "Affine | ReLU behind a move, Concat or pool → before it, towards weights", lift_pointwise),
    Pass("affine-in-front", "Linear | Conv(Affine) → its weights and bias", affine_in_front),
    Pass("sink-affines", "Affine before a move, Concat or pool → behind it, towards weights", sink_affines),
    Pass("pad-folding", "Conv | AveragePool(Pad) → its padding", pad_folding),
    Pass("full-conv", "Conv with one window → Linear over the flat map", full_conv),
    Pass("pointwise-conv", "Conv with kernel 1 → Linear over the channels of each place", pointwise_conv),
    Pass("cancel-transposes", "Transpose(f(Transpose)) → f", cancel_transposes),
    Pass("rows", "Transpose | Slice(Linear) → rows of its weight", rows),
    Pass("columns", "Linear(Transpose | Slice | Pad) → columns of its weight", columns),
    Pass("parts-of-concat", "Linear | Conv(Concat) → Add of a Linear | Conv of each part", parts_of_concat, late=True),
    Pass("sums", "Add of Linear | Conv and values → Accumulate, which rounds once", sums, late=True),
)
# fmt: on
"""In the order in which they run, again and again until none finds anything."""


def run_passes(graph: Graph, show: Callable[[str, Graph], None] | None = None) -> Graph:
    """The graph after all passes; it is verified after each.

    Parameters
    ----------
    show : called with the name of each pass that changed something, and the graph after it.

    Raises
    ------
    ModelError
        The graph does not verify.
    """
    verified(graph)
    for _ in range(MAX_ROUNDS):
        before = graph
        for step in PASSES:
            if step.late and graph is not before:
                break
            after = _everywhere(step.function, graph)
            if after is not graph:
                verified(after)
                if show is not None:
                    show(step.name, after)
            graph = after
        if graph is before:
            return graph
    raise ModelError(f"the passes do not end after {MAX_ROUNDS} rounds: please report this model")


def _everywhere(function: Callable[[Graph], Graph], graph: Graph) -> Graph:
    """A pass on the bodies of a graph and then on the graph itself."""
    bodies = {node.name: _everywhere(function, node.body) for node in graph if node.body is not None}
    if any(node.body is not bodies.get(node.name) for node in graph):
        graph = Graph(tuple(node.replace(body=bodies.get(node.name)) for node in graph))
    return function(graph)
