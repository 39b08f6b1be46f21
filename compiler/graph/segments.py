"""The segments of an Accumulate: matrix products, convolutions and plain values that are summed in one accumulator.

Segment n reads the n-th value and is of the n-th kind: "conv" is a window over its map, "linear" a matrix over the last
axis, "identity" the value as it is. Convolutions and matrices are not summed together, since they read different axes.
`strides`, `paddings` and `dilations` hold the numbers of all segments one behind the other, each as a Conv has them,
`group_counts` one number a segment; an identity among convolutions has those of a window of one place. All four are empty
where no segment is a convolution. The weights of segment n are the tensor "weight" with n behind its name; in integers
"codes" and "codebook".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compiler.graph.ir import Node

__all__ = ["KINDS", "SEGMENTS", "by_channel", "joined", "segment"]

SEGMENTS = 8
"""Segments of an Accumulate at most: what the array keeps the places of while a layer is computed tile by tile."""

KINDS = {"conv": "Conv", "linear": "Linear", "identity": ""}
"""Kind of a segment → the operator that it is by itself."""

_WINDOW = {"strides": "stride", "paddings": "padding", "dilations": "dilation"}


def by_channel(node: Node) -> bool:
    """Whether an Accumulate makes maps, whose channels are the first axis; otherwise its outputs are the last axis."""
    return "conv" in node["kinds"]


def segment(node: Node, number: int) -> Node | None:
    """A segment as a Conv or Linear by itself, without bias and activation; None for an identity.

    The four attributes of windows must be as long as the number of segments asks for.
    """
    kind = node["kinds"][number]
    if not KINDS[kind]:
        return None
    attributes: dict[str, Any] = {"activation": "none"}
    if kind == "conv":
        axes = len(node["strides"]) // len(node["kinds"])
        for key, name in _WINDOW.items():
            size = axes * (1 + (name == "padding"))
            attributes[name] = node[key][number * size : (number + 1) * size]
        attributes["groups"] = node["group_counts"][number]
    tensors = {
        name: node.tensors[f"{name}{number}"]
        for name in ("weight", "codes", "codebook")
        if f"{name}{number}" in node.tensors
    }
    return Node(f"{node.name}.{number}", KINDS[kind], (node.inputs[number],), attributes, tensors, source=node.source)


def joined(parts: Sequence[Node | None], axes: int) -> dict[str, Any]:
    """The attributes of an Accumulate of these segments: each a Conv or Linear, or None for an identity.

    Parameters
    ----------
    axes : spatial axes of the maps; 0 where no segment is a Conv.
    """
    kinds = {op: kind for kind, op in KINDS.items()}
    once = {"stride": (1,) * axes, "padding": (0,) * (2 * axes), "dilation": (1,) * axes}
    windows = [part.attributes if part is not None and part.op == "Conv" else once for part in parts]
    return {
        "kinds": tuple(kinds["" if part is None else part.op] for part in parts),
        **{key: tuple(n for window in windows for n in window[name]) for key, name in _WINDOW.items()},
        "group_counts": tuple(window.get("groups", 1) for window in windows) if axes else (),
    }
