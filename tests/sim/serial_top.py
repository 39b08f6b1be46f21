"""An accelerator with nothing but a serial line, as a board's top has it, and its Verilog in Verilator."""

from __future__ import annotations

from amaranth import ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from hw.accelerator import TOP_MODULE, Accelerator
from hw.bridge import SerialHost
from hw.core import PE_MODULE, WRITEBACK_MODULE
from hw.export import without_memory_init
from hw.params import Params
from hw.pe import ProcessingElement
from hw.platform import convert
from hw.writeback import Writeback
from sim.rtl.build import Build, build

__all__ = ["DIVIDER", "SerialTop", "build_serial"]

DIVIDER = 8


class SerialTop(wiring.Component):
    """Pins: aclk, aresetn, rx, tx."""

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({"aclk": In(1), "aresetn": In(1), "rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = ClockDomain()
        array = Accelerator(self.params)  # has a clock domain of its own, of the same clock
        m.submodules.array = DomainRenamer({"sync": "array"})(array)
        m.submodules.host = host = SerialHost(DIVIDER, refill=self.params.refill, streams=self.params.streams)
        m.d.comb += [
            ClockSignal().eq(self.aclk), ResetSignal().eq(~self.aresetn),
            array.aclk.eq(self.aclk), array.aresetn.eq(self.aresetn),
            host.rx.eq(self.rx), self.tx.eq(host.tx),
        ]  # fmt: skip
        connect(m, host.bus, array.s_axi)
        if self.params.refill:
            connect(m, host.weights, array.s_axis_weights)
        if self.params.streams:
            connect(m, host.given, array.s_axis_acts)
            connect(m, array.m_axis_acts, host.taken)
        return m


def build_serial(params: Params) -> Build:
    """A simulator in which the top of the array is a `SerialTop`."""
    parts = [
        convert(ProcessingElement(params), PE_MODULE), convert(Writeback(params), WRITEBACK_MODULE),
        convert(SerialTop(params), TOP_MODULE, separator="_"),
    ]  # fmt: skip
    text = without_memory_init("\n".join(parts))
    for pin in ("rx", "tx"):
        text = text.replace(f"  wire {pin};", f"  wire {pin} /*verilator public_flat_rw*/;", 1)
    return build(params, mutate=lambda _: text)
