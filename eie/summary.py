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
    padding = sum(layer["counters"]["padding"] for layer in layers)
    columns = ("accuracy %", f"{report['batch']:,} samples run", f"all {report['held_out']:,} held out")
    lines = [
        "",
        f"{report['data']} on {report['pes']} PEs, engine {report['engine']}, seed {report['seed']}",
        "",
        table_text(columns, accuracy),
        "",
        _item(
            "fixed point",
            f"loses {fixed['lost_points']:.2f} points against the compressed floats on all held-out samples "
            f"({fixed['allowed_points']:.2f} allowed): {'good' if fixed['good'] else 'TOO MUCH'}",
        ),
        _item(
            "compression",
            f"{size['dense_float32_bytes']:,} bytes dense float32 → {size['stored_bytes']:,} bytes of entries, "
            f"pointers, codebooks and biases: {size['ratio']:.1f} times smaller "
            f"({size['nonzeros']:,} of {size['weights']:,} weights)",
        ),
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
            _compared(values["values"], values["values_different"], "outputs of all layers, bit for bit with golden"),
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
        lines.append("PASS: hardware = golden model in every bit, and = cycle model in every cycle")
    else:
        lines += ["FAIL: hardware and models differ", *(f"  {text}" for text in report["differences"])]
    return "\n".join(lines)


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
