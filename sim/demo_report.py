"""What a demonstration found out, as plain data; its summary is made from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.compare import compare_networks
from sim.describe import describe

if TYPE_CHECKING:
    from compiler.network import Network
    from compiler.train.run import LoadedRun
    from sim.network import NetworkResult

__all__ = ["EIE_MHZ", "FIXED_LOSS", "Results", "Samples", "report"]

FIXED_LOSS = 0.05
"""Points of accuracy on all held-out samples that fixed point may lose against the compressed floats; one sample
where there are so few that it weighs more."""

EIE_MHZ = 800
"""Clock of the published design (EIE, Han et al., ISCA 2016, section V), to compare with its microseconds."""


@dataclass(frozen=True)
class Samples:
    """Held-out samples: those that the hardware runs, and all there are.

    chosen : positions of the former among the latter, ascending.
    """

    chosen: NDArray[np.intp]
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Results:
    """What was computed.

    hardware, golden, model : by the engine, the golden model and the cycle model, on the chosen samples.
    every : float64 (n, classes), by the golden model on all held-out samples.
    """

    hardware: NetworkResult
    golden: NetworkResult
    model: NetworkResult
    every: NDArray[np.float64]


def report(network: Network, run: LoadedRun, picked: Samples, results: Results) -> dict[str, Any]:
    """Everything that was found out.

    ``equal`` : every value and every layer record is as the models have it, and something was compared.
    ``fixed_point`` : accuracy lost on all held-out samples, in points. ``stages`` : accuracy on them in floats after
    each stage of the training. ``size`` : weights and bytes. ``cycles`` : over the batch; ``utilization`` counts
    products of two nonzeros. ``layers`` : see `_layers`. ``host`` : operators that the array does not compute.
    ``compared`` : what was compared; ``on_array`` : values of it that the array computed.
    """
    hardware, facts = results.hardware, describe(network)
    values, times = compare_networks(hardware, results.golden), compare_networks(hardware, results.model)
    on_array = sum(raw.size for ran in hardware.runs for raw in ran.values.values())
    entries = sum(layer.counters.get("entries", 0) for layer in hardware.layers)
    cycles, batch, size = hardware.cycles or 0, len(picked.chosen), run.report["size"]
    stored = sum(bits for part, bits in facts["bits"].items() if part != "descriptor") / 8
    accuracy = _accuracies(run, picked, results)
    loss = 100 * ((accuracy["compressed"]["held_out"] or 0) - (accuracy["golden"]["held_out"] or 0))
    allowed = max(FIXED_LOSS, 100 / len(picked.labels))
    return {
        "fixed_point": {"lost_points": round(loss, 6), "allowed_points": allowed, "good": loss <= allowed + 1e-9},
        "equal": values.first is None and times.equal and on_array > 0 and times.records > 0,
        "batch": batch,
        "held_out": len(picked.labels),
        "accuracy": accuracy,
        "stages": [
            {"stage": stage["stage"], "kind": stage["kind"], **stage["accuracy"]} for stage in run.report["stages"]
        ],
        "size": {
            "weights": size["weights"],
            "nonzeros": size["nonzeros"],
            "dense_float32_bytes": size["dense_bytes"],
            "shipped_bytes": size["file_bytes"],
            "ratio": size["ratio"],
            "stored_bytes": round(stored),
        },
        "cycles": {
            "total": cycles,
            "drain": hardware.drain_cycles,
            "per_inference": cycles / batch,
            "microseconds_at_800_mhz": cycles / batch / EIE_MHZ,
            "entries": entries,
            "utilization": hardware.utilization,
        },
        "layers": _layers(network, facts, hardware),
        "host": [f"{node.name} ({node.op})" for node in network.host],
        "compared": {"values": values.asdict(), "cycles": times.asdict(), "on_array": on_array},
        "differences": [*values.explain(), *(line for line in times.explain() if line.startswith("cycles"))],
    }


def _layers(network: Network, facts: dict[str, Any], hardware: NetworkResult) -> list[dict[str, Any]]:
    """A row a layer, in order of computation.

    ``cycles``, ``latency``, ``busy`` and ``counters`` are over the batch. ``cycles`` run from a layer's accept to the
    next one's, so that they add up; ``busy`` to its last product, and ``utilization`` is of those: layers overlap.
    ``products`` are those of a dense layer for one sample. ``tile`` : rows and columns, ``bytes`` : what the layer
    takes in the memories, each weight once for each pixel of a tile. None for what the host computes.
    """
    described, rows, spans = {fact["name"]: fact for fact in facts["layers"]}, [], _spans(hardware)
    for stats in hardware.layers:
        # Elementwise operations have a record, but no weights and no tile.
        fact, busy = (described.get(stats.name, {}), next(spans, None)) if stats.on == "array" else ({}, None)
        counters = stats.counters
        useful = counters.get("entries", 0) - counters.get("padding", 0)
        parts = fact.get("bits", {})
        rows.append({
            **asdict(stats),
            **{key: fact.get(key) for key in ("tile", "tiles", "weights", "nonzeros", "copies", "products")},
            "bytes": round(sum(bits for part, bits in parts.items() if part != "descriptor") / 8) if fact else None,
            "busy": busy,
            "utilization": useful / (network.params.pes * busy) if busy else None,
        })  # fmt: skip
    return rows


def _spans(hardware: NetworkResult) -> Iterator[int]:
    """Cycles of each layer on the array from its accept to its last product, over the batch."""
    for ran in hardware.runs:
        for records in zip(*ran.records, strict=True):
            yield sum(record["finished"] - record["accepted"] for record in records)


def _accuracies(run: LoadedRun, picked: Samples, results: Results) -> dict[str, dict[str, float | None]]:
    """Share of samples classified rightly, on the samples that were run and on all held-out ones."""
    from compiler.train import foreign

    def share(outputs: NDArray[Any], labels: NDArray[np.int64]) -> float:
        return float(np.mean(outputs.argmax(axis=1) == labels))

    features = picked.inputs.shape[1]
    labels, chosen = picked.labels, picked.chosen
    rows: dict[str, dict[str, float | None]] = {}
    for name, module in (("dense", run.before_compression()), ("compressed", run.module)):
        outputs = foreign.outputs(module, picked.inputs, (features,))
        rows[name] = {"samples": share(outputs[chosen], labels[chosen]), "held_out": share(outputs, labels)}
    rows["golden"] = {"samples": share(results.golden.raw, labels[chosen]), "held_out": share(results.every, labels)}
    rows[results.hardware.engine] = {"samples": share(results.hardware.raw, labels[chosen]), "held_out": None}
    return rows
