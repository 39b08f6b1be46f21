"""``eie export``: a network as C, for a host that drives the array itself."""

from __future__ import annotations

import re
from pathlib import Path

import click

from eie.options import example, json_option
from eie.output import Output, check_writable_folder


@click.command(epilog=example("eie export net.eie -o host/", "eie export net.eie -o host/ --name keywords"))
@click.argument("network", metavar="NET.eie", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", metavar="DIR", required=True, type=click.Path(path_type=Path),
              help="Folder of the C files; may be new.")  # fmt: skip
@click.option("--name", metavar="NAME", default="network", show_default=True, help="Of the header, and of what it has.")
@json_option
def export(network: Path, folder: Path, name: str, json_to: str | None) -> None:
    """Write a network as C99: NAME.h with the words of all memories, eie.h with the registers of its array.

    docs/host.md is the program around them, for a processor with no Python: it loads, runs, streams and reads. A
    network of several images gets a header for each, NAME_0.h and so on; what lies between them the host computes.
    """
    output = Output(json_to)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise click.UsageError(f"--name {name!r}: expected a name of C: letters, digits and _, not a digit first")
    check_writable_folder(folder, "--output")

    from compiler.files import write_files
    from compiler.image.c_source import c_source
    from compiler.network_file import load
    from hw.registers import c_header

    loaded = load(network)
    names = [name] if len(loaded.images) == 1 else [f"{name}_{n}" for n in range(len(loaded.images))]
    texts = {f"{each}.h": c_source(image, each) for each, image in zip(names, loaded.images, strict=True)}
    files = write_files(folder, {"eie.h": c_header(loaded.params), **texts})
    for path in files:
        output.text(f"{path}  {path.stat().st_size:,} bytes")
    host = [node.name for node in loaded.host]
    if host:
        output.text(f"The host computes: {', '.join(host)}; `eie info {network}` shows where.")
    output.result({"files": [str(path) for path in files], "host": host})
