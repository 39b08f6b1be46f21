"""What the trials of the ISS experiment say together: sizes at equal perplexity, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.experiments.base import Summary, SummaryTable
from compiler.experiments.iss_network import Network
from compiler.experiments.paired import Family

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["key_of", "summarize"]

Results = Mapping[str, dict[str, Any]]


def key_of(network: str, way: str, strength: float, seed: int) -> str:
    """Name of a trial."""
    return f"{network}.{way}.{seed}" if way == "dense" else f"{network}.{way}-{strength:g}.{seed}"


@dataclass(frozen=True)
class _Row:
    """Means over the seeds of one network, way and strength."""

    network: str
    way: str
    strength: float
    seeds: list[dict[str, Any]]

    def mean(self, *path: str) -> float:
        """Of one figure, named by the keys that lead to it."""
        total = 0.0
        for found in self.seeds:
            value: Any = found
            for key in path:
                value = value[key]
            total += value
        return total / len(self.seeds)

    @property
    def widths(self) -> str:
        """Of embedding and layers, rounded means."""
        each = zip(*(found["widths"] for found in self.seeds), strict=True)
        return " ".join(f"{sum(widths) / len(widths):.0f}" for widths in each)

    def gain(self, batch: int, part: str) -> float:
        """Time before over time after, of measurements that were taken in turns."""
        times = [found["speed"][str(batch)][part] for found in self.seeds]
        return float(np.mean([time["before"] / time["after"] for time in times]))

    def products(self, batch: int) -> float:
        """Time of the dense products over that of the sparse ones."""
        times = [found["products"][str(batch)] for found in self.seeds]
        return float(np.mean([time["dense"] / time["sparse"] for time in times]))


def summarize(
    networks: Sequence[Network], seeds: Sequence[int], tolerance: float, batches: Sequence[int], results: Results
) -> Summary:
    """Tables of every network, the strengths chosen on validation, and sentences about them."""
    tables, findings = [], []
    figures: dict[str, Any] = {"networks": {}}
    plots = {}
    compared: dict[str, tuple[list[float], list[float]]] = {}
    for network in networks:

        def row(way: str, strength: float, name: str = network.name) -> _Row:
            return _Row(name, way, strength, [results[key_of(name, way, strength, seed)] for seed in seeds])

        dense = row("dense", 0.0)
        iss = [row("iss", strength) for strength in network.strengths]
        l1 = [row("l1", strength) for strength in network.l1]
        limit = dense.mean("validation") * (1 + tolerance)
        chosen, equal = _choose(iss, limit, "multiplies")
        rival, rival_equal = _choose(l1, limit, "nonzeros") if l1 else (None, False)
        ends = [found["test"] for found in chosen.seeds]
        others = {"dense": [found["test"] for found in dense.seeds]}
        others["the same size, direct"] = [found["direct"]["test"] for found in chosen.seeds]
        others |= {} if rival is None else {"L1": [found["test"] for found in rival.seeds]}
        compared |= {f"{network.name}, ISS - {name}": (ends, values) for name, values in others.items()}
        tables.append(_table(network.name, dense, iss, l1))
        tables.append(_speeds(network.name, iss, l1, batches))
        findings += _sentences(dense, chosen, equal, rival, rival_equal, tolerance, batches)
        figures["networks"][network.name] = {
            "dense": _figures(dense),
            "chosen": {"strength": chosen.strength, "equal": equal, **_figures(chosen)},
            "direct": {key: chosen.mean("direct", key) for key in ("validation", "test")},
            "speedup": {str(b): {part: chosen.gain(b, part) for part in ("whole", "layers")} for b in batches},
            "l1": None if rival is None else
            {"strength": rival.strength, "equal": rival_equal, "nonzeros": rival.mean("nonzeros"), **_figures(rival),
             "speedup_of_products": {str(b): rival.products(b) for b in batches}},
        }  # fmt: skip
        plots[f"{network.name}-tradeoff"] = _tradeoff(network.name, dense, iss, l1)
        plots[f"{network.name}-units"] = _units(network.name, iss, seeds[0])
    data = next(iter(results.values()))["data"]
    figures["data"] = data
    findings.append(
        f"Text {data['text']}: {data['train']:,} words to train on, {data['validation']:,} to choose on, "
        f"{data['test']:,} to report on; a vocabulary of {data['words']:,}. Strengths were chosen on validation; "
        "test is reported only."
    )
    family = Family.of(compared)
    figures["test_perplexity_differences"] = family.asdict()
    return Summary(figures, [*tables, *family.tables("test perplexity")], [*findings, family.finding()], plots)


def _choose(rows: Sequence[_Row], limit: float, size: str) -> tuple[_Row, bool]:
    """The smallest of those within the limit of validation perplexity; where there are none, the best of all."""
    within = [row for row in rows if row.mean("validation") <= limit]
    if within:
        return min(within, key=lambda row: row.mean(size)), True
    return min(rows, key=lambda row: row.mean("validation")), False


def _figures(row: _Row) -> dict[str, Any]:
    return {
        "widths": [found["widths"] for found in row.seeds],
        **{key: row.mean(key) for key in ("validation", "test", "parameters", "multiplies")},
    }


def _table(name: str, dense: _Row, iss: Sequence[_Row], l1: Sequence[_Row]) -> SummaryTable:
    def line(words: str, row: _Row, multiplies: float, *path: str) -> list[str | int | float | None]:
        return [words, row.widths, round(row.mean(*path, "validation"), 2), round(row.mean(*path, "test"), 2),
                round(row.mean(*path, "parameters")), round(multiplies)]  # fmt: skip

    rows = [line("dense", dense, dense.mean("multiplies"))]
    for row in iss:
        rows.append(line(f"ISS {row.strength:g}", row, row.mean("multiplies")))
        rows.append(line("the same size, direct", row, row.mean("direct", "multiplies"), "direct"))
    rows += [line(f"L1 {row.strength:g} (nonzeros)", row, row.mean("nonzeros")) for row in l1]
    return SummaryTable(
        f"{name}: perplexity and size (means over the seeds)",
        ["way", "widths", "validation", "test", "parameters", "multiplies a word"],
        rows,
    )


def _speeds(name: str, iss: Sequence[_Row], l1: Sequence[_Row], batches: Sequence[int]) -> SummaryTable:
    rows: list[list[str | int | float | None]] = []
    for row in iss:
        gains = [round(row.gain(batch, part), 2) for batch in batches for part in ("layers", "whole")]
        rows.append([f"ISS {row.strength:g}", row.widths, *gains])
    for row in l1:
        products = [value for batch in batches for value in (None, round(row.products(batch), 2))]
        rows.append([f"L1 {row.strength:g}, products of sparse rows", row.widths, *products])
    return SummaryTable(
        f"{name}: times faster than the dense model, one thread (CPU seconds, medians of turns)",
        ["way", "widths", *(f"{words}, batch {batch}" for batch in batches for words in ("layers", "whole model"))],
        rows,
    )


def _sentences(
    dense: _Row, chosen: _Row, equal: bool, rival: _Row | None, rival_equal: bool, tolerance: float,
    batches: Sequence[int],
) -> list[str]:  # fmt: skip
    name = dense.network
    fewer = dense.mean("multiplies") / chosen.mean("multiplies")
    smaller = dense.mean("parameters") / chosen.mean("parameters")
    speed = ", ".join(
        f"{chosen.gain(batch, 'layers'):.2f}x (layers) and {chosen.gain(batch, 'whole'):.2f}x (whole) at batch {batch}"
        for batch in batches
    )
    verdict = (
        f"within {tolerance:.0%} of" if equal else "NOT within the tolerance of any strength; the best of them, against"
    )
    first = (
        f"{name}: widths {dense.widths} become {chosen.widths} at validation perplexity "
        f"{chosen.mean('validation'):.2f}, {verdict} the dense {dense.mean('validation'):.2f} (test "
        f"{chosen.mean('test'):.2f} and {dense.mean('test'):.2f}): {smaller:.2f}x fewer parameters, {fewer:.2f}x fewer "
        f"multiplies, measured speed-up {speed}."
    )
    gap = chosen.mean("direct", "validation") - chosen.mean("validation")
    better = "worse than" if gap > 0 else "no worse than"
    second = (
        f"{name}: trained directly at those sizes, validation {chosen.mean('direct', 'validation'):.2f} and test "
        f"{chosen.mean('direct', 'test'):.2f}: {better} by way of ISS ({gap:+.2f} validation)."
    )
    if rival is None:
        return [first, second]
    share = rival.mean("nonzeros") / rival.mean("multiplies")
    verdict = "within the tolerance" if rival_equal else "beyond the tolerance"
    speed = ", ".join(f"{rival.products(batch):.2f}x at batch {batch}" for batch in batches)
    third = (
        f"{name}: L1 leaves {share:.1%} of the weights that are multiplied ({1 / share:.2f}x fewer) at validation "
        f"{rival.mean('validation'):.2f} ({verdict}; test {rival.mean('test'):.2f}); its products in compressed sparse "
        f"rows run {speed} times as fast as dense, and its {sum(rival.seeds[0]['silent'])} silent units could be cut."
    )
    return [first, second, third]


def _tradeoff(name: str, dense: _Row, iss: Sequence[_Row], l1: Sequence[_Row]) -> Figure:
    from compiler.train.plots import canvas

    figure, axes = canvas(name)
    whole = dense.mean("multiplies")
    lines = {
        "ISS": [(row.mean("multiplies") / whole, row.mean("validation")) for row in iss],
        "the same sizes, direct": [(row.mean("multiplies") / whole, row.mean("direct", "validation")) for row in iss],
        "L1 (nonzeros)": [(row.mean("nonzeros") / whole, row.mean("validation")) for row in l1],
    }
    for (words, points), style in zip(lines.items(), ("o-", "s--", "^:"), strict=True):
        if points:
            axes.plot(*zip(*sorted(points), strict=True), style, label=words, markersize=4)
    axes.axhline(dense.mean("validation"), color="gray", linestyle=":", label="dense")
    axes.set(xlabel="multiplies left, share of the dense model", ylabel="validation perplexity")
    axes.legend(fontsize=8)
    return figure


def _units(name: str, iss: Sequence[_Row], seed: int) -> Figure:
    from compiler.train.plots import canvas

    figure, axes = canvas(f"{name}, seed {seed}")
    for row in iss:
        counts = [epoch["units"] for epoch in row.seeds[0]["curve"] if "units" in epoch]
        for layer, left in enumerate(zip(*counts, strict=True)):
            axes.plot(
                range(1, len(left) + 1), left, "-" if layer == 0 else "--", label=f"{row.strength:g}, layer {layer}"
            )
    axes.set(xlabel="epoch with the penalty", ylabel="hidden units left", ylim=(0, None))
    axes.legend(fontsize=7)
    return figure
