"""The report of a compression: dense, uniform and found side by side, the densities, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compiler.experiments import document
from compiler.experiments.base import Summary, SummaryTable
from sim.auto.run import Arm, Job
from sim.auto.target import KINDS

__all__ = ["write_report"]


def write_report(
    job: Job,
    limit: float,
    arms: Sequence[Arm],
    files: Mapping[str, int],
    golden: Mapping[str, float],
    spent: tuple[float, float],
    out: Path,
) -> dict[str, Any]:
    """Write ``report.json`` and ``report.md``; returns the report, in the form of an experiment's.

    Parameters
    ----------
    limit : that was to be met. arms : dense, uniform, found.
    files : name of an arm → bytes of its .eiez file. golden : name of an arm → share of right answers in integers.
    spent : seconds and CPU seconds of this process.
    """
    met = job.target.of(cost) <= limit if (cost := arms[-1].cost) is not None else False
    rows = [_row(arm, limit, job, files, golden) for arm in arms]
    columns = [
        "network", "test error, %", "validation error, %", "test error in integers, %", "cycles", "energy, nJ", "bytes",
        ".eiez bytes", f"% of the target, {job.target.kind}", "epochs after dense", "trainings",
    ]  # fmt: skip
    keys = list(arms[-1].densities)
    summary = Summary(
        {
            "target": {"asked": str(job.target), "limit": limit, "unit": KINDS[job.target.kind], "met": met},
            "networks": {arm.name: figures(arm, files, golden) for arm in arms},
        },
        [
            SummaryTable(f"Target {job.target}: {limit:,.0f} {KINDS[job.target.kind]}", columns, rows),
            SummaryTable(
                "Share of the weights that each layer keeps, %", ["weights", *(arm.name for arm in arms[1:])],
                [[key, *(round(100 * arm.densities[key], 2) for arm in arms[1:])] for key in keys],
            ),
        ],
        findings(job, limit, arms),
    )  # fmt: skip
    settings = {"name": job.recipe.name, "kind": "compress-auto", "seeds": [job.recipe.seed], **job.asdict()}
    return document.write_report(out, settings, summary, {"compression": spent})


def figures(arm: Arm, files: Mapping[str, int], golden: Mapping[str, float]) -> dict[str, Any]:
    """Of one network, as JSON."""
    found = arm.cost
    return {
        "densities": dict(arm.densities), "epochs": arm.epochs, "trainings": arm.rounds,
        "errors": {name: round(100 * (1 - value), 4) for name, value in arm.right.items()},
        "error_in_integers": round(100 * (1 - golden[arm.name]), 4) if arm.name in golden else None,
        "cycles": None if found is None else float(found.cycles),
        "energy": None if found is None else float(found.energy),
        "bytes": None if found is None else int(found.stored),
        "file": files.get(arm.name),
        "folder": None if arm.folder is None else arm.folder.name,
    }  # fmt: skip


def findings(job: Job, limit: float, arms: Sequence[Arm]) -> list[str]:
    """Sentences that follow from the figures, whichever way they came out."""
    said = []
    for arm in arms[1:]:
        taken = 0.0 if arm.cost is None else job.target.of(arm.cost)
        word = "meets" if taken <= limit else "misses"
        said.append(
            f"{arm.name} {word} the target: {taken:,.0f} of {limit:,.0f} {KINDS[job.target.kind]}, after "
            f"{arm.rounds} training{'s' if arm.rounds > 1 else ''} of {arm.epochs} epochs."
        )
    dense, uniform, found = arms
    gain = 100 * (found.right["test"] - uniform.right["test"])
    said.append(
        f"Test accuracy of found: {gain:+.2f} points from uniform, "
        f"{100 * (found.right['test'] - dense.right['test']):+.2f} from dense; one seed, no interval."
    )
    return said


def _row(
    arm: Arm, limit: float, job: Job, files: Mapping[str, int], golden: Mapping[str, float]
) -> list[str | int | float | None]:
    each = figures(arm, files, golden)
    share = None if arm.cost is None else round(100 * job.target.of(arm.cost) / limit, 2)
    return [
        arm.name, each["errors"]["test"], each["errors"]["validation"], each["error_in_integers"], each["cycles"],
        None if each["energy"] is None else each["energy"] / 1000, each["bytes"], each["file"], share, arm.epochs,
        arm.rounds,
    ]  # fmt: skip
