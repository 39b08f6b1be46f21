"""What speed-ups say, as a table and against the published claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, product

from compiler.experiments.base import SummaryTable
from compiler.experiments.terngrad_workload import Workload

__all__ = ["Speedups", "claims", "speedup_table"]

Speedups = Mapping[tuple[str, int, int], float]
"""Network, workers, Mbit/s → how many times faster a step is."""


def speedup_table(
    title: str, networks: Mapping[str, Workload], speedups: Speedups, workers: Sequence[int], mbits: Sequence[int]
) -> SummaryTable:
    """A row for each network and bandwidth, a column for each number of workers."""
    rows: list[list[str | int | float | None]] = [
        [name, network.share, network.compute, mbit, *(speedups[name, n, mbit] for n in workers)]
        for name, network in networks.items()
        for mbit in mbits
    ]
    columns = ["network", "fully connected", "compute s", "Mbit/s", *(f"{n} workers" for n in workers)]
    return SummaryTable(title, columns, rows)


def claims(
    source: str, speedups: Speedups, names: Sequence[str], workers: Sequence[int], mbits: Sequence[int]
) -> list[str]:
    """The three parts of the claim: how often a step in its direction has more speed-up, all else being equal."""
    parts = {
        "more machines": [
            speedups[name, b, mbit] > speedups[name, a, mbit]
            for name, mbit in product(names, mbits)
            for a, b in pairwise(workers)
        ],
        "less bandwidth": [
            speedups[name, n, a] > speedups[name, n, b]
            for name, n in product(names, workers)
            for a, b in pairwise(mbits)
        ],
        "more fully connected layers": [
            speedups[b, n, mbit] > speedups[a, n, mbit]
            for n, mbit in product(workers, mbits)
            for a, b in pairwise(names)
        ],
    }
    return [
        f"{part.capitalize()}, more speed-up, {source}: in {sum(rises)} of {len(rises)} comparisons"
        f"{' (holds)' if all(rises) else ' (does not hold in general)'}."
        for part, rises in parts.items()
    ]
