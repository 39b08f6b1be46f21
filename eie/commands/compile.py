"""``eie compile``: a trained network to the memory image of an array."""

from __future__ import annotations

from pathlib import Path

import click

from eie.options import array_options, example, json_option, make_params
from eie.output import Output, check_writable


@click.command(
    "compile",
    epilog=example(
        "eie compile layer.npz -o layer.eie --preset BALANCED_16 --calibrate x.npy",
        "eie compile build/run -o digits.eie --set queue_depth=32",
        "eie compile mymodels:lenet --weights lenet.safetensors -o lenet.eie --calibrate images.npy",
    ),
)
@click.argument("source", metavar="INPUT")
@click.option("-o", "--output", "target", metavar="NET.eie", required=True, type=click.Path(path_type=Path))
@array_options
@click.option(
    "--calibrate",
    metavar="X.npy",
    type=click.Path(path_type=Path),
    help="Inputs (n, in) on which fixed-point ranges are chosen; int16 says that inputs are raw integers.",
)
@click.option(
    "--weights", metavar="W.safetensors", type=click.Path(path_type=Path), help="State of what module:function returns."
)
@click.option("--trust", is_flag=True, help="Permit a .pt2 file, which can run code of its author.")
@json_option
def compile_command(
    source: str,
    target: Path,
    preset: str,
    settings: tuple[str, ...],
    calibrate: Path | None,
    weights: Path | None,
    trust: bool,
    json_to: str | None,
) -> None:
    """Compile a network for an array.

    INPUT is the RUN/ folder of `eie train`; or module:function, your own code, which returns a torch module (or a
    module and its example inputs); or a .pt2 file of torch.export; or one layer as .npz with weight (out, in) or
    the fields of scipy.sparse.save_npz, and optional bias and activation ("none" or "relu").
    """
    output = Output(json_to)
    check_writable(target, "--output")
    params = make_params(preset, settings)

    from compiler.lower.pipeline import compile_graph
    from compiler.source import load
    from eie.batch import read_batch
    from sim.describe import describe

    network = load(source, weights, trust)
    calibration = network.calibration
    if calibrate is not None:
        calibration = read_batch(calibrate)
    elif calibration is None:
        output.note(
            "eie: no --calibrate: inputs are taken as integers (exponent 0), and each shift is the smallest that "
            "cannot saturate"
        )
    image = compile_graph(network.graph, params, calibration)
    image.save(target)

    facts = describe(image)
    output.table(
        ("layer", "shape", "activation", "nonzeros", "density", "padding", "shift", "exact"),
        [
            (
                layer["name"], f"{layer['inputs']}x{layer['outputs']}", layer["activation"], layer["nonzeros"],
                layer["density"], layer["padding"], layer["shift"], layer["exact"],
            )
            for layer in facts["layers"]
        ],
    )  # fmt: skip
    if facts["tile_bytes"]:
        streamed = [layer["name"] for layer in facts["layers"] if layer["tiles"]]
        output.note(
            f"eie: {', '.join(streamed)}: larger than the memories, so {facts['tile_bytes']:,} bytes of tiles are "
            f"streamed in for each vector: {facts['cycles']['model']:,} cycles for one without zeros, "
            f"{facts['cycles']['resident']:,} if all were resident"
        )
    inexact = [layer["name"] for layer in facts["layers"] if not layer["exact"]]
    if inexact:
        output.note(
            f"eie: the codebook of {', '.join(inexact)} was halved so that no sum can overflow {params.acc_bits} bits"
        )
    output.text(f"{target}: {sum(facts['bits'].values()) // 8:,} bytes of network, {facts['ratio']:.1f} times smaller "
                f"than dense float32; hash {facts['hash']}")  # fmt: skip
    output.result({"output": str(target), **facts})
