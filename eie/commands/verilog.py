"""``eie verilog``: the array as Verilog, with its register and memory maps and a C header."""

from __future__ import annotations

from pathlib import Path

import click

from eie.options import array_options, example, json_option, make_params
from eie.output import Output, check_writable_folder


@click.command(epilog=example("eie verilog --preset BALANCED_64 -o build/rtl", "eie verilog --set pes=4 -o build/rtl"))
@array_options
@click.option("-o", "--output", "folder", metavar="DIR", required=True, type=click.Path(path_type=Path),
              help="Folder of the files; may be new.")  # fmt: skip
@json_option
def verilog(preset: str, settings: tuple[str, ...], folder: Path, json_to: str | None) -> None:
    """Write the Verilog of an array. Networks are data: one array runs every image that has its hash.

    Beside it lie register and memory map, a C header, and the core for FuseSoC and LiteX (docs/soc.md).
    """
    output = Output(json_to)
    params, _ = make_params(preset, settings)
    check_writable_folder(folder, "--output")

    from compiler.caches import settle
    from compiler.files import write_files
    from hw.accelerator import TOP_MODULE
    from hw.export import verilog_files
    from hw.layouts import identity
    from sim.rtl.exported import array_verilog

    settle()
    with output.patience("writing the Verilog"):
        files = write_files(folder, verilog_files(params, array_verilog(params)))
    for path in files:
        output.text(f"{path}  {path.stat().st_size:,} bytes")
    output.text(f"{params.pes} PEs, hash {identity(params)}")
    output.text(
        f"lint.vlt holds Verilator's waivers with their reasons: cd {folder} && "
        f"verilator --lint-only -Wall lint.vlt accelerator.v eie_ram.v --top-module {TOP_MODULE}"
    )
    output.result({"hash": identity(params), "params": params.asdict(), "files": [str(path) for path in files]})
