"""Bytes at the network interface of each worker: ternary gradients against float, fp16 and low-rank ones.

Every worker is a process on a host of its own (`terngrad.hosts`); what its interface has sent is read before and after
some steps, headers and acknowledgements included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from compiler.experiments.base import Env, Experiment, Summary, SummaryTable, Trial
from compiler.train.table import Table
from compiler.train.terngrad.bytes import cheapest, float_bits, gather_ratio, low_rank_bits, sums_ratio
from compiler.train.terngrad.hosts import LOOPBACK, run_workers, ways
from compiler.train.terngrad.probe import METHODS, PUSHES, mixed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TernGradTraffic", "network_of"]

PUSH_GOAL = 15.0
"""How many times fewer bytes from a worker to those that add up."""

SHARE_GOAL = 0.9
"""Part of what the formula of a scheme allows."""

_SECONDS = 900.0  # after which workers that hang are ended


def network_of(table: Table) -> dict[str, int]:
    """Options of `probe.mixed`, taken from a recipe's table."""
    limits = {"channels": 1 << 12, "layers": 64, "hidden": 1 << 14}
    return {key: table.integer(key, 1, limit) for key, limit in limits.items()}


@dataclass(frozen=True, kw_only=True)
class TernGradTraffic(Experiment):
    """Every method with every number of workers.

    Attributes
    ----------
    network : options of `probe.mixed`.
    workers : numbers of workers.
    steps : over which bytes are counted.
    """

    kind: ClassVar[str] = "terngrad-traffic"
    network: dict[str, int]
    workers: tuple[int, ...]
    steps: int

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """The network, numbers of workers, and steps."""
        inner = table.table("network")
        found = {
            "network": network_of(inner),
            "workers": table.integers("workers", 2, 64),
            "steps": table.integer("steps", 1, 1000, default=3),
        }
        inner.finish()
        return found

    def trials(self) -> list[Trial]:
        """One for each number of workers; nothing here is random enough to need more than one seed."""
        return [Trial(f"workers-{workers}", {"workers": workers}) for workers in self.workers]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Bytes that a worker sends in a step, mean over the workers, by method; or why this machine cannot tell."""
        way, workers = ways(), trial.options["workers"]
        if not way.name:
            return {"skipped": way.missing}
        env.note(f"{workers} workers in {way.name}")
        methods = (*METHODS, *PUSHES)
        plan = {
            "measurements": [
                {"network": self.network, "method": method, "batch": 1, "mbit": None, "steps": self.steps}
                for method in methods
            ]
        }
        found = run_workers("compiler.train.terngrad.probe", plan, workers, way, _SECONDS)
        # One loopback interface carries what all of them send, and each of them reads all of it.
        readers = workers**2 if way.name == LOOPBACK else workers
        return {
            "way": way.name,
            "missing": way.missing,
            "values": found[0]["results"][0]["values"],
            "bytes": {
                method: sum(worker["results"][number]["tx"] for worker in found) / readers
                for number, method in enumerate(methods)
            },
        }

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Ratios to float, and how much of what the formulae allow."""
        if (skipped := Summary.skipped(results)) is not None:
            return skipped
        figures: dict[str, Any] = {}
        rows: list[list[Any]] = []
        pushes: list[list[Any]] = []
        for workers in self.workers:
            result = results[f"workers-{workers}"]
            sent, values = result["bytes"], result["values"]
            allowed = self._allowed(workers)
            for method in METHODS:
                ratio = sent["float"] / sent[method]
                chosen = "chosen" if method == cheapest(workers) else ""
                rows.append(
                    [workers, method, sent[method] / 1e6, ratio, allowed[method], ratio / allowed[method], chosen]
                )
            fewer = sent["push-float"] / sent["push-ternary"]
            pushes.append([workers, sent["push-float"] / 1e6, sent["push-ternary"] / 1e6, fewer])
            figures[str(workers)] = {"values": values, "bytes": sent, "push_ratio": fewer}
        first = results[f"workers-{self.workers[0]}"]
        tables = [
            SummaryTable(
                f"Sent by a worker in a step, {values:,} values ({first['way']})",
                ["workers", "method", "MB", "fewer than float", "formula", "share of formula", "scheme"],
                rows,
            ),
            SummaryTable(
                "Of it, from the workers to those that add up",
                ["workers", "float MB", "ternary MB", "fewer"],
                pushes,
            ),
        ]
        taken = [row for row in rows if row[-1]]
        share, push = min(row[5] for row in taken), min(row[3] for row in pushes)
        best = all(
            min(("gather", "sums"), key=lambda m: results[f"workers-{w}"]["bytes"][m]) == cheapest(w)
            for w in self.workers
        )
        powersgd = ", ".join(f"{row[3]:.0f} with {row[0]} workers" for row in rows if row[1] == "powersgd")
        findings = [
            (
                f"To those that add up, a worker sends {push:.1f} times fewer bytes than float or more (goal "
                f"{PUSH_GOAL:.0f}: {_met(push >= PUSH_GOAL)})."
            ),
            (
                f"In all, the chosen scheme reaches {share:.1%} of its formula or more (goal {SHARE_GOAL:.0%}: "
                f"{_met(share >= SHARE_GOAL)}); the rest is float tensors, scalers and headers."
            ),
            f"The scheme chosen by formula {'is' if best else 'is NOT always'} the one that sent fewer bytes.",
            f"PowerSGD of rank 1 sends fewer still, {powersgd} times fewer than float; its gradients are biased.",
        ]
        if first["missing"] and first["way"] == LOOPBACK:
            findings.append(f"Measured at one loopback interface for all workers: {first['missing']}.")
        return Summary(figures, tables, findings, {"bytes": _plot(rows)})

    def _allowed(self, workers: int) -> dict[str, float]:
        """Ratio to float by each method's formula."""
        shapes = [tuple(parameter.shape) for parameter in mixed(**self.network).parameters()]
        values = sum(math.prod(shape) for shape in shapes)
        low_rank = float_bits(workers) * values / low_rank_bits(shapes, 1, workers)
        return {
            "float": 1.0, "fp16": 2.0, "powersgd": low_rank, "gather": gather_ratio(workers),
            "sums": sums_ratio(workers),
        }  # fmt: skip


def _met(yes: bool) -> str:
    return "reached" if yes else "missed"


def _plot(rows: list[list[Any]]) -> Figure:
    from compiler.train.plots import canvas

    figure, axes = canvas("dotted: by formula")
    for method in METHODS[1:]:
        mine = [row for row in rows if row[1] == method]
        (line,) = axes.plot([row[0] for row in mine], [row[3] for row in mine], marker="o", label=method)
        axes.plot([row[0] for row in mine], [row[4] for row in mine], ":", color=line.get_color())
    axes.set(xlabel="workers", ylabel="times fewer bytes than float", yscale="log")
    axes.legend()
    return figure
