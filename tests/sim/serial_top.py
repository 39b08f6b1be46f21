"""The Verilog of a board's top in Verilator, its serial pins open to a bench."""

from __future__ import annotations

from hw.export import verilog_text
from hw.params import Params
from hw.serial_top import SerialTop
from sim.rtl.build import Build, build

__all__ = ["DIVIDER", "build_serial"]

DIVIDER = 8


def build_serial(params: Params) -> Build:
    """A simulator in which the top of the array is a `SerialTop`."""
    text = verilog_text(params, SerialTop(params, DIVIDER))
    for pin in ("rx", "tx"):
        text = text.replace(f"  wire {pin};", f"  wire {pin} /*verilator public_flat_rw*/;", 1)
    return build(params, mutate=lambda _: text)
