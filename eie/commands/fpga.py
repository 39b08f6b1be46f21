"""``eie fpga``: a bitstream for a board."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from eie.commands.fmax import seeds_option
from eie.options import FiniteRange, example, json_option, make_params
from eie.output import Output, check_writable_folder

__all__ = ["fpga"]


def _list_boards(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from sim.fpga.boards import BOARDS
    from sim.fpga.estimate import largest_preset

    for name, board in BOARDS.items():
        click.echo(f"{name:16}  {board.text}; largest preset: {largest_preset(board) or 'none'}")
    ctx.exit()


@click.command(
    epilog=example(
        "eie fpga ulx3s-85f -o build/ulx3s",
        "eie fpga tang-nano-20k -o build/tang --set weight_words=512 --seeds 1,2,3",
        "eie fpga ulx3s-85f --clock 40 --dry-run",
    ),
    short_help="A bitstream for a board, and how fast and how full it is.",
)
@click.argument("name", metavar="BOARD")
@click.option("-o", "--output", "folder", metavar="DIR", type=click.Path(path_type=Path),
              help="Folder for bitstream, report and logs. [default: build/fpga/BOARD]")  # fmt: skip
@click.option("--preset", metavar="P", help="Parameter set of the array. [default: the board's]")
@click.option("--set", "settings", metavar="K=V", multiple=True, help="Change one parameter; may be repeated.")
@click.option("--clock", type=FiniteRange(1, 400), metavar="MHZ",
              help="Clock of the design, by a PLL (ECP5). [default: the board's]")  # fmt: skip
@click.option("--baud", type=click.IntRange(min=300), metavar="N", help="Rate of the serial line. [default: 1000000]")
@seeds_option("1")
@click.option("--dry-run", is_flag=True, help="Say what would be done and what the array takes; run no tool.")
@click.option("--force", is_flag=True, help="Try it even if the estimate says that it does not fit.")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_boards, help="Name the boards.")
@json_option
def fpga(
    name: str, folder: Path | None, preset: str | None, settings: tuple[str, ...], clock: float | None,
    baud: int | None, seeds: tuple[int, ...], dry_run: bool, force: bool, json_to: str | None,
) -> None:  # fmt: skip
    """Make the bitstream of an array with a serial line for BOARD, by yosys and nextpnr.

    What the board cannot hold is said before synthesis. A result is kept: the same array for the same board is made
    once. Ends with 1 if the clock is not met.
    """
    output = Output(json_to)

    from sim.driver.opening import BAUD
    from sim.fpga.boards import board as named
    from sim.fpga.estimate import check_fits, estimate

    board = named(name)
    params, _ = make_params(preset or board.preset, settings)
    folder = folder or Path("build/fpga") / board.name
    check_writable_folder(folder, "--output")
    found = estimate(board, params)
    if not force:
        check_fits(found)

    from sim.fpga.place import place_board, plan_board

    plan = plan_board(board, params, seeds, clock, baud or BAUD)
    at_least = "at least " if found.bound else ""
    pes = f"{params.pes} PE{'s' * (params.pes > 1)}"
    output.text(f"board      {board.text}, {plan.mhz:g} MHz, {pes}, parameter hash {_hash(params)}")
    output.text(f"estimate   {at_least}{found}")
    if dry_run:
        output.text("block RAM  " + ", ".join(f"{memory} {blocks}" for memory, blocks in found.blocks.items()))
        output.text(f"kept       {'yes' if plan.cached else 'no'}, as {plan.folder}")
        for command in plan.commands():
            output.text(f"would run  {command}")
        output.result({
            "board": board.name, "params": params.asdict(), "needs": found.needs, "holds": dict(board.holds),
            "blocks": found.blocks, "commands": plan.commands(), "cached": plan.cached,
        })  # fmt: skip
        return
    report = place_board(plan, output.note)
    _copy(plan.folder, folder, report)
    _show(output, report, folder)
    output.result(report)
    if not report["meets"]:
        output.note(f"the clock of {plan.mhz:g} MHz is not met: {report['mhz']} MHz at seed {report['seed']}")
        raise click.exceptions.Exit(1)


def _hash(params: Any) -> str:
    from hw.layouts import identity

    return identity(params)


def _copy(kept: Path, folder: Path, report: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    logs = [path.name for path in kept.glob("*.log")]
    for file in ("report.json", report["bitstream"], "accelerator.v", *logs):
        shutil.copyfile(kept / file, folder / file)


def _show(output: Output, report: dict[str, Any], folder: Path) -> None:
    for run in report["runs"]:
        path = run["critical_path"]
        output.text(
            f"seed {run['seed']:<5} {run['mhz']} MHz; {path['start']} → {path['end']}: {path['total']} ns = clock to "
            f"output {path['clock_to_q']} + logic {path['logic']} ({path['levels']} levels) + routing {path['routing']}"
        )
    used = ", ".join(
        f"{each['used']:,} of {each['available']:,} {name.upper()}" + (
            f" ({100 * each['used'] / each['available']:.0f} %)" if each["available"] else ""
        )
        for name, each in report["used"].items()
    )  # fmt: skip
    output.text(f"used       {used}")
    output.text(f"clock      {report['mhz']} MHz reached, {report['clock_mhz']:g} MHz on the board")
    output.text(f"bitstream  {folder / report['bitstream']}, {report['bytes']:,} bytes, of seed {report['seed']}")
    output.text(f"program    cd {folder} && {report['program']}")
    output.text(f"then       eie run net.eie --input x.npy --engine board --port serial:DEVICE:{report['baud']}")
    took = sum(report["seconds"].values())
    output.text(f"time       {took:.0f} s" + (", kept from an earlier run" if report["cached"] else ""))
