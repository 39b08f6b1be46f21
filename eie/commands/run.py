"""``eie run``: a batch through one engine."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eie.options import CLOCK, example, json_option, opened_port, port_option
from eie.output import Output, check_writable, check_writable_folder

if TYPE_CHECKING:
    from sim.network import NetworkResult

CYCLES = 2**32
"""More than the clock of the records, which has 32 bits, can say."""

ENGINES = ("golden", "cycles", "rtl", "amaranth", "board")


def _window(context: click.Context, option: click.Parameter, given: str | None) -> tuple[int, int] | None:
    """What ``--waves-window`` says."""
    if given is None:
        return None
    found = re.fullmatch(r"([0-9]{1,10}):([0-9]{1,10})", given)
    first, last = map(int, found.groups()) if found else (0, 0)
    if not first < last < CYCLES:
        raise click.BadParameter(
            f"{given!r} is not FROM:TO, two numbers of cycles below 2^32, the first one smaller: 1000:2000"
        )
    return first, last


def _longest(result: NetworkResult) -> int:
    """Cycles of the longest single run, by its records: a batch may take several."""
    return max((each["written"] for ran in result.runs for run in ran.records for each in run), default=0)


@click.command(
    epilog=example(
        "eie run layer.eie --input x.npy --output y.npz --engine rtl --json",
        "eie run layer.eie --input x.npy --output y.npz --engine rtl --waves layer.fst",
        "eie run layer.eie --input x.npy --engine rtl --waves layer.fst --waves-window 1000:2000 --waves-depth 3",
        "eie run layer.eie --input x.npy --engine cycles --timeline layer.json.gz --clock 800",
        "eie run layer.eie --input x.npy --output y.npz --engine board --port serial:/dev/ttyUSB0",
    )
)
@click.argument("file", metavar="NET.eie", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "source",
    metavar="X.npy",
    required=True,
    type=click.Path(path_type=Path),
    help="(batch, …): int16 is taken raw, float is quantized; one sample is a batch of one; - is standard input. "
    "Several inputs: an .npz with an array for each, by name.",
)
@click.option(
    "--output",
    "target",
    metavar="Y.npz",
    type=click.Path(path_type=Path),
    help="raw int16 (batch, …), exponent, value float64 = raw * 2^exponent; further outputs by name.",
)
@click.option("--engine", type=click.Choice(ENGINES), default="golden", show_default=True, help="What runs it.")
@port_option
@click.option(
    "--waves",
    metavar="F",
    type=click.Path(path_type=Path),
    help="Waveform; rtl only. F.fst is FST, which is far smaller and needs the headers of lz4 and zlib; else VCD.",
)
@click.option(
    "--waves-limit",
    "limit",
    metavar="MB",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Size that the waveform keeps within, cut at a time step (VCD) or block (FST); the run goes on.",
)
@click.option(
    "--waves-depth",
    "depth",
    metavar="N",
    type=click.IntRange(1, 1000),
    help="Levels of modules in the waveform: 1 is the ports of the array, 2 its core. [default: all]",
)
@click.option(
    "--waves-window",
    "window",
    metavar="FROM:TO",
    callback=_window,
    help="Cycles of each run in the waveform, FROM to before TO, as records and --timeline count them. [default: all]",
)
@click.option(
    "--timeline",
    metavar="F",
    type=click.Path(path_type=Path),
    help="Trace for Perfetto, .json or .json.gz: layers, tiles, refill, write-back, each PE busy or starved.",
)
@click.option(
    "--timeline-limit",
    "timeline_limit",
    metavar="MB",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Size that the timeline keeps within, before it is packed; it says what is left out.",
)
@click.option(
    "--clock",
    "mhz",
    metavar="MHZ",
    type=CLOCK,
    default=1000.0,
    show_default=True,
    help="Clock at which the timeline shows cycles as time; at 1000 a cycle is a nanosecond.",
)
@click.option(
    "--trace",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Every layer's raw outputs as .npy, and the times and counters of every vector and layer.",
)
@json_option
def run(
    file: Path,
    source: Path,
    target: Path | None,
    engine: str,
    port: str | None,
    waves: Path | None,
    limit: int,
    depth: int | None,
    window: tuple[int, int] | None,
    timeline: Path | None,
    timeline_limit: int,
    mhz: float,
    trace: Path | None,
    json_to: str | None,
) -> None:
    """Run a batch of inputs through a network.

    Engines: golden, the bit-true model; cycles, the exact cycle model with golden's values; rtl, the generated Verilog
    in Verilator; amaranth, the same design in Amaranth's own simulator (slow, needs no C++ compiler); board, an
    accelerator behind --port, as a program on its host uses it.
    """
    output = Output(json_to)
    if waves is not None:
        if engine != "rtl":
            raise click.UsageError(f"--waves needs --engine rtl; {engine} writes no waveform")
        check_writable(waves, "--waves")
    elif depth is not None or window is not None:
        raise click.UsageError("--waves-depth and --waves-window choose what --waves F writes; give --waves as well")
    if timeline is not None:
        check_writable(timeline, "--timeline")
    if target is not None:
        check_writable(target, "--output")
    if trace is not None:
        check_writable_folder(trace, "--trace")

    import numpy as np

    from compiler.files import write_file
    from compiler.network_file import load
    from eie.inputs import read_inputs
    from eie.preview import show_outputs
    from eie.timelines import save_timeline
    from eie.trace import write_trace
    from sim.network import run_network

    network = load(file)
    names = [node.name for node in network.graph.inputs]
    x = dict(zip(names, read_inputs(source, names), strict=True))
    seen: list[tuple[Any, Any]] = []
    with opened_port(port, [engine], network.params) as opened, output.progress(engine) as progress:
        result = run_network(
            network, x, engine=engine, waves=waves, waves_limit=limit * 1_000_000, waves_depth=depth,
            waves_window=window, port=opened, progress=progress, watch=lambda *image: seen.append(image),
        )  # fmt: skip

    if any(ran.waves_cut for ran in result.runs):
        output.note(f"eie: {waves} ends after {limit} MB, before the run did; give fewer inputs or more --waves-limit")
    if window is not None and window[0] >= _longest(result):
        output.note(f"eie: {waves} is empty: no run lasts until cycle {window[0]:,}")
    if result.input_saturated:
        given = sum(array.size for array in x.values())
        output.note(f"eie: {result.input_saturated:,} of {given:,} inputs were saturated to 16 bits")
    if target is not None:
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {"raw": result.raw, "exponent": np.int64(result.exponent), "value": result.value}
        for node, name in list(zip(network.graph.outputs, result.names, strict=True))[1:]:
            arrays |= {f"{node.name}.raw": result.values[name], f"{node.name}.value": result.real(name)}
        np.savez(buffer, **arrays)
        write_file(target, buffer.getvalue())
    if trace is not None:
        write_trace(result, trace)
    counters = list(dict.fromkeys(name for layer in result.layers for name in layer.counters))
    batch = len(result.raw)
    times = () if result.cycles is None else ("cycles", "latency")
    output.table(
        ("layer", "on", *times, *counters),
        [
            (layer.name, layer.on, *(getattr(layer, time) for time in times), *map(layer.counters.get, counters))
            for layer in result.layers
        ],
        title=f"{engine}, {result.pes} PEs, batch of {batch}",
    )
    if result.cycles is not None:
        output.text(
            f"{result.cycles:,} cycles, {result.cycles / batch:,.1f} a sample; "
            f"the last {result.drain_cycles:,} only write back"
        )
    if target is None:
        show_outputs(output, result, {node.inputs[0]: node.name for node in network.graph.outputs})
        output.text("All outputs as numbers: --output y.npz")
    for what, path in (("outputs", target), ("waveform", result.waves), ("trace", trace)):
        if path is not None:
            output.text(f"{what}: {path}")
    if timeline is not None:
        save_timeline(output, network, result, seen, file, timeline, mhz, timeline_limit * 1_000_000)
    output.result(result.asdict())
