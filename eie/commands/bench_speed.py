"""``eie bench speed``: how fast the kit's own tools are."""

from __future__ import annotations

from typing import Any

import click

from eie.options import example, json_option
from eie.output import Output

__all__ = ["speed"]


@click.command(
    epilog=example("eie bench speed", "eie bench speed --quick --no-rtl --json"),
    short_help="Speed and memory of compiler, models and simulator.",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of matrices and batches.")
@click.option("--quick", is_flag=True, help="Layers a sixteenth of the size, 4 PEs: a try, not the benchmark.")
@click.option("--rtl/--no-rtl", default=True, help="Build and run the simulator.  [default: rtl]")
@json_option
def speed(seed: int, quick: bool, rtl: bool, json_to: str | None) -> None:
    """Measure compiler, golden model, cycle model, Verilog export, simulator and its build.

    Each beside its anchor, measured in the same run, and the figure to reach. A figure that is missed is marked and is
    not an error: it depends on the machine. Ends with 1 if hardware and cycle model disagree.
    """
    output = Output(json_to)

    from dataclasses import asdict

    from sim.benchmarks.speed import measure
    from sim.benchmarks.versions import versions

    rows = measure(quick=quick, seed=seed, rtl=rtl, progress=lambda what: output.note(f"  {what}"))
    output.table(
        ("what", "value", "unit", "anchor s", "ratio", "to reach", "reached", "peak MiB", "of children"),
        [
            (
                row.what, f"{row.value:.4g}", row.unit, _short(row.anchor_value), _short(row.ratio),
                "-" if row.target is None else f"{'≥' if row.at_least else '≤'} {row.target:g}", row.reached,
                _whole(row.peak_mib), _whole(row.children_mib),
            )
            for row in rows
        ],
    )  # fmt: skip
    for row in rows:
        if row.anchor:
            output.text(f"{row.what}: anchor is {row.anchor}")
    answer: dict[str, Any] = {
        "rows": [{**asdict(row), "reached": row.reached} for row in rows], "quick": quick, "versions": versions(),
    }  # fmt: skip
    output.result(answer)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
