"""The report as one page: a template, charts, and the figures themselves as JSON in it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

import jinja2

from sim.pages import charts

__all__ = ["MOST_BYTES", "embedded", "render", "resource"]

MOST_BYTES = 5_000_000
"""A page is no longer."""

_SECTIONS = {
    "overview": "Overview", "graph": "Network", "layers": "Layers", "time": "Cycles and energy",
    "roofline": "Roofline", "weights": "Weights", "chain": "Accuracy", "search": "Search", "made": "How this was made",
}  # fmt: skip


def resource(name: str) -> str:
    """A file beside this module."""
    return (resources.files("sim") / "pages" / name).read_text(encoding="utf-8")


def embedded(value: Any) -> str:
    """JSON that may stand in a script element: no text of it ends the element or begins a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def figure(value: float, digits: int | None = None) -> str:
    """A number for people: digits grouped; three that say something behind the point, or as many as `digits`."""
    if isinstance(value, int) or digits == 0:
        return f"{value:,.0f}"
    if digits is None:
        digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value)))) if abs(value) < 1000 else 0
        digits = min(digits, 6) if value != round(value) else 0
    return f"{value:,.{digits}f}"


def sha256(text: str) -> str:
    """As a content security policy names a script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def environment() -> jinja2.Environment:
    """For the templates of this folder: everything is escaped, and nothing may be missing."""
    made = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    made.filters |= {"exact": json.dumps, "figure": figure, "product": math.prod, "sha256": sha256}
    return made


def render(data: Mapping[str, Any]) -> str:
    """The page of a report.

    Parameters
    ----------
    data : JSON. ``name``, ``said`` (a sentence), ``made`` (name → text); and what there is of ``network``
        (`sim.pages.facts.network_facts`, then also ``input`` and ``clock_mhz``), ``chain`` (steps: ``name``, ``test``,
        ``validation``, ``epochs``, ``low``, ``high``; then ``chain_said``), ``training`` and ``search``
        (`sim.pages.facts`).
    """
    network, drawn = data.get("network"), {}
    there = {"made"}
    if network:
        there |= {"overview", "graph", "layers", "time", "roofline"} | ({"weights"} if network["weights"] else set())
        drawn["cycles"] = charts.cycles(network["layers"], network["run"]["pes"])
        drawn["roofline"] = charts.roofline(network["roofline"])
        if network["energy"]:
            drawn["energy"] = charts.energy(network["energy"])
        if network["weights"]:
            drawn["weights"] = charts.histograms(network["weights"])
    drawn["history"] = drawn["fronts"] = ""
    if data.get("chain"):
        there.add("chain")
        drawn["chain"] = charts.chain(data["chain"])
        stages = [stage for stage in data["training"]["stages"] if stage["history"]]
        drawn["history"] = charts.history(stages) if stages else ""
    if data.get("search"):
        there.add("search")
        drawn["fronts"] = charts.fronts(data["search"]["fronts"]) if data["search"]["fronts"] else ""
    whole = {"network": None, "chain": None, "search": None, **data}
    return environment().from_string(resource("report.html")).render({
        "data": whole, "charts": drawn, "json": embedded(data), "script": resource("sort.js"),
        "style": resource("page.css"), "made": list(data["made"].items()),
        "sections": [(key, title) for key, title in _SECTIONS.items() if key in there],
        "drawing": network_drawing(network["drawing"]) if network else "",
    })  # fmt: skip


_WIDE, _HIGH, _GAP_X, _GAP_Y, _EDGE = 172, 36, 18, 26, 8


def network_drawing(found: Mapping[str, Any]) -> str:
    """Boxes and arrows as SVG, a row for each rank, from top to bottom."""
    nodes: Sequence[Mapping[str, Any]] = found["nodes"]
    wide = Counter(node["rank"] for node in nodes)
    across = max(wide.values(), default=1)
    taken: Counter[int] = Counter()
    places: list[tuple[float, float]] = []
    for node in nodes:
        indent = (across - wide[node["rank"]]) * (_WIDE + _GAP_X) / 2
        places.append((
            _EDGE + indent + taken[node["rank"]] * (_WIDE + _GAP_X), _EDGE + node["rank"] * (_HIGH + _GAP_Y)
        ))  # fmt: skip
        taken[node["rank"]] += 1
    width = across * (_WIDE + _GAP_X) - _GAP_X + 2 * _EDGE
    height = len(wide) * (_HIGH + _GAP_Y) - _GAP_Y + 2 * _EDGE
    head = (
        f'<svg class="graph" role="img" aria-labelledby="graph-title graph-description" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><title id="graph-title">The network</title>'
        f'<desc id="graph-description">{len(nodes)} nodes from inputs at the top to outputs at the bottom; the list '
        "below says what each reads.</desc>"
        '<defs><marker id="graph-arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 8 4 0 8" /></marker></defs>'
    )
    parts = [head]
    for source, target in found["edges"]:
        (x1, y1), (x2, y2) = places[source], places[target]
        x1, y1, x2 = x1 + _WIDE / 2, y1 + _HIGH, x2 + _WIDE / 2
        bend = max(12.0, (y2 - y1) / 2)
        parts.append(
            f'<path d="M{x1:g} {y1:g} C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}" '
            'marker-end="url(#graph-arrow)" />'
        )
    for node, (x, y) in zip(nodes, places, strict=True):
        shape = " × ".join(map(str, node["shape"]))
        label = node["label"] if len(node["label"]) <= 24 else f"…{node['label'][-23:]}"
        parts.append(
            f'<g class="{escape(node["on"] or "moves")}"><title>{escape(node["label"])}</title>'
            f'<rect x="{x:g}" y="{y:g}" width="{_WIDE}" height="{_HIGH}" rx="6" />'
            f'<text x="{x + _WIDE / 2:g}" y="{y + 15:g}" text-anchor="middle">{escape(label)}</text>'
            f'<text class="soft" x="{x + _WIDE / 2:g}" y="{y + 29:g}" text-anchor="middle">'
            f"{escape(shape)}{' (host)' if node['on'] == 'host' else ''}</text></g>"
        )
    return "".join(parts) + "</svg>"
