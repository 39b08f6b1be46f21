"""One recipe with several seeds: a run folder for each, and their mean and worst figures together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compiler.command_line import command
from compiler.errors import InputError
from compiler.train import checkpoint
from compiler.train.recipe import Recipe
from compiler.train.recipe import load as load_recipe
from compiler.train.report import versions
from compiler.train.run import Progress, train_recipe
from compiler.train.runfolder import REPORT

__all__ = ["SUMMARY", "summarize", "summary_text", "train_seeds"]

SUMMARY = "summary.json"

WORST = {
    "dense_test_error": max, "test_error": max, "validation_error": max, "nonzeros": max, "file_bytes": max,
    "ratio": min, "seconds": max, "cpu_seconds": max,
}  # fmt: skip
"""Figure of a run → which end of it is the worst. Errors are percent, seconds those of training."""


def train_seeds(
    recipe: Recipe | Path,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    seeds: Sequence[int] | None = None,
    data_dir: Path | None = None,
    tensorboard: Path | None = None,
) -> dict[str, Any]:
    """Train by every seed into ``out/seed-N``; returns the summary that ``out/summary.json`` and ``.md`` also hold.

    Parameters
    ----------
    resume : go on where this stopped; runs that are finished are left as they are.
    seeds : instead of those that the recipe lists.
    tensorboard : folder for event files, in which each seed has one of its own, or None.

    Raises
    ------
    RecipeError, ToolError, InputError
        As `run.train_recipe`.
    """
    wanted = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    chosen = list(dict.fromkeys(wanted.seeds if seeds is None else seeds))
    if not chosen:
        raise InputError("no seed is given; expected at least one")
    folders = [out / f"seed-{seed}" for seed in chosen]
    if not resume:  # found out before hours of training
        taken = [str(folder) for folder in folders if folder.exists()]
        if taken:
            raise InputError(f"{', '.join(taken)} exist already; continue with --resume or choose another folder")
    reports = [
        train_recipe(
            wanted, folder, resume=resume, progress=progress, seed=seed, data_dir=data_dir,
            tensorboard=None if tensorboard is None else tensorboard / folder.name,
        )
        for seed, folder in zip(chosen, folders, strict=True)
    ]  # fmt: skip
    summary = summarize(reports)
    checkpoint.write_atomic(out / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())
    checkpoint.write_atomic((out / SUMMARY).with_suffix(".md"), summary_text(summary).encode())
    return summary


def summarize(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of each run, their mean and the worst of each."""
    rows = [_row(report) for report in reports]
    first = reports[0]
    return {
        "recipe": first["recipe"]["name"],
        "command": command(),
        "data": first["data"],
        "distillation": first["distillation"],
        "dense_bytes": first["size"]["dense_bytes"],
        "runs": rows,
        "mean": {key: sum(row[key] for row in rows) / len(rows) for key in WORST},
        "worst": {key: end(row[key] for row in rows) for key, end in WORST.items()},
        "reports": [f"seed-{report['seed']}/{REPORT}" for report in reports],
        "finished": first["finished"] if len(reports) == 1 else max(report["finished"] for report in reports),
        "versions": versions(),
    }


def _row(report: Mapping[str, Any]) -> dict[str, Any]:
    dense = next(stage for stage in report["stages"] if stage["kind"] != "teacher")
    last, size = report["stages"][-1]["accuracy"], report["size"]
    return {
        "seed": report["seed"],
        "dense_test_error": _error(dense["accuracy"]["test"]),
        "test_error": _error(last["test"]),
        "validation_error": _error(last["validation"]),
        "nonzeros": size["nonzeros"],
        "file_bytes": size["file_bytes"],
        "ratio": round(size["ratio"], 2),
        "seconds": report["seconds"],
        "cpu_seconds": report["cpu_seconds"],
    }


def _error(accuracy: float) -> float:
    return round(100 * (1 - accuracy), 4)


def summary_text(summary: Mapping[str, Any]) -> str:
    """The summary as a Markdown table."""
    seen = " (trained on)" if summary["data"]["refit"] else ""
    lines = [
        f"`{summary['command']}`: dense float32 {summary['dense_bytes']:,} bytes.",
        "",
        (
            f"| seed | dense test error % | test error % | validation error{seen} % | nonzeros | bytes | ratio | s "
            "| CPU s |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    named = [(str(row["seed"]), row) for row in summary["runs"]]
    for name, row in [*named, ("mean", summary["mean"]), ("worst", summary["worst"])]:
        lines.append(
            f"| {name} | {row['dense_test_error']:.2f} | {row['test_error']:.2f} | {row['validation_error']:.2f} "
            f"| {row['nonzeros']:,.0f} | {row['file_bytes']:,.0f} | {row['ratio']:.1f} | {row['seconds']:.0f} "
            f"| {row['cpu_seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"
