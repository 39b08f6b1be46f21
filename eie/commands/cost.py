"""``eie cost``: what a network costs on an array, before anything is written or run in hardware."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from eie.options import array_options, example, json_option, make_params, source_options
from eie.output import Output

if TYPE_CHECKING:
    from sim.cost import BlockCosts, Cost


@click.command(
    epilog=example(
        "eie cost build/run --preset BALANCED_64",
        "eie cost resnet.onnx --calibrate images.npy --samples 4 --blocks",
        "eie cost mymodels:lenet --calibrate images.npy --set queue_depth=16 --json",
    ),
)
@source_options
@array_options
@click.option("--samples", type=click.IntRange(min=1), default=8, show_default=True,
              help="Of the calibration data that are run, as one batch; all of them if there are fewer.")  # fmt: skip
@click.option("--blocks", is_flag=True,
              help="Also each operator with weights by itself, and how far their sum is from the whole.")  # fmt: skip
@click.option("--table", "table_file", metavar="F.toml", type=click.Path(path_type=Path),
              help="Energies of your own process, as for eie report energy.")  # fmt: skip
@json_option
def cost(
    given: str,
    calibrate: Path | None,
    weights: Path | None,
    trust: bool,
    preset: str,
    settings: tuple[str, ...],
    samples: int,
    blocks: bool,
    table_file: Path | None,
    json_to: str | None,
) -> None:
    """Say what a sample of a network costs: cycles, energy and bytes, by layer.

    INPUT is what `eie compile` takes. Cycles are those of the hardware, by the exact cycle model on real activations;
    energy is exact counts of accesses times published figures. What was found is kept by content in the cache folder,
    so that a network that was asked for before costs nothing, and with --blocks a changed layer only itself.
    """
    output = Output(json_to)
    params, options = make_params(preset, settings)

    from compiler.errors import InputError
    from eie.inputs import read_source
    from sim.cost import block_costs
    from sim.cost import cost as whole_cost
    from sim.energy_table import load_table

    prices = load_table(table_file)
    with output.patience(f"reading {given}"):
        source, calibration = read_source(given, weights, trust, calibrate)
    if calibration is None:
        raise InputError(
            f"{given} brings no inputs; expected --calibrate X.npy, since cycles depend on the zeros among activations"
        )
    count = min(samples, *map(len, calibration))
    data = [each[:count] for each in calibration]
    with output.patience("compiling and timing the network"):
        whole = whole_cost(source.graph, params, calibration, data, options=options, table=prices)
    apart = None
    if blocks:
        with output.patience("compiling and timing each block"):
            apart = block_costs(source.graph, params, calibration, count=count, options=options, table=prices)
    _show(output, whole, apart)
    result = {"input": given, "params": params.asdict(), **whole.asdict()}
    if apart is not None:
        result["blocks"] = {name: each.asdict() for name, each in apart.blocks.items()}
        result["blocks_error"] = apart.error(whole)
    output.result(result)


def _show(output: Output, whole: Cost, apart: BlockCosts | None) -> None:
    rows: list[tuple[object, ...]] = [
        (layer.name, layer.cycles, layer.energy / 1000, layer.stored) for layer in whole.layers
    ]
    columns = ("layer", "cycles", "nJ", "bytes")
    samples = "1 sample" if whole.samples == 1 else f"mean of {whole.samples} samples"
    rows.append(("all", whole.cycles, whole.energy / 1000, whole.stored))
    output.table(columns, rows, title=f"{samples}, energies of {whole.table}")
    if whole.host:
        output.text(f"On the host, not counted: {', '.join(whole.host)}.")
    if apart is not None:
        rows = [(name, each.cycles, each.energy / 1000, each.stored) for name, each in apart.blocks.items()]
        rows.append(("all", apart.cycles, apart.energy / 1000, apart.stored))
        output.table(("block", *columns[1:]), rows, title="Each block by itself")
        output.text(f"The sum of the blocks' cycles is {100 * apart.error(whole):+.2f}% from those of the network.")
