"""Bounded staleness: seconds to the same loss under stragglers, in simulated time, by the bound on stale reads.

A bound has a learning rate of its own, chosen with a seed of its own by the seconds to that loss on validation samples.
Sources: Ho et al., NIPS 2013; Li et al., OSDI 2014. Updates are real, seconds are those of `train.consistency.delays`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import nn

from compiler.errors import RecipeError
from compiler.experiments.base import Env, Summary, SummaryTable, Trial
from compiler.experiments.paired import Family, Paired, seeds_in_words
from compiler.experiments.subject import NetworkSpec, OverNetworks, Subject, networks_of
from compiler.experiments.tuned import check_seeds
from compiler.train.consistency.core import bound_words
from compiler.train.consistency.delays import KINDS, Delays
from compiler.train.consistency.learner import Learner
from compiler.train.consistency.simulate import Outcome, Simulation
from compiler.train.data import Split
from compiler.train.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GOALS", "Consistency"]

GOALS = {"random": 1.3, "rotating": 1.4}
"""Kind of stragglers → how many times faster than bulk-synchronous reads a bound is to be."""

_SHOWN = 3
"""The bound that is judged beside the one that the tuning seed prefers."""


@dataclass(frozen=True, kw_only=True)
class Consistency(OverNetworks):
    """Every network with every kind of stragglers and every bound, until its loss is what is wanted.

    Attributes
    ----------
    workers, servers : of the simulated training; the schedule's batch is that of all workers.
    bounds : on staleness; the first is 0, bulk-synchronous. unbounded: whether asynchronous reads are tried as well.
    target : loss on the training samples that ends a training.
    rates : learning rates; each network, kind of stragglers and bound takes the one with which `tuning_seed` needs
        the fewest seconds to `target` on the validation samples.
    stragglers : name → how steps are disturbed.
    latency : seconds of a message.
    """

    kind: ClassVar[str] = "consistency"
    listed: ClassVar[tuple[str, ...]] = ("bounds", "unbounded")
    workers: int
    servers: int
    bounds: tuple[int, ...]
    unbounded: bool
    target: float
    rates: tuple[float, ...]
    tuning_seed: int
    stragglers: Mapping[str, Delays]
    latency: float

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Networks, bounds, stragglers."""
        bounds = table.integers("bounds", 0, 1 << 20)
        if not bounds or bounds[0] != 0 or len(set(bounds)) < len(bounds):
            raise RecipeError(f"{table.source}: bounds is {list(bounds)}; expected 0 first, and no number twice")
        stragglers = {}
        for one in table.tables("stragglers"):
            kind = one.choice("kind", KINDS)
            stragglers[one.text("name", default=kind)] = Delays.parse(one, kind)
            one.finish()
        return {
            "networks": networks_of(table),
            "workers": table.integer("workers", 1, 1 << 10),
            "servers": table.integer("servers", 1, 1 << 10, default=1),
            "bounds": bounds,
            "unbounded": table.flag("unbounded", default=True),
            "target": table.number("target", 0, 1e6),
            "rates": table.numbers("rates", 0, 1e3),
            "tuning_seed": table.integer("tuning_seed", 0, 1 << 30, default=11),
            "stragglers": stragglers,
            "latency": table.number("latency", 0, 3600, default=0.02, low_included=True),
        }

    @property
    def all_bounds(self) -> list[int | None]:
        """None for no bound."""
        return [*self.bounds, *([None] if self.unbounded else [])]

    def trials(self) -> list[Trial]:
        """One for each network, kind of stragglers and bound: it has a rate of its own."""
        check_seeds(self.tuning_seed, self.seeds)
        return [
            Trial(_key(network.name, name, bound), {"network": network.name, "stragglers": name, "bound": bound})
            for bound, network, name in product(self.all_bounds, self.networks, self.stragglers)
        ]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Choose the rate, then train with every seed until the loss is reached; every read is checked."""
        spec = next(network for network in self.networks if network.name == trial.options["network"])
        best, tried = math.inf, list[dict[str, Any]]()
        for rate in self.rates:
            env.note(f"rate {rate:g}")
            outcome, reached = self._train(spec, trial, rate, self.tuning_seed, env, best)
            tried.append({"rate": rate, "seconds": round(outcome.seconds, 3) if reached else None})
            best = min(best, outcome.seconds) if reached else best
        known = [one for one in tried if one["seconds"] is not None]
        if not known:
            raise RecipeError(f"{trial.key}: no rate of {list(self.rates)} reaches loss {self.target}; expected one")
        chosen = min(known, key=lambda one: float(one["seconds"]))
        runs = {}
        for seed in self.seeds:
            env.note(f"seed {seed}")
            runs[str(seed)] = self._figures(*self._train(spec, trial, chosen["rate"], seed, env))
        return {"tried": tried, "rate": chosen["rate"], "tuning_seconds": chosen["seconds"], "runs": runs}

    def _train(
        self, spec: NetworkSpec, trial: Trial, rate: float, seed: int, env: Env, limit: float | None = None
    ) -> tuple[Outcome, bool]:
        """One training, and whether it reached the loss.

        limit : seconds after which it is given up; with one, the loss is that of the validation samples.
        """
        subject = Subject.make(spec, seed, env)
        schedule = dataclasses.replace(spec.dense, learning_rate=rate)
        learner = Learner(subject.module, subject.lesson, schedule, subject.seed, self.workers)
        simulation = Simulation(
            learner,
            self.stragglers[trial.options["stragglers"]],
            staleness=trial.options["bound"],
            shards=self.servers,
            latency=self.latency,
            seed=subject.seed,
        )
        samples = subject.lesson.split if limit is None else subject.dataset.validation

        def loss() -> float:
            late = limit is not None and simulation.now >= limit  # slower than the best so far: ends it
            return -math.inf if late else _loss(subject, samples)

        outcome = simulation.run(loss, self.target)
        return outcome, outcome.reached and outcome.curve[-1][2] > -math.inf

    def _figures(self, outcome: Outcome, reached: bool) -> dict[str, Any]:
        """What is kept of a training."""
        checker = outcome.checker
        return {
            "seconds": outcome.seconds if reached else None,
            "rounds": outcome.curve[-1][1] / self.workers,
            "reads": checker.reads,
            "worst_lag": max(checker.lags),
            "mean_lag": sum(lag * count for lag, count in checker.lags.items()) / checker.reads,
            "waited": sum(outcome.waited) / self.workers / outcome.seconds,
        }

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Speed-ups over bulk-synchronous reads of the same seed."""
        trainings = [one for result in results.values() for one in result["runs"].values()]
        figures: dict[str, Any] = {"reads": sum(one["reads"] for one in trainings), "speedups": {}, "rates": {}}
        findings, lines, tables = [], dict[str, Any](), []
        compared: dict[str, tuple[list[float], list[float]]] = {}
        for network, (name, delays) in product(self.networks, self.stragglers.items()):
            found = {bound: results[_key(network.name, name, bound)] for bound in self.all_bounds}
            runs = {bound: [one["runs"][str(seed)] for seed in self.seeds] for bound, one in found.items()}
            rows, gains = [], dict[int | None, tuple[float, float, float]]()
            for bound, each in runs.items():
                first, second = ([one["seconds"] for one in some] for some in (runs[0], each))
                gains[bound] = gain = _gain(first, second)
                if bound != 0 and not math.isnan(gain[0]):
                    words = f"{network.name}, {name}: bound 0 - {bound_words(bound)}"
                    compared[words] = (np.log(first).tolist(), np.log(second).tolist())
                rows.append([
                    bound_words(bound), found[bound]["rate"], _mean(second),
                    *(None if math.isnan(x) else x for x in gain),
                    _mean([one["rounds"] for one in each]), 100 * (_mean([one["waited"] for one in each]) or 0.0),
                    max(one["worst_lag"] for one in each),
                ])  # fmt: skip
            tables.append(
                SummaryTable(
                    f"{network.name}, {name} stragglers ({_words(delays)}): seconds to loss {self.target}, "
                    f"{seeds_in_words(len(self.seeds))}; rates chosen from {len(self.rates)} with seed "
                    f"{self.tuning_seed}",
                    ["bound", "rate", "seconds", "speed-up", "95 % low", "high", "rounds", "waiting %", "worst lag"],
                    rows,
                )
            )
            key = f"{network.name}.{name}"
            figures["speedups"][key] = {bound_words(bound): gain for bound, gain in gains.items()}
            figures["rates"][key] = {
                bound_words(bound): {"rate": one["rate"], "tried": one["tried"]} for bound, one in found.items()
            }
            prefers = {b: one["tuning_seconds"] for b, one in found.items() if b}
            findings.append(_finding(network.name, name, delays, gains, min(prefers, key=lambda b: prefers[b])))
            lines[f"{network.name}, {name}"] = [(row[0], row[3], row[4], row[5]) for row in rows]
        lags = Counter({bound_words(bound): 0 for bound in self.all_bounds})
        for trial in self.trials():
            word = bound_words(trial.options["bound"])
            lags[word] = max(lags[word], *(one["worst_lag"] for one in results[trial.key]["runs"].values()))
        findings.insert(
            0,
            f"{figures['reads']:,} reads, each checked: the bound holds in every one. Worst lag by bound: "
            + ", ".join(f"{word}: {lag}" for word, lag in lags.items())
            + ".",
        )
        ends = sorted(
            key for key, one in results.items()
            if len(self.rates) > 1 and one["rate"] in (min(self.rates), max(self.rates))
        )  # fmt: skip
        findings.append(f"The chosen rate is at an end of the grid in {len(ends)} of {len(results)} cases.")
        family = Family.of(compared)
        findings.append(family.finding())
        figures["comparisons"] = family.asdict()
        return Summary(
            figures, [*tables, *family.tables("natural logarithm of seconds")], findings, {"speedups": _plot(lines)}
        )

    def asdict(self) -> dict[str, Any]:
        """Kind and settings, as JSON."""
        stragglers = {name: dataclasses.asdict(delays) for name, delays in self.stragglers.items()}
        return {**super().asdict(), "stragglers": stragglers}


