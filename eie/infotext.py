"""What ``eie info`` says of a compiled network: one table and its totals, or everything."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from eie.compiled import form, host_lines
from eie.output import Output
from eie.tables import width

__all__ = ["show_all", "show_short"]

Facts = dict[str, Any]


def show_short(output: Output, file: Path, facts: Facts) -> None:
    """One table of layers, what all of them take, and where there is more; `facts` as `sim.describe.describe`."""
    layers = facts["layers"]
    _heading(output, file, facts)
    if layers:
        rows: list[tuple[object, ...]] = [
            (
                layer["name"], form(layer["makes"]), layer["nonzeros"], "x".join(map(str, layer["tile"])),
                -(-sum(layer["bits"].values()) // 8), layer["cycles"]["model"], 100 * layer["utilization"],
            )
            for layer in layers
        ]  # fmt: skip
        if len(layers) > 1:
            nonzeros = sum(layer["nonzeros"] for layer in layers)
            size = -(-sum(facts["bits"].values()) // 8)
            rows.append(("all", "", nonzeros, "", size, facts["cycles"]["model"], 100 * facts["utilization"]))
        output.table(("layer", "makes", "nonzeros", "tile", "bytes", "cycles", "utilization %"), rows)
        fullest = max(facts["memories"], key=lambda memory: memory["used"] / memory["words"])
        _paragraph(
            output,
            f"{facts['ratio']:.1f} times smaller than dense float32. Cycles are those of one sample without zeros; "
            f"utilization is products of nonzeros over PEs x cycles. Fullest memory: {fullest['name']}, "
            f"{100 * fullest['used'] / fullest['words']:.0f}% used.",
        )
    _streams(output, facts)
    _tiles(output, facts)
    _paragraph(output, "Formats, bits by part, memory map, bounds and break-even densities: --all. As JSON: --json.")


def show_all(output: Output, file: Path, facts: Facts) -> None:
    """Every table."""
    _heading(output, file, facts)
    for name in ("params", "options"):
        if name in facts:
            _paragraph(output, f"{name}: " + ", ".join(f"{key} {value}" for key, value in facts[name].items()))
    output.text()
    if not facts["layers"]:
        return
    _layers(output, facts)
    _bits(output, facts)
    output.table(
        ("memory", "units", "words per unit", "used", "used %", "bits a word"),
        [
            (m["name"], m["units"], m["words"], m["used"], 100 * m["used"] / m["words"], m["word_bits"])
            for m in facts["memories"]
        ],
        title="Memory map",
    )
    _bounds(output, facts)
    _streams(output, facts)
    _paragraph(
        output,
        f"One sample without zeros takes {facts['cycles']['model']:,} cycles (products / PEs: "
        f"{facts['cycles']['ideal']:,}); zeros among the activations take less.",
    )
    _tiles(output, facts)


def _heading(output: Output, file: Path, facts: Facts) -> None:
    _paragraph(
        output,
        f"{file}: {form(facts['input_shape'])} in, {form(facts['output_shape'])} out, {facts['params']['pes']} PEs, "
        f"hash {facts['hash']}",
    )
    for line in host_lines(facts):
        output.text(line)
    output.text()


def _layers(output: Output, facts: Facts) -> None:
    output.table(
        (
            "layer", "reads", "makes", "limits", "nonzeros", "copies", "padding", "out 2^", "exact", "tile", "tiles",
            "expected", "next best", "its cycles", "segments", "streamed", "utilization",
        ),
        [
            (
                layer["name"], " ".join(map(form, layer["reads"])), form(layer["makes"]),
                " … ".join(map(str, layer["limits"])), layer["nonzeros"], layer["copies"], layer["padding"],
                layer["output_exponent"], layer["exact"], "x".join(map(str, layer["tile"])), layer["tiles"],
                layer["expected"], "x".join(map(str, layer["other"][:2])), (layer["other"] or [None])[-1],
                layer["segments"], layer["streamed"], layer["utilization"],
            )
            for layer in facts["layers"]
        ],
        title="Layers",
    )  # fmt: skip


def _bits(output: Output, facts: Facts) -> None:
    parts = list(facts["bits"])
    output.table(
        ("layer", *parts, "all", "dense float32"),
        [
            (
                layer["name"], *(layer["bits"][part] for part in parts), sum(layer["bits"].values()),
                layer["dense_float32_bits"],
            )
            for layer in facts["layers"]
        ]
        + [("all", *facts["bits"].values(), sum(facts["bits"].values()), facts["dense_float32_bits"])],
        title=f"Bits by part ({facts['ratio']:.1f} times smaller than dense float32)",
    )  # fmt: skip


def _bounds(output: Output, facts: Facts) -> None:
    layers = facts["layers"]
    output.table(
        (
            "layer", "bits of largest sum", "accumulator bits", "products / PEs", "busiest PE", "cycles",
            "cycles, all resident", "beats of maps", "stream of weights",
        ),
        [(layer["name"], layer["bound_bits"], layer["acc_bits"], *layer["cycles"].values()) for layer in layers],
        title="Bounds: sums on any input, cycles of one sample without zeros",
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


def _streams(output: Output, facts: Facts) -> None:
    """What passes through rings, and how long each layer takes if nothing streams beside what its streams need."""
    if not facts["maps"]:
        return
    names = ("resident", "stream", "refill")
    rows = []
    for layer in facts["layers"]:
        of = layer["off_chip"] or {"reads": [], "writes": "", "ring_rows": 0, "out_rows": 0}
        rows.append((
            layer["name"], " ".join(of["reads"]), of["ring_rows"] or None, of["writes"], of["out_rows"] or None,
            *(layer["cycles"][name] for name in names),
        ))  # fmt: skip
    output.table(
        ("layer", "reads off chip", "ring rows", "writes off chip", "rows of tiles", "cycles, all resident",
         "beats of maps", "stream of weights"),
        [*rows, ("all", "", None, "", None, *(facts["cycles"][name] for name in names))],
        title="Streams: cycles of each layer if all were resident, and what its streams need at least",
    )  # fmt: skip
    size = sum(each["bytes"] for each in facts["maps"])
    _paragraph(
        output,
        f"Off chip, {size:,} bytes of each sample: "
        + ", ".join(f"{each['name']} ({form(each['shape'])})" for each in facts["maps"]) + ".",
    )  # fmt: skip


def _tiles(output: Output, facts: Facts) -> None:
    if facts["tile_bytes"]:
        _paragraph(
            output,
            f"{facts['tile_bytes']:,} bytes of weights are streamed in for each sample; with all in the memories "
            f"it would take {facts['cycles']['resident']:,} cycles.",
        )


def _paragraph(output: Output, text: str) -> None:
    output.text(textwrap.fill(text, width(), break_long_words=False, break_on_hyphens=False))
