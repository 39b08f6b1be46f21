"""The top of a board: an accelerator with a serial line as its host, and nothing else."""

from __future__ import annotations

from amaranth import ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from hw.accelerator import Accelerator
from hw.bridge import SerialHost
from hw.params import Params

__all__ = ["SerialTop"]


class SerialTop(wiring.Component):
    """An accelerator, and the bridge from a serial line to its host port and streams.

    Parameters
    ----------
    params : the array.
    divider : cycles of a bit of the line.

    Members
    -------
    aclk, aresetn : clock; reset, active low, sampled with the clock.
    rx, tx : the line, as this end receives and sends it.
    """

    def __init__(self, params: Params, divider: int) -> None:
        self.params, self.divider = params, divider
        super().__init__({"aclk": In(1), "aresetn": In(1), "rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = ClockDomain()
        array = Accelerator(self.params)  # has a clock domain of its own, of the same clock
        m.submodules.array = DomainRenamer({"sync": "array"})(array)
        m.submodules.host = host = SerialHost(
            self.divider, refill=self.params.refill, streams=self.params.streams,
            style="block" if self.params.slim else "distributed",
        )  # fmt: skip
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
