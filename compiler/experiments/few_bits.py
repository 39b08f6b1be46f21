"""Few bits a gradient: accuracy and bytes on the wire, by exchange, each with its own learning rate.

Every training is one of real processes, each on a host of its own (`terngrad.hosts`), so that bytes are those that the
interface counts, headers included. All exchanges have the same epochs and as many learning rates; the rate with the
least mean validation error over the seeds is taken, and test errors are reported.

What costs as few bytes without few bits is tried as well: float32 on batches so many times as large, which is what
accumulating gradients over so many steps gives, and local SGD, which averages weights every so many steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from compiler.errors import RecipeError
from compiler.experiments.base import Env, Summary, SummaryTable, Trial
from compiler.experiments.paired import Family, seeds_in_words
from compiler.experiments.subject import NetworkSpec, OverNetworks, networks_of
from compiler.train.images import PRECISIONS
from compiler.train.table import Table
from compiler.train.terngrad.hosts import LOOPBACK, run_workers, ways
from compiler.train.terngrad.methods import Method

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Arm", "FewBits"]

GOAL = 0.5
"""Points of test accuracy that 1-bit SGD may lose against float32, on average over the seeds."""

_SECONDS = 4 * 3600.0  # after which workers that hang are ended


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to exchange, and its learning rates.

    Attributes
    ----------
    name : in tables.
    method : keys of a recipe, as `Method.asdict` has them.
    every : steps of local SGD between averages; 0: gradients are exchanged.
    times : how many times the network's batch is taken.
    momentum : of SGD, instead of the network's; None for that.
    precision : of products while training, instead of the network's; None for that.
    rates : learning rates that are tried.
    """

    name: str
    method: Mapping[str, Any]
    every: int
    times: int
    momentum: float | None
    precision: str | None
    rates: tuple[float, ...]

    @classmethod
    def parse(cls, table: Table) -> Arm:
        """From a table ``[[arms]]``. Raises `RecipeError`."""
        arm = cls(
            name=table.text("name"),
            every=table.integer("every", 0, 1 << 20, default=0),
            times=table.integer("times", 1, 1 << 10, default=1),
            momentum=table.number("momentum", 0, 1, low_included=True) if table.has("momentum") else None,
            precision=table.choice("precision", PRECISIONS) if table.has("precision") else None,
            rates=table.numbers("rates", 0, 100),
            method=Method.parse(table, 0).asdict(),
        )
        table.finish()
        return arm


