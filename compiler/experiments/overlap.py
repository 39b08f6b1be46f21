"""How much of the communication is hidden behind computing: all-reduce by size of buckets, and a parameter server.

Hosts: the exchange is real, between network namespaces with links of limited bandwidth (`terngrad.hosts`). Layers wait
for their stated seconds instead of computing (`parallel.paced`): the hosts share this machine's cores, which those of
a cluster would not. Hidden share = 1 - (step - computing alone) / exchange alone; the exchange alone is that of the
size of buckets with which it is fastest, so that what many messages cost is not taken for hidden.

Server: updates are real, seconds are simulated (`consistency.simulate`): a step is one second, a message its latency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from compiler.errors import RecipeError
from compiler.experiments.base import Env, Summary, SummaryTable, Trial
from compiler.experiments.paired import Family, seeds_in_words
from compiler.experiments.subject import OverNetworks, networks_of
from compiler.experiments.terngrad_traffic import network_of
from compiler.train.consistency.core import bound_words
from compiler.train.consistency.delays import Delays
from compiler.train.consistency.learner import Learner
from compiler.train.consistency.simulate import Simulation
from compiler.train.parallel.buckets import CANDIDATES
from compiler.train.table import Table
from compiler.train.terngrad.hosts import NAMESPACES, run_workers, ways

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GOALS", "Overlap", "hidden_share"]

GOALS = {2: 0.7, 3: 0.6}
"""Hosts → share of the exchange that is to be hidden with the chosen buckets."""

_SECONDS = 3600.0  # after which workers that hang are ended
_RESAMPLES = 2000

Rounds = Mapping[str, Any]
"""What `parallel.overlap.measure` returns, each round that of the slowest worker."""


@dataclass(frozen=True, kw_only=True)
class Overlap(OverNetworks):
    """Sizes of buckets by number of hosts and seconds of computing; reads ahead by bound and latency.

    Attributes
    ----------
    traffic : options of `probe.mixed`, whose gradients the hosts exchange.
    hosts, mbit : numbers of hosts; bandwidth of each one's link, Mbit/s.
    paces : seconds that forward and backward pass together take.
    buckets : sizes in MiB, of which the probe takes one.
    rounds : in each of which everything is timed once. Nothing between hosts depends on the seed.
    workers, bounds, latencies : of the parameter server; latency is that of a message, in steps.
    """

    kind: ClassVar[str] = "overlap"
    traffic: dict[str, int]
    hosts: tuple[int, ...]
    mbit: int
    paces: tuple[float, ...]
    buckets: tuple[float, ...]
    rounds: int
    workers: int
    bounds: tuple[int, ...]
    latencies: tuple[float, ...]

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Hosts, buckets, and the parameter server."""
        traffic = table.table("traffic")
        found: dict[str, Any] = {
            "networks": networks_of(table),
            "traffic": network_of(traffic),
            "hosts": table.integers("hosts", 2, 64),
            "mbit": table.integer("mbit", 1, 1 << 20),
            "paces": table.numbers("paces", 0, 3600),
            "buckets": table.numbers("buckets", 0, 1 << 14, default=list(CANDIDATES)),
            "rounds": table.integer("rounds", 3, 1 << 12),
            "workers": table.integer("workers", 1, 1 << 10, default=4),
            "bounds": table.integers("bounds", 1, 1 << 20),
            "latencies": table.numbers("latencies", 0, 100),
        }
        traffic.finish()
        for key in ("hosts", "paces", "buckets"):
            given: Sequence[float] = found[key]
            if not given or len(set(given)) < len(given):
                raise RecipeError(f"{table.source}: {key} is {list(given)}; expected some, and none twice")
        return found

    def trials(self) -> list[Trial]:
        """One for every number of hosts, and the parameter server with every network and seed."""
        hosts = [Trial(self._hosts(count), {"hosts": count}) for count in self.hosts]
        servers = [
            Trial(f"server.{trial.key}", {"hosts": 0, **trial.options}) for trial in super().trials()
        ]  # fmt: skip
        return [*hosts, *servers]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Measure, or simulate; or say why this machine cannot measure."""
        if not trial.options["hosts"]:
            return self._server(trial, env)
        way = ways()
        if way.name != NAMESPACES or not way.limits:
            return {"skipped": way.missing}
        env.note(f"{trial.options['hosts']} hosts")
        plan = {
            "measurements": [
                {
                    "network": self.traffic, "batch": 2, "pace": pace, "mbit": self.mbit, "buckets": self.buckets,
                    "rounds": self.rounds,
                }
                for pace in self.paces
            ]
        }  # fmt: skip
        found = run_workers("compiler.train.parallel.overlap", plan, trial.options["hosts"], way, _SECONDS)
        return {
            str(pace): _joined([worker["results"][number] for worker in found])
            for number, pace in enumerate(self.paces)
        }

    def _server(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Seconds of a training for every bound and latency, one after the other and overlapped."""
        found: dict[str, Any] = {}
        ways_of_messages = [(0.0, False), *product(self.latencies, (False, True))]
        for bound, (latency, overlap) in product(self.bounds, ways_of_messages):
            spec, subject = self.subject(trial, env)
            learner = Learner(subject.module, subject.lesson, spec.dense, subject.seed, self.workers)
            simulation = Simulation(
                learner, Delays("none"), staleness=bound, latency=latency, seed=subject.seed, overlap=overlap
            )
            outcome = simulation.run()
            learner.load(outcome.values)
            checker = outcome.checker
            found[_key(bound, latency, overlap)] = {
                "seconds": outcome.seconds, "steps": learner.total, "reads": checker.reads,
                "worst_lag": max(checker.lags),
                "mean_lag": sum(lag * count for lag, count in checker.lags.items()) / checker.reads,
                **subject.errors(subject.module),
            }  # fmt: skip
        return found

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Hidden shares with intervals, and what the probe chose."""
        skipped = next((result["skipped"] for result in results.values() if "skipped" in result), None)
        figures: dict[str, Any] = {"hosts": {}, "server": {}}
        tables, findings, plots = [], [], {}
        if skipped is not None:
            findings.append(f"SKIPPED between hosts, nothing was measured: {skipped}.")
        else:
            rows, lines = [], dict[str, list[tuple[float, float]]]()
            for count, pace in product(self.hosts, self.paces):
                run = results[self._hosts(count)][str(pace)]
                mine = self._row(count, pace, run)
                rows += mine
                lines[f"{count} hosts, {pace:g} s"] = [(row[2], row[6]) for row in mine]
                by_size = {row[2]: row[6:9] for row in mine}
                figures["hosts"][f"{count}.{pace:g}"] = {
                    "hidden": {str(size): share for size, share in by_size.items()},
                    "chosen": run["chosen"],
                }
                if count in GOALS:
                    findings.append(
                        _goal(count, pace, run["chosen"], by_size[run["chosen"]], mine[0][4] / pace, self.mbit)
                    )
            tables.append(
                SummaryTable(
                    f"Hidden share of the exchange by size of buckets; {run['values']:,} values, {self.mbit} "
                    f"Mbit/s, medians of {self.rounds} rounds, 95 % intervals by bootstrap",
                    [
                        "hosts", "computing s", "bucket MiB", "step s", "exchange s", "best exchange s", "hidden",
                        "low", "high",
                    ],
                    rows,
                )
            )  # fmt: skip
            plots["hidden"] = _plot(lines)
        for network in self.networks:
            server = [results[f"server.{network.name}.{seed}"] for seed in self.seeds]
            table, sentence = self._served(network.name, server)
            age = self._age(network.name, server)
            figures["server"][network.name] = {"rows": [list(row) for row in table.rows], "age": age.asdict()}
            tables += [table, *age.tables("points of test error")]
            findings += [sentence, f"{network.name}, what the age of reads costs: {age.finding()}"]
        return Summary(figures, tables, findings, plots)

    def _hosts(self, count: int) -> str:
        return f"hosts-{count}.{self.seeds[0]}"

    def _row(self, count: int, pace: float, run: Rounds) -> list[list[Any]]:
        """A row for each size of buckets."""
        best = float(np.median(run["alone"], 1).min())
        return [
            [
                count, pace, size, float(np.median(run["step"][place])),
                float(np.median(run["alone"][place])), best, *hidden_share(run, place),
            ]
            for place, size in enumerate(self.buckets)
        ]  # fmt: skip

    def _age(self, network: str, runs: Sequence[Mapping[str, Any]]) -> Family:
        """Test error of reads ahead, which are older, against that of reads when they are needed, by seed."""
        return Family.of({
            f"{network}, bound {bound_words(bound)}, latency {latency:g} s: overlapped - plain": (
                [run[_key(bound, latency, True)]["test"] for run in runs],
                [run[_key(bound, latency, False)]["test"] for run in runs],
            )
            for bound, latency in product(self.bounds, self.latencies)
        })  # fmt: skip

    def _served(self, network: str, runs: Sequence[Mapping[str, Any]]) -> tuple[SummaryTable, str]:
        """The parameter server: hidden share of messages, lags, errors."""
        rows: list[list[Any]] = []
        for bound, latency in product(self.bounds, self.latencies):

            def mean(key: str, overlap: bool, wait: float = latency, s: int = bound) -> float:
                return fmean(run[_key(s, wait, overlap)][key] for run in runs)

            alone = mean("seconds", False, 0.0)
            plain, over = mean("seconds", False) - alone, mean("seconds", True) - alone
            rows.append([
                bound, latency, mean("seconds", False), mean("seconds", True), 1 - over / plain,
                mean("mean_lag", False), mean("mean_lag", True),
                max(run[_key(bound, latency, True)]["worst_lag"] for run in runs),
                mean("test", False), mean("test", True),
            ])  # fmt: skip
        reads = sum(one["reads"] for run in runs for one in run.values())
        table = SummaryTable(
            f"{network}: parameter server, {self.workers} workers, simulated seconds; steps of 1 s, "
            f"{seeds_in_words(len(runs))}",
            [
                "bound", "latency s", "seconds", "overlapped", "hidden", "mean lag", "overlapped", "worst lag",
                "test error %", "overlapped",
            ],
            rows,
        )  # fmt: skip
        held = all(row[7] <= row[0] for row in rows)
        least = min(rows, key=lambda row: row[4])
        return table, (
            f"{network}, parameter server: reads ahead hide {least[4]:.0%} of what messages cost, or more (bound "
            f"{bound_words(least[0])}, latency {least[1]:g} of a step). {reads:,} reads, each checked: the bound "
            f"{'holds in every one' if held else 'DOES NOT HOLD'}; the mean lag grows by at most "
            f"{max(row[6] - row[5] for row in rows):.2f} clocks."
        )


def hidden_share(run: Rounds, place: int) -> tuple[float, float, float]:
    """Share of the exchange that buckets of one size hide, and its 95 % interval.

    Medians of step, computing, and the fastest exchange alone; rounds are drawn with replacement (percentiles).

    Parameters
    ----------
    place : of the size among the sizes.
    """
    step, compute, alone = (np.asarray(run[key], np.float64) for key in ("step", "compute", "alone"))

    def share(index: NDArray[np.intp], axis: int = -1) -> NDArray[np.float64]:
        best = np.median(alone[:, index], axis).min(0)
        return np.asarray(1 - (np.median(step[place][index], axis) - np.median(compute[index], axis)) / best)

    rounds = np.arange(len(compute))
    interval = stats.bootstrap(
        (rounds,), share, n_resamples=_RESAMPLES, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    return float(share(rounds)), float(interval.low), float(interval.high)


def _joined(workers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each round as the slowest worker saw it."""
    return {
        **{key: np.max([one[key] for one in workers], 0).tolist() for key in ("compute", "alone", "step")},
        "values": workers[0]["values"],
        "chosen": workers[0]["chosen"],
    }


def _key(bound: int, latency: float, overlap: bool) -> str:
    return f"{bound}.{latency:g}.{'overlapped' if overlap else 'plain'}"


def _goal(count: int, pace: float, size: float, share: Sequence[float], ratio: float, mbit: int) -> str:
    hidden, low, high = share
    return (
        f"{count} hosts at {mbit} Mbit/s, {pace:g} s of computing, an exchange {ratio:.2f} times as long: the probe "
        f"took buckets of {size:g} MiB, which hide {hidden:.0%} of the exchange (95 % {low:.0%} to {high:.0%}; goal "
        f"{GOALS[count]:.0%}: {'reached' if hidden >= GOALS[count] else 'missed'})."
    )


def _plot(lines: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    from compiler.train.plots import canvas

    figure, axes = canvas("hidden share of the exchange")
    for label, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set(xlabel="bucket, MiB", ylabel="hidden", xscale="log")
    axes.legend(fontsize=7)
    return figure
