"""Bounded staleness: seconds to the same loss under stragglers, in simulated time, by the bound on stale reads.

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
from compiler.experiments.paired import Family, Paired
from compiler.experiments.subject import OverNetworks, Subject, networks_of
from compiler.train.consistency.core import bound_words
from compiler.train.consistency.delays import KINDS, Delays
from compiler.train.consistency.learner import Learner
from compiler.train.consistency.simulate import Simulation
from compiler.train.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GOALS", "Consistency"]

GOALS = {"random": 1.3, "rotating": 1.4}
"""Kind of stragglers → how many times faster than bulk-synchronous reads the best bound is to be."""


@dataclass(frozen=True, kw_only=True)
class Consistency(OverNetworks):
    """Every network with every kind of stragglers and every bound, until its loss is what is wanted.

    Attributes
    ----------
    workers, servers : of the simulated training; the schedule's batch is that of all workers.
    bounds : on staleness; the first is 0, bulk-synchronous. unbounded: whether asynchronous reads are tried as well.
    target : loss on the training samples that ends a trial.
    stragglers : name → how steps are disturbed.
    latency : seconds of a message.
    """

    kind: ClassVar[str] = "consistency"
    workers: int
    servers: int
    bounds: tuple[int, ...]
    unbounded: bool
    target: float
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
            "stragglers": stragglers,
            "latency": table.number("latency", 0, 3600, default=0.02, low_included=True),
        }

    @property
    def all_bounds(self) -> list[int | None]:
        """None for no bound."""
        return [*self.bounds, *([None] if self.unbounded else [])]

    def trials(self) -> list[Trial]:
        """One for each network, kind of stragglers, bound and seed."""
        return [
            Trial(
                _key(network.name, name, bound, seed),
                {"network": network.name, "stragglers": name, "bound": bound, "seed": seed},
            )
            for seed, network, name, bound in product(self.seeds, self.networks, self.stragglers, self.all_bounds)
        ]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Train until the loss is reached; every read is checked."""
        spec, subject = self.subject(trial, env)
        learner = Learner(subject.module, subject.lesson, spec.dense, subject.seed, self.workers)
        simulation = Simulation(
            learner,
            self.stragglers[trial.options["stragglers"]],
            staleness=trial.options["bound"],
            shards=self.servers,
            latency=self.latency,
            seed=subject.seed,
        )
        outcome = simulation.run(lambda: _loss(subject), self.target)
        checker = outcome.checker
        return {
            "seconds": outcome.seconds if outcome.reached else None,
            "rounds": outcome.curve[-1][1] / self.workers,
            "reads": checker.reads,
            "worst_lag": max(checker.lags),
            "mean_lag": sum(lag * count for lag, count in checker.lags.items()) / checker.reads,
            "waited": sum(outcome.waited) / self.workers / outcome.seconds,
            "curve": [[round(second, 3), round(loss, 5)] for second, _, loss in outcome.curve[::8]],
        }

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Speed-ups over bulk-synchronous reads of the same seed."""
        figures: dict[str, Any] = {"reads": sum(result["reads"] for result in results.values()), "speedups": {}}
        findings, lines, tables = [], dict[str, Any](), []
        compared: dict[str, tuple[list[float], list[float]]] = {}
        for network, (name, delays) in product(self.networks, self.stragglers.items()):
            runs = {
                bound: [results[_key(network.name, name, bound, seed)] for seed in self.seeds]
                for bound in self.all_bounds
            }
            rows, gains = [], dict[int | None, float]()
            for bound, each in runs.items():
                waiting, own = ([one["seconds"] for one in runs[key]] for key in (0, bound))
                if bound != 0 and (both := _logs(waiting, own)):
                    compared[f"{network.name}, {name} stragglers: bound 0 - {bound_words(bound)}"] = both
                gain = _gain(waiting, own)
                gains[bound] = gain[0]
                rows.append([
                    bound_words(bound), _mean([one["seconds"] for one in each]),
                    *(None if math.isnan(x) else x for x in gain),
                    _mean([one["rounds"] for one in each]), 100 * (_mean([one["waited"] for one in each]) or 0.0),
                    max(one["worst_lag"] for one in each),
                ])  # fmt: skip
            tables.append(
                SummaryTable(
                    f"{network.name}, {name} stragglers ({_words(delays)}): seconds to loss {self.target}, "
                    f"{len(self.seeds)} seeds",
                    ["bound", "seconds", "speed-up", "95 % low", "high", "rounds", "waiting %", "worst lag"],
                    rows,
                )
            )
            figures["speedups"][f"{network.name}.{name}"] = {bound_words(bound): gain for bound, gain in gains.items()}
            findings.append(_finding(network.name, name, delays, gains))
            lines[f"{network.name}, {name}"] = [(row[0], row[2], row[3], row[4]) for row in rows]
        lags = Counter({bound_words(bound): 0 for bound in self.all_bounds})
        for trial in self.trials():
            word = bound_words(trial.options["bound"])
            lags[word] = max(lags[word], results[trial.key]["worst_lag"])
        findings.insert(
            0,
            f"{figures['reads']:,} reads, each checked: the bound holds in every one. Worst lag by bound: "
            + ", ".join(f"{word}: {lag}" for word, lag in lags.items())
            + ".",
        )
        family = Family.of(compared)
        figures["time_differences"] = family.asdict()
        tables += family.tables("logarithm of seconds")
        said = [family.finding()] if compared else []
        return Summary(figures, tables, [*findings, *said], {"speedups": _plot(lines)})

    def asdict(self) -> dict[str, Any]:
        """Kind and settings, as JSON."""
        stragglers = {name: dataclasses.asdict(delays) for name, delays in self.stragglers.items()}
        return {**super().asdict(), "stragglers": stragglers}


def _key(network: str, stragglers: str, bound: int | None, seed: int) -> str:
    return f"{network}.{stragglers}.{bound_words(bound)}.{seed}"


def _loss(subject: Subject) -> float:
    """Mean over the training samples."""
    samples = subject.lesson.split
    subject.module.eval()
    with torch.no_grad():
        outputs = subject.module(subject.lesson.arrange(torch.from_numpy(samples.inputs)))
        return float(nn.functional.cross_entropy(outputs, torch.from_numpy(samples.labels)))


def _mean(values: list[float | None]) -> float | None:
    """None if one of them is."""
    return None if None in values else float(np.mean(np.array(values, np.float64)))


def _logs(first: list[float | None], second: list[float | None]) -> tuple[list[float], list[float]] | None:
    """Logarithms of both; None where the loss was not reached."""
    if None in first or None in second:
        return None
    one, two = ([math.log(value) for value in values if value is not None] for values in (first, second))
    return one, two


def _gain(first: list[float | None], second: list[float | None]) -> tuple[float, float, float]:
    """How many times faster the second is: geometric mean and its 95 % interval; NaN where the loss was not reached."""
    if (logs := _logs(first, second)) is None:
        return math.nan, math.nan, math.nan
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


def _finding(network: str, name: str, delays: Delays, gains: Mapping[int | None, float]) -> str:
    known = {bound: gain for bound, gain in gains.items() if bound != 0 and not math.isnan(gain)}
    if not known:
        return f"{network}, {name} stragglers: the loss was not reached."
    bounded = {bound: gain for bound, gain in known.items() if bound is not None}
    best = max(bounded, key=lambda bound: bounded[bound])
    words = (
        f"{network}, {name} stragglers: bound {best} is {bounded[best]:.2f} times as fast as bulk-synchronous reads"
        + (f", bound 3 {bounded[3]:.2f}" if 3 in bounded and best != 3 else "")
        + (f", no bound {known[None]:.2f}" if None in known else "")
    )
    goal = GOALS.get(delays.kind)
    verdict = "" if goal is None else f" (goal {goal}: {'reached' if bounded[best] >= goal else 'missed'})"
    return words + verdict + "."


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
