"""Plots of the studies, as the bytes of an SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from sim.benchmarks.studies import ARRAYS, Point, means

__all__ = ["plot"]

_PANELS: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "pes": (
        "PEs",
        (("speedup", "speed-up over one PE"), ("load_balance", "load balance"), ("efficiency", "efficiency")),
    ),
    "depth": ("queue depth", (("load_balance", "load balance"), ("efficiency", "efficiency"))),
    "index": (
        "index bits",
        (("efficiency", "efficiency"), ("padding", "padding per nonzero"), ("bits", "stored bits")),
    ),
    "width": ("entries in a weight word", (("reads", "reads per nonzero"), ("bits_read", "bits read per nonzero"))),
}


def plot(study: str, points: Sequence[Point]) -> bytes:
    """A panel for each figure of the study: thin lines for layers, a thick one for the geometric mean."""
    label, panels = _PANELS[study]
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (name, title) in zip(axes, panels, strict=True):
        for number, array in enumerate(ARRAYS):
            mine = [point for point in points if point.array == array]
            if mine:
                _lines(axis, mine, array, name, f"C{number}")
        if study == "pes" and name == "speedup":
            at = sorted({point.at for point in points})
            axis.plot(at, [value / at[0] for value in at], ":", color="gray", label="linear")
            axis.set_yscale("log", base=2)
        if study != "index":
            axis.set_xscale("log", base=2)
        axis.set_xticks(ticks := sorted({point.at for point in points}), [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel(label)
        axis.set_title(title)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    buffer = io.BytesIO()
    # Neither date nor random names: the same figures give the same bytes.
    with mpl.rc_context({"svg.hashsalt": "studies"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _lines(axis: Any, points: Sequence[Point], array: str, name: str, color: str) -> None:
    for layer in dict.fromkeys(point.layer for point in points):
        own = sorted((point for point in points if point.layer == layer), key=lambda point: point.at)
        axis.plot([p.at for p in own], [getattr(p, name) for p in own], color=color, alpha=0.3, linewidth=0.8)
    at, middle = means(points, array, name)
    axis.plot(at, middle, "o-", color=color, label=array.removesuffix("_64"))
