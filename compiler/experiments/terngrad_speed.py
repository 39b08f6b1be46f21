"""Speed-up of ternary over float gradients, by number of workers, bandwidth, and share of fully connected weights.

Exchanges are measured between hosts with links of limited bandwidth (`terngrad.hosts`). Computing is not: the hosts
share this machine's cores, which those of a cluster would not, so the seconds of forward and backward pass are those
of one worker on a core of its own, measured apart. A step is the sum of both; hooks of torch's reducer with one
bucket overlap nothing.

The claim that is tested: more machines, less bandwidth, more fully connected layers: more speed-up (TernGrad, Wen et
al., NIPS 2017, section 5). That is the claim of a model there; here its three parts are counted in what was measured,
and in what the model says up to as many workers as the paper's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from compiler.experiments.base import Env, Experiment, Summary, SummaryTable, Trial
from compiler.experiments.terngrad_speed_plots import predicted_plot, speedup_plot
from compiler.experiments.terngrad_traffic import network_of
from compiler.train.table import Table
from compiler.train.terngrad.bytes import cheapest
from compiler.train.terngrad.cost import Cost, Exchanged, fit_cost
from compiler.train.terngrad.hosts import NAMESPACES, run_workers, ways
from compiler.train.terngrad.probe import CLASSES, SIDE, mixed
from compiler.train.terngrad.settings import Settings, plan_for

__all__ = ["TernGradSpeed"]

Speedups = Mapping[tuple[str, int, int], float]
"""Network, workers, Mbit/s → how many times faster a step is."""

_COMPUTE = "compute"
_REPEATS = 5  # of a forward and backward pass
_SECONDS = 1800.0  # after which workers that hang are ended


@dataclass(frozen=True, kw_only=True)
class TernGradSpeed(Experiment):
    """Exchanges of every network, number of workers and bandwidth, float and ternary, and a model fitted to a part.

    Attributes
    ----------
    networks : name → options of `probe.mixed`, in the order of their share of fully connected weights.
    workers, mbits : numbers of workers; bandwidths of a worker's link, Mbit/s, both ascending.
    held_mbit : bandwidth that the model is not fitted to; neither is it to the largest number of workers.
    batch : samples of a worker in a step.
    steps : of each measurement, of which the median is taken.
    far_workers, far_mbits : what the model says of others.
    """

    kind: ClassVar[str] = "terngrad-speed"
    networks: dict[str, dict[str, int]]
    workers: tuple[int, ...]
    mbits: tuple[int, ...]
    held_mbit: int
    batch: int
    steps: int
    far_workers: tuple[int, ...]
    far_mbits: tuple[int, ...]

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Networks, workers, bandwidths."""
        networks = {}
        for inner in table.tables("networks"):
            networks[inner.text("name")] = network_of(inner)
            inner.finish()
        most = 1 << 20
        return {
            "networks": networks,
            "workers": table.integers("workers", 2, 64),
            "mbits": table.integers("mbits", 1, most),
            "held_mbit": table.integer("held_mbit", 1, most),
            "batch": table.integer("batch", 1, 1 << 16),
            "steps": table.integer("steps", 1, 1000, default=3),
            "far_workers": table.integers("far_workers", 2, 1 << 14),
            "far_mbits": table.integers("far_mbits", 1, most),
        }

    def trials(self) -> list[Trial]:
        """One for each number of workers, and one for computing."""
        return [Trial(_COMPUTE, {}), *(Trial(f"workers-{n}", {"workers": n}) for n in self.workers)]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Seconds; or why this machine cannot tell."""
        if trial.key == _COMPUTE:
            return {name: _compute_seconds(mixed(**options), self.batch) for name, options in self.networks.items()}
        way, workers = ways(), trial.options["workers"]
        if way.name != NAMESPACES or not way.limits:
            return {"skipped": way.missing}
        env.note(f"{workers} workers")
        schemes = ("float", cheapest(workers))
        cases = [(name, mbit, scheme, 1) for name, mbit, scheme in product(self.networks, self.mbits, schemes)]
        if workers == min(self.workers):
            cases += [(name, self.mbits[0], scheme, self.batch) for name, scheme in product(self.networks, schemes)]
        plan = {
            "measurements": [
                {"network": self.networks[name], "method": scheme, "batch": batch, "mbit": mbit, "steps": self.steps}
                for name, mbit, scheme, batch in cases
            ]
        }
        found = run_workers("compiler.train.terngrad.probe", plan, workers, way, _SECONDS)
        points, whole = [], []
        for number, (name, mbit, scheme, batch) in enumerate(cases):
            each = [worker["results"][number] for worker in found]
            if batch == 1:
                seconds = _typical([one["seconds"] for one in each])
                points.append({"network": name, "mbit": mbit, "scheme": scheme, "seconds": seconds})
            else:
                whole.append(_typical([one["step_seconds"] for one in each]))
        return {"points": points, "whole": whole, "crowd": max(1.0, workers / len(os.sched_getaffinity(0)))}

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Speed-ups, the model and its errors, what it says of others, and whether the claim holds."""
        skipped = {key: result["skipped"] for key, result in results.items() if "skipped" in result}
        if skipped:
            reason = next(iter(skipped.values()))
            return Summary({"skipped": skipped}, [], [f"SKIPPED, nothing was measured: {reason}."])
        compute = results[_COMPUTE]
        networks = {name: _Network.of(name, options, compute[name]) for name, options in self.networks.items()}
        cases = [
            (networks[point["network"]].exchange(point["scheme"], n, point["mbit"], run["crowd"]), point)
            for n in self.workers
            for run in [results[f"workers-{n}"]]
            for point in run["points"]
        ]
        fitted = [case for case in cases if not self._held(case[0])]
        cost = fit_cost([exchange for exchange, _ in fitted], [point["seconds"] for _, point in fitted])
        errors = self._errors(cost, cases)
        measured = self._measured(networks, cases)
        predicted = {
            (name, n, mbit): network.speedup(cost, n, mbit)
            for name, network in networks.items()
            for n, mbit in product(self.far_workers, self.far_mbits)
        }
        shares = {name: network.share for name, network in networks.items()}
        figures = {
            "compute_seconds": compute,
            "fully_connected": shares,
            "model": cost.asdict(),
            "model_errors": errors,
            "speedup": [[*key, value] for key, value in measured.items()],
            "predicted_speedup": [[*key, value] for key, value in predicted.items()],
        }
        tables = [
            _table("Speed-up over float, measured exchanges", networks, measured, self.workers, self.mbits),
            SummaryTable(
                "Errors of the model, relative to measured exchanges",
                ["points", "number", "median", "largest"],
                [[name, error["points"], error["median"], error["largest"]] for name, error in errors.items()],
            ),
            self._whole(measured, results[f"workers-{min(self.workers)}"]["whole"]),
            _table("Speed-up by the model", networks, predicted, self.far_workers, self.far_mbits),
        ]
        findings = [
            *_claims("measured", measured, list(networks), self.workers, self.mbits),
            *_claims("by the model", predicted, list(networks), self.far_workers, self.far_mbits),
            "Relative errors of the model: "
            + "; ".join(
                f"{name}, {error['points']} exchanges: median {error['median']:.0%}, largest {error['largest']:.0%}"
                for name, error in errors.items()
            )
            + ".",
        ]
        plots = {
            "speedup": speedup_plot(shares, measured, self.workers, self.mbits),
            "predicted": predicted_plot(shares, predicted, self.far_workers, self.far_mbits),
        }
        return Summary(figures, tables, findings, plots)

    def _whole(self, measured: Speedups, seconds: Sequence[float]) -> SummaryTable:
        """Steps that compute and exchange, measured as one, against the sum that speed-ups are taken from."""
        workers, mbit = min(self.workers), self.mbits[0]
        rows: list[list[str | int | float | None]] = [
            [name, whole_float, whole, whole_float / whole, measured[name, workers, mbit]]
            for name, whole_float, whole in zip(self.networks, seconds[::2], seconds[1::2], strict=True)
        ]
        title = f"Whole steps of {workers} workers on this machine's cores, {mbit} Mbit/s"
        return SummaryTable(title, ["network", "float s", "ternary s", "speed-up", "speed-up as above"], rows)

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
            errors = [abs(cost.seconds(e) / p["seconds"] - 1) for e, p in cases if belongs(e)]
            found[name] = {"points": len(errors), "median": float(np.median(errors)), "largest": max(errors)}
        return found

    def _measured(
        self, networks: Mapping[str, _Network], cases: Sequence[tuple[Exchanged, Mapping[str, Any]]]
    ) -> Speedups:
        seconds = {
            (p["network"], e.workers, p["mbit"], "float" if e.scheme == "float" else "ternary"): p["seconds"]
            for e, p in cases
        }
        return {
            (name, n, mbit): (network.compute + seconds[name, n, mbit, "float"])
            / (network.compute + seconds[name, n, mbit, "ternary"])
            for name, network in networks.items()
            for n, mbit in product(self.workers, self.mbits)
        }


