"""Plots of `terngrad_speed`: speed-up against the number of workers, a panel for each network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from compiler.experiments.terngrad_claims import Speedups

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["speedup_plot"]


def speedup_plot(
    title: str,
    shares: Mapping[str, float],
    speedups: Speedups,
    workers: Sequence[int],
    mbits: Sequence[int],
    style: str,
) -> Figure:
    """Speed-up of every network, a line for each bandwidth.

    shares : network → share of its weights that is fully connected.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.4 + 3.4 * len(shares), 3.4), layout="constrained")
    axes = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
    for one, (name, share) in zip(axes, shares.items(), strict=True):
        for mbit in mbits:
            one.plot(workers, [speedups[name, n, mbit] for n in workers], style, label=f"{mbit:,} Mbit/s")
        one.axhline(1, color="gray", linewidth=0.5)
        one.set(title=f"{name}: {share:.0%} fully connected", xlabel="workers", xscale="log")
        one.set_xticks(workers, [str(n) for n in workers])
        one.minorticks_off()
    axes[0].set_ylabel("speed-up over float")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    figure.suptitle(title)
    return figure
