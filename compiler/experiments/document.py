"""The report of an experiment as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["text"]


def text(report: Mapping[str, Any], plots: Sequence[str]) -> str:
    """Findings first, then tables and plots, then how it was made.

    Parameters
    ----------
    report : as `runner.run_experiment` makes it.
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
