"""``eie info``: what an image or a compressed file holds, how much room and time it takes, and whether it pays."""

from __future__ import annotations

from pathlib import Path

import click

from eie.options import example, json_option
from eie.output import Output


@click.command(epilog=example("eie info layer.eie", "eie info layer.eie --json", "eie info lenet.eiez"))
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def info(file: Path, json_to: str | None) -> None:
    """Say what the image or compressed FILE holds.

    Layers, nonzeros, padding, bits by part, memory map, proven bounds of the sums, cycles of one vector without
    zeros (the most there can be), and the weight density below which a layer gains over a dense one. Of an .eiez
    file: bits by part, per weight and per nonzero, and the ratio to float32.
    """
    output = Output(json_to)
    if _is_compressed(file):
        from eie.sizetable import show_sizes

        show_sizes(file, output)
        return

    from compiler.network_file import load
    from eie.compiled import host_lines
    from sim.describe import describe

    facts = describe(load(file))
    layers = facts["layers"]
    output.text(f"{file}: {facts['inputs']} inputs, {facts['outputs']} outputs, hash {facts['hash']}")
    output.text("array: " + ", ".join(f"{key} {value}" for key, value in facts["params"].items()))
    output.text("options: " + ", ".join(f"{key} {value}" for key, value in facts["options"].items()))
    for line in host_lines(facts):
        output.text(line)
    output.text()
    if not facts["layers"]:
        output.result({"file": str(file), **facts})
        return
    output.table(
        (
            "layer", "in", "out", "activation", "nonzeros", "density", "padding", "in 2^", "weight 2^", "shift",
            "out 2^", "exact", "folded", "rows split", "tiles",
        ),
        [
            (
                layer["name"], layer["inputs"], layer["outputs"], layer["activation"], layer["nonzeros"],
                layer["density"], layer["padding"], layer["input_exponent"], layer["weight_exponent"], layer["shift"],
                layer["output_exponent"], layer["exact"], layer["fold"], layer["split_rows"], layer["tiles"],
            )
            for layer in layers
        ],
        title="Layers",
    )  # fmt: skip
    parts = list(facts["bits"])
    output.table(
        ("layer", *parts, "all", "dense float32"),
        [
            (
                layer["name"], *(layer["bits"][part] for part in parts), sum(layer["bits"].values()),
                (layer["inputs"] + 1) * layer["outputs"] * 32,
            )
            for layer in layers
        ]
        + [("all", *facts["bits"].values(), sum(facts["bits"].values()), facts["dense_float32_bits"])],
        title=f"Bits by part ({facts['ratio']:.1f} times smaller than dense float32)",
    )  # fmt: skip
    output.table(
        ("memory", "units", "words a unit", "used", "used %", "bits a word"),
        [
            (m["name"], m["units"], m["words"], m["used"], 100 * m["used"] / m["words"], m["word_bits"])
            for m in facts["memories"]
        ],
        title="Memory map",
    )
    output.table(
        (
            "layer", "bits of largest sum", "accumulator bits", "entries / PEs", "busiest PE", "cycles",
            "cycles, all resident",
        ),
        [(layer["name"], layer["bound_bits"], layer["acc_bits"], *layer["cycles"].values()) for layer in layers],
        title="Bounds: sums on any input, cycles of one vector without zeros",
    )  # fmt: skip
    output.table(
        (
            "layer",
            "density",
            "fewer cycles than dense below",
            "smaller than dense codes below",
            "than dense int16 below",
        ),
        [(layer["name"], layer["density"], *layer["break_even"].values()) for layer in layers],
        title="Break-even weight densities",
    )
    output.text(
        f"One vector without zeros takes {facts['cycles']['model']:,} cycles (entries / PEs: "
        f"{facts['cycles']['ideal']:,}); zeros among the activations take none."
    )
    if facts["tile_bytes"]:
        output.text(
            f"{facts['tile_bytes']:,} bytes of tiles are streamed in for each vector; with all weights in the memories "
            f"it would take {facts['cycles']['resident']:,} cycles."
        )
    output.result({"file": str(file), **facts})


def _is_compressed(file: Path) -> bool:
    """By its first bytes, whatever its name is."""
    from compiler.coding.wire import MAGIC

    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC
