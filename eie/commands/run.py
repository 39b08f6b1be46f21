"""``eie run``: a batch through one engine."""

from __future__ import annotations

import io
from pathlib import Path

import click

from eie.options import example, json_option
from eie.output import Output, check_writable, check_writable_folder, write_whole

ENGINES = ("golden", "cycles", "rtl", "amaranth")


@click.command(
    epilog=example(
        "eie run layer.eie --input x.npy --output y.npz --engine rtl --json",
        "eie run layer.eie --input x.npy --output y.npz --engine rtl --waves layer.vcd",
    )
)
@click.argument("file", metavar="NET.eie", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "source",
    metavar="X.npy",
    required=True,
    type=click.Path(path_type=Path),
    help="(batch, in): int16 is taken raw, float is quantized; (in,) is a batch of one.",
)
@click.option(
    "--output",
    "target",
    metavar="Y.npz",
    type=click.Path(path_type=Path),
    help="raw int16 (batch, out), exponent, value float64 = raw * 2^exponent.",
)
@click.option("--engine", type=click.Choice(ENGINES), default="golden", show_default=True, help="What runs it.")
@click.option("--waves", metavar="F", type=click.Path(path_type=Path), help="Waveform (VCD); rtl only.")
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
    waves: Path | None,
    trace: Path | None,
    json_to: str | None,
) -> None:
    """Run a batch of inputs through a network.

    Engines: golden, the bit-true model; cycles, the exact cycle model with golden's values; rtl, the generated Verilog
    in Verilator; amaranth, the same design in Amaranth's own simulator (slow, needs no C++ compiler).
    """
    output = Output(json_to)
    if waves is not None:
        if engine != "rtl":
            raise click.UsageError(f"--waves needs --engine rtl; {engine} writes no waveform")
        check_writable(waves, "--waves")
    if target is not None:
        check_writable(target, "--output")
    if trace is not None:
        check_writable_folder(trace, "--trace")

    import numpy as np

    from compiler.image.image import Image
    from eie.batch import read_batch
    from eie.trace import write_trace
    from sim.run import run as run_engine

    image = Image.load(file)
    x = read_batch(source)
    with output.progress(engine) as progress:
        result = run_engine(image, x, engine=engine, waves=waves, progress=progress)

    if result.input_saturated:
        output.note(f"eie: {result.input_saturated:,} of {x.size:,} inputs were saturated to 16 bits")
    if target is not None:
        buffer = io.BytesIO()
        np.savez(buffer, raw=result.raw, exponent=np.int64(result.exponent), value=result.value)
        write_whole(target, buffer.getvalue())
    if trace is not None:
        write_trace(result, trace)
    counters = list(result.layers[0].counters)
    output.table(
        ("layer", "cycles", "latency", *counters),
        [(layer.name, layer.cycles, layer.latency, *layer.counters.values()) for layer in result.layers],
        title=f"{engine}, {result.pes} PEs, batch of {len(x)}",
    )
    if result.cycles is not None:
        output.text(
            f"{result.cycles:,} cycles, {result.cycles / len(x):,.1f} a vector; "
            f"{result.drain_cycles:,} of them write back at the end"
        )
    for what, path in (("outputs", target), ("waveform", result.waves), ("trace", trace)):
        if path is not None:
            output.text(f"{what}: {path}")
    output.result(result.asdict())
