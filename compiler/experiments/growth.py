"""Ways to networks that are sparse: pruned, sparse from the first step, or by a penalty, beside a small dense one.

Every way trains for the same number of epochs and has the same number of trials in which validation chooses its
settings, with a seed that no result is made with. Source of the question: Rigging the Lottery (Evci et al., ICML 2020)
and The State of Sparsity in Deep Neural Networks (Gale et al., 2019), where pruning by magnitude does as well as L0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from compiler.errors import RecipeError
from compiler.experiments.base import Env, Experiment, Summary, SummaryTable, Trial
from compiler.experiments.growth_arms import Arm, narrowed
from compiler.experiments.paired import Family, seeds_in_words
from compiler.experiments.subject import NetworkSpec, Subject, network_of
from compiler.experiments.tuned import check_seeds, key_of, train_tuned
from compiler.train.layers import density, weights
from compiler.train.table import SEED_LIMIT, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Growth"]


@dataclass(frozen=True, kw_only=True)
class Growth(Experiment):
    """One network at several sparsities, by every arm.

    Attributes
    ----------
    network : with the schedule that all arms begin with; `settings` of an arm change it.
    sparsities : shares of the weights that are zero in the end.
    arms : see there; one is of kind "prune" and one of kind "small", which the others are compared with.
    trials_each : how many settings of an arm validation chooses from, at every sparsity.
    tuning_seed : of these trials.
    trimmed : see `Arm.stages`.
    """

    kind: ClassVar[str] = "growth"
    listed: ClassVar[tuple[str, ...]] = ("seeds", "sparsities")
    network: NetworkSpec
    sparsities: tuple[float, ...]
    arms: tuple[Arm, ...]
    trials_each: int
    tuning_seed: int
    trimmed: float

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Network, sparsities, arms, and how settings are chosen."""
        network = network_of(table)
        sparsities = table.numbers("sparsities", 0, 1)
        if not sparsities:
            raise RecipeError(f"{table.source}: sparsities is empty; expected at least one")
        trials = table.integer("trials", 1, 100)
        arms = tuple(Arm.parse(one, trials) for one in table.tables("arms"))
        kinds = [arm.kind for arm in arms]
        if len({arm.name for arm in arms}) < len(arms) or kinds.count("prune") != 1 or kinds.count("small") != 1:
            raise RecipeError(
                f"{table.source}: arms are {', '.join(arm.name for arm in arms)}; expected names that differ, one arm "
                "of kind prune and one of kind small"
            )
        trimmed = table.number("trimmed", 0, 1, default=0.25)
        for arm in arms:  # what is wrong in a setting is said before anything is trained
            for setting in arm.settings:
                more = {"strength": arm.strengths[0]} if arm.strengths else {}
                arm.stages(network.dense, {**setting, **more}, 1 - sparsities[0], trimmed)
        return {
            "network": network,
            "sparsities": sparsities,
            "arms": arms,
            "trials_each": trials,
            "tuning_seed": table.integer("tuning_seed", 0, SEED_LIMIT),
            "trimmed": trimmed,
        }

    def __post_init__(self) -> None:
        """Raises `RecipeError`."""
        check_seeds(self.tuning_seed, self.seeds)

    def trials(self) -> list[Trial]:
        """One for each arm and sparsity, with all seeds; the dense network has no sparsity."""
        seeds = "-".join(str(seed) for seed in self.seeds)
        pairs = [(arm, 0.0) for arm in self.arms if arm.kind == "dense"]
        pairs += [(arm, sparsity) for sparsity in self.sparsities for arm in self.arms if arm.kind != "dense"]
        return [
            Trial(f"{key_of(arm.name)}.{sparsity:g}.{seeds}", {"arm": arm.name, "sparsity": sparsity})
            for arm, sparsity in pairs
        ]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """What was tried and chosen, and the errors in percent of every seed."""
        arm = next(one for one in self.arms if one.name == trial.options["arm"])
        left = 1 - trial.options["sparsity"]
        spec = self.network
        if arm.kind == "small":
            count = sum(site.value.numel() for site in weights(Subject.make(spec, 0, env).module))
            spec = dataclasses.replace(spec, model=narrowed(spec.model, spec.data, left * count))
        subject = Subject.make(spec, self.tuning_seed, env)

        def train(setting: Mapping[str, Any], seed: int) -> tuple[Subject, dict[str, Any]]:
            one, reached = subject.again(spec.model, seed), []
            for number, stage in enumerate(arm.stages(spec.dense, setting, left, self.trimmed)):
                one.apply(stage, one.module, number)
                reached.append(density(weights(one.module)))
            count = sum(int((site.value != 0).sum()) for site in weights(one.module))
            return one, {"reached": reached[0], "weights": count}

        return train_tuned(
            self.trials_each, self.tuning_seed, self.seeds, lambda tried: arm.setting(tried, left), train, env.note
        )

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Errors by sparsity and arm, and differences to pruning and to the small network, corrected together."""
        found = {(t.options["arm"], t.options["sparsity"]): results[t.key] for t in self.trials()}
        rows, values = [], dict[str, tuple[Sequence[float], Sequence[float]]]()
        curves: dict[str, list[tuple[float, float]]] = {}
        reference = {arm.kind: arm.name for arm in self.arms}
        for (name, sparsity), result in found.items():
            errors = _tests(result)
            runs = list(result["runs"].values())
            rows.append(
                [name, 100 * sparsity, fmean(errors), min(errors), max(errors),
                 round(fmean(run["weights"] for run in runs)), 100 * (1 - fmean(run["reached"] for run in runs)),
                 min(one["validation"] for one in result["tried"]),
                 ", ".join(f"{key} {value}" for key, value in result["setting"].items())]
            )  # fmt: skip
            curves.setdefault(name, []).append((100 * sparsity, fmean(errors)))
            for other in ("prune", "small") if sparsity else ():
                if name != reference[other] and name != reference["prune"]:
                    base = _tests(found[reference[other], sparsity])
                    values[f"{name} - {reference[other]}, {100 * sparsity:g} %"] = (errors, base)
        family = Family.of(values)
        table = SummaryTable(
            f"Test error, %, {seeds_in_words(len(self.seeds))}; settings chosen by validation from "
            f"{self.trials_each} trials with seed {self.tuning_seed}",
            ["arm", "sparsity %", "error, mean", "least", "greatest", "weights", "sparsity before trimming %",
             "validation error of the trial", "chosen"],
            rows,
        )  # fmt: skip
        figures = {
            "arms": {f"{name} {100 * sparsity:g} %": result for (name, sparsity), result in found.items()},
            "differences": family.asdict(),
        }
        findings = [self._budget(), *self._orders(found), family.finding()]
        return Summary(figures, [table, *family.tables("points")], findings, {"errors": _plot(curves)})

    def _budget(self) -> str:
        spec = self.network
        samples = "all" if spec.samples is None else f"{spec.samples:,}"
        return (
            f"{spec.name}: {samples} training samples of {spec.data}, {spec.validation:.1%} of which validate; "
            f"{spec.dense.epochs} epochs in every arm; {seeds_in_words(len(self.seeds))}."
        )

    def _orders(self, found: Mapping[tuple[str, float], Mapping[str, Any]]) -> list[str]:
        """At each sparsity, the arms from the least mean error on."""
        sentences = []
        for sparsity in self.sparsities:
            mine = {name: fmean(_tests(one)) for (name, other), one in found.items() if other == sparsity}
            order = sorted(mine, key=lambda name: mine[name])
            listed = ", ".join(f"{name} {mine[name]:.2f}" for name in order)
            sentences.append(f"At {100 * sparsity:g} % sparsity, mean test error in percent: {listed}.")
        return sentences


def _tests(result: Mapping[str, Any]) -> list[float]:
    return [run["test"] for run in result["runs"].values()]


def _plot(curves: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Mean error against sparsity."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        if len(points) == 1 and points[0][0] == 0:
            axes.axhline(points[0][1], color="gray", linestyle=":", label=name)
        else:
            axes.plot(*zip(*sorted(points), strict=True), "o-", label=name, markersize=4)
    axes.set(xlabel="weights that are zero, %", ylabel="test error, %")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)
    return figure
