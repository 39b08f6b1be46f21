"""``eie compile``: a trained network to the memory image of an array."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from eie.options import array_options, example, json_option, make_params, source_options
from eie.output import Output, check_writable

if TYPE_CHECKING:
    from compiler.graph.ir import Graph


@click.command(
    "compile",
    epilog=example(
        "eie compile layer.npz -o layer.eie --preset BALANCED_16 --calibrate x.npy",
        "eie compile build/run -o digits.eie --set queue_depth=32",
        "eie compile mymodels:lenet --weights lenet.safetensors -o lenet.eie --calibrate images.npy",
        "eie compile resnet.onnx -o resnet.eie --calibrate images.npy --show-passes",
    ),
)
@source_options
@click.option("-o", "--output", "target", metavar="NET.eie", required=True, type=click.Path(path_type=Path),
              help="File of the compiled network.")  # fmt: skip
@array_options
@click.option("--show-passes", is_flag=True, help="Print the graph as read, and after each pass that changed it.")
@json_option
def compile_command(
    given: str,
    target: Path,
    preset: str,
    settings: tuple[str, ...],
    calibrate: Path | None,
    weights: Path | None,
    trust: bool,
    show_passes: bool,
    json_to: str | None,
) -> None:
    """Compile a network for an array.

    INPUT is the RUN/ folder of `eie train`; or module:function, your own code, which returns a torch module (or a
    module and its example inputs, where --calibrate does not show their shape); or an .onnx file; or a .pt2 file of
    torch.export; or one layer as .npz with weight (out, in) or the fields of scipy.sparse.save_npz, and optional bias
    and activation ("none" or "relu").

    Fully connected layers, convolutions, pooling, sums, concatenation, loops over time and small embeddings run on the
    array; other operators are listed, and the host computes them, bit for bit as docs/numerics.md says.
    """
    output = Output(json_to)
    check_writable(target, "--output")
    params, options = make_params(preset, settings)

    with output.patience("loading the compiler"):
        from compiler.graph.show import show
        from compiler.lower.pipeline import lower
        from compiler.network_file import save
        from eie.compiled import show_compiled
        from eie.inputs import read_source
        from eie.remembered import remember
        from sim.describe import describe

    def after(name: str, graph: Graph) -> None:
        output.note(f"--- {name}\n{show(graph)}\n")

    with output.patience(f"reading {given}"):
        source, calibration = read_source(given, weights, trust, calibrate, after if show_passes else None)
    if calibration is None:
        output.note(
            "eie: no --calibrate: inputs are taken as integers (exponent 0), and each shift is the smallest that "
            "cannot saturate"
        )
    with output.patience("choosing number formats, encoding and packing"):
        network, reports = lower(source.graph, params, calibration, options)
    save(network, target)
    with output.patience("counting cycles"):
        facts = describe(network)
    remember(target, facts)
    show_compiled(output, target, facts, reports)
    output.result({"output": str(target), **facts})
