"""How fast one PE or an array is on an FPGA, how large, and what limits it: ``make fmax``, ``make fmax-array``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from eie.failure import ReportingCommand
from eie.options import Command, FiniteRange, example, json_option, make_params
from eie.output import Output, check_writable_folder

__all__ = ["fmax", "seeds_option"]

SEEDS = "1,2,3"
TARGETS = {False: 150.0, True: 100.0}
"""MHz that place and route aims for, of a PE and of an array: above what it reaches, so that it never stops trying."""
PRESETS = {False: "ECP5_PE", True: "ECP5_32"}


def _seeds(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """Whole numbers with commas between, such as ``1,2,3``; no number twice."""
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() and part.isascii() for part in parts):
        raise click.BadParameter(f"{value!r} is not a list of seeds; expected whole numbers with commas, such as 1,2,3")
    seeds = tuple(map(int, parts))
    if len(set(seeds)) < len(seeds) or max(seeds) >= 1 << 31:
        raise click.BadParameter(f"{value!r}: expected different seeds below 2147483648")
    return seeds


def seeds_option(default: str) -> Callable[[Command], Command]:
    """``--seeds``: of place and route, a run each."""
    return click.option(
        "--seeds", callback=_seeds, default=default, show_default=True, metavar="N,…",
        help="Seeds of place and route, a run each.",
    )  # fmt: skip


@click.command(
    cls=ReportingCommand,
    epilog=example(
        "python -m eie.commands.fmax --seeds 1,2,3,4,5",
        "python -m eie.commands.fmax --preset BALANCED_16 --set rows=64",
        "python -m eie.commands.fmax --array --set pes=8 --seeds 1",
    ),
)
@click.option("--array", is_flag=True, help="Measure the whole array behind a serial line; takes hours with 32 PEs.")
@click.option("--preset", metavar="P", help="Parameter set.  [default: ECP5_PE, of an array ECP5_32]")
@click.option("--set", "settings", metavar="K=V", multiple=True, help="Change one parameter; may be repeated.")
@seeds_option(SEEDS)
@click.option("--target", type=FiniteRange(1, 1000), metavar="MHZ",
              help="Clock that place and route aims for.  [default: 150, of an array 100]")  # fmt: skip
@click.option("--require", type=FiniteRange(min=0), default=None, metavar="MHZ",
              help="End with exit code 1 if a seed is slower.")  # fmt: skip
@click.option("-o", "--output", "folder", metavar="DIR", type=click.Path(path_type=Path), default=Path("build/fmax"),
              show_default=True, help="Folder for Verilog, netlists, nextpnr's reports and logs.")  # fmt: skip
@json_option
def fmax(
    array: bool, preset: str | None, settings: tuple[str, ...], seeds: tuple[int, ...], target: float | None,
    require: float | None, folder: Path, json_to: str | None,
) -> None:  # fmt: skip
    """Place and route on an ECP5-85 of speed grade 8, with yosys and nextpnr.

    What is measured is one PE between registers; with --array a whole array with its host port behind a serial line.
    """
    output = Output(json_to)
    preset = preset or PRESETS[array]
    params, _ = make_params(preset, settings)
    check_writable_folder(folder, "--output")

    from sim.fpga.flow import measure, measure_array

    began = time.monotonic()
    found = (measure_array if array else measure)(params, seeds, target or TARGETS[array], folder, output.note)
    found["require_mhz"] = require
    _show(output, preset, found, time.monotonic() - began)
    output.result(found)
    slow = [run for run in found["runs"] if require is not None and run["mhz"] < require]
    if slow:
        seed_text = ", ".join(f"{run['seed']} ({run['mhz']} MHz)" for run in slow)
        output.note(f"slower than the {require:g} MHz asked for: seed {seed_text}")
        raise click.exceptions.Exit(1)


def _show(output: Output, preset: str, found: dict[str, Any], seconds: float) -> None:
    used = list(found["runs"][0]["resources"])
    parts = {"cells": "PE alone", "writeback_cells": "write-back", "shell_cells": "shell"}
    whole = "shell_cells" in found
    what = f"array of {preset} behind a serial line" if whole else f"one PE of {preset} between registers"
    output.table(
        ("seed", "MHz", *(name.upper() for name in used), "slowest path, from", "to"),
        [
            (run["seed"], run["mhz"], *(run["resources"][name] for name in used), run["critical_path"]["start"],
             run["critical_path"]["end"])
            for run in found["runs"]
        ],
        f"{what}, ECP5-85 speed grade 8, as nextpnr counts",
    )  # fmt: skip
    path = found["critical_path"]
    output.text(f"clock      {found['min_mhz']} MHz the slowest seed, {found['median_mhz']} MHz the median")
    output.text(
        f"limit      {path['start']} → {path['end']}: {path['total']} ns = clock to output {path['clock_to_q']} "
        f"+ logic {path['logic']} ({path['levels']} levels) + routing {path['routing']}"
    )
    for part, name in parts.items():
        if part in found:
            cells = ", ".join(f"{count} {kind.upper()}" for kind, count in found[part].items() if count)
            output.text(f"{name:10s} {cells} (yosys)")
    output.text(f"time       {seconds:.0f} s")


if __name__ == "__main__":
    fmax()