def _key(network: str, stragglers: str, bound: int | None) -> str:
    return f"{network}.{stragglers}.{bound_words(bound)}"


def _loss(subject: Subject, samples: Split) -> float:
    """Mean over the samples."""
    subject.module.eval()
    with torch.no_grad():
        outputs = subject.module(subject.lesson.arrange(torch.from_numpy(samples.inputs)))
        return float(nn.functional.cross_entropy(outputs, torch.from_numpy(samples.labels)))


def _mean(values: list[float | None]) -> float | None:
    """None if one of them is."""
    return None if None in values else float(np.mean(np.array(values, np.float64)))


def _gain(first: list[float | None], second: list[float | None]) -> tuple[float, float, float]:
    """How many times faster the second is: geometric mean and its 95 % interval; NaN where the loss was not reached."""
    if None in first or None in second:
        return math.nan, math.nan, math.nan
    logs = [[math.log(value) for value in values if value is not None] for values in (first, second)]
    if len(first) < 2:
        return math.exp(logs[0][0] - logs[1][0]), math.nan, math.nan
    pairs = Paired.of(*logs)
    return math.exp(pairs.mean), math.exp(pairs.low), math.exp(pairs.high)


def _words(delays: Delays) -> str:
    """How steps are disturbed."""
    return {
        "none": "no step is disturbed",
        "fixed": f"worker 0 is {delays.factor:g} times slower",
        "random": f"{delays.share:.0%} of all steps take {delays.factor:g} times as long",
        "rotating": f"one worker after the other is {delays.factor:g} times slower for {delays.period:g} steps",
    }[delays.kind]