@dataclass(frozen=True, kw_only=True)
class FewBits(OverNetworks):
    """Every network with every exchange and learning rate.

    Attributes
    ----------
    workers : that share a batch.
    arms : the first is float32, which the others are compared with.
    onebit : name of the arm that the claim is about; equal : those that it is compared with at equal bytes.
    """

    kind: ClassVar[str] = "few-bits"
    workers: int
    arms: tuple[Arm, ...]
    onebit: str
    equal: tuple[str, ...]

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Networks, workers, arms."""
        arms = tuple(Arm.parse(one) for one in table.tables("arms"))
        names = [arm.name for arm in arms]
        if not arms or len(set(names)) < len(names) or len({len(arm.rates) for arm in arms}) != 1 or not arms[0].rates:
            raise RecipeError(
                f"{table.source}: arms are {', '.join(names) or 'missing'}; expected different names, and equally many "
                "rates for each"
            )
        equal = table.texts("equal", default=[])
        if unknown := [name for name in equal if name not in names]:
            raise RecipeError(f"{table.source}: equal names {', '.join(unknown)}; expected some of {', '.join(names)}")
        return {
            "networks": networks_of(table),
            "workers": table.integer("workers", 2, 64, default=2),
            "arms": arms,
            "onebit": table.choice("onebit", names),
            "equal": equal,
        }

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Train by every arm with every rate; or say why this machine cannot count bytes."""
        way = ways()
        if not way.name:
            return {"skipped": way.missing}
        spec = next(network for network in self.networks if network.name == trial.options["network"])
        cases = [(arm, rate) for arm in self.arms for rate in arm.rates]
        env.note(f"{len(cases)} trainings of {self.workers} workers in {way.name}")
        plan = {
            "data_dir": None if env.data_dir is None else str(env.data_dir),
            "trainings": [
                {"job": _job(spec, arm, rate, trial.options["seed"]), "every": arm.every} for arm, rate in cases
            ],
        }
        found = run_workers("compiler.train.terngrad.trial", plan, self.workers, way, _SECONDS)
        # One loopback interface carries what all of them send, and each of them reads all of it.
        readers = self.workers**2 if way.name == LOOPBACK else self.workers
        runs: dict[str, dict[str, Any]] = {arm.name: {} for arm in self.arms}
        for number, (arm, rate) in enumerate(cases):
            first = found[0]["results"][number]
            runs[arm.name][str(rate)] = {
                **{key: first[key] for key in ("losses", "validation", "test", "values")},
                "bytes": sum(one["results"][number]["sent"] for one in found) / readers,
                "steps": found[0]["results"][0]["steps"],  # of float32's: larger batches have fewer
                "cpu_seconds": sum(one["results"][number]["cpu_seconds"] for one in found),
            }
        return {"way": way.name, "missing": way.missing, "runs": runs}

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Errors at each arm's best rate, and bytes, against float32 and at equal bytes."""
        if (skipped := Summary.skipped(results)) is not None:
            return skipped
        figures: dict[str, Any] = {}
        tables, findings, compared, points = [], [], dict[str, tuple[list[float], list[float]]](), {}
        float32 = self.arms[0].name
        for network in self.networks:
            runs = [results[f"{network.name}.{seed}"]["runs"] for seed in self.seeds]
            rates = {arm.name: _best(arm, runs) for arm in self.arms}
            chosen = {arm.name: [run[arm.name][str(rates[arm.name])] for run in runs] for arm in self.arms}
            errors = {name: [one["test"] for one in each] for name, each in chosen.items()}
            step = {name: fmean(one["bytes"] / one["steps"] for one in each) for name, each in chosen.items()}
            values = chosen[float32][0]["values"]
            rows: list[list[str | int | float | None]] = [
                [
                    name, rates[name], fmean(one["validation"] for one in chosen[name]), fmean(errors[name]),
                    fmean(errors[name]) - fmean(errors[float32]), step[name] / 1e3, 8 * step[name] / values,
                    step[float32] / step[name],
                ]
                for name in rates
            ]  # fmt: skip
            tables.append(
                SummaryTable(
                    f"{network.name}: {values:,} values, {self.workers} workers, {seeds_in_words(len(self.seeds))}; "
                    f"the best of {len(self.arms[0].rates)} learning rates by validation",
                    [
                        "exchange", "rate", "validation error %", "test error %", "lost", "kB a step and worker",
                        "bits a value", "fewer bytes than float32",
                    ],
                    rows,
                )
            )  # fmt: skip
            figures[network.name] = {"rates": rates, "test_errors": errors, "bytes_a_step": step, "values": values}
            compared |= {
                f"{network.name}, {name} - {float32}": (errors[name], errors[float32])
                for name in rates
                if name != float32
            }
            compared |= {
                f"{network.name}, {self.onebit} - {name}": (errors[self.onebit], errors[name]) for name in self.equal
            }
            findings += self._findings(network.name, rates, errors, step)
            points[network.name] = {name: (step[name], fmean(errors[name])) for name in rates}
        family = Family.of(compared)
        figures["test_error_differences"] = family.asdict()
        tables += family.tables("points of test error")
        findings.append(family.finding())
        first = next(iter(results.values()))
        if first["way"] == LOOPBACK:
            findings.append(f"Counted at one loopback interface for all workers: {first['missing']}.")
        return Summary(figures, tables, findings, {f"bytes-{name}": _plot(name, each) for name, each in points.items()})

    def _findings(
        self, network: str, rates: Mapping[str, float], errors: Mapping[str, Sequence[float]], step: Mapping[str, float]
    ) -> list[str]:
        """The claim, equal bytes, and grids whose best rate is at their end."""
        float32, mine = self.arms[0].name, self.onebit
        lost = fmean(errors[mine]) - fmean(errors[float32])
        verdict = "reached" if lost <= GOAL else "missed"
        claim = (
            f"{network}: {mine} sends {step[float32] / step[mine]:.1f} times fewer bytes than {float32} and loses "
            f"{lost:+.2f} points of test accuracy on average (goal at most {GOAL}: {verdict})."
        )
        found = [claim]
        for name in self.equal:
            gain = fmean(errors[name]) - fmean(errors[mine])
            found.append(
                f"{network}: {name} sends {step[name] / step[mine]:.2f} times the bytes of {mine}, and has "
                f"{abs(gain):.2f} points {'more' if gain > 0 else 'less'} test error."
            )
        ends = [
            arm.name for arm in self.arms if len(arm.rates) > 2 and rates[arm.name] in (min(arm.rates), max(arm.rates))
        ]
        if ends:
            found.append(
                f"{network}: the best learning rate is at the end of what was tried for {', '.join(ends)}; a better "
                "one may lie beyond."
            )
        return found

    def asdict(self) -> dict[str, Any]:
        """Kind and settings, as JSON."""
        arms = [{**dataclasses.asdict(arm), "method": dict(arm.method), "rates": list(arm.rates)} for arm in self.arms]
        return {**super().asdict(), "arms": arms}


def _job(spec: NetworkSpec, arm: Arm, rate: float, seed: int) -> dict[str, Any]:
    """The recipe of a training."""
    schedule: dict[str, Any] = {"learning_rate": rate, "batch": spec.dense.batch * arm.times}
    if arm.momentum is not None:
        schedule["momentum"] = arm.momentum
    return {
        **spec.job(seed, schedule), "name": f"{spec.name}-{arm.name}", "precision": arm.precision or spec.precision,
        **arm.method,
    }  # fmt: skip


def _best(arm: Arm, runs: Sequence[Mapping[str, Any]]) -> float:
    """The rate with the least mean validation error."""
    return min(arm.rates, key=lambda rate: fmean(run[arm.name][str(rate)]["validation"] for run in runs))


def _plot(network: str, points: Mapping[str, tuple[float, float]]) -> Figure:
    from compiler.train.plots import canvas

    figure, axes = canvas(network)
    for name, (sent, error) in points.items():
        axes.plot(sent / 1e3, error, "o")
        axes.annotate(name, (sent / 1e3, error), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set(xlabel="kB that a worker sends in a step", ylabel="test error %", xscale="log")
    return figure
