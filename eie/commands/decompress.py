"""``eie decompress``: what was compressed, again."""

from __future__ import annotations

from pathlib import Path

import click

from eie.options import example, json_option, layers_option
from eie.output import Output, check_writable


@click.command(
    epilog=example(
        "eie decompress net.eiez -o net.eie",
        "eie decompress lenet.eiez -o model.safetensors",
        "eie decompress alexnet.net --layer conv1=96x3x11x11 --layer fc8=1000x4096 -o alexnet.safetensors",
    )
)
@click.argument("file", metavar="NET.eiez", type=click.Path(path_type=Path))
@click.option("-o", "--output", "target", metavar="OUT", required=True, type=click.Path(path_type=Path),
              help="File of the network again.")  # fmt: skip
@layers_option
@json_option
def decompress(file: Path, target: Path, layers: tuple[str, ...], json_to: str | None) -> None:
    """Write what NET.eiez holds.

    The network of an array becomes the .eie file that was compressed, byte for byte (one of an earlier format becomes
    the same network in today's); a trained network (also one in a
    .net file) becomes a safetensors file with the same values, bit for bit.
    """
    output = Output(json_to)
    check_writable(target, "-o")

    from safetensors.numpy import save

    from compiler.coding.container import FixedContent, decompress_any
    from compiler.compressible import check_layers, load_network, naming, read_file
    from compiler.files import write_file
    from hw.layouts import FORMAT_VERSION
    from sim.packed import restore_image

    check_layers(file, layers)
    old = 0
    if file.suffix == ".net":
        kind, data = "float", save(load_network(file, layers).state())
    else:
        with naming(file):
            found = decompress_any(read_file(file))
            kind = found.sizes.kind
            if isinstance(found, FixedContent):
                data, old = restore_image(found), found.version if found.image_crc is None else 0
            else:
                data = save(found.network.state())
    write_file(target, data)
    if old:
        output.note(f"eie: {file} was made by format {old}: the image is packed anew for format {FORMAT_VERSION}")
    what = "image" if kind == "fixed" else "trained network"
    output.text(f"{target}: {what}, {len(data):,} bytes")
    output.result({"file": str(target), "input": str(file), "kind": kind, "file_bytes": len(data)})
