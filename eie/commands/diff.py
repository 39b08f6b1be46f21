"""``eie diff``: the first bit in which two engines differ, and how far fixed point is from float."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eie.commands.run import ENGINES
from eie.options import example, json_option, opened_port, port_option
from eie.output import Output

if TYPE_CHECKING:
    from sim.compare import Comparison
    from sim.network import NetworkResult

FLOAT = "torch"


def _engines(ctx: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    """The engines named, without repetition.

    Raises
    ------
    click.BadParameter
        One is unknown, or there are fewer than two.
    """
    names = list(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    unknown = [name for name in names if name not in (*ENGINES, FLOAT)]
    if unknown:
        raise click.BadParameter(f"unknown engine {', '.join(unknown)}; expected {', '.join(ENGINES)} or {FLOAT}")
    if len(names) < 2:
        raise click.BadParameter(f"{value!r} names {len(names)} engine; expected two or more, separated by commas")
    return names


@click.command(
    epilog=example(
        "eie diff digits.eie --input x.npy --engines golden,rtl",
        "eie diff digits.eie --input x.npy --engines golden,torch --model build/run",
        "eie diff digits.eie --input x.npy --engines golden,board --port serial:/dev/ttyUSB0:1000000",
    ),
    short_help="Compare engines, and fixed point with float.",
)
@click.argument("file", metavar="NET.eie", type=click.Path(path_type=Path))
@click.option("--input", "source", metavar="X.npy", required=True, type=click.Path(path_type=Path), help="(batch, in).")
@click.option(
    "--engines",
    metavar="A,B[,torch]",
    required=True,
    callback=_engines,
    help=f"Two or more of {', '.join(ENGINES)}, {FLOAT}; each is compared with the first.",
)
@port_option
@click.option(
    "--model",
    metavar="INPUT",
    help="The network the image was compiled from, as for `eie compile`; torch needs it. Gives the quantization error.",
)
@click.option("--weights", metavar="W.safetensors", type=click.Path(path_type=Path), help="Of --model module:function.")
@click.option("--trust", is_flag=True, help="Permit a .pt2 file as --model, which can run code of its author.")
@json_option
@click.pass_context
def diff(
    ctx: click.Context,
    file: Path,
    source: Path,
    engines: list[str],
    port: str | None,
    model: str | None,
    weights: Path | None,
    trust: bool,
    json_to: str | None,
) -> None:
    """Compare engines on a batch: every output of every layer and, where both have them, all cycles and counters.

    Ends with 1 if a bit or a cycle differs, and names the first. Float (torch) is not compared bit by bit: it gives
    the quantization error of each layer. A board gives the outputs of each image alone, with all cycles and counters.
    """
    output = Output(json_to)
    if FLOAT in engines and model is None:
        raise click.UsageError(f"--engines …,{FLOAT} needs --model: the RUN/ folder or module:function of the image")
    if model is None and (weights is not None or trust):
        raise click.UsageError("--weights and --trust belong to --model")

    from compiler.network_file import load
    from compiler.source import load as load_source
    from eie.inputs import read_inputs
    from sim.compare import compare_networks
    from sim.network import check_inputs, run_network
    from sim.reference import float_values, quantization_errors

    network = load(file)
    names = [node.name for node in network.graph.inputs]
    x = dict(zip(names, read_inputs(source, names), strict=True))
    check_inputs(network, x)
    reference = (
        None if model is None else float_values(load_source(model, weights, trust, data=list(x.values())), network, x)
    )

    results = []
    with opened_port(port, engines, network.params) as opened:
        for engine in engines:
            if engine != FLOAT:
                with output.progress(engine) as progress:
                    results.append(
                        run_network(
                            network, x, engine=engine, port=opened if engine == "board" else None, progress=progress
                        )
                    )
    comparisons = [compare_networks(*pair) for pair in _pairs(results)]
    errors = None if reference is None else quantization_errors(reference, results[0])
    for comparison in comparisons:
        _say(output, comparison)
    if errors is not None:
        output.table(
            ("layer", "max |error|", "rms error", "relative", "lowest bit", "saturated"),
            [tuple(error.values()) for error in errors],
            title=f"Quantization error of {results[0].engine} against float, {len(results[0].raw)} samples",
        )
    equal = all(comparison.equal for comparison in comparisons)
    answer: dict[str, Any] = {
        "engines": engines,
        "batch": len(results[0].raw),
        "equal": equal,
        "comparisons": [comparison.asdict() for comparison in comparisons],
        "quantization": errors,
    }
    output.result(answer)
    ctx.exit(0 if equal else 1)


def _pairs(results: list[NetworkResult]) -> list[tuple[NetworkResult, NetworkResult]]:
    """Each result with the first; and if the first has no cycles, those that have with the first of them."""
    pairs = [(results[0], other) for other in results[1:]]
    timed = [result for result in results if result.cycles is not None]
    if results[0].cycles is None:
        pairs += [(timed[0], other) for other in timed[1:]]
    return pairs


def _say(output: Output, comparison: Comparison) -> None:
    a, b = comparison.engines
    if not comparison.equal:
        output.text(f"{a} and {b} DIFFER")
        for line in comparison.explain():
            output.text(f"  {line}")
        return
    times = f", {comparison.records:,} times and counters" if comparison.records else ""
    output.text(f"{a} = {b}: {comparison.values:,} values{times}, all equal")
