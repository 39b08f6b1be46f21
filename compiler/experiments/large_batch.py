"""Large batches at equal epochs: SGD with a rate scaled in proportion, LARS, LAMB and AdamW against the small batch.

Every optimizer has the same number of trials at every batch, from which validation chooses, with a seed that no result
is made with. Sources: Accurate, Large Minibatch SGD (Goyal et al., 2017); LARS (You et al., 2017); LAMB (You et al.,
ICLR 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from compiler.errors import RecipeError
from compiler.experiments.base import Env, Experiment, Summary, SummaryTable, Trial
from compiler.experiments.paired import Family, Paired, seeds_in_words
from compiler.experiments.subject import NetworkSpec, Subject, network_of
from compiler.experiments.tuned import check_seeds, key_of, settings_of, train_tuned
from compiler.train.schedule import Schedule
from compiler.train.table import SEED_LIMIT, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GOALS", "BatchArm", "LargeBatch"]

GOALS = {8: 0.3, 32: 1.0}
"""How many times the small batch → points of test error that may be lost."""


@dataclass(frozen=True)
class BatchArm:
    """A way to train.

    Attributes
    ----------
    name : in tables.
    small : whether it is tried at the small batch as well, to be what the others are compared with.
    settings : keys of a schedule; validation chooses from them at every batch.
    """

    name: str
    small: bool
    settings: tuple[Mapping[str, Any], ...]

    def schedule(self, base: Schedule, setting: Mapping[str, Any], factor: int) -> Schedule:
        """As `base` with a setting, at a batch as many times as large. Raises `RecipeError`."""
        table = Table({**base.asdict(), **setting, "batch": base.batch * factor}, f"arm {self.name}", "settings")
        schedule = Schedule.parse(table, 1)
        table.finish()
        return schedule


@dataclass(frozen=True, kw_only=True)
class LargeBatch(Experiment):
    """One network by every arm, at several batches.

    Attributes
    ----------
    network : its schedule has the small batch, and what arms do not change.
    factors : how many times the small batch.
    arms : see there.
    trials_each, tuning_seed : see `train_tuned`.
    """

    kind: ClassVar[str] = "large-batch"
    listed: ClassVar[tuple[str, ...]] = ("seeds", "factors")
    network: NetworkSpec
    factors: tuple[int, ...]
    arms: tuple[BatchArm, ...]
    trials_each: int
    tuning_seed: int

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Network, batches, arms."""
        network = network_of(table)
        factors = table.integers("factors", 2, 1 << 12)
        trials = table.integer("trials", 1, 100)
        arms = []
        for one in table.tables("arms"):
            arms.append(BatchArm(one.text("name"), one.flag("small", default=False), settings_of(one, trials)))
            one.finish()
        if not factors or not any(arm.small for arm in arms) or len({arm.name for arm in arms}) < len(arms):
            raise RecipeError(
                f"{table.source}: factors are {list(factors)} and arms {', '.join(arm.name for arm in arms)}; expected "
                "a factor, and arms whose names differ, one of which has small = true"
            )
        for arm in arms:  # what is wrong in a setting is said before anything is trained
            for setting in arm.settings:
                arm.schedule(network.dense, setting, max(factors))
        seed = table.integer("tuning_seed", 0, SEED_LIMIT)
        return {
            "network": network, "factors": factors, "arms": tuple(arms), "trials_each": trials, "tuning_seed": seed
        }  # fmt: skip

    def __post_init__(self) -> None:
        """Raises `RecipeError`."""
        check_seeds(self.tuning_seed, self.seeds)

    def trials(self) -> list[Trial]:
        """One for each arm and batch, with all seeds."""
        seeds = "-".join(str(seed) for seed in self.seeds)
        return [
            Trial(f"{key_of(arm.name)}.{factor}.{seeds}", {"arm": arm.name, "factor": factor})
            for factor in (1, *self.factors)
            for arm in self.arms
            if factor > 1 or arm.small
        ]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """What was tried and chosen, and the errors in percent of every seed."""
        arm = next(one for one in self.arms if one.name == trial.options["arm"])
        spec = self.network
        subject = Subject.make(spec, self.tuning_seed, env)

        def train(setting: Mapping[str, Any], seed: int) -> tuple[Subject, dict[str, Any]]:
            schedule = arm.schedule(spec.dense, setting, trial.options["factor"])
            one = subject.again(spec.model, seed)
            one.train(one.module, schedule, 0)
            return one, {"steps": schedule.epochs * one.lesson.steps(schedule.batch)}

        return train_tuned(
            self.trials_each, self.tuning_seed, self.seeds, lambda tried: dict(arm.settings[len(tried)]), train,
            env.note,
        )  # fmt: skip

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Errors by arm and batch, and differences to the small batch, corrected together."""
        found = {(trial.options["arm"], trial.options["factor"]): results[trial.key] for trial in self.trials()}
        small = [arm.name for arm in self.arms if arm.small]
        best = min(small, key=lambda name: _validation(found[name, 1]))
        base, batch = _tests(found[best, 1]), self.network.dense.batch
        rows = []
        for (name, factor), result in found.items():
            errors = _tests(result)
            rows.append(
                [name, factor * batch, result["tried"][0]["steps"], fmean(errors), min(errors), max(errors),
                 fmean(errors) - fmean(base), _validation(result),
                 ", ".join(f"{key} {value}" for key, value in result["setting"].items())]
            )  # fmt: skip
        family = Family.of({
            f"{name} at {factor}× - {best} at 1×": (_tests(result), base)
            for (name, factor), result in found.items()
            if factor > 1
        })  # fmt: skip
        table = SummaryTable(
            f"Test error, %, {seeds_in_words(len(self.seeds))}; settings chosen by validation from {self.trials_each} "
            f"trials with seed {self.tuning_seed}",
            ["arm", "batch", "steps", "error, mean", "least", "greatest", f"minus {best} at {batch}",
             "validation error of the trial", "chosen"],
            rows,
        )  # fmt: skip
        figures = {
            "arms": {f"{name} at {factor}": result for (name, factor), result in found.items()},
            "small": best,
            "differences": family.asdict(),
        }
        claims = [self._claim(found, base, best, factor) for factor in self.factors]
        findings = [self._budget(best), *claims, family.finding()]
        return Summary(figures, [table, *family.tables("points")], findings, {"errors": self._plot(found)})

    def _budget(self, best: str) -> str:
        spec = self.network
        samples = "all" if spec.samples is None else f"{spec.samples:,}"
        return (
            f"{spec.name}: {samples} training samples of {spec.data}, {spec.validation:.1%} of which validate; "
            f"{spec.dense.epochs} epochs in every arm; {seeds_in_words(len(self.seeds))}. The small batch is "
            f"{spec.dense.batch}, with {best}, the best there by validation."
        )

    def _claim(
        self, found: Mapping[tuple[str, int], Mapping[str, Any]], base: list[float], best: str, factor: int
    ) -> str:  # fmt: skip
        """What the arm that validation prefers at a batch loses, and whether that is within the goal."""
        name = min((arm.name for arm in self.arms), key=lambda each: _validation(found[each, factor]))
        errors = _tests(found[name, factor])
        words = f"At {factor} times the batch validation prefers {name}: "
        goal = GOALS.get(factor)
        if len(errors) < 2:
            return f"{words}{errors[0] - base[0]:+.2f} points against {best} at the small batch, one seed: no verdict."
        pair = Paired.of(errors, base)
        words += f"{pair.words()} against {best} at the small batch."
        if goal is None:
            return words
        verdict = (
            "holds"
            if pair.high <= goal
            else "holds on average, its interval reaches further"
            if pair.mean <= goal
            else "does not hold"
        )
        return f"{words} Within {goal} points: {verdict}."

    def _plot(self, found: Mapping[tuple[str, int], Mapping[str, Any]]) -> Figure:
        """Mean error against the batch."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for arm in self.arms:
            points = [
                (factor * self.network.dense.batch, fmean(_tests(result)))
                for (name, factor), result in found.items()
                if name == arm.name
            ]
            axes.plot(*zip(*points, strict=True), "o-", label=arm.name, markersize=4)
        axes.set(xlabel="batch", ylabel="test error, %", xscale="log")
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize=8)
        return figure


def _tests(result: Mapping[str, Any]) -> list[float]:
    return [run["test"] for run in result["runs"].values()]


def _validation(result: Mapping[str, Any]) -> float:
    return min(float(one["validation"]) for one in result["tried"])
