"""``eie bench boards``: inferences a second of networks that small boards are compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eie.options import CLOCK, example, json_option
from eie.output import Output, check_writable

if TYPE_CHECKING:
    from hw.params import Params

_ASSUMED = 50.0


@click.command(
    "boards",
    epilog=example(
        "eie bench boards --preset ECP5_32 --clock 60",
        "eie bench boards --placed build/fpga/ulx3s-85f/report.json -o docs/results/inferences",
        "eie bench boards --networks resnet-8 --preset ECP5_32 --preset ECP5_32,streams=true --board ulx3s-85f",
    ),
    short_help="Inferences a second beside published figures of small boards.",
)
@click.option("--networks", metavar="A,B", default="", help="Which ones; all if not given.")
@click.option("--preset", "presets", metavar="[NAME:]P[,K=V…]", multiple=True,
              help="Array, with parameters changed, under a name; may be repeated. [default: ECP5_32]")  # fmt: skip
@click.option("--board", "boards", metavar="BOARD", multiple=True,
              help="Say of each array whether this board of `eie fpga` holds it; may be repeated.")  # fmt: skip
@click.option("--clock", type=CLOCK, metavar="MHZ",
              help=f"Clock of the arrays. [default: {_ASSUMED:g}, an assumption]")  # fmt: skip
@click.option("--placed", type=click.Path(path_type=Path), metavar="F.json",
              help="Clock and array from a report of `eie fpga` or `make fmax-array`, instead of both.")  # fmt: skip
@click.option("--baud", type=click.IntRange(min=300), default=1_000_000, show_default=True, help="Of the serial line.")
@click.option(
    "--density", "densities", metavar="NET=X", multiple=True, help="Share of a network's weights that is left."
)
@click.option("--samples", type=click.IntRange(1), default=4, show_default=True, help="Of the batch.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of weights and inputs.")
@click.option("-o", "--output", "target", metavar="PREFIX", type=click.Path(path_type=Path),
              help="Write PREFIX.md and PREFIX.json.")  # fmt: skip
@json_option
def bench_boards(
    networks: str, presets: tuple[str, ...], boards: tuple[str, ...], clock: float | None, placed: Path | None,
    baud: int, densities: tuple[str, ...], samples: int, seed: int, target: Path | None, json_to: str | None,
) -> None:  # fmt: skip
    """Time LeNet-300-100 and networks of MLPerf Tiny with random pruned weights by the exact model.

    The table says inferences a second at the clock, and apart from them what it takes to get inputs in and outputs
    out, by stream and by serial line. Published figures stand beside them; their networks were trained, and are
    others in part. Ends with 1 if a value of the array is not that of the integer graph.
    """
    output = Output(json_to)
    for path in (target.with_suffix(suffix) for suffix in (".md", ".json")) if target else ():
        check_writable(path, "--output")
    if placed is not None and (presets or clock is not None):
        raise click.UsageError("--placed has array and clock; expected no --preset or --clock beside it")
    arrays, mhz, source = _arrays(placed, presets or ("ECP5_32",), clock)
    held = {f"{name} on {board}": text for board in boards for name, text in _held(board, arrays).items()}
    chosen = [name.strip() for name in networks.split(",") if name.strip()]

    from sim.benchmarks.boards import PUBLISHED, measure_boards

    rows = list(
        measure_boards(
            chosen, arrays, mhz=mhz, baud=baud, densities=_densities(densities), samples=samples, seed=seed,
            progress=lambda text: output.note(f"eie: {text} …"),
        )
    )  # fmt: skip
    names = list(dict.fromkeys(row["network"] for row in rows))
    document = {
        "clock_mhz": mhz, "clock_source": source, "baud": baud, "samples": samples, "seed": seed,
        "presets": presets, "arrays": {name: params.asdict() for name, params in arrays.items()},
        "board": held, "rows": rows,
        "published": {name: PUBLISHED[name] for name in names},
    }  # fmt: skip
    _show(output, rows, mhz, source, baud)
    for name, text in held.items():
        output.text(f"{name}: {text}")
    output.table(
        ("network", "published", "figure"),
        [(name, who, figure) for name in names for who, figure in PUBLISHED[name]],
        title="Published, MLPerf Tiny: trained networks of the submitters, at the accuracy that they state",
    )  # fmt: skip
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        target.with_suffix(".md").write_text(_markdown(document), encoding="utf-8")
        output.text(f"{target.with_suffix('.md')}, {target.with_suffix('.json')}")
    output.result(document)
    if not all(row["equal"] for row in rows if row["fits"]):
        raise click.exceptions.Exit(1)


def _arrays(
    placed: Path | None, presets: tuple[str, ...], clock: float | None
) -> tuple[dict[str, Params], float, str]:  # fmt: skip
    """Arrays by name, the clock, and where it is from."""
    from compiler.errors import InputError
    from eie.options import make_params
    from hw.params import Params

    if placed is None:
        arrays = {}
        for text in presets:
            name, colon, array = _named(text)
            preset, *settings = array.split(",")
            arrays[name if colon else array] = make_params(preset, tuple(settings))[0]
        given = "given by --clock" if clock is not None else "an assumption, not a measurement"
        return arrays, clock or _ASSUMED, given
    try:
        report = json.loads(placed.read_text(encoding="utf-8"))
        params, name = Params.from_dict(report["params"]), str(report.get("board", "array"))
        of_array = "mhz" not in report  # `make fmax-array`: several seeds, of which the slowest counts
        mhz = float(report["min_mhz"] if of_array else report["mhz"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{placed} is no report of place and route ({error!r}); expected that of `eie fpga`") from None
    part, seed = report.get("part", report.get("device", name)), report.get("seed", "?")
    what = f"place and route by nextpnr, {part}, {'the slowest of all seeds' if of_array else f'seed {seed}'}"
    return {name: params}, mhz, what


def _held(board: str, arrays: dict[str, Params]) -> dict[str, str]:
    """Of each array what it takes of a board by the estimate, and whether that is there."""
    from compiler.errors import EieError
    from sim.fpga.boards import board as named
    from sim.fpga.estimate import check_fits, estimate

    found = {}
    for name, params in arrays.items():
        needs = estimate(named(board), params)
        least = "at least " if needs.bound else ""
        try:
            check_fits(needs)
            found[name] = f"fits by the estimate: {least}{needs}"
        except EieError:
            found[name] = f"does not fit by the estimate: {least}{needs}"
    return found


def _densities(given: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = 0.0
        if not 0 < found[name] <= 1:
            raise click.UsageError(f"--density {text}: expected NETWORK=SHARE, a share above 0 and up to 1")
    return found


_HEADS = ("network", "array", "density %", "cycles", "inferences/s", "PEs busy %", "beats of streams", "serial line ms")


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    if not row["fits"]:
        return row["network"], row["array"], 100 * row["density"], None, None, None, None, None
    return (
        row["network"], row["array"], 100 * row["density"], round(row["cycles"]), round(row["per_second"]),
        100 * row["busy"], row["stream_beats"], row["line_ms"],
    )  # fmt: skip


def _show(output: Output, rows: list[dict[str, Any]], mhz: float, source: str, baud: int) -> None:
    title = (
        f"{mhz:g} MHz ({source}); serial line of {baud:,} baud; neither stream nor line is in the inferences a second"
    )
    output.table(_HEADS, [_cells(row) for row in rows], title=title)
    for row in rows:
        if not row["fits"]:
            output.text(f"{row['network']} on {row['array']}: {row['why']}")
        elif row["host"]:
            output.text(f"{row['network']} on {row['array']}: on the host {', '.join(row['host'])}")


_ABOUT = """\
Written by `eie bench boards`. Clock: {clock_mhz:g} MHz, {clock_source}. Weights are random, at random places; cycles
are those of the exact model for a batch of {samples}, back to back. Getting inputs in and outputs out stands apart:
beats of the activation streams, a cycle each, or milliseconds of a serial line of {baud:,} baud."""


def _named(text: str) -> tuple[str, str, str]:
    return text.rpartition(":")


def _markdown(document: dict[str, Any]) -> str:
    """The result as a page."""
    lines = [
        "# Inferences a second beside published figures of small boards", "",
        _ABOUT.format(**document), "",
        *(f"- {name}: `{array}`" for name, colon, array in map(_named, document["presets"]) if colon), "",
        f"| {' | '.join(_HEADS)} |", f"|{'---|' * len(_HEADS)}",
    ]  # fmt: skip
    for row in document["rows"]:
        cells = ["" if cell is None else f"{cell:,.1f}" if isinstance(cell, float) else f"{cell:,}"
                 if isinstance(cell, int) else str(cell) for cell in _cells(row)]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    lines += [f"- {row['network']} on {row['array']}: {row['why']}" for row in document["rows"] if not row["fits"]]
    lines += [f"- {name}: {text}" for name, text in document["board"].items()]
    lines += ["", "Published in rounds of MLPerf Tiny; networks were trained, and are the submitters' own in part:", "",
              "| network | by | figure |", "|---|---|---|"]  # fmt: skip
    lines += [f"| {name} | {who} | {what} |" for name, each in document["published"].items() for who, what in each]
    return "\n".join([*lines, ""])
