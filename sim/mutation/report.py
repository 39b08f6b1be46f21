"""The table of a campaign as far as it has come, also while it runs or after it was broken off.

``python -m sim.mutation.report build/mutation docs/results`` writes it from the folder of the campaign.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from compiler.errors import InputError
from compiler.files import write_files
from sim.mutation.campaign import MUTANTS, WAYS, explained, read_results, sums
from sim.mutation.reasons import read

__all__ = ["short", "so_far", "table"]

_COLUMNS = ("mutants", *WAYS, "unexplained")


def so_far(folder: Path) -> dict[str, Any]:
    """The counts of what stands in the folder of a campaign.

    Raises
    ------
    InputError
        There are no results, or they are damaged.
    """
    head, fates, _ = read_results(folder / MUTANTS)
    if not head:
        raise InputError(f"{folder} holds no results of mutants; expected the folder of eie verify mutation -o")
    reasons = read()
    return {"drawn": head["drawn"], **sums(explained(fate, reasons) for fate in fates.values())}


def short(report: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a report: counts, and what is not explained as block, change and source lines."""
    kept = ("drawn", "total", "blocks", "suites", "reasons")
    left = [
        f"{each['block']}: {each['change']} ({', '.join(each['lines'])}), in {each['active']} recordings"
        for each in report["unexplained"]
    ]
    return {**{name: report[name] for name in kept}, "unexplained": left}


def table(report: dict[str, Any]) -> str:
    """Markdown: a row for each block, then the suites and the reasons."""
    total = report["total"]
    quiet = sum(not each["active"] for each in report["unexplained"])
    head = (
        f"Of {report['drawn']:,} mutants {total['mutants']:,} were run; {total['unexplained']:,} survive unexplained. "
        f"Of these {quiet:,} are the same bit as without the fault in all recordings."
    )
    lines = [
        head,
        "",
        "| block | " + " | ".join(_COLUMNS) + " |",
        "|---|" + "---:|" * len(_COLUMNS),
    ]
    for name, row in [*sorted(report["blocks"].items()), ("all", total)]:
        lines.append(f"| {name} | " + " | ".join(f"{row[column]:,}" for column in _COLUMNS) + " |")
    lines += ["", "Killed by simulation, by the regression or bench that saw it first:", ""]
    lines += ["| suite | mutants |", "|---|---:|"]
    lines += [f"| {name} | {count:,} |" for name, count in sorted(report["suites"].items(), key=lambda each: -each[1])]
    if report["reasons"]:
        lines += ["", "Listed with a reason (`sim/mutation/reasons.toml`):", "", "| reason | mutants |", "|---|---:|"]
        reasons = sorted(report["reasons"].items(), key=lambda each: -each[1])
        lines += [f"| {why} | {count:,} |" for why, count in reasons]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    report = so_far(Path(sys.argv[1]))
    write_files(
        Path(sys.argv[2]), {"mutation.json": json.dumps(short(report), indent=1) + "\n", "mutation.md": table(report)}
    )  # fmt: skip
