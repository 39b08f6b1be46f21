"""Charts of the pages: SVG by matplotlib, to stand in a page as it is.

Text stays text, colours are the page's variables (light, dark, print), and a chart has a title and a description for
those who do not see it; all of its numbers stand in a table beside it or in the page's data.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["chain", "cycles", "energy", "fronts", "histograms", "history", "roofline"]

# What stands in for a variable of the page while matplotlib draws; no two are alike, and nothing else has them.
_TEXT, _GRID, _SURFACE = "#010203", "#040506", "#070809"
_SERIES = tuple(f"#0a0b{n:02x}" for n in range(8))
_VARIABLES = {_TEXT: "--text", _GRID: "--line", _SURFACE: "--surface"} | {
    color: f"--series-{n}" for n, color in enumerate(_SERIES)
}

_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "eie", "font.family": "sans-serif", "font.size": 10,
    "text.parse_math": False, "text.color": _TEXT, "axes.labelcolor": _TEXT, "axes.edgecolor": _GRID,
    "xtick.color": _TEXT, "ytick.color": _TEXT, "grid.color": _GRID, "grid.linewidth": 0.6,
    "axes.facecolor": "none", "figure.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "axes.axisbelow": True,
}  # fmt: skip

_LONG = 28
"""Signs of a name on an axis."""


_ABOVE = 6.0
"""Points of error above the dense network's up to which a search is drawn."""

_GREY = ("starved", "other")


def _short(name: str) -> str:
    return name if len(name) <= _LONG else f"…{name[1 - _LONG :]}"