@dataclass(frozen=True)
class _Network:
    """share: of its weights that are fully connected; ternary, floats: its values; compute: seconds of a step."""

    name: str
    share: float
    ternary: int
    floats: int
    compute: float

    @classmethod
    def of(cls, name: str, options: Mapping[str, int], compute: float) -> _Network:
        module = mixed(**options)
        weights = {True: 0, False: 0}
        for layer in module:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                weights[isinstance(layer, nn.Linear)] += layer.weight.numel()
        plan = plan_for(module, Settings())
        sizes = {key: parameter.numel() for key, parameter in module.named_parameters()}
        ternary = sum(sizes[key] for key, yes in plan.ternary.items() if yes)
        return cls(name, weights[True] / sum(weights.values()), ternary, sum(sizes.values()) - ternary, compute)

    def exchange(self, scheme: str, workers: int, mbit: float, crowd: float = 1.0) -> Exchanged:
        return Exchanged(scheme, workers, mbit, self.ternary, self.floats, crowd)

    def speedup(self, cost: Cost, workers: int, mbit: float) -> float:
        times = [cost.seconds(self.exchange(scheme, workers, mbit)) for scheme in ("float", cheapest(workers))]
        return (self.compute + times[0]) / (self.compute + times[1])


def _typical(seconds: Sequence[Sequence[float]]) -> float:
    """Median over the steps of what the slowest worker took."""
    return float(np.median([max(step) for step in zip(*seconds, strict=True)]))


def _compute_seconds(module: nn.Module, batch: int) -> float:
    """CPU seconds of forward and backward pass on one core; median."""
    inputs, labels = torch.randn(batch, SIDE * SIDE), torch.randint(0, CLASSES, (batch,))
    taken = []
    for _ in range(1 + _REPEATS):
        began = time.process_time()
        nn.functional.cross_entropy(module(inputs), labels).backward()  # type: ignore[no-untyped-call]
        taken.append(time.process_time() - began)
    return float(np.median(taken[1:]))


def _table(
    title: str, networks: Mapping[str, _Network], speedups: Speedups, workers: Sequence[int], mbits: Sequence[int]
) -> SummaryTable:
    rows: list[list[str | int | float | None]] = [
        [name, network.share, network.compute, mbit, *(speedups[name, n, mbit] for n in workers)]
        for name, network in networks.items()
        for mbit in mbits
    ]
    columns = ["network", "fully connected", "compute s", "Mbit/s", *(f"{n} workers" for n in workers)]
    return SummaryTable(title, columns, rows)


def _claims(
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
