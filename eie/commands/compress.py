"""``eie compress``: a network to the file that is shipped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from eie.options import example, json_option, layers_option
from eie.output import Output, check_writable

if TYPE_CHECKING:
    from compiler.coding.container import Coder


@click.command(
    epilog=example(
        "eie compress net.eie -o net.eiez",
        "eie compress build/run -o lenet.eiez --coder huffman",
        "eie compress alexnet.net --layer conv1=96x3x11x11 --layer fc8=1000x4096 -o alexnet.eiez",
    ),
    short_help="Entropy-code a network without loss.",
)
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("-o", "--output", "target", metavar="NET.eiez", required=True, type=click.Path(path_type=Path),
              help="File of the compressed network.")  # fmt: skip
@click.option(
    "--coder",
    type=click.Choice(["huffman", "context"]),
    default="context",
    show_default=True,
    help="huffman: canonical Huffman codes, as the paper. context: range coder with context models, smaller.",
)
@layers_option
@json_option
def compress(source: Path, target: Path, coder: Coder, layers: tuple[str, ...], json_to: str | None) -> None:
    """Entropy-code the network INPUT without loss; the file is decompressed and compared before it is written.

    INPUT is an image (.eie), whose file comes out again byte for byte; or a trained network: the folder of a training
    run, a .safetensors file, a .net file of Deep Compression, or an .eiez file that shall be coded anew. With an
    output that ends in .net, a trained network is written in that layout instead.
    """
    output = Output(json_to)
    check_writable(target, "-o")

    from compiler.compressible import check_layers, compress_network, load_network
    from compiler.dcnet import write_net
    from compiler.files import write_file

    check_layers(source, layers)
    if target.suffix == ".net":
        data, forms = write_net(load_network(source, layers))
        write_file(target, data)
        described = [f"{form.name}={'x'.join(map(str, form.shape))}:{form.bits}" for form in forms]
        output.text(f"{target}: {len(data):,} bytes; to read it: " + " ".join(f"--layer {text}" for text in described))
        output.result({"file": str(target), "file_bytes": len(data), "layers": described})
        return
    if source.suffix == ".eie":
        from sim.packed import compress_image

        data, sizes = compress_image(source, coder)
    else:
        data, sizes = compress_network(load_network(source, layers), coder)
    write_file(target, data)
    given = source.stat().st_size if source.is_file() else None
    was = f"{given:,} → " if given is not None else ""
    output.text(f"{target}: {was}{len(data):,} bytes, {sizes.ratio:.1f} times smaller than float32 ({coder})")
    output.result({"file": str(target), "input": str(source), "input_bytes": given, **sizes.asdict()})
