"""The plots of a run, as PNG and SVG: how it went, where the weights are, what takes the room."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from compiler.train.layers import weights

__all__ = ["FORMATS", "canvas", "picture", "run_plots", "tradeoff"]

_SHOWN = 4.0  # points above the dense error
FORMATS = ("png", "svg")


def run_plots(report: Mapping[str, Any], module: nn.Module) -> dict[str, bytes]:
    """File name → contents of every plot of a run.

    Parameters
    ----------
    report : as `report.finish` makes it.
    module : the network, its parametrizations in place.
    """
    plots: dict[str, Figure] = {"weights": _weights(module), "size": _size(report)}
    if any(stage["history"] for stage in report["stages"]):
        plots["history"] = _history(report)
    for stage in report["stages"]:
        if "curves" in stage:
            plots[stage["stage"]] = _sensitivity(stage)
    return {f"{name}.{form}": picture(figure, form) for name, figure in plots.items() for form in FORMATS}


def picture(figure: Figure, form: str) -> bytes:
    """A figure as a file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "eie", "svg.fonttype": "none"}):  # letters as text take half the room
        figure.savefig(buffer, format=form, dpi=120, metadata={"Date": None} if form == "svg" else None)
    return buffer.getvalue()


def tradeoff(
    curves: Mapping[str, list[tuple[float, float]]],
    dense_error: float,
    title: str,
    points: Mapping[str, Any] | None = None,
) -> Figure:
    """Error against compression: a line for each way of compressing.

    Parameters
    ----------
    curves : label → (ratio, error in percent) in any order.
    dense_error : percent, of the network before compression.
    points : label → (ratio, error), single operating points.
    """
    figure, axes = canvas(title)
    for label, curve in curves.items():
        ratios, errors = zip(*sorted(curve), strict=True)
        axes.plot(ratios, errors, marker="o", markersize=4, label=label)
    for label, (ratio, error) in (points or {}).items():
        axes.plot([ratio], [error], marker="*", markersize=10, linestyle="none", label=label)
    axes.axhline(dense_error, color="gray", linestyle=":", label="dense")
    # What loses more than a few points is not a choice that anyone has.
    axes.set(xscale="log", xlabel="dense float32 bytes / file bytes", ylabel="test error, %")
    axes.set_ylim(0, dense_error + _SHOWN)
    axes.legend()
    return figure


def canvas(title: str, draw: Callable[[Axes], Any] | None = None) -> tuple[Figure, Axes]:
    """An empty plot with a title; `draw` draws into it."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    if draw is not None:
        draw(axes)
    return figure, axes


def _history(report: Mapping[str, Any]) -> Figure:
    """Validation accuracy and share of zero weights over all epochs, with a line where a stage begins."""
    name = report["recipe"]["name"]
    figure, axes = canvas(f"{name}, seed {report['seed']}")
    other = axes.twinx()
    done, epochs, accuracy, zeros = 0, [], [], []
    for stage in report["stages"]:
        if not stage["history"]:
            continue
        if done:
            axes.axvline(done + 0.5, color="gray", linewidth=0.6)
        axes.text(done + 0.7, 0.02, stage["stage"], transform=axes.get_xaxis_transform(), fontsize=7, rotation=90)
        for epoch in stage["history"]:
            done += 1
            epochs.append(done)
            accuracy.append(100 * epoch["validation"])
            zeros.append(100 * (1 - epoch["density"]))
    axes.set_xlim(0.5, done + 0.5)  # names of stages stand within, also where there is one epoch
    seen = " (samples trained on)" if report["data"]["refit"] else ""
    axes.plot(epochs, accuracy, color="tab:blue", label=f"validation accuracy{seen}")
    other.plot(epochs, zeros, color="tab:orange", label="sparsity")
    axes.set(
        xlabel="epoch", ylabel="validation accuracy, %", ylim=(max(0, min(accuracy[len(accuracy) // 8 :]) - 1), 100)
    )
    other.set(ylabel="zero weights, %", ylim=(-2, 102))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _weights(module: nn.Module) -> Figure:
    """Histogram of the nonzero weights of every layer; where they are shared, of each value, at its place."""
    sites = list(weights(module))
    figure = Figure(figsize=(7, 1.8 * max(1, len(sites))), layout="constrained")
    for axes, site in zip(figure.subplots(max(1, len(sites)), squeeze=False)[:, 0], sites, strict=False):
        values = site.value.detach().numpy()
        values = values[values != 0]
        distinct, counts = np.unique(values, return_counts=True)
        if len(distinct) <= 256:
            axes.vlines(distinct, 0, counts, color="tab:red")
            axes.plot(distinct, counts, "o", color="tab:red", markersize=3)
        else:
            axes.hist(values, bins=101, color="tab:blue")
        axes.set(ylabel="weights", title=f"{site.key}: {len(values):,} nonzero, {len(distinct):,} distinct")
    return figure


def _size(report: Mapping[str, Any]) -> Figure:
    """Bytes of each part of the compressed file, by tensor."""
    parts, size = report["size"]["parts"], report["size"]
    figure, axes = canvas(f"{size['file_bytes']:,} bytes, {size['ratio']:.0f}x smaller than float32")
    names = [tensor["name"] for tensor in parts["tensors"]]
    below = np.zeros(len(names))
    for part in parts["tensors"][0]["bits"] if names else ():
        taken = np.array([tensor["bits"][part] / 8 for tensor in parts["tensors"]])
        axes.bar(names, taken, bottom=below, label=part)
        below += taken
    axes.bar(["header"], [parts["bits"]["header"] / 8], color="gray")
    axes.set(ylabel="bytes")
    axes.tick_params(axis="x", rotation=45)
    axes.legend()
    return figure


def _sensitivity(stage: Mapping[str, Any]) -> Figure:
    """Validation accuracy of the network with one layer pruned, and the proposed density of each."""
    figure, axes = canvas("accuracy when one layer is pruned, without retraining; star: proposed density")
    for name, curve in stage["curves"].items():
        densities, accuracy = zip(*curve, strict=True)
        (line,) = axes.plot(densities, [100 * value for value in accuracy], marker="o", markersize=3, label=name)
        proposal = stage["proposal"][name]
        at = float(np.interp(np.log(proposal), np.log(densities), accuracy))
        axes.plot([proposal], [100 * at], marker="*", markersize=11, color=line.get_color())
    axes.set(xscale="log", xlabel="density of the layer", ylabel="validation accuracy, %")
    axes.legend()
    return figure
