"""What networks that were found say: errors at equal cycles, what each array chose, and how far tables are off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from compiler.experiments.base import Summary, SummaryTable
from compiler.experiments.paired import Family, seeds_in_words
from compiler.train.nas.space import Op
from sim.search.ran import in_words

__all__ = ["TOLERANCE", "summary"]

TOLERANCE = 0.02
"""How far from the target a network may be, as a share of it."""

_GOAL = 0.5  # points of test error

Row = Mapping[str, Any]
Cells = list[list[str | int | float | None]]


def summary(
    name: str, arrays: Sequence[str], ways: Sequence[str], ops: Sequence[Op], results: Mapping[str, Mapping[str, Any]]
) -> Summary:
    """From the trials of all seeds.

    Parameters
    ----------
    arrays, ways : as the recipe says. ops : that all blocks may be. results : of each trial, see `experiment.Nas.run`.
    """
    runs = list(results.values())
    own = {
        (array, arm): [_find(run, array, arm) for run in runs] for array in arrays for arm in ("hand", *ways, "random")
    }
    errors = {key: [row["errors"]["test"] for row in rows] for key, rows in own.items()}
    family = Family.of({
        f"{array}: {arm} - {ways[0]}": (errors[array, arm], errors[array, ways[0]])
        for array in arrays for arm in ("hand", "random")
    })  # fmt: skip
    findings = [
        f"The target of each array is what the network made by hand takes there; {seeds_in_words(len(runs))}.",
        _met(arrays, runs, own),
        _additive(arrays, runs),
        *(_gain(array, ways[0], errors) for array in arrays),
        family.finding(),
        *_special(arrays, ways[0], own),
        *(_kernels(array, ops, runs) for array in arrays),
        in_words(runs),
    ]
    return Summary(
        {"runs": runs, "pairs": family.asdict()},
        [
            _arms(name, runs, own), _matrix(arrays, ways[0], runs, own), _chosen(results),
            *family.tables("points of test error"),
        ],
        findings,
    )  # fmt: skip


def _find(run: Mapping[str, Any], array: str, arm: str) -> Row:
    """The row of an arm; that of the network made by hand belongs to all arrays."""
    return next(row for row in run["rows"] if row["arm"] == arm and row["array"] in (array, ""))


def _off(run: Mapping[str, Any], array: str, row: Row) -> float:
    return abs(float(row["cycles"][array] / run["tables"][array]["target"]) - 1)


def _met(arrays: Sequence[str], runs: Sequence[Mapping[str, Any]], own: Mapping[tuple[str, str], list[Row]]) -> str:
    """How many networks are within the tolerance of their target."""
    off = [
        _off(run, array, row) for array in arrays for (at, _), rows in own.items() if at == array
        for run, row in zip(runs, rows, strict=True) if row["array"]
    ]  # fmt: skip
    turns = [row["turns"] for rows in own.values() for row in rows if row["array"]]
    return (
        f"{sum(each <= TOLERANCE for each in off)} of {len(off)} networks take within {TOLERANCE:.0%} of the target, "
        f"by the exact model of the compiled network; the worst is {max(off):.1%} off. {turns.count(1)} did so at once."
    )


def _additive(arrays: Sequence[str], runs: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for array in arrays:
        off = [abs(each) for run in runs for each in run["tables"][array]["errors"]]
        parts.append(f"{array} {100 * fmean(off):.2f} % on average, {100 * max(off):.2f} % at most")
    return f"Tables of cycles that add up, against whole networks of other operations: {'; '.join(parts)}."


def _gain(array: str, way: str, errors: Mapping[tuple[str, str], list[float]]) -> str:
    parts = []
    for arm in ("hand", "random"):
        gains = [other - found for other, found in zip(errors[array, arm], errors[array, way], strict=True)]
        verdict = "" if arm == "random" else f" (goal {_GOAL}: {'met' if fmean(gains) >= _GOAL else 'missed'})"
        words = ", ".join(f"{gain:+.2f}" for gain in gains)
        parts.append(f"{fmean(gains):+.2f} points against {arm}{verdict} (seeds: {words})")
    return f"{array}: the network found makes fewer test errors by {' and '.join(parts)}."


def _special(arrays: Sequence[str], way: str, own: Mapping[tuple[str, str], list[Row]]) -> list[str]:
    """Whether arrays differ in what is chosen."""
    said = []
    for array in arrays:
        ops = [op for row in own[array, way] for op in row["ops"]]
        kernels = Counter(op.split("x")[0] if op != "zero" else "none" for op in ops)
        widths = Counter(op.split("e")[-1] for op in ops if op != "zero")
        said.append(
            f"{array}: of {len(ops)} blocks "
            + ", ".join(f"{kernels[key]} {'are left out' if key == 'none' else f'have {key}x{key}'}"
                        for key in sorted(kernels))
            + "; expansion "
            + ", ".join(f"{key}: {widths[key]}" for key in sorted(widths))
            + "."
        )  # fmt: skip
    if len(arrays) > 1:
        first, *others = ([row["ops"] for row in own[array, way]] for array in arrays)
        differ = sum(any(other[n] != ops for other in others) for n, ops in enumerate(first))
        said.append(f"Networks of different arrays differ with {differ} of {len(first)} seeds.")
    return said


def _kernels(array: str, ops: Sequence[Op], runs: Sequence[Mapping[str, Any]]) -> str:
    """What greater windows take, by the tables: the mean over blocks and expansions."""
    least, parts = min(op.kernel for op in ops), []
    for kernel in sorted({op.kernel for op in ops} - {least}):
        ratios = [
            row[number] / row[ops.index(Op(least, op.expansion))]
            for run in runs for row in run["tables"][array]["rows"]
            for number, op in enumerate(ops) if op.kernel == kernel
        ]  # fmt: skip
        parts.append(
            f"with {kernel}x{kernel} {fmean(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f}, by block and "
            "expansion)"
        )
    others = f" takes {', '.join(parts)} the cycles of one with {least}x{least}" if parts else f" has {least}x{least}"
    return f"{array}: a block{others}."


def _arms(name: str, runs: Sequence[Mapping[str, Any]], own: Mapping[tuple[str, str], list[Row]]) -> SummaryTable:
    rows: Cells = []
    for (array, arm), found in own.items():
        share = fmean(
            row["cycles"][array] / run["tables"][array]["target"] for run, row in zip(runs, found, strict=True)
        )
        seconds = [row["cpu_seconds"] for row in found if "cpu_seconds" in row]
        rows.append([
            array, arm, round(fmean(row["errors"]["validation"] for row in found), 3),
            round(fmean(row["errors"]["test"] for row in found), 3),
            round(fmean(row["cycles"][array] for row in found), 1), round(share, 4),
            round(fmean(row["passes"] for row in found)), round(fmean(seconds), 1) if seconds else None,
        ])  # fmt: skip
    columns = [
        "array", "network", "validation error, %", "test error, %", "cycles", "of target", "batches of the search",
        "CPU s of the search, without warm-up",
    ]  # fmt: skip
    return SummaryTable(f"{name}: mean of the seeds", columns, rows)


def _matrix(
    arrays: Sequence[str], way: str, runs: Sequence[Mapping[str, Any]], own: Mapping[tuple[str, str], list[Row]]
) -> SummaryTable:
    """Cycles of what is found for each array, on each array."""
    rows: Cells = []
    for label, key in (("by hand", (arrays[0], "hand")), *((f"for {array}", (array, way)) for array in arrays)):
        found = own[key]
        rows.append([
            label, *(round(fmean(row["cycles"][array] for row in found), 1) for array in arrays),
            *(round(fmean(row["cycles"][array] / run["tables"][array]["target"]
                          for run, row in zip(runs, found, strict=True)), 3) for array in arrays),
        ])  # fmt: skip
    columns = [
        "network found",
        *(f"cycles on {array}" for array in arrays),
        *(f"of target, {array}" for array in arrays),
    ]
    return SummaryTable("Each network on each array: mean of the seeds", columns, rows)


def _chosen(results: Mapping[str, Mapping[str, Any]]) -> SummaryTable:
    rows: Cells = [
        [key, row["array"] or "all", row["arm"], ", ".join(row["ops"])] for key, run in results.items()
        for row in run["rows"]
    ]  # fmt: skip
    return SummaryTable("Operations, block by block", ["seed", "array", "network", "operations"], rows)