def _svg(key: str, title: str, description: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """A figure as an element of a page. `key` : unique in the page, letters and -."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    text = re.sub(r'\bid="', f'id="{key}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\1{key}-", text)
    head = (
        f'<svg role="img" aria-labelledby="{key}-title {key}-description" style="max-width: {size[0] * 72:.0f}pt"'
        f'{_without_size(text)}<title id="{key}-title">{escape(title)}</title>'
        f'<desc id="{key}-description">{escape(description)}</desc>'
    )
    return head + text[text.index(">", text.index("<svg")) + 1 :]


def _without_size(text: str) -> str:
    """The rest of the tag of a drawing, which fits the width of its place."""
    tag = text[text.index("<svg") + 4 : text.index(">", text.index("<svg")) + 1]
    return re.sub(r' (width|height)="[^"]*"', "", tag)


def _stacked(axis: Axes, names: Sequence[str], parts: Mapping[str, Sequence[float]]) -> None:
    """A horizontal bar for each name, the first one on top. The last colour, grey, is for what is lost or other."""
    at = [0.0] * len(names)
    for number, (part, values) in enumerate(parts.items()):
        axis.barh(range(len(names)), values, left=at, color=_SERIES[-1 if part in _GREY else number], label=part,
                  height=0.7, edgecolor=_SURFACE, linewidth=0.8)  # fmt: skip
        at = [a + v for a, v in zip(at, values, strict=True)]
    axis.set_yticks(range(len(names)), [_short(name) for name in names])
    axis.invert_yaxis()
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)


def _bars(key: str, title: str, description: str, label: str, names: Sequence[str],
          parts: Mapping[str, Sequence[float]]) -> str:  # fmt: skip
    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        _stacked(axis, names, parts)
        axis.set_xlabel(label)
        figure.legend(loc="outside upper left", ncols=min(len(parts), 4))

    return _svg(key, title, description, (7.5, 1.3 + 0.3 * len(names) + 0.25 * (len(parts) // 4)), draw)


def cycles(layers: Sequence[Mapping[str, Any]], pes: int) -> str:
    """Where the cycles of the PEs went, by layer."""
    shown = [row for row in layers if row["products"] is not None and row["products"] + row["starved"]]
    parts = {
        name: [row[key] / pes for row in shown]
        for name, key in (("products", "products"), ("padding", "padding"), ("starved", "starved"))
    }
    worst = max(shown, key=lambda row: row["starved"], default=None)
    most = f" Most cycles without an entry: {worst['name']}." if worst else ""
    return _bars(
        "cycles", "Where the cycles of the PEs went",
        f"A bar for each of {len(shown)} layers: cycles a PE spends on average for a sample, with products of two "
        f"nonzeros, with padding entries, and without an entry.{most}",
        "cycles of a PE, mean, for one sample", [row["name"] for row in shown], parts,
    )  # fmt: skip


def energy(report: Mapping[str, Any]) -> str:
    """Energy of a sample by layer and part of the array."""
    parts = sorted(
        (part for part, pj in report["pj"].items() if pj > 0), key=lambda part: report["pj"][part], reverse=True
    )
    main, rest = (parts, []) if len(parts) <= len(_SERIES) else (parts[: len(_SERIES) - 1], parts[len(_SERIES) - 1 :])
    layers = report["layers"]
    values = {part: [each["pj"][part] / 1000 for each in layers] for part in main}
    if rest:
        values["other"] = [sum(each["pj"][part] for part in rest) / 1000 for each in layers]
    return _bars(
        "energy", "Energy of a sample",
        f"A bar for each of {len(layers)} layers, divided by part of the array. The largest part is {parts[0]} with "
        f"{report['share'][parts[0]]:.0%} of {report['nj']:.3g} nJ." if parts else "No energy.",
        "nJ for one sample", [each["name"] for each in layers], values,
    )  # fmt: skip


def roofline(found: Mapping[str, Any]) -> str:
    """Products a cycle of each layer, under the roof of the array."""
    pes, points = found["pes"], found["points"]

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        low = min([0.5, *(point["intensity"] / 1.5 for point in points)])
        high = max([4.0 * pes, *(point["intensity"] * 1.5 for point in points)])
        axis.plot([low, pes, high], [low, pes, pes], color=_TEXT, linewidth=1.4)
        for number, bound in enumerate(dict.fromkeys(point["bound"] for point in points)):
            mine = [point for point in points if point["bound"] == bound]
            axis.scatter([p["intensity"] for p in mine], [p["achieved"] for p in mine], s=36,
                         color=_SERIES[number], label=f"bound by {bound}", zorder=3,
                         marker="os^Dv"[number % 5])  # fmt: skip
        for point in points:
            axis.annotate(_short(point["name"]), (point["intensity"], point["achieved"]), xytext=(5, -10),
                          textcoords="offset points", fontsize=8)  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.grid(True)
        axis.set_xlabel("products for each cycle that scan, write-back or a stream needs")
        axis.set_ylabel("products a cycle")
        if points:
            axis.legend(loc="lower right")

    return _svg(
        "roofline", f"Roofline of an array of {pes} PEs",
        f"{len(points)} layers. The roof rises to {pes} products a cycle, one for each PE. Layers left of that are "
        "bound by scan, write-back or a stream.", (7.5, 4.2), draw,
    )  # fmt: skip


def histograms(layers: Sequence[Mapping[str, Any]]) -> str:
    """How many entries have each centroid, a panel for each layer."""
    across = min(3, len(layers))
    down = -(-len(layers) // across)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(down, across, squeeze=False)
        for number, axis in enumerate(axes.flat):
            if number >= len(layers):
                axis.set_axis_off()
                continue
            values, counts = zip(*layers[number]["centroids"], strict=True)
            axis.vlines(values, 0, counts, color=_SERIES[0], linewidth=2)
            axis.plot(values, counts, "o", color=_SERIES[0], markersize=3)
            axis.set_title(_short(layers[number]["name"]), fontsize=9)
            axis.set_ylim(bottom=0)
            axis.axvline(0, color=_GRID, linewidth=0.8)
            axis.tick_params(labelsize=7)
            axis.locator_params(axis="x", nbins=4)

    return _svg(
        "weights", "Weights by centroid",
        f"A panel for each of {len(layers)} layers: a stem for each shared weight (int16) at its value, as high as "
        "the number of entries that have it.", (7.5, 0.4 + 1.6 * down), draw,
    )  # fmt: skip


def chain(points: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy after each step; each has ``name`` and ``test``, some ``low`` and ``high``."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        at = range(len(points))
        test = [100 * point["test"] for point in points]
        axis.plot(at, test, "o-", color=_SERIES[0], label="test")
        for n, point in enumerate(points):
            if point.get("low") is not None:
                axis.vlines(n, 100 * point["low"], 100 * point["high"], color=_SERIES[0], linewidth=1.2)
            axis.annotate(f"{test[n]:.2f}", (n, test[n]), xytext=(0, 7), textcoords="offset points", ha="center",
                          fontsize=8)  # fmt: skip
        axis.set_xticks(at, [_short(point["name"]) for point in points])
        axis.margins(x=0.1, y=0.3)
        axis.set_ylim(top=min(axis.get_ylim()[1], 101))
        axis.grid(axis="y")
        axis.set_ylabel("accuracy on the test set, %")

    said = ", ".join(f"{point['name']} {point['test']:.2%}" for point in points)
    return _svg("chain", "Accuracy along the chain", f"Accuracy on the test set: {said}.", (7.5, 3.2), draw)


def history(stages: Sequence[Mapping[str, Any]], key: str = "history") -> str:
    """Loss, validation and density after each epoch, stage after stage; None is a gap. `key` : unique in the page."""
    points = [(stage["stage"], epoch) for stage in stages for epoch in stage["history"]]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(3, 1, sharex=True)
        names = ("loss", "validation accuracy, %", "weights left, %")
        for axis, name, key, scale in zip(axes, names, ("loss", "validation", "density"), (1, 100, 100), strict=True):
            first = 0
            for number, stage in enumerate(stages):
                at = range(first, first + len(stage["history"]))
                values = [math.nan if each[key] is None else scale * each[key] for each in stage["history"]]
                axis.plot(at, values, ".-", color=_SERIES[number % len(_SERIES)], label=_short(stage["stage"]))
                first += len(stage["history"])
            axis.set_ylabel(name, fontsize=8)
            axis.grid(True)
        axes[-1].set_xlabel("epoch, over all stages")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)

    return _svg(
        key, "Training, epoch by epoch",
        f"Three curves over {len(points)} epochs of {len(stages)} stages: loss, accuracy on the validation set, and "
        "the share of weights that is left.", (7.5, 5.2), draw,
    )  # fmt: skip


def fronts(found: Sequence[Mapping[str, Any]]) -> str:
    """Error against compression, a panel for each network; points that no other beats are filled and joined.

    Of a search what stands in ``up`` against what stands in ``across``, a panel for each of the latter.
    """
    title = "Error against compression"
    description = (
        f"A panel for each of {len(found)} networks: every point of the search, and those that no other is smaller "
        "than at no more error."
    )
    if across := ", ".join(_short(network["across"]) for network in found if "across" in network):
        title = f"{_short(found[0]['up'])} against {across}"
        description = (
            f"A panel for each of: {across}. Every trial that came to its end, and those that no other beats in all "
            "objectives."
        )

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(found), 1, squeeze=False)
        for axis, network in zip(axes.flat, found, strict=True):
            points = network["points"]
            best = sorted((p for p in points if p["front"]), key=lambda p: p["ratio"])
            axis.scatter([p["ratio"] for p in points], [p["error"] for p in points], s=16, facecolors="none",
                         edgecolors=_SERIES[7], label="a point of the search")  # fmt: skip
            axis.plot([p["ratio"] for p in best], [p["error"] for p in best], "o-", color=_SERIES[0], markersize=5,
                      label="Pareto front")  # fmt: skip
            if network["dense_error"] is not None:
                axis.axhline(network["dense_error"], color=_TEXT, linestyle=":", linewidth=1, label="dense")
                top = network["dense_error"] + _ABOVE
                if above := sum(p["error"] > top for p in points):
                    low = min(network["dense_error"], *(p["error"] for p in points))
                    axis.set_ylim(low - 0.05 * (top - low), top)
                    axis.plot([], [], " ", label=f"{above} above {top:.3g} %, not drawn")
            if "across" not in network:
                axis.set_xscale("log", base=2)
                axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_title(_short(network["name"]), fontsize=9)
            axis.set_ylabel(_short(network.get("up", "test error, %")))
            axis.grid(True)
            axis.legend(fontsize=8)
            if "across" in network or network is found[-1]:
                axis.set_xlabel(_short(network.get("across", "times smaller than dense float32")))

    return _svg("fronts", title, description, (7.5, 0.5 + 2.8 * len(found)), draw)
