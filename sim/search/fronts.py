"""Structured against unstructured sparsity on arrays: errors against exact cycles, as Pareto fronts.

From one dense network of a seed come, trained for as many epochs each:

- pruned: single weights removed by magnitude, at several densities (density 1: the dense network trained as long).
- SSL: a group lasso at several strengths, dead structure removed, the rest trained on.
- SSL, pruned: single weights of what SSL left, removed by magnitude while the rest is trained on.

What is dead is removed from all of them, which leaves their functions as they are. Each way has a front for each seed
and array: its networks that no other of them beats in validation error and cycles. Test errors play no part in that.

Sources: Learning Structured Sparsity in Deep Neural Networks (Wen et al., NIPS 2016); pruning: Learning both Weights
and Connections (Han et al., NIPS 2015), gradually (Zhu and Gupta, 2017).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compiler.errors import RecipeError
from compiler.experiments.base import Env, Summary, SummaryTable, Trial
from compiler.experiments.paired import Family, Paired, seeds_in_words
from compiler.experiments.ssl_ways import DENSE, SSL
from compiler.experiments.subject import OverNetworks, Subject, network_of, schedule_of
from compiler.train import removal
from compiler.train.layers import make_plain, weights
from compiler.train.schedule import Schedule
from compiler.train.stages import GroupLasso, Prune, Stage
from compiler.train.structured import Groups
from compiler.train.table import Table
from hw.params import PRESETS
from sim.front import unbeaten
from sim.search.measured import Measured
from sim.search.smaller import between

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Fronts"]

PRUNED, BOTH = "pruned", f"{SSL}, pruned"
_WAYS = (PRUNED, SSL, BOTH)
_TRACED = 16  # samples that a network is traced with for removal
_MARKS = 3  # cycles at which fronts are compared, from the least that both reach to those of the costliest network


@dataclass(frozen=True, kw_only=True)
class Fronts(OverNetworks):
    """See the module.

    Attributes
    ----------
    presets : arrays. samples : on which cycles are measured.
    strengths : of SSL; every group's own strength is multiplied by each. groups : of the group lasso.
    densities : of pruning, 0 … 1, of all layers together. left : of what SSL leaves, likewise.
    lasso, prune : trainings under the penalty and while pruning, of as many epochs. tune : the training after either.
    """

    kind: ClassVar[str] = "sparsity-fronts"
    presets: tuple[str, ...]
    samples: int
    strengths: tuple[float, ...]
    groups: tuple[Groups, ...]
    densities: tuple[float, ...]
    left: tuple[float, ...]
    lasso: Schedule
    prune: Schedule
    tune: Schedule

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """The arrays, the ways, and how they are trained."""
        presets = table.texts("presets")
        if not presets or (unknown := [name for name in presets if name not in PRESETS]):
            said = ", ".join(unknown) if presets else "none"
            raise RecipeError(f"{table.source}: presets are {said}; expected some of {', '.join(PRESETS)}")
        found: dict[str, Any] = {
            "networks": (network_of(table),), "presets": presets,
            "samples": table.integer("samples", 1, 256, default=1),
            "strengths": tuple(sorted(set(table.numbers("strengths", 0, 1e3)))),
            "groups": tuple(Groups.parse(each) for each in table.tables("groups")),
            "densities": tuple(sorted(set(table.numbers("densities", 0, 1)))),
            "left": tuple(sorted(set(table.numbers("left", 0, 1)))),
            **{name: schedule_of(table, name) for name in ("lasso", "prune", "tune")},
        }  # fmt: skip
        if empty := [name for name in ("strengths", "groups", "densities", "left") if not found[name]]:
            raise RecipeError(f"{table.source}: {', '.join(empty)} are empty; expected one or more of each")
        if found["lasso"].epochs != found["prune"].epochs:
            raise RecipeError(
                f"{table.source}: lasso has {found['lasso'].epochs} epochs and prune {found['prune'].epochs}; expected "
                "as many, for the ways are compared at equal training"
            )
        return found

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Errors, weights and cycles of all networks of one seed."""
        spec, subject = self.subject(trial, env)
        return _Run(self, subject, [Measured.on(name, subject, self.samples) for name in self.presets], env).all(
            spec.dense
        )

    def _names(self) -> dict[str, list[str]]:
        """Way → names of its networks, from the sparsest on."""
        strengths = list(reversed(self.strengths))
        return {
            PRUNED: [*(f"{PRUNED} {density:g}" for density in self.densities), f"{PRUNED} 1"],
            SSL: [f"{SSL} {strength:g}" for strength in strengths],
            BOTH: [f"{SSL} {strength:g}, pruned {left:g}" for strength in strengths for left in self.left],
        }

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Means of all networks, and the fronts of SSL against that of pruning at equal cycles."""
        runs = [result["points"] for result in results.values()]
        tables: list[SummaryTable] = []
        compared: dict[str, tuple[list[float], list[float]]] = {}
        said: list[str] = [f"{self.networks[0].name}; {seeds_in_words(len(runs))}."]
        plots: dict[str, Figure] = {}
        for array in self.presets:
            rows, beaten = self._rows(runs, array)
            tables.append(
                SummaryTable(
                    f"{self.name} on {array}: mean of the seeds",
                    ["network", "validation error, %", "test error, %", "95 % low", "95 % high", "nonzero weights",
                     "filters", "cycles", "beaten by"], rows,
                )
            )  # fmt: skip
            for way in (SSL, BOTH):
                pairs = self._at_equal_cycles(runs, array, way)
                compared |= pairs
                if not pairs:
                    said.append(f"{array}: the fronts of {way} and of pruning have no cycles in common in every seed.")
                for name, (first, second) in pairs.items():
                    gap = fmean(a - b for a, b in zip(first, second, strict=True))
                    said.append(f"{name}: {gap:+.2f} points of test error.")
            plots[array] = self._plot(array, rows, beaten)
        family = Family.of(compared)
        return Summary(
            {"runs": runs, "pairs": family.asdict()},
            [*tables, *family.tables("points of test error")], [*said, family.finding()], plots,
        )  # fmt: skip

    def _rows(self, runs: Sequence[Mapping[str, Any]], array: str) -> tuple[list[list[Any]], set[str]]:
        """A row for each network, and those that another network beats by the means of validation error and cycles."""
        names = [DENSE, *(name for way in self._names().values() for name in way)]
        means = {}
        for name in names:
            cycles = [run[name]["cycles"][array] for run in runs]
            if None not in cycles:
                means[name] = (fmean(run[name]["validation"] for run in runs), fmean(cycles))
        kept = unbeaten(list(means.values()))
        front = [list(means)[number] for number in kept]
        rows: list[list[Any]] = []
        for name in names:
            tests = [run[name]["test"] for run in runs]
            spread = Paired.of(tests, [0.0] * len(tests)) if len(tests) > 1 else None
            known = means.get(name)
            better = [] if known is None or name in front else [each for each in front if _beats(means[each], known)]
            rows.append([
                name, round(fmean(run[name]["validation"] for run in runs), 3), round(fmean(tests), 3),
                *((None, None) if spread is None else (round(spread.low, 3), round(spread.high, 3))),
                round(fmean(run[name]["weights"] for run in runs)), round(fmean(run[name]["filters"] for run in runs)),
                None if known is None else round(known[1]), better[0] if better else None,
            ])  # fmt: skip
        return rows, set(means) - set(front)

    def _front(self, run: Mapping[str, Any], array: str, way: str) -> list[tuple[float, float]]:
        """Cycles and test errors of the networks of a way that none of them beats in validation, by cycles."""
        own = [run[name] for name in self._names()[way] if run[name]["cycles"][array] is not None]
        kept = unbeaten([(each["validation"], each["cycles"][array]) for each in own])
        return sorted((own[number]["cycles"][array], own[number]["test"]) for number in kept)

    def _at_equal_cycles(
        self, runs: Sequence[Mapping[str, Any]], array: str, way: str
    ) -> dict[str, tuple[list[float], list[float]]]:
        """By seed the test errors of a way's front and of pruning's, at the same cycles for all seeds.

        The cycles lie evenly on the logarithm, from the fewest that both fronts reach in every seed to the most that
        one of the two has in every seed. Above its last network a front keeps that one's error: it takes less.
        """
        both = [(self._front(run, array, way), self._front(run, array, PRUNED)) for run in runs]
        if not all(front for pair in both for front in pair):
            return {}
        low = max(front[0][0] for pair in both for front in pair)
        high = min(max(front[-1][0] for front in pair) for pair in both)
        if high <= low:
            return {}
        found = {}
        for cycles in np.geomspace(low, high, _MARKS):
            first, second = ([between(pair[number], float(cycles)) for pair in both] for number in (0, 1))
            found[f"{array}, {round(cycles):,} cycles: {way} - {PRUNED}"] = first, second
        return found

    def _plot(self, array: str, rows: Sequence[Sequence[Any]], beaten: set[str]) -> Figure:
        from compiler.train.plots import canvas

        figure, axes = canvas(f"{self.networks[0].name} on {array}: mean of the seeds; beaten ones are hollow")
        at = {row[0]: row for row in rows if row[7] is not None}
        for (way, names), marker, color in zip(self._names().items(), "osD", ("gray", "C0", "C1"), strict=True):
            own = [at[name] for name in names if name in at]
            for row in own:
                spread = None if row[3] is None else [[row[2] - row[3]], [row[4] - row[2]]]
                filled = color if row[0] not in beaten else "none"
                axes.errorbar([row[7]], [row[2]], spread, fmt=marker, color=color, markerfacecolor=filled, capsize=2)
            line = sorted((row[7], row[2]) for row in own if row[0] not in beaten)
            axes.plot([each[0] for each in line], [each[1] for each in line], marker=marker, color=color, label=way)
        axes.set(xlabel="cycles", ylabel="test error, %", xscale="log")
        axes.legend()
        return figure


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))


class _Run:
    """One trial."""

    def __init__(self, settings: Fronts, subject: Subject, measured: Sequence[Measured], env: Env) -> None:
        self.settings, self.subject, self.measured, self.env = settings, subject, measured, env
        self.example = subject.example(_TRACED)
        self.points: dict[str, dict[str, Any]] = {}

    def all(self, dense: Schedule) -> dict[str, Any]:
        """Every network. All that are trained on see the samples in the same order."""
        module = self.subject.module
        self.env.note(DENSE)
        self.subject.train(module, dense, 0)
        self._point(DENSE, module)
        for density in (*self.settings.densities, 1.0):
            self.env.note(f"{PRUNED} {density:g}")
            pruned = self._applied(module, self._pruning(self.settings.prune, density), 1)
            self.subject.train(pruned, self.settings.tune, 2)
            self._point(f"{PRUNED} {density:g}", pruned)
        for strength in self.settings.strengths:
            self.env.note(f"{SSL} {strength:g}")
            groups = tuple(replace(each, strength=each.strength * strength) for each in self.settings.groups)
            lasso = GroupLasso(
                kind="group_lasso", name="group_lasso", schedule=self.settings.lasso, groups=groups, threshold=1e-4
            )
            small = self._applied(module, lasso, 1)
            removal.remove(small, self.example)
            for left in self.settings.left:
                pruned = self._applied(small, self._pruning(self.settings.tune, left), 2)
                self._point(f"{SSL} {strength:g}, pruned {left:g}", pruned)
            self.subject.train(small, self.settings.tune, 2)
            self._point(f"{SSL} {strength:g}", small)
        return {"points": self.points}

    def _applied(self, module: Any, stage: Stage, number: int) -> Any:
        """A copy, with a stage applied to it."""
        found = copy.deepcopy(module)
        self.subject.apply(stage, found, number)
        return found

    def _pruning(self, schedule: Schedule, density: float) -> Prune:
        return Prune(
            kind="prune", name="prune", schedule=schedule, density=density, scope="global", method="gradual", ramp=0.6,
            rounds=1,
        )  # fmt: skip

    def _point(self, name: str, module: Any) -> None:
        """Errors in percent, weights that are not zero, outputs of layers, and cycles of a sample on each array."""
        plain = copy.deepcopy(module)
        make_plain(plain)
        removal.remove(plain, self.example)
        sites = list(weights(plain))
        self.points[name] = {
            **{part: round(error, 4) for part, error in self.subject.errors(plain).items()},
            "weights": sum(int((site.value != 0).sum()) for site in sites),
            "filters": sum(len(site.value) for site in sites),
            "cycles": {array: self._cycles(one, plain) for array, one in zip(self.settings.presets, self.measured,
                                                                             strict=True)},
        }  # fmt: skip

    def _cycles(self, measured: Measured, module: Any) -> float | None:
        found = measured.whole(module)
        return None if found is None else round(float(found.cycles), 1)
