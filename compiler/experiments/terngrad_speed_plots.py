"""Plots of `terngrad_speed`: speed-up against the number of workers, a panel for each network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["predicted_plot", "speedup_plot"]

Speedups = Mapping[tuple[str, int, int], float]


def speedup_plot(
    shares: Mapping[str, float], speedups: Speedups, workers: Sequence[int], mbits: Sequence[int]
) -> Figure:
    """What was measured."""
    return _panels("measured exchanges", shares, speedups, workers, mbits, "o-")


def predicted_plot(
    shares: Mapping[str, float], speedups: Speedups, workers: Sequence[int], mbits: Sequence[int]
) -> Figure:
    """What the model says."""
    return _panels("by the model", shares, speedups, workers, mbits, "--")


def _panels(
    title: str,
    shares: Mapping[str, float],
    speedups: Speedups,
    workers: Sequence[int],
    mbits: Sequence[int],
    style: str,
) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(shares), 3.4), layout="constrained")
    axes = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
    for one, (name, share) in zip(axes, shares.items(), strict=True):
        for mbit in mbits:
            one.plot(workers, [speedups[name, n, mbit] for n in workers], style, label=f"{mbit:,} Mbit/s")
        one.axhline(1, color="gray", linewidth=0.5)
        one.set(title=f"{name}: {share:.0%} fully connected", xlabel="workers", xscale="log")
        one.set_xticks(workers, [str(n) for n in workers])
        one.minorticks_off()
    axes[0].set_ylabel("speed-up over float")
    axes[0].legend(fontsize="small")
    figure.suptitle(title)
    return figure
