"""What each way to share a step among processes costs and saves, against one process that does the same work.

Workers are real processes, each in a network namespace of its own, whose interface counts what it sends
(`parallel.measured`). Gradients are compared in full with those of one process on the same batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean, median
from typing import Any, ClassVar

import numpy as np

from compiler.errors import RecipeError
from compiler.experiments.base import Env, Experiment, Summary, SummaryTable, Trial
from compiler.experiments.paired import seeds_in_words
from compiler.experiments.subject import NetworkSpec, networks_of
from compiler.train.table import Table
from compiler.train.terngrad.hosts import LOOPBACK, run_workers, ways

__all__ = ["LIMIT", "WAYS", "Parallel"]

WAYS = ("data", "sharded", "tensor", "data-tensor", "gpipe", "1f1b")

LIMIT = 1e-4
"""Relative difference up to which gradients are those of one process, to float rounding."""

_SECONDS = 1800.0  # after which workers that hang are ended


@dataclass(frozen=True, kw_only=True)
class Parallel(Experiment):
    """Every way with every network.

    Attributes
    ----------
    networks : of which only shapes, data and batch count; nothing is trained.
    ways : some of `WAYS`.
    workers : processes of each way; "data-tensor" has twice as many, a grid of shares of batches and of layers.
    steps : that are timed.
    """

    kind: ClassVar[str] = "parallel"
    networks: tuple[NetworkSpec, ...]
    ways: tuple[str, ...]
    workers: int
    steps: int

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Networks, ways and processes."""
        given = table.texts("ways", default=list(WAYS))
        if not given or len(set(given)) < len(given) or not set(given) <= set(WAYS):
            said = ", ".join(given) or "none"
            raise RecipeError(f"{table.source}: ways are {said}; expected some of {', '.join(WAYS)}, and none twice")
        return {
            "networks": networks_of(table),
            "ways": tuple(given),
            "workers": table.integer("workers", 2, 64, default=2),
            "steps": table.integer("steps", 3, 10_000, default=30),
        }

    def _workers(self, way: str) -> int:
        return self.workers * (2 if way == "data-tensor" else 1)

    def trials(self) -> list[Trial]:
        """One for each number of processes and seed: they are started once for all that they measure."""
        counts = dict.fromkeys(self._workers(way) for way in self.ways)
        return [
            Trial(f"{count}.{seed}", {"workers": count, "seed": seed}) for seed, count in product(self.seeds, counts)
        ]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Measure all ways of so many processes; or say why this machine cannot."""
        kept = ways()
        if not kept.name:
            return {"skipped": kept.missing}
        count, seed = trial.options["workers"], trial.options["seed"]
        cases = [(way, spec) for way in self.ways if self._workers(way) == count for spec in self.networks]
        env.note(f"{count} processes, {len(cases)} measurements in {kept.name}")
        plan = {
            "data_dir": None if env.data_dir is None else str(env.data_dir),
            "steps": self.steps,
            "measurements": [{"way": way, "job": spec.job(seed)} for way, spec in cases],
        }
        found = run_workers("compiler.train.parallel.measured", plan, count, kept, _SECONDS)
        # One loopback interface carries what all of them send, and each of them reads all of it.
        readers = count**2 if kept.name == LOOPBACK else count
        return {
            f"{way}.{spec.name}": _joined([one["results"][number] for one in found], readers)
            for number, (way, spec) in enumerate(cases)
        }

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Differences, time, bytes and weights of every way, by network."""
        if (skipped := Summary.skipped(results)) is not None:
            return skipped
        figures: dict[str, Any] = {}
        tables, wrong, largest = [], [], 0.0
        for spec in self.networks:
            rows: list[list[str | int | float | None]] = []
            for way in self.ways:
                count = self._workers(way)
                runs = [results[f"{count}.{seed}"][f"{way}.{spec.name}"] for seed in self.seeds]
                difference = float(np.max([run["difference"] for run in runs]))  # NaN stays NaN
                largest = max(largest, difference)
                if not difference <= LIMIT:
                    wrong.append(f"{way} with {spec.name} ({difference:.1e})")
                slower = [median(run["seconds"]) / median(run["alone"]) for run in runs]
                rows.append([
                    way, count, float(f"{difference:.2g}"), fmean(slower), min(slower), max(slower),
                    fmean(run["cpu"] / run["cpu_alone"] for run in runs),
                    fmean(run["sent"] for run in runs) / self.steps / 1e3, 100 * runs[0]["held"] / runs[0]["whole"],
                ])  # fmt: skip
                figures[f"{spec.name}.{way}"] = {
                    "difference": difference, "seconds_ratio": slower, "held": runs[0]["held"],
                    "bytes_a_step": [run["sent"] / self.steps for run in runs],
                }  # fmt: skip
            whole = results[f"{self._workers(self.ways[0])}.{self.seeds[0]}"][f"{self.ways[0]}.{spec.name}"]["whole"]
            tables.append(
                SummaryTable(
                    f"{spec.name}: {whole / 4:,.0f} weights, batches of {spec.dense.batch}; medians of {self.steps} "
                    f"steps against one process, {seeds_in_words(len(self.seeds))}",
                    [
                        "way", "processes", "gradients differ by", "seconds, times one process", "least", "most",
                        "CPU seconds of all, times", "kB sent, a step and process", "weights in the fullest process, %",
                    ],
                    rows,
                )
            )  # fmt: skip
        cases = len(self.networks) * len(self.ways) * len(self.seeds)
        said = (
            f"are those of one process to float rounding (largest relative difference {largest:.1e}, limit {LIMIT:g})"
            if not wrong
            else f"ARE NOT those of one process (limit {LIMIT:g}): {', '.join(wrong)}"
        )
        findings = [f"In {cases} cases of way, network and seed the gradients {said}.", self._costs(figures)]
        return Summary(figures, tables, findings)

    def _costs(self, figures: Mapping[str, Any]) -> str:
        """Which ways gain time on this machine."""
        faster = [name for name, one in figures.items() if max(one["seconds_ratio"]) < 1]
        return (
            f"A step is faster than one process's with every seed in {len(faster)} of {len(figures)} cases of way and "
            f"network{': ' if faster else ''}{', '.join(faster)}. Processes share the cores of one machine."
        )


def _joined(workers: Sequence[Mapping[str, Any]], readers: int) -> dict[str, Any]:
    """One measurement as all see it: a step ends when the slowest is done; the first measures one process."""
    return {
        "difference": float(np.max([one["difference"] for one in workers])),
        "seconds": [max(each) for each in zip(*(one["seconds"] for one in workers), strict=True)],
        "cpu": sum(one["cpu"] for one in workers),
        "alone": workers[0]["alone"], "cpu_alone": workers[0]["cpu_alone"],
        "sent": sum(one["sent"] for one in workers) / readers,
        "held": max(one["held"] for one in workers), "whole": workers[0]["whole"],
    }  # fmt: skip
