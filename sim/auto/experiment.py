"""Densities by layer against one density for all layers that is given more: cycles at equal accuracy, over seeds."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from compiler.errors import RecipeError
from compiler.experiments.base import Env, Experiment, Summary, SummaryTable, Trial
from compiler.experiments.paired import Family, seeds_in_words
from compiler.options import preset_options
from compiler.train.recipe import parse
from compiler.train.table import Table
from hw.params import PRESETS, preset
from sim.auto.report import figures
from sim.auto.run import Auto, Job, pruning
from sim.auto.target import parse as parse_target

__all__ = ["AutoTrial"]


@dataclass(frozen=True, kw_only=True)
class AutoTrial(Experiment):
    """With each seed: dense, found at the target, uniform at multiples of it; all trained for as many epochs.

    Attributes
    ----------
    network : recipe of the training, as JSON. target : as of the command line. preset : the array.
    samples : on which cycles are measured. more : multiples of the target that uniform may reach.
    """

    kind: ClassVar[str] = "auto"
    network: dict[str, Any]
    target: str
    preset: str
    samples: int
    more: tuple[float, ...]

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """The recipe, the target and what uniform is given."""
        recipe = parse({"name": "network", **table.table("network").content}, table.source)
        pruning(recipe)
        found = {
            "network": recipe.asdict(), "target": str(parse_target(table.text("target"))),
            "preset": table.choice("preset", PRESETS), "samples": table.integer("samples", 1, 256, default=1),
            "more": tuple(dict.fromkeys(table.numbers("more", 0, 10))),
        }  # fmt: skip
        if not found["more"]:
            raise RecipeError(f"{table.source}: more is empty; expected multiples of the target, such as [1.0, 1.2]")
        return found

    def trials(self) -> list[Trial]:
        """One a seed: all arms start from the same dense network."""
        return [Trial(str(seed), {"seed": seed}) for seed in self.seeds]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Every arm of one seed."""

        def tell(stage: str, done: int, total: int, text: str) -> None:
            env.note(f"{stage} {done}/{total}")

        recipe = replace(parse(self.network, self.name), seed=trial.options["seed"])
        target = parse_target(self.target)
        job = Job(recipe, target, preset(self.preset), preset_options(self.preset), self.samples)
        with tempfile.TemporaryDirectory() as folder:
            auto = Auto(job, Path(folder), tell, env.data_dir)
            dense = auto.dense()
            limit = target.limit(dense.cost)
            arms = [("dense", dense), ("found", auto.arm("found", target, limit))]
            for more in self.more:
                arms.append((_name(more), auto.arm("uniform", target, more * limit, f"{more:g}-")))
            return {
                "limit": limit,
                "arms": {name: {**figures(arm, {}, {}), "taken": target.of(arm.cost)}
                         for name, arm in arms if arm.cost is not None},
            }  # fmt: skip

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Means over the seeds, and the differences of errors pair by pair."""
        runs = list(results.values())
        names = ["dense", "found", *map(_name, self.more)]
        runs = [run for run in runs if all(name in run["arms"] for name in names)]
        rows: list[list[str | int | float | None]] = []
        for name in names:
            arms = [run["arms"][name] for run in runs]
            rows.append([
                name, round(fmean([arm["errors"]["test"] for arm in arms]), 3),
                round(fmean([arm["taken"] for arm in arms]), 1),
                round(fmean([run["arms"][name]["taken"] / run["arms"]["dense"]["taken"] for run in runs]), 4),
                round(fmean([arm["trainings"] for arm in arms]), 2), arms[0]["epochs"],
            ])  # fmt: skip
        kind = parse_target(self.target).kind
        errors = {name: [run["arms"][name]["errors"]["test"] for run in runs] for name in names}
        family = Family.of({f"{_name(more)} - found": (errors[_name(more)], errors["found"]) for more in self.more})
        findings = [f"Target {self.target} of {self.preset}; {seeds_in_words(len(runs))}."]
        for more in self.more:
            ratio = fmean([run["arms"][_name(more)]["taken"] / run["arms"]["found"]["taken"] for run in runs])
            gains = [
                run["arms"][_name(more)]["errors"]["test"] - run["arms"]["found"]["errors"]["test"] for run in runs
            ]
            words = "no more errors" if fmean(gains) >= 0 else "more errors"
            findings.append(
                f"Found makes {words} than one density with {ratio:.2f} times its {kind}: {fmean(gains):+.2f} points "
                f"(seeds: {', '.join(f'{gain:+.2f}' for gain in gains)})."
            )
        findings.append(family.finding())
        missed = sum(run["arms"]["found"]["taken"] > run["limit"] for run in runs)
        findings.append(f"The target held in {len(runs) - missed} of {len(runs)} compiled networks that were found.")
        columns = ["network", "test error, %", kind, "of dense", "trainings", "epochs of one"]
        return Summary(
            {"runs": runs, "pairs": family.asdict()},
            [SummaryTable(f"{self.name}: mean of the seeds", columns, rows), *family.tables("points of test error")],
            findings,
        )


def _name(more: float) -> str:
    return f"uniform x{more:g}"
