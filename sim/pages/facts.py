"""All figures of a report, as plain data: by the functions behind the commands, and what follows from their numbers.

The page (`sim.pages.page`) shows these and computes nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compiler.image.image import Image
from compiler.network import Network
from sim.decode import decode
from sim.describe import describe
from sim.energy import report as energy_report
from sim.energy_table import Table
from sim.fields import wrong_fields
from sim.front import unbeaten
from sim.golden_array import Layer
from sim.network import run_network

__all__ = ["network_facts", "pareto", "training_facts", "wrong_report"]

HISTOGRAMS = 24
"""Layers whose weights are shown, those of the most entries."""

COUNTERS = ("blocked", "skipped", "refill", "stream")
"""Cycles of the scan that a report shows for each layer."""


def network_facts(network: Network, x: Any, table: Table, mhz: float) -> dict[str, Any]:
    """What is to be said of a compiled network and of a batch of inputs.

    Parameters
    ----------
    x : inputs, see `sim.network.check_inputs`. table, mhz : see `sim.energy.report`.

    Returns
    -------
    dict
        ``info`` : as ``eie info --json``. ``run`` : as ``eie run --engine cycles --json``. ``energy`` : as ``eie report
        energy --json``, or None if the array computes nothing. ``layers`` : a row a layer, all of these side by side
        and for one sample. ``total`` : their sums. ``roofline``, ``weights``, ``drawing`` : see `roofline`, `weights`,
        `drawing`.

    Raises
    ------
    InputError
        The inputs do not fit.
    """
    info = describe(network)
    run = run_network(network, x, engine="cycles").asdict()
    energy = energy_report(network, x, table, mhz) if network.images else None
    layers = [_row(layer, info, energy, run) for layer in run["layers"]]
    names = ("weights", "nonzeros", "stored_bytes", "cycles", "products", "padding", "starved", "energy_nj", *COUNTERS)
    total = {name: sum(row[name] for row in layers if row[name] is not None) for name in names}
    pe_cycles = run["pes"] * (run["cycles"] or 0) / run["batch"]
    return {
        "info": info,
        "run": run,
        "energy": energy,
        "layers": layers,
        "total": {
            **total,
            "density": total["nonzeros"] / max(1, total["weights"]),
            "cycles": (run["cycles"] or 0) / run["batch"],
            "drain_cycles": (run["drain_cycles"] or 0) / run["batch"],
            "utilization": total["products"] / pe_cycles if pe_cycles else 0.0,
            "samples_per_second": mhz * 1e6 * run["batch"] / run["cycles"] if run["cycles"] else None,
        },
        "roofline": roofline(layers, run["pes"]),
        "weights": weights(network),
        "drawing": drawing(network),
    }


def _row(
    layer: Mapping[str, Any], info: Mapping[str, Any], energy: Mapping[str, Any] | None, run: Mapping[str, Any]
) -> dict[str, Any]:
    """A layer; what the host computes has a name and no more, an elementwise operation no weights."""
    fact = next((each for each in info["layers"] if each["name"] == layer["name"]), None)
    spent = next((each for each in (energy or {"layers": []})["layers"] if each["name"] == layer["name"]), None)
    batch, pes, counters = run["batch"], run["pes"], layer["counters"]
    row: dict[str, Any] = {
        "name": layer["name"], "on": layer["on"],
        "makes": fact["makes"] if fact else None,
        "weights": fact["weights"] if fact else None,
        "nonzeros": fact["nonzeros"] if fact else None,
        "density": fact["density"] if fact else None,
        "stored_bytes": sum(fact["bits"].values()) / 8 if fact else None,
        "bits_per_nonzero": sum(fact["bits"].values()) / fact["nonzeros"] if fact and fact["nonzeros"] else None,
        "sum_bits": fact["bound_bits"] if fact else None,
        "tile": fact["tile"] if fact else None,
        "tiles": fact["tiles"] if fact else None,
        "cycles": None if layer["cycles"] is None else layer["cycles"] / batch,
        "energy_nj": spent["total_pj"] / 1000 if spent else None,
        "saturated": counters["saturated"] / batch,
    }  # fmt: skip
    if "entries" not in counters:
        return {**row, **dict.fromkeys(("products", "padding", "starved", "utilization", "least", *COUNTERS))}
    products = (counters["entries"] - counters["padding"]) / batch
    taken = counters["entries"] + counters["starved"]
    return {
        **row,
        "products": products,
        "padding": counters["padding"] / batch,
        "starved": counters["starved"] / batch,
        "utilization": batch * products / taken if taken else None,
        **{name: counters[name] / batch for name in COUNTERS},
        "least": _least(fact, spent, counters, batch, pes) if fact and spent else None,
    }


def _least(
    fact: Mapping[str, Any], spent: Mapping[str, Any], counters: Mapping[str, int], batch: int, pes: int
) -> dict[str, float]:
    """Cycles that each part of the array needs at least for a sample."""
    counts = spent["counts"]
    groups = -(-pes // 8)
    return {
        "scan": counts["pointer_reads"] / pes + counters["skipped"] / batch,
        "write-back": counts["output_reads"] / groups,
        "stream of maps": fact["cycles"]["stream"],
        "stream of weights": fact["cycles"]["refill"],
    }


def roofline(layers: Sequence[Mapping[str, Any]], pes: int) -> dict[str, Any]:
    """The array as a roofline: products a cycle over products for each cycle of the busiest part beside the PEs.

    The roof is the number of PEs, or, left of the ridge, a product for each product that this part brings in a cycle.
    ``points`` : of each layer ``intensity``, ``achieved`` products a cycle (over the cycles in which it is counted),
    the ``roof`` above it, and what it is ``bound`` by: the PEs or the name of the part.
    """
    points = []
    for row in layers:
        if not row["products"] or not row.get("least"):
            continue
        part, least = max(row["least"].items(), key=lambda item: item[1])
        intensity = row["products"] / least if least else float(pes)
        points.append({
            "name": row["name"], "intensity": intensity, "achieved": pes * row["utilization"],
            "roof": min(float(pes), intensity), "bound": part if intensity < pes else "PEs",
        })  # fmt: skip
    return {"pes": pes, "points": points}


def weights(network: Network) -> list[dict[str, Any]]:
    """Of each layer with weights (at most `HISTOGRAMS`) the int16 centroids and how many entries have each."""
    found: list[dict[str, Any]] = []
    for image in network.images:
        for layer in decode(image).layers:
            if not isinstance(layer, Layer) or layer.maximum:
                continue
            data = np.concatenate([segment.weight.data for segment in layer.segments])
            values, counts = np.unique(data[data != 0], return_counts=True)
            found.append({
                "name": layer.name, "entries": int(counts.sum()),
                "centroids": [[int(v), int(c)] for v, c in zip(values, counts, strict=True)],
            })  # fmt: skip
    largest = sorted(found, key=lambda each: each["entries"], reverse=True)[:HISTOGRAMS]
    return [each for each in found if each in largest and each["entries"]]


def drawing(network: Network) -> dict[str, Any]:
    """The network as boxes and arrows.

    ``nodes`` : id, label, ``on`` ("input", "array", "host", "output", or "" for what moves values), the shape that it
    makes, and its ``rank``: one more than the highest of what it reads. ``edges`` : pairs of ids; what a loop reads of
    its own last round has none.
    """
    nodes: list[dict[str, Any]] = []
    edges: list[tuple[int, int]] = []
    made: dict[str, int] = {}

    def add(label: str, on: str, shape: Sequence[int], reads: Sequence[str], makes: Sequence[str]) -> None:
        sources = sorted({made[name] for name in reads if name in made})
        rank = 1 + max((nodes[source]["rank"] for source in sources), default=-1)
        edges.extend((source, len(nodes)) for source in sources)
        made.update(dict.fromkeys(makes, len(nodes)))
        nodes.append({"id": len(nodes), "label": label, "on": on, "shape": list(shape), "rank": rank})

    host = {node.name for node in network.host}
    for node in network.graph:
        if node.op == "Array":
            image = network.image(node)
            inner = _Inner(image, node.inputs, node.outputs)
            for layer in image.layers:
                result = image.maps[layer.result]
                reads = [inner.name(source) for source in layer.sources]
                makes = (result.channels, result.height, result.width)
                add(layer.name, "array", makes, reads, [inner.name(layer.result)])
            continue
        on = {"Input": "input", "Output": "output"}.get(node.op, "host" if node.name in host else "")
        name = node.outputs[0] if node.outputs else node.inputs[0]
        shape = network.types[name].shape if name in network.types else ()
        add(node.name, on, shape, node.inputs, node.outputs)
    return {"nodes": nodes, "edges": [list(edge) for edge in edges]}


class _Inner:
    """Names of the maps of an image in the whole network: those that it takes and gives are the graph's."""

    def __init__(self, image: Image, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.names = dict(zip(image.inputs, inputs, strict=True)) | dict(zip(image.outputs, outputs, strict=True))
        self.image = image

    def name(self, number: int) -> str:
        return self.names.get(number, f"{id(self.image)}.{number}")


def training_facts(report: Mapping[str, Any]) -> dict[str, Any]:
    """Of the report of a run of ``eie train``: accuracy after each stage, how each went, sizes, what made it.

    A figure of an epoch that is NaN or infinite is None.
    """
    return {
        **{name: report[name] for name in ("seed", "data", "size", "command", "finished", "versions", "cpu_seconds")},
        "stages": [
            {"stage": stage["stage"], "kind": stage["kind"], "epochs": stage["epochs"], **stage["accuracy"],
             "history": [{name: _finite(value) for name, value in epoch.items()} for epoch in stage["history"]]}
            for stage in report["stages"]
        ],
    }  # fmt: skip


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


_REPORT: dict[str, type] = {
    "experiment": dict, "figures": dict, "findings": list, "tables": list, "command": str, "finished": str,
    "versions": dict,
}  # fmt: skip
_TABLE: dict[str, type] = {"title": str, "columns": list, "rows": list}
_POINT: dict[str, type] = {"ratio": float, "test": float, "way": str}


def wrong_report(report: Any) -> str:
    """What `pareto` and the page cannot use of the report of an experiment, in words; empty if nothing."""
    if not isinstance(report, dict):
        return "it is no JSON object"
    if wrong := wrong_fields(report, _REPORT):
        return wrong
    parts: list[tuple[str, Any, dict[str, type]]] = [("experiment", report["experiment"], {"name": str})]
    parts += [(f"tables[{n}]", table, _TABLE) for n, table in enumerate(report["tables"])]
    for name, figures in report["figures"].items():
        if isinstance(figures, dict) and "tried" in figures and (wrong := _wrong_search(figures)):
            return f"figures.{name}: {wrong}"
        if isinstance(figures, dict) and "points" in figures:
            dense: dict[str, type] = {} if figures.get("dense_test_error") is None else {"dense_test_error": float}
            if wrong := wrong_fields(figures, {"points": list, **dense}):
                return f"figures.{name}: {wrong}"
            parts += [(f"figures.{name}.points[{n}]", point, _POINT) for n, point in enumerate(figures["points"])]
    for where, part, expected in parts:
        if wrong := wrong_fields(part, expected) if isinstance(part, dict) else "it is no JSON object":
            return f"{where}: {wrong}"
    for number, table in enumerate(report["tables"]):
        if not all(isinstance(row, list) and all(map(_is_cell, row)) for row in table["rows"]):
            return f"tables[{number}]: rows should be lists of texts and numbers"
    return ""


def _search_fronts(name: str, figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A panel for each pair of the first objective and another one; of a single objective, over the trials."""
    objectives = figures["objectives"]
    done = [each for each in figures["tried"] if each["state"] == "complete"]
    panels: list[tuple[int | None, str]] = [(number, text) for number, text in enumerate(objectives) if number] or [
        (None, "trial")
    ]
    return [
        {"name": name, "dense_error": None, "across": text, "up": objectives[0],
         "points": [
             {"ratio": each["trial"] if number is None else each["objectives"][number], "error": each["objectives"][0],
              "label": f"trial {each['trial']}", "front": each["front"]}
             for each in done
         ]}
        for number, text in panels
    ]  # fmt: skip


def _wrong_search(figures: Mapping[str, Any]) -> str:
    """What `_search_fronts` cannot use, in words; empty if nothing."""
    names, tried = figures.get("objectives"), figures["tried"]
    if not isinstance(names, list) or not names or not all(isinstance(each, str) for each in names):
        return "objectives should be a list of texts"
    if not isinstance(tried, list) or not all(isinstance(each, dict) for each in tried):
        return "tried should be a list of JSON objects"
    for number, each in enumerate(tried):
        if wrong := wrong_fields(each, {"trial": int, "state": str, "objectives": list}):
            return f"tried[{number}]: {wrong}"
        if not isinstance(each.get("front"), bool):
            return f"tried[{number}].front should be true or false"
        numbers = each["objectives"]
        if each["state"] == "complete" and (len(numbers) != len(names) or None in numbers or not all(
            _is_cell(value) and not isinstance(value, str) for value in numbers
        )):  # fmt: skip
            return f"tried[{number}].objectives should be {len(names)} numbers"
    return ""


def _is_cell(value: Any) -> bool:
    number = isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return number or value is None or isinstance(value, str)


def pareto(report: Mapping[str, Any]) -> dict[str, Any]:
    """Of the report of ``eie experiment``: its tables and findings, and the points that no other beats.

    report : with nothing wrong in it, see `wrong_report`.

    ``fronts`` : for each network of a search of error against compression all points (``ratio``, test ``error`` in
    percent, ``label``), and which are on the ``front``: no other is smaller at no more error. Of ``eie search``: for
    each objective but the first one (``ratio``) the first (``error``), then with what they are, ``across`` and ``up``;
    with one objective ``ratio`` is the number of the trial.
    """
    fronts = []
    for name, figures in report["figures"].items():
        if isinstance(figures, Mapping) and "tried" in figures:
            fronts += _search_fronts(report["experiment"]["name"], figures)
        if not isinstance(figures, Mapping) or "points" not in figures:
            continue
        points = [
            {
                "ratio": point["ratio"], "error": point["test"],
                "label": ", ".join(
                    [point["way"], *(f"{key} {point[key]}" for key in ("density", "bits") if key in point)]
                ),
            }
            for point in figures["points"]
        ]  # fmt: skip
        best = set(unbeaten([(-point["ratio"], point["error"]) for point in points]))
        for number, point in enumerate(points):
            point["front"] = number in best
        fronts.append({"name": name, "dense_error": figures.get("dense_test_error"), "points": points})
    return {
        "name": report["experiment"]["name"], "command": report["command"], "finished": report["finished"],
        "versions": report["versions"],
        "findings": report["findings"], "tables": report["tables"], "fronts": fronts,
    }  # fmt: skip
