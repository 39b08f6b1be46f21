"""``eie report area``: the logic of one PE in standard cells."""

from __future__ import annotations

from pathlib import Path

import click

from eie.options import FiniteRange, array_options, example, json_option, make_params
from eie.output import Output, check_writable_folder

__all__ = ["area"]


@click.command(
    epilog=example(
        "eie report area --preset EIE_64 --liberty osu018_stdcells.lib --feature 180", "eie report area --preset EIE_64"
    ),
    short_help="Area of the logic of one PE in standard cells, without its memories.",
)
@click.option("--liberty", metavar="F.lib", type=click.Path(path_type=Path),
              help="Library of standard cells. [default: that of Debian's qflow-tech-osu018, 0.18 µm]")  # fmt: skip
@click.option("--feature", metavar="NM", type=FiniteRange(min=1),
              help="Feature size of the library, to scale the area to 45 nm.")  # fmt: skip
@click.option("-o", "--output", "folder", metavar="DIR", type=click.Path(path_type=Path), default=Path("build/area"),
              show_default=True, help="Folder for Verilog, script and log.")  # fmt: skip
@array_options
@json_option
def area(
    liberty: Path | None, feature: float | None, folder: Path, preset: str, settings: tuple[str, ...],
    json_to: str | None,
) -> None:  # fmt: skip
    """Synthesise one PE with yosys and say the area of its cells.

    Its memories are not in it: they are macros, of which the bits are said. Needs yosys (pip install 'eie-kit[fpga]')
    and a library.
    """
    output = Output(json_to)
    params, _ = make_params(preset, settings)
    check_writable_folder(folder, "--output")

    from sim.fpga.area import DEBIAN_LIBRARY, EIE_LOGIC_UM2, measure_area

    if liberty is None:
        liberty, feature = DEBIAN_LIBRARY, feature or 180.0
    found = measure_area(params, liberty, folder, output.note)
    found["feature_nm"] = feature
    output.table(
        ("memory", "number", "words", "bits a word", "bits"),
        [
            (name, each["number"], each["words"], each["word_bits"], each["number"] * each["words"] * each["word_bits"])
            for name, each in found["memories"].items()
        ],
        title=f"memories of one PE of {preset}, not in the area: {found['memory_bits']:,} bits",
    )
    output.text(f"logic      {found['count']:,} cells, {found['area']:,.0f} µm² in {found['library']}")
    if feature is not None:
        found["area_45nm"] = found["area"] * (45 / feature) ** 2
        output.text(
            f"at 45 nm   {found['area_45nm']:,.0f} µm², by the square of the feature size alone; a PE of the "
            f"published array has {EIE_LOGIC_UM2:,} µm² of cells (EIE, table II), 638,024 µm² with its memories"
        )
    output.result(found)
