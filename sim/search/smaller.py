"""Smaller layers in the place of large ones against plain pruning: errors at equal cycles of the array, and weights.

Low rank (SVD, spatial, Tucker-2) and other kernels (3x3 in a row, separable, bottleneck) leave fewer weights, all of
them nonzero; magnitude pruning leaves as many layers as before, with zeros that the array skips. Both start from the
same trained network and are trained on alike: epochs, batches, and rates among which validation chooses.

Sources: `compiler.train.low_rank` and `compiler.train.rewrite` name those of the ways; pruning: Learning both Weights
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
from compiler.experiments.paired import Family, seeds_in_words
from compiler.experiments.subject import OverNetworks, Subject, network_of, schedule_of
from compiler.train.images import accuracy
from compiler.train.layers import make_plain, weights
from compiler.train.low_rank import WAYS
from compiler.train.rewrite import FORMS
from compiler.train.schedule import Schedule
from compiler.train.stages import LowRank, Prune, Rewrite, Stage
from compiler.train.table import Table
from hw.params import PRESETS
from sim.search.measured import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Smaller", "between"]

DENSE, LONGER = "dense", "trained on"


@dataclass(frozen=True, kw_only=True)
class Smaller(OverNetworks):
    """Every way and every density, from the same dense network of a seed.

    Attributes
    ----------
    preset : the array. samples : on which cycles are measured.
    ways : low rank, each at shares of the weights that factors may have, 0 … 1. forms : other kernels.
    densities : of pruning, 0 … 1, one for all layers. ignore : patterns of the layers that nothing is done to.
    finetune : the training of each network. rates : learning rates that it is tried with, 0 … 100; validation chooses.
    imitate : of the epochs of that training those in which other kernels by themselves learn to answer as the old ones.
    """

    kind: ClassVar[str] = "smaller-layers"
    preset: str
    samples: int
    ways: Mapping[str, tuple[float, ...]]
    forms: tuple[str, ...]
    densities: tuple[float, ...]
    ignore: tuple[str, ...]
    finetune: Schedule
    rates: tuple[float, ...]
    imitate: int

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """The array, what is tried, and how it is trained on."""
        ways = table.table("ways") if table.has("ways") else None
        kept = {} if ways is None else {way: ways.numbers(way, 0, 1) for way in WAYS if ways.has(way)}
        if ways is not None:
            ways.finish()
        forms = table.texts("forms", default=[])
        if unknown := [form for form in forms if form not in FORMS]:
            raise RecipeError(f"{table.source}: forms names {', '.join(unknown)}; expected some of {', '.join(FORMS)}")
        finetune, imitate = schedule_of(table, "finetune"), table.integer("imitate", 0, 100_000, default=0)
        if imitate >= finetune.epochs:
            raise RecipeError(
                f"{table.source}: imitate is {imitate}; expected less than the {finetune.epochs} epochs of finetune, "
                "which it is a part of"
            )
        found = {
            "networks": (network_of(table),), "preset": table.choice("preset", PRESETS),
            "samples": table.integer("samples", 1, 256, default=1), "ways": kept, "forms": forms,
            "densities": tuple(sorted(set(table.numbers("densities", 0, 1)))),
            "ignore": table.texts("ignore", default=[]), "finetune": finetune,
            "rates": table.numbers("rates", 0, 100), "imitate": imitate,
        }  # fmt: skip
        if not (forms or any(kept.values())) or not found["densities"] or not found["rates"]:
            raise RecipeError(f"{table.source}: expected ways or forms, densities to compare them with, and rates")
        return found

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Errors, weights, bytes and cycles of all networks of one seed."""
        spec, subject = self.subject(trial, env)
        measured = Measured.on(self.preset, subject, self.samples)
        env.note(DENSE)
        subject.train(subject.module, spec.dense, 0)
        points = {DENSE: _figures(measured, subject.module)}
        for number, (name, stage) in enumerate(self._stages().items(), start=1):
            env.note(name)
            points[name] = self._best(subject, measured, stage, number)
        return {"points": points}

    def _stages(self) -> dict[str, Stage]:
        """Name of each network → what makes it. Density 1 is the dense network, trained on as long."""
        found: dict[str, Stage] = {}
        for density in (*self.densities, 1.0):
            name = LONGER if density == 1 else _pruned(density)
            found[name] = Prune(
                kind="prune", name="prune", schedule=self.finetune, density=density, scope="layer", method="gradual",
                ramp=0.5, rounds=1, ignore=self.ignore,
            )  # fmt: skip
        for way, shares in self.ways.items():
            for keep in shares:
                found[f"{way} {keep:g}"] = LowRank(
                    kind="low-rank", name="low-rank", schedule=self.finetune, keep=keep, way=way, ignore=self.ignore
                )
        for form in self.forms:
            rest = replace(self.finetune, epochs=self.finetune.epochs - self.imitate)
            found[form] = Rewrite(
                kind="rewrite", name="rewrite", schedule=rest, form=form, imitate=self.imitate, ignore=self.ignore
            )  # fmt: skip
        return found

    def _best(self, subject: Subject, measured: Measured, stage: Stage, number: int) -> dict[str, Any]:
        """The network trained on at the rate that validation prefers; all networks see samples in the same order."""
        tried = []
        for rate in self.rates:
            module = copy.deepcopy(subject.module)
            assert stage.schedule is not None
            subject.apply(replace(stage, schedule=replace(stage.schedule, learning_rate=rate)), module, number=1)
            make_plain(module)
            tried.append((1 - accuracy(module, subject.lesson, subject.dataset.validation), rate, module))
        _, rate, module = min(tried, key=lambda each: each[0])
        return {**_figures(measured, module), "rate": rate}

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Means of all networks, and each way against pruning at its cycles and at its validation error."""
        runs = [result["points"] for result in results.values()]
        names = [DENSE, *self._stages()]
        rivals = [name for name in names if name not in self._pruning()]
        equal = {name: self._at_equal_cycles(runs, name) for name in rivals}
        whole = {name: both for name, both in equal.items() if None not in both[1]}
        family = Family.of({f"{name} - pruned at its cycles": both for name, both in whole.items()})  # type: ignore[misc]
        findings = [f"{self.networks[0].name} on {self.preset}; {seeds_in_words(len(runs))}."]
        rows: list[list[str | int | float | None]] = []
        for name in names:
            own = [run[name] for run in runs]
            at, ratio = equal.get(name), None
            gap = None
            if at is not None and name in whole:
                gap = round(fmean(a - b for a, b in zip(at[0], at[1], strict=True)), 3)  # type: ignore[operator]
            if name in rivals:
                ratio = self._at_equal_error(runs, name)
                findings.append(_verdict(name, gap, ratio))
            cycles = [each["cycles"] for each in own]
            rows.append([
                name, round(fmean(each["test"] for each in own), 3), round(fmean(each["weights"] for each in own)),
                None if None in cycles else round(fmean(cycles)),
                None if None in cycles else round(fmean(each["stored"] for each in own)), gap, ratio,
            ])  # fmt: skip
        findings.append(family.finding())
        columns = [
            "network", "test error, %", "nonzero weights", "cycles", "bytes", "points more than pruned, equal cycles",
            "cycles of those of the cheapest pruned, equal validation error",
        ]  # fmt: skip
        return Summary(
            {"runs": runs, "pairs": family.asdict()},
            [SummaryTable(f"{self.name}: mean of the seeds", columns, rows), *family.tables("points of test error")],
            findings, {"cycles": self._plot(rows, set(self._pruning()))},
        )  # fmt: skip

    def _pruning(self) -> list[str]:
        """Names of the pruned networks, from the least density to the dense network that was trained on, and it."""
        return [*(_pruned(density) for density in self.densities), LONGER, DENSE]

    def _curve(self, run: Mapping[str, Any]) -> list[tuple[float, float]]:
        """Cycles of the pruned networks of a seed, ascending, and their test errors."""
        points = [run[name] for name in self._pruning()[:-1] if run[name]["cycles"] is not None]
        return sorted(((float(point["cycles"]), point["test"]) for point in points), key=lambda point: point[0])

    def _at_equal_cycles(self, runs: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float | None]]:
        """By seed the test error of a network, and that of pruning at its cycles.

        Between two pruned networks errors are taken on a straight line over the logarithm of the cycles. Above them it
        is that of the dense network that was trained on, which takes less; below them there is none (None).
        """
        found: list[float | None] = []
        for run in runs:
            curve, own = self._curve(run), run[name]["cycles"]
            inside = own is not None and own >= curve[0][0]
            found.append(between(curve, own) if inside else None)
        return [run[name]["test"] for run in runs], found

    def _at_equal_error(self, runs: Sequence[Mapping[str, Any]], name: str) -> float | None:
        """Cycles of a network, of those of the cheapest pruned one that makes no more validation errors; mean."""
        ratios = []
        for run in runs:
            own = run[name]
            good = [
                run[each]["cycles"] for each in self._pruning()
                if run[each]["validation"] <= own["validation"] and run[each]["cycles"] is not None
            ]  # fmt: skip
            if own["cycles"] is None or not good:
                return None
            ratios.append(own["cycles"] / min(good))
        return round(fmean(ratios), 2)

    def _plot(self, rows: Sequence[Sequence[Any]], pruning: set[str]) -> Figure:
        from compiler.train.plots import canvas

        figure, axes = canvas(f"{self.name}: mean of the seeds")
        shown = [row for row in rows if row[3] is not None]
        line = sorted((row[3], row[1]) for row in shown if row[0] in pruning and row[0] != DENSE)
        axes.plot(*zip(*line, strict=True), marker="o", color="gray", label="pruned")
        for row in shown:
            if row[0] not in pruning:
                axes.plot([row[3]], [row[1]], marker="s", linestyle="", label=row[0])
        axes.set(xlabel="cycles", ylabel="test error, %", xscale="log")
        axes.legend()
        return figure


def between(curve: Sequence[tuple[float, float]], cycles: float) -> float:
    """Error at some cycles, on straight lines over the logarithm of the cycles between the points of a curve.

    curve : cycles, ascending, and errors. Beyond its ends the error is that of the end.
    """
    return float(np.interp(np.log(cycles), [np.log(each) for each, _ in curve], [error for _, error in curve]))


def _pruned(density: float) -> str:
    return f"pruned {density:g}"


def _figures(measured: Measured, module: Any) -> dict[str, Any]:
    """Errors in percent, weights that are not zero, cycles of a sample and bytes in the memories."""
    cost = measured.whole(module)
    return {
        **measured.subject.errors(module), "weights": sum(int((site.value != 0).sum()) for site in weights(module)),
        "cycles": None if cost is None else float(cost.cycles), "stored": None if cost is None else int(cost.stored),
    }  # fmt: skip


def _verdict(name: str, gap: float | None, ratio: float | None) -> str:
    """What the means say of one way."""
    first = "no pruned network has as few cycles" if gap is None else f"{gap:+.2f} points of test error"
    second = (
        "no pruned network makes as few validation errors" if ratio is None
        else f"{ratio:.2f} times the cycles of the cheapest pruned one with no more validation errors"
    )  # fmt: skip
    return f"{name} against pruning at equal cycles: {first}; {second}."
