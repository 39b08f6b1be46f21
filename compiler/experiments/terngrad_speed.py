"""Speed-up of ternary over float gradients, by number of workers, bandwidth, and share of fully connected weights.

Exchanges are measured between hosts with links of limited bandwidth (`terngrad.hosts`). Computing is not: the hosts
share this machine's cores, which those of a cluster would not, so the seconds of forward and backward pass are CPU
seconds, measured apart. A step is the sum of both; hooks of torch's reducer with one bucket overlap nothing.

The claim that is tested: more machines, less bandwidth, more fully connected layers: more speed-up (TernGrad, Wen et
al., NIPS 2017, section 5). That is the claim of a model there; here its three parts are counted in what was measured,
and in what the model says up to as many workers as the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np

from compiler.experiments.base import Env, Experiment, Summary, SummaryTable, Trial
from compiler.experiments.terngrad_claims import Speedups, claims, speedup_table
from compiler.experiments.terngrad_speed_plots import speedup_plot
from compiler.experiments.terngrad_traffic import network_of
from compiler.experiments.terngrad_workload import Workload, compute_seconds
from compiler.train.table import Table
from compiler.train.terngrad.bytes import cheapest
from compiler.train.terngrad.cost import Cost, Exchanged, fit_cost
from compiler.train.terngrad.hosts import NAMESPACES, run_workers, ways
from compiler.train.terngrad.probe import mixed

__all__ = ["TernGradSpeed"]

_COMPUTE = "compute"
_TINY = "tiny"
_UNLIMITED_STEPS = 15  # short ones
_SECONDS = 1800.0  # after which workers that hang are ended


@dataclass(frozen=True, kw_only=True)
class TernGradSpeed(Experiment):
    """Exchanges of every network, number of workers and bandwidth, float and ternary, and a model fitted to a part.

    Attributes
    ----------
    networks : name → options of `probe.mixed`, in the order of their share of fully connected weights.
    workers, mbits : numbers of workers; bandwidths of a worker's link, Mbit/s, both ascending.
    held_mbit : bandwidth that the model is not fitted to; neither is it to the largest number of workers.
    tiny : a network whose exchanges, without a limit, are latency and little else; it helps to fit the model.
    batch : samples of a worker in a step.
    steps : of each measurement, of which the least is taken: what else runs on the machine only adds.
    far_workers, far_mbits, far_scales : what the model says of others; networks with so many times the values, and
        as many times the computing.
    """

    kind: ClassVar[str] = "terngrad-speed"
    networks: dict[str, dict[str, int]]
    workers: tuple[int, ...]
    mbits: tuple[int, ...]
    held_mbit: int
    tiny: dict[str, int]
    batch: int
    steps: int
    far_workers: tuple[int, ...]
    far_mbits: tuple[int, ...]
    far_scales: tuple[int, ...]

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Networks, workers, bandwidths."""
        networks = {}
        for inner in table.tables("networks"):
            networks[inner.text("name")] = network_of(inner)
            inner.finish()
        tiny = table.table("tiny")
        most = 1 << 20
        found = {
            "networks": networks,
            "tiny": network_of(tiny),
            "workers": table.integers("workers", 2, 64),
            "mbits": table.integers("mbits", 1, most),
            "held_mbit": table.integer("held_mbit", 1, most),
            "batch": table.integer("batch", 1, 1 << 16),
            "steps": table.integer("steps", 1, 1000, default=3),
            "far_workers": table.integers("far_workers", 2, 1 << 14),
            "far_mbits": table.integers("far_mbits", 1, most),
            "far_scales": table.integers("far_scales", 1, most),
        }
        tiny.finish()
        return found

    def trials(self) -> list[Trial]:
        """One for each number of workers, and one for computing."""
        return [Trial(_COMPUTE, {}), *(Trial(f"workers-{n}", {"workers": n}) for n in self.workers)]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Seconds; or why this machine cannot tell."""
        if trial.key == _COMPUTE:
            return {name: compute_seconds(mixed(**options), self.batch) for name, options in self.networks.items()}
        way, workers = ways(), trial.options["workers"]
        if way.name != NAMESPACES or not way.limits:
            return {"skipped": way.missing}
        env.note(f"{workers} workers")
        schemes = ("float", cheapest(workers))
        networks = {**self.networks, _TINY: self.tiny}
        cases = [
            *(_Case(name, mbit, scheme) for name, mbit, scheme in product(self.networks, self.mbits, schemes)),
            *(_Case(name, None, scheme) for name, scheme in product(networks, schemes)),
        ]
        if workers == min(self.workers):
            cases += [
                _Case(name, mbit, scheme, self.batch)
                for mbit, name, scheme in product(self._whole_mbits, self.networks, schemes)
            ]
        plan = {
            "measurements": [
                {
                    "network": networks[case.network], "method": case.scheme, "batch": case.batch, "mbit": case.mbit,
                    "steps": self.steps if case.mbit else _UNLIMITED_STEPS,
                }
                for case in cases
            ]
        }  # fmt: skip
        found = run_workers("compiler.train.terngrad.probe", plan, workers, way, _SECONDS)
        points, whole = [], []
        for number, case in enumerate(cases):
            each = [worker["results"][number] for worker in found]
            if case.batch == 1:
                times = {key: _least([one[key] for one in each]) for key in ("seconds", "cpu_seconds")}
                points.append({"network": case.network, "mbit": case.mbit, "scheme": case.scheme, **times})
            else:
                whole.append(_least([one["step_seconds"] for one in each]))
        return {"points": points, "whole": whole}

    @property
    def _whole_mbits(self) -> tuple[int, ...]:
        """Bandwidths at which whole steps are measured as well: the least and the greatest."""
        return self.mbits[0], self.mbits[-1]

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Speed-ups, the model and its errors, what it says of others, and whether the claim holds."""
        if (skipped := Summary.skipped(results)) is not None:
            return skipped
        compute = results[_COMPUTE]
        networks = {name: Workload.of(options, compute[name]) for name, options in self.networks.items()}
        known = {**networks, _TINY: Workload.of(self.tiny, 0.0)}
        cases = [
            (known[point["network"]].exchange(point["scheme"], n, point["mbit"] or math.inf), point)
            for n in self.workers
            for point in results[f"workers-{n}"]["points"]
        ]
        fitted = [case for case in cases if not self._held(case[0])]
        cost = fit_cost(
            [exchange for exchange, _ in fitted],
            *([point[key] for _, point in fitted] for key in ("seconds", "cpu_seconds")),
        )
        errors = self._errors(cost, cases)
        measured = self._measured(networks, cases)
        predicted = {
            scale: {
                (name, n, mbit): network.scaled(scale).speedup(cost, n, mbit)
                for name, network in networks.items()
                for n, mbit in product(self.far_workers, self.far_mbits)
            }
            for scale in self.far_scales
        }
        shares = {name: network.share for name, network in networks.items()}
        figures = {
            "compute_seconds": compute,
            "fully_connected": shares,
            "model": cost.asdict(),
            "model_errors": errors,
            "speedup": [[*key, value] for key, value in measured.items()],
            "predicted_speedup": {
                str(scale): [[*key, value] for key, value in found.items()] for scale, found in predicted.items()
            },
        }
        tables = [
            speedup_table("Speed-up over float, measured exchanges", networks, measured, self.workers, self.mbits),
            SummaryTable(
                "Errors of the model, relative to measured exchanges",
                ["points", "number", "median", "largest"],
                [[name, error["points"], error["median"], error["largest"]] for name, error in errors.items()],
            ),
            self._whole(measured, results[f"workers-{min(self.workers)}"]["whole"]),
            *(
                speedup_table(f"Speed-up {_by_model(scale)}", networks, found, self.far_workers, self.far_mbits)
                for scale, found in predicted.items()
            ),
        ]
        findings = [
            *claims("measured", measured, list(networks), self.workers, self.mbits),
            *(
                sentence
                for scale, found in predicted.items()
                for sentence in claims(_by_model(scale), found, list(networks), self.far_workers, self.far_mbits)
            ),
            "Relative errors of the model: "
            + "; ".join(
                f"{name}, {error['points']} exchanges: median {error['median']:.0%}, largest {error['largest']:.0%}"
                for name, error in errors.items()
            )
            + ".",
        ]
        plots = {"speedup": speedup_plot("measured exchanges", shares, measured, self.workers, self.mbits, "o-")}
        for scale, found in predicted.items():
            plots[f"predicted-{scale}"] = speedup_plot(
                _by_model(scale), shares, found, self.far_workers, self.far_mbits, "--"
            )
        return Summary(figures, tables, findings, plots)

    def _whole(self, measured: Speedups, seconds: Sequence[float]) -> SummaryTable:
        """Steps that compute and exchange, measured as one, against the sum that speed-ups are taken from."""
        workers = min(self.workers)
        rows: list[list[str | int | float | None]] = [
            [mbit, name, slow, fast, slow / fast, measured[name, workers, mbit]]
            for (mbit, name), slow, fast in zip(
                product(self._whole_mbits, self.networks), seconds[::2], seconds[1::2], strict=True
            )
        ]
        title = f"Whole steps of {workers} workers on this machine's cores, computing included"
        return SummaryTable(title, ["Mbit/s", "network", "float s", "ternary s", "speed-up", "speed-up as above"], rows)

    def _held(self, exchange: Exchanged) -> bool:
        return exchange.workers == max(self.workers) or exchange.mbit == self.held_mbit

    def _errors(self, cost: Cost, cases: Sequence[tuple[Exchanged, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
        """Relative errors of predictions, by what the model was fitted to."""
        kinds: dict[str, Callable[[Exchanged], bool]] = {
            "fitted": lambda e: not self._held(e),
            "other bandwidth": lambda e: e.mbit == self.held_mbit and e.workers < max(self.workers),
            "more workers": lambda e: e.workers == max(self.workers),
        }
        found = {}
        for name, belongs in kinds.items():
            errors = [abs(cost.seconds(e, shared=True) / p["seconds"] - 1) for e, p in cases if belongs(e)]
            found[name] = {"points": len(errors), "median": float(np.median(errors)), "largest": max(errors)}
        return found

    def _measured(
        self, networks: Mapping[str, Workload], cases: Sequence[tuple[Exchanged, Mapping[str, Any]]]
    ) -> Speedups:
        seconds = {
            (p["network"], e.workers, p["mbit"], "float" if e.scheme == "float" else "ternary"): p["seconds"]
            for e, p in cases
            if p["network"] in networks and p["mbit"]
        }
        return {
            (name, n, mbit): (network.compute + seconds[name, n, mbit, "float"])
            / (network.compute + seconds[name, n, mbit, "ternary"])
            for name, network in networks.items()
            for n, mbit in product(self.workers, self.mbits)
        }


@dataclass(frozen=True)
class _Case:
    """A measurement; mbit: None for no limit; batch: 1 where only the exchange counts."""

    network: str
    mbit: int | None
    scheme: str
    batch: int = 1


def _by_model(scale: int) -> str:
    return "by the model" if scale == 1 else f"by the model for networks {scale} times as large"


def _least(seconds: Sequence[Sequence[float]]) -> float:
    """Least over the steps of what the slowest worker took."""
    return float(min(max(step) for step in zip(*seconds, strict=True)))
