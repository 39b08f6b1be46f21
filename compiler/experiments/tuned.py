"""One way to train: settings chosen by validation with a seed of their own, then a training with every other seed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from compiler.errors import RecipeError
from compiler.experiments.subject import Subject
from compiler.train.images import accuracy
from compiler.train.table import Table

__all__ = ["check_seeds", "key_of", "settings_of", "train_tuned"]


def train_tuned(
    trials: int,
    tuning_seed: int,
    seeds: Sequence[int],
    propose: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]],
    train: Callable[[Mapping[str, Any], int], tuple[Subject, dict[str, Any]]],
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Choose a setting, and train with it.

    Parameters
    ----------
    trials : how many settings validation chooses from, with `tuning_seed`.
    propose : given the trials so far, the next setting.
    train : given a setting and a seed, the trained network and figures of its own.

    Returns
    -------
    tried : `setting`, `validation` error in percent and the figures of each trial.
    setting : the one of least validation error; runs : by seed, validation and test errors in percent, and figures.
    """
    tried: list[dict[str, Any]] = []
    for number in range(trials):
        note(f"trial {number + 1} of {trials}")
        setting = propose(tried)
        subject, figures = train(setting, tuning_seed)
        right = accuracy(subject.module, subject.lesson, subject.dataset.validation)
        tried.append({"setting": setting, "validation": 100 * (1 - right), **figures})
    best = min(tried, key=lambda one: float(one["validation"]))["setting"]
    runs = {}
    for seed in seeds:
        note(f"seed {seed}")
        subject, figures = train(best, seed)
        runs[str(seed)] = {**subject.errors(subject.module), **figures}
    return {"tried": tried, "setting": best, "runs": runs}


def settings_of(table: Table, trials: int) -> tuple[Mapping[str, Any], ...]:
    """The tables ``settings`` of an arm, of which there are as many as trials. Raises `RecipeError`."""
    settings = tuple(dict(one.content) for one in table.tables("settings"))
    if len(settings) != trials:
        raise RecipeError(
            f"{table.source}: {table.where} has {len(settings)} settings; expected {trials}, so that validation "
            "chooses from as many trials in every arm"
        )
    return settings


def check_seeds(tuning_seed: int, seeds: Sequence[int]) -> None:
    """Raise `RecipeError` if results are made with the seed of the trials."""
    if tuning_seed in seeds:
        raise RecipeError(f"tuning_seed is {tuning_seed}, which is one of the seeds {list(seeds)}; expected another")


def key_of(name: str) -> str:
    """An arm's name as trials have it, in letters, digits, dots, - and _."""
    return re.sub(r"[^\w.-]", "-", name)
