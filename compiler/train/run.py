"""Train by recipe into a folder, stage after stage, so that a run that was killed goes on as if it had not been."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from compiler.claim import claimed
from compiler.errors import InputError, RecipeError
from compiler.journal import Journal
from compiler.train import progress as checkpoints
from compiler.train.augment import Copies
from compiler.train.data import Dataset
from compiler.train.data import load as load_data
from compiler.train.distill import Teacher
from compiler.train.images import Images, accuracy
from compiler.train.layers import density, make_plain, weights
from compiler.train.loop import Epoch, fit, reproducible, seed_of
from compiler.train.models import ModelSpec
from compiler.train.progress import CHECKPOINTS, CURRENT, Position, stage_path
from compiler.train.recipe import Recipe
from compiler.train.recipe import load as load_recipe
from compiler.train.report import finish, layers_of
from compiler.train.runfolder import CALIBRATION, COMPRESSED, MODEL, REPORT, LoadedRun, load_run, read_report
from compiler.train.stages import Context, Stage, Teach
from compiler.train.taken import check_free
from compiler.train.trainable import check_outputs

__all__ = ["LoadedRun", "Progress", "Watch", "load_run", "train_recipe"]

Watch = Callable[[list[dict[str, Any]]], None]
"""Is given the lines of all epochs of a run so far, of all its stages, after each; what it raises ends the run."""

_COPIES = 1 << 20
"""Beside the seed of a run: what seeds its warped copies. No stage has this number."""


class Progress(Protocol):
    """Is told how far a stage is: `done` of `total` epochs, with a few words on how it goes."""

    def __call__(self, stage: str, done: int, total: int, text: str) -> None:
        """Take note."""


def train_recipe(
    recipe: Recipe | Path,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    seed: int | None = None,
    data_dir: Path | None = None,
    tensorboard: Path | None = None,
    watch: Watch | None = None,
    plots: bool = True,
) -> dict[str, Any]:
    """Train and compress a network by recipe; returns the report that it also writes.

    The same recipe, library versions and kind of machine give the same bits, whether or not the run was interrupted.

    Parameters
    ----------
    out : folder of the run; made if need be.
    resume : go on after the last finished epoch of the same recipe; a finished run is left as it is.
    progress : told about every epoch.
    seed : instead of the recipe's.
    data_dir : folder with the files of the data set, if not from the cache.
    tensorboard : folder for event files of loss, validation and density, or None.
    watch : see `Watch`. plots : whether pictures are drawn in the end.

    ``progress.jsonl`` in the folder says what is done while it is (`compiler.journal`).

    Raises
    ------
    RecipeError, ToolError
        As `recipe.load`, `data.load` and `compiler.journal.Scalars`.
    InputError
        `out` is a file, or holds a run already and `resume` is not set, or it is a run of another recipe or of several
        processes, or another process is training in it. The user's own data or network is not what a recipe can train.
    """
    wanted = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if seed is not None:
        wanted = wanted.replace(seed=seed)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; expected a folder for the run, or a name that is free")
    check_free(out, CHECKPOINTS, resume)
    tell: Progress = progress or (lambda stage, done, total, text: None)
    with claimed(out), reproducible(wanted.threads):
        check_free(out, CHECKPOINTS, resume)  # again: a process may have been faster
        return _train(wanted, out, tell, data_dir, tensorboard, watch, plots)


def _train(
    wanted: Recipe, out: Path, tell: Progress, data_dir: Path | None, tensorboard: Path | None, watch: Watch | None,
    plots: bool,
) -> dict[str, Any]:  # fmt: skip
    tell("data", 0, 1, wanted.dataset)
    dataset = load_data(wanted.dataset, wanted.validation, data_dir, wanted.samples, wanted.refit)
    tell("data", 1, 1, f"{len(dataset.train)} samples to train on")
    if wanted.augment is not None and len(dataset.shape) != 3:
        raise RecipeError(
            f"data.augment warps images (channels, height, width); the samples have shape {dataset.shape}"
        )
    position = _position(wanted, dataset, out)
    if position.stage == len(wanted.stages) and all(
        (out / name).is_file() for name in (MODEL, COMPRESSED, REPORT, CALIBRATION)
    ):
        return read_report(out / REPORT)
    for spec in (wanted.model, *(stage.model for stage in wanted.stages if isinstance(stage, Teach))):
        check_outputs(spec, dataset)
    with Journal(out, tensorboard) as journal:
        epochs = {stage.name: 0 if stage.schedule is None else stage.schedule.epochs for stage in wanted.stages}
        journal.note("begin", kind="training", name=wanted.name, seed=wanted.seed, epochs=epochs)
        runner = _Runner(wanted, dataset, out, tell, journal, watch)
        while position.stage < len(wanted.stages):
            position = runner.run_stage(position)
        module, plain = (runner.network(len(wanted.stages)) for _ in range(2))
        make_plain(plain)
        report = finish(wanted, module, plain.eval(), dataset, position.records, out, plots=plots)
        journal.note("end", status="finished")
    return report


def _position(recipe: Recipe, dataset: Dataset, out: Path) -> Position:
    """Where to go on: after the last stage that is finished, or within the next one."""
    for number in range(len(recipe.stages), 0, -1):
        path = stage_path(out, recipe.stages[number - 1].name)
        if path.is_file():
            done = checkpoints.read(path, recipe, dataset)
            finished = Position(number, 0, {}, [*done.records, done.record])
            break
    else:
        finished = Position(0, 0, {}, [])
    current = stage_path(out, CURRENT)
    if current.is_file():
        within = checkpoints.read(current, recipe, dataset)
        if within.stage == finished.stage:
            return within
    return finished


class _Runner:
    """Runs one stage after the other."""

    def __init__(
        self, recipe: Recipe, dataset: Dataset, out: Path, tell: Progress, journal: Journal, watch: Watch | None = None
    ) -> None:
        self.recipe, self.dataset, self.out, self.tell, self.journal = recipe, dataset, out, tell, journal
        self.watch = watch
        self.teachers: dict[Any, Teacher] = {}
        self.copies = self._copies()
        self.measured = "validation (trained on)" if dataset.refit else "validation"

    def network(self, before: int) -> nn.Module:
        """The recipe's network as the stages before number `before` left it."""
        path = checkpoints.last_finished(self.out, self.recipe.stages, before)
        if path is None:
            return checkpoints.fresh(self.recipe.model, self.dataset, self.recipe.seed)
        return checkpoints.load_module(path, self.recipe.model, self.dataset)

    def run_stage(self, position: Position) -> Position:
        """Run, or go on with, the stage at `position`; the position after it."""
        stage = self.recipe.stages[position.stage]
        if stage.name == CURRENT:
            raise InputError(f"a stage is called {CURRENT}, which is the name of a file of the run; choose another")
        module = position.module or self._subject(stage, position.stage)
        lesson = self._lesson(stage)
        context = Context(
            self.recipe.seed, position.stage, lesson, lambda m: accuracy(m, lesson, self.dataset.validation),
            position.records,
        )  # fmt: skip
        epochs = 0 if stage.schedule is None else stage.schedule.epochs
        clock = _Clock(position.record)
        if not position.record:
            self.tell(stage.name, 0, epochs, "")
            extra = stage.begin(module, context)
            position.record = {"stage": stage.name, "kind": stage.kind, "epochs": epochs, **extra, "history": []}

        def after_epoch(epoch: Epoch) -> None:
            share = context.measure(module)
            line = {"epoch": epoch.done, "loss": epoch.loss, "validation": share, "density": density(weights(module))}
            position.record["history"].append(line)
            # Before the checkpoint: what is lost in a kill is trained again, and noted again.
            self.journal.note("epoch", stage=stage.name, **line)
            curves = {f"{name}/{stage.name}": line[name] for name in ("loss", "validation", "density")}
            self.journal.curve(curves, epoch.done)
            position.record.update(clock.taken())
            position.epoch, position.module, position.optimizer = epoch.done, module, epoch.optimizer
            checkpoints.write(stage_path(self.out, CURRENT), self.recipe, position)
            left = clock.left(epoch.done, epochs)
            self.tell(stage.name, epoch.done, epochs, f"loss {epoch.loss:.4f}, {self.measured} {share:.2%}{left}")
            if self.watch is not None:
                self.watch([line for each in (*position.records, position.record) for line in each["history"]])

        clock.begin(position.epoch)
        if stage.schedule is not None and epochs:
            fit(
                module,
                lesson,
                stage.schedule,
                (self.recipe.seed, position.stage),
                hooks=stage.hooks(module, context, position.record),
                after_epoch=after_epoch,
                done=position.epoch,
                optimizer_state=position.optimizer,
            )
        elif epochs == 0:
            self.tell(stage.name, 0, 0, f"{self.measured} {context.measure(module):.2%}")
        stage.finish(module, context)
        position.record.update(clock.taken())
        position.record["accuracy"] = {
            "validation": context.measure(module),
            "test": accuracy(module, lesson, self.dataset.test),
        }
        self.journal.note("stage", stage=stage.name, **position.record["accuracy"])
        position.record["layers"] = layers_of(module)
        position.module, position.optimizer = module, None
        checkpoints.write(stage_path(self.out, stage.name), self.recipe, position)
        stage_path(self.out, CURRENT).unlink(missing_ok=True)
        return Position(position.stage + 1, 0, {}, [*position.records, position.record])

    def _subject(self, stage: Stage, number: int) -> nn.Module:
        """What a stage trains: the network, or a teacher of its own."""
        if isinstance(stage, Teach):
            return checkpoints.fresh(stage.model, self.dataset, seed_of(self.recipe.seed, number) % (1 << 32))
        return self.network(number)

    def _lesson(self, stage: Stage) -> Images:
        return Images(
            split=self.dataset.train,
            shape=self.dataset.shape,
            flat=self.recipe.model.flat,
            augment=self.recipe.augment,
            copies=self.copies,
            teacher=self._teacher(stage),
            precision=self.recipe.precision,
        )

    def _copies(self) -> Copies | None:
        warp, count, seed = self.recipe.augment, self.recipe.copies, self.recipe.seed
        if warp is None or not count:
            return None
        seeds = [seed_of(seed, _COPIES, number) for number in range(count)]
        return Copies(warp, torch.from_numpy(self.dataset.train.inputs), self.dataset.shape, seeds)

    def _teacher(self, stage: Stage) -> Teacher | None:
        if stage.distill is None:
            return None
        if stage.distill in self.teachers:
            return self.teachers[stage.distill]  # with the answers that it has given
        teacher = next(other for other in self.recipe.stages if other.name == stage.distill.teacher)
        spec: ModelSpec = teacher.model if isinstance(teacher, Teach) else self.recipe.model
        module = checkpoints.load_module(stage_path(self.out, teacher.name), spec, self.dataset)
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        self.teachers[stage.distill] = Teacher(module, stage.distill.temperature, stage.distill.weight)
        return self.teachers[stage.distill]


class _Clock:
    """Seconds that a stage took, those before an interruption included."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.before = (record.get("seconds", 0.0), record.get("cpu_seconds", 0.0))
        self.began, self.first = (time.monotonic(), time.process_time()), 0

    def begin(self, done: int) -> None:
        """The training begins, with `done` epochs done before."""
        self.first, self.training = done, time.monotonic()

    def taken(self) -> dict[str, float]:
        """So far: by the clock, and of all cores together, which other programs on the machine do not lengthen."""
        now = (time.monotonic(), time.process_time())
        both = [round(b + n - s, 3) for b, n, s in zip(self.before, now, self.began, strict=True)]
        return dict(zip(("seconds", "cpu_seconds"), both, strict=True))

    def left(self, done: int, total: int) -> str:
        """What the rest of the stage will take at this pace, in words."""
        seconds = (time.monotonic() - self.training) / (done - self.first) * (total - done)
        return f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left" if done < total else ""