def _finding(
    network: str, name: str, delays: Delays, gains: Mapping[int | None, tuple[float, float, float]], preferred: int
) -> str:
    """A sentence; `preferred` is the bound that was fastest with the tuning seed."""
    known = {bound: gain for bound, gain in gains.items() if bound != 0 and not math.isnan(gain[0])}
    said, goal = [], GOALS.get(delays.kind)
    for bound in sorted({preferred, _SHOWN} & known.keys()):
        gain, low, _ = known[bound]
        words = f"bound {bound} is {gain:.2f} times as fast as bulk-synchronous reads"
        if bound == preferred:
            words = words.replace(" is", ", which the tuning seed prefers, is", 1)
        if goal is not None:
            verdict = "reached" if gain >= goal else "missed"
            lower = "" if math.isnan(low) else f", by the interval's lower end {'reached' if low >= goal else 'missed'}"
            words += f" (95 % from {low:.2f}; goal {goal}: {verdict}{lower})"
        said.append(words)
    if None in known:
        said.append(f"no bound {known[None][0]:.2f}")
    return (
        f"{network}, {name} stragglers: {'; '.join(said) or 'the loss was not reached in every training: no speed-up'}."
    )


def _plot(lines: Mapping[str, list[tuple[str, float | None, float | None, float | None]]]) -> Figure:
    """A line for each network and kind of stragglers: bound, speed-up and its interval."""
    from compiler.train.plots import canvas

    figure, axes = canvas("seconds to the same loss: speed-up over bulk-synchronous reads")
    for label, points in lines.items():
        known = [(bound, gain, low or gain, high or gain) for bound, gain, low, high in points if gain is not None]
        names, gains, lows, highs = zip(*known, strict=True) if known else ((), (), (), ())
        spread = np.array([np.subtract(gains, lows), np.subtract(highs, gains)])
        axes.errorbar(names, gains, spread, marker="o", markersize=4, capsize=2, label=label)
    axes.set(xlabel="bound on staleness, clocks", ylabel="speed-up")
    axes.legend(fontsize=7)
    return figure
