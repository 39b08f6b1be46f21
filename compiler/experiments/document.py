"""The report of an experiment or a search: JSON, Markdown, plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from compiler.command_line import command
from compiler.experiments.base import Summary
from compiler.files import write_file
from compiler.train.report import versions

__all__ = ["REPORT", "text", "write_report"]

REPORT = "report.json"


def write_report(
    out: Path,
    settings: Mapping[str, Any],
    summary: Summary,
    trials: Mapping[str, tuple[float, float]],
    packages: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write ``report.json``, ``report.md`` and the plots into a folder that is there; returns what the first holds.

    Parameters
    ----------
    settings : what was run, with ``name`` and ``seeds`` among them.
    summary : what came out.
    trials : name of each → its seconds and CPU seconds.
    packages : versions beside those of every report.
    """
    from compiler.train.plots import FORMATS, picture

    report = {
        "experiment": dict(settings),
        "figures": dict(summary.figures),
        "findings": list(summary.findings),
        "tables": [
            {"title": table.title, "columns": list(table.columns), "rows": [list(row) for row in table.rows]}
            for table in summary.tables
        ],
        "cpu_seconds": round(sum(cpu for _, cpu in trials.values()), 1),
        "seconds_of_trials": round(sum(seconds for seconds, _ in trials.values()), 1),
        "trials": list(trials),
        "command": command(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {**versions(), **(packages or {})},
    }
    for name, figure in summary.plots.items():
        for form in FORMATS:
            write_file(out / f"{name}.{form}", picture(figure, form))
    write_file(out / "report.md", text(report, list(summary.plots)).encode())
    write_file(out / REPORT, (json.dumps(report, indent=1) + "\n").encode())
    return report


def text(report: Mapping[str, Any], plots: Sequence[str]) -> str:
    """Findings first, then tables and plots, then how it was made.

    Parameters
    ----------
    report : as `write_report` makes it.
    plots : names of pictures beside the report.
    """
    settings = report["experiment"]
    lines = [f"# {settings['name']}", "", f"`{report['command']}`", ""]
    lines += [f"- {finding}" for finding in report["findings"]]
    for table in report["tables"]:
        lines += ["", f"**{table['title']}**", "", "| " + " | ".join(table["columns"]) + " |"]
        lines.append("|" + "---|" * len(table["columns"]))
        lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in table["rows"]]
    for name in plots:
        lines += ["", f"![{name}]({name}.svg)"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    seeds = ", ".join(str(seed) for seed in settings["seeds"])
    lines += [
        "",
        (
            f"Seeds {seeds}; {len(report['trials'])} trials, {report['cpu_seconds']:,.0f} CPU seconds together; "
            f"finished {report['finished']}; {versions}."
        ),
    ]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
