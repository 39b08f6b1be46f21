"""The gate behind every frontend and pass: the graph must compute what the user's model computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compiler.errors import ModelError
from compiler.graph.evaluate import outputs, tails
from compiler.graph.ir import Graph, Node

__all__ = ["check_outputs"]

Array = NDArray[Any]

_REPORT = "the translation is wrong: please report this model"


def check_outputs(
    graph: Graph, inputs: Sequence[ArrayLike], references: Sequence[tuple[Sequence[ArrayLike], float]]
) -> None:
    """Compare what a graph computes with what the model computed, behind what is left to the host.

    Parameters
    ----------
    inputs : for each Input, samples first.
    references : what the model computed, for each Output, and how large a difference may be, as a part of the
        output's largest number; several where the model was run in several formats. The samples may lie along any
        axis, as long as it has their number.

    Raises
    ------
    ModelError
        Saying which output is NaN, infinite or different, and how far.
    """
    for expected, _ in references:
        if len(expected) != len(graph.outputs):
            raise ModelError(f"the model returns {len(expected)} tensors; its graph has {len(graph.outputs)} outputs")
    with np.errstate(all="ignore"):
        found = outputs(graph, [np.asarray(values) for values in inputs])
        made = tails(graph, found)
        for expected, bound in references:
            for node, before, values, wanted in zip(graph.outputs, found, made, expected, strict=True):
                _check_finite(node, values, np.asarray(wanted))
                _check(node, before, values, np.asarray(wanted), bound)


def _check_finite(node: Node, values: Array, wanted: Array) -> None:
    for whose, given, other in (("model", wanted, values), ("graph", values, wanted)):
        if given.dtype.kind != "f" or bool(np.isfinite(given).all()):
            continue
        nan, infinite = int(np.isnan(given).sum()), int(np.isinf(given).sum())
        what = " and ".join([f"NaN in {nan}"] * bool(nan) + [f"infinite in {infinite}"] * bool(infinite))
        overflow = whose == "model" and bool(np.isfinite(other).all())
        cause = "; with more range it is finite: float32 overflows within the model" if overflow else ""
        raise ModelError(
            f"output {node.name!r} of the {whose} is {what} of {given.size} numbers on example_inputs{cause}; "
            "check the weights and the inputs' range"
        )


def _check(node: Node, before: Array, values: Array, wanted: Array, bound: float) -> None:
    axes = [n for n in range(wanted.ndim) if np.moveaxis(wanted, n, 0).shape == values.shape]
    if not axes:
        raise ModelError(
            f"output {node.name!r} of the graph has shape {values.shape}, the model's {wanted.shape}; {_REPORT}"
        )
    distances = [_distance(node, before, values, np.moveaxis(wanted, axis, 0)) for axis in axes]
    largest = float(np.abs(before if node["then"] == "argmax" else wanted).max(initial=0.0))
    if min(distances) > bound * max(largest, 1e-3):
        raise ModelError(
            f"output {node.name!r} of the graph differs from the model's by up to {min(distances):.3g} on "
            f"example_inputs, where the largest number is {largest:.3g}; {_REPORT}"
        )


def _distance(node: Node, before: Array, values: Array, wanted: Array) -> float:
    """Largest difference; of an argmax, how far its choice is from the largest number: near ties fall either way."""
    if node["then"] != "argmax":
        return float(np.abs(values - wanted).max(initial=0.0))
    axis = node["axis"] + 1
    chosen = np.take_along_axis(before, np.expand_dims(wanted.astype(np.int64), axis), axis)
    return float((before.max(axis=axis, keepdims=True) - chosen).max(initial=0.0))
