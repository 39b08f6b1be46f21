"""The one page that ``make sim`` ends with, from its report."""

from __future__ import annotations

import textwrap
from typing import Any

from eie.tables import PLAIN_WIDTH, table_text

__all__ = ["summary"]

NAMES = {
    "dense": "dense, float32",
    "compressed": "compressed, float32",
    "golden": "golden model, int16",
    "rtl": "RTL (Verilog in Verilator)",
    "amaranth": "RTL (Amaranth's simulator)",
}
INDENT = 15


def summary(report: dict[str, Any]) -> str:
    """Text for a person; `report` is what `sim.demo` gives."""
    size, cycles, layers = report["size"], report["cycles"], report["layers"]
    values, times = report["compared"]["values"], report["compared"]["cycles"]
    files, fixed = report["files"], report["fixed_point"]
    accuracy = [
        (NAMES[name], _percent(row["samples"]), _percent(row["held_out"])) for name, row in report["accuracy"].items()
    ]
    entries = max(1, cycles["entries"])
    padding = sum(layer["counters"].get("padding", 0) for layer in layers)
    columns = ("accuracy %", f"{report['batch']:,} samples run", f"all {report['held_out']:,} held out")
    stages = ", ".join(f"{stage['stage']} {stage['test']:.2%}" for stage in report["stages"])
    lines = [
        "",
        f"{report['name']} on {report['pes']} PEs, engine {report['engine']}, seed {report['seed']}",
        "",
        table_text(columns, accuracy),
        "",
        _layers(report),
        "A layer's cycles end with its last product; the next one begins before.",
        "",
        _item("training", f"{report['data']}; after each stage, on all held-out samples: {stages}"),
        _item(
            "fixed point",
            f"loses {fixed['lost_points']:.2f} points against the compressed floats on all held-out samples "
            f"({fixed['allowed_points']:.2f} allowed): {'good' if fixed['good'] else 'TOO MUCH'}",
        ),
        _item(
            "compression",
            f"{size['dense_float32_bytes']:,} bytes dense float32 → {size['shipped_bytes']:,} bytes as model.eiez: "
            f"{size['ratio']:.1f} times smaller ({size['nonzeros']:,} of {size['weights']:,} weights are left)"
            + _made(layers, size["weights"]),
        ),
        _item(
            "memories",
            f"{size['stored_bytes']:,} bytes of entries, pointers, codebooks and output table on the array"
            + _copies(layers),
        ),
        _item("host", _host(report)),
        _item(
            "cycles",
            f"{cycles['per_inference']:,.1f} per inference, back to back; {cycles['microseconds_at_800_mhz']:.3f} µs "
            "if clocked at 800 MHz like the published EIE (a scale, not a measurement)",
        ),
        _item(
            "multipliers",
            f"{cycles['utilization']:.1%} busy: {cycles['entries']:,} entries / ({report['pes']} PEs × "
            f"{cycles['total']:,} cycles); {padding / entries:.1%} of the entries are padding",
        ),
        _item(
            "values",
            _compared(
                report["compared"]["on_array"],
                values["values_different"],
                "outputs of all layers on the array, bit for bit with golden",
            ),
        ),
        _item(
            "cycle model",
            _compared(
                times["records"],
                times["records_different"],
                f"times and counters of all layers, over {cycles['total']:,} cycles",
            ),
        ),
        _item("time", ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report["seconds"].items())),
        _item("report", files["report"]),
        _item("waveform", files["waves"] or "none; WAVES=1 writes one"),
        *(_item("left out", text) for text in report["left_out"]),
        "",
    ]
    if report["equal"] and not fixed["good"]:
        lines.append("FAIL: hardware and models are equal, but fixed point loses too much")
    elif report["equal"]:
        what = "hardware, without what the host computes," if report["host"] else "hardware"
        lines.append(f"PASS: {what} = golden model in every bit, and = cycle model in every cycle")
    else:
        lines += ["FAIL: hardware and models differ", *(f"  {text}" for text in report["differences"])]
    return "\n".join(lines)


def _layers(report: dict[str, Any]) -> str:
    """The table of layers, for one inference."""
    rows = [_layer(layer, report["batch"]) for layer in report["layers"]]
    sums = [sum(row[column] or 0 for row in rows) for column in (4, 5, 6, 7, 10)]
    total = round(report["cycles"]["per_inference"])
    rows.append(("all", "", None, None, *sums[:4], total, _percent(report["cycles"]["utilization"]), sums[4]))
    columns = (
        "layer", "on", "tile", "tiles", "weights", "nonzero", "products", "nonzero products", "cycles", "busy %",
        "bytes",
    )  # fmt: skip
    return table_text(columns, rows)


def _layer(layer: dict[str, Any], batch: int) -> tuple[Any, ...]:
    """A row: for one inference, cycles from the accept of the layer to its last product."""
    entries = layer["counters"].get("entries", 0) - layer["counters"].get("padding", 0)
    on_array = layer["on"] == "array"
    return (
        layer["name"], layer["on"], "x".join(map(str, layer["tile"])) if layer["tile"] else None, layer["tiles"],
        layer["weights"], layer["nonzeros"], layer["products"], round(entries / batch) if on_array else None,
        None if layer["busy"] is None else round(layer["busy"] / batch), _percent(layer["utilization"]), layer["bytes"],
    )  # fmt: skip


def _made(layers: list[dict[str, Any]], weights: int) -> str:
    """What the table counts beside the weights of the network."""
    more = sum(layer["weights"] or 0 for layer in layers) - weights
    return f"; averages and shortcuts are products with {more:,} further weights on the array" * (more > 0)


def _copies(layers: list[dict[str, Any]]) -> str:
    """What makes the memories larger than the file."""
    most = max((layer["copies"] or 1.0 for layer in layers), default=1.0)
    return f"; a layer computes a tile of pixels at a time and holds its weights for each, {most:.0f} at most" * (
        most > 1
    )


def _host(report: dict[str, Any]) -> str:
    """What the array does not compute."""
    count = sum(layer["on"] == "array" for layer in report["layers"])
    on_array = f"{count} {'layer' if count == 1 else 'layers'} on the array"
    if not report["host"]:
        return f"nothing: {on_array}"
    return f"{', '.join(report['host'])}: in golden's integers whatever the engine, without cycles; {on_array}"


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _compared(count: int, different: int, what: str) -> str:
    verdict = "all equal" if not different else f"{different:,} DIFFER"
    return f"{count:,} {what}: {verdict if count else 'NOTHING WAS COMPARED'}"


def _item(name: str, text: str) -> str:
    indent = " " * INDENT
    return textwrap.fill(
        text, PLAIN_WIDTH, initial_indent=name.ljust(INDENT), subsequent_indent=indent, break_long_words=False
    )
