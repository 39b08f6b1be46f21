"""Asynchronous serial line: eight data bits, no parity, one stop bit, in both directions."""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["LEAST_DIVIDER", "UartReceiver", "UartTransmitter"]

LEAST_DIVIDER = 4
"""Cycles of the shortest bit that the receiver reads."""


def _checked(divider: int) -> int:
    if divider < LEAST_DIVIDER:
        raise ValueError(f"a bit of {divider} cycles; expected {LEAST_DIVIDER} or more")
    return divider


class UartReceiver(wiring.Component):
    """Bytes from the line.

    Each bit is sampled once, in its middle as the start bit says it. A start bit that is gone at its middle, and a byte
    without a stop bit, are dropped. With 16 cycles a bit or more the sender's clock may be 4 % off.

    Timing: `o` is valid 2 cycles after the middle of the stop bit. A byte that nobody has taken when the next one is
    complete is lost.

    Parameters
    ----------
    divider : cycles of a bit.

    Members
    -------
    pin : the line, high while idle; not in step with the clock.
    o : bytes.
    """

    def __init__(self, divider: int) -> None:
        self.divider = _checked(divider)
        super().__init__({"pin": In(1, init=1), "o": Out(stream.Signature(8))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules.line = FFSynchronizer(self.pin, line, init=1)
        wait = Signal(range(self.divider))
        left = Signal(range(10))  # bits to come, the stop bit included
        bits = Signal(8, reset_less=True)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.FSM():
            with m.State("Idle"):
                with m.If(~line):
                    m.d.sync += wait.eq(self.divider // 2 - 1)
                    m.next = "Start"
            with m.State("Start"):
                with m.If(wait == 0):
                    m.d.sync += [wait.eq(self.divider - 1), left.eq(9)]
                    m.next = "Bits"
                    with m.If(line):
                        m.next = "Idle"
            with m.State("Bits"):
                with m.If(wait == 0):
                    m.d.sync += [wait.eq(self.divider - 1), left.eq(left - 1)]
                    with m.If(left != 1):
                        m.d.sync += bits.eq(Cat(bits[1:], line))
                    with m.Elif(line):
                        m.d.sync += [self.o.valid.eq(1), self.o.payload.eq(bits)]
                        m.next = "Idle"
                    with m.Else():
                        m.next = "Break"
            with m.State("Break"):  # no stop bit: what looks like a start bit now is none
                with m.If(line):
                    m.next = "Idle"
        return m


class UartTransmitter(wiring.Component):
    """Bytes to the line, one behind the other without a gap.

    Parameters
    ----------
    divider : cycles of a bit.

    Members
    -------
    pin : the line, high while idle.
    i : bytes.
    """

    def __init__(self, divider: int) -> None:
        self.divider = _checked(divider)
        super().__init__({"pin": Out(1, init=1), "i": In(stream.Signature(8))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        wait = Signal(range(self.divider))
        left = Signal(range(11))
        bits = Signal(9, init=0x1FF)  # behind the bit on the line
        ends = Signal(init=1)  # no bit is on the line, or the last cycle of the last one
        m.d.comb += self.i.ready.eq(ends)
        with m.If(self.i.valid):
            m.d.sync += ends.eq(0)
        with m.If((left == 1) & (wait == 1)):
            m.d.sync += ends.eq(1)
        with m.If(left != 0):
            m.d.sync += wait.eq(wait - 1)
            with m.If(wait == 0):
                m.d.sync += [
                    wait.eq(self.divider - 1), left.eq(left - 1), self.pin.eq(bits[0]), bits.eq(Cat(bits[1:], 1)),
                ]  # fmt: skip
        with m.If(ends & self.i.valid):
            m.d.sync += [
                wait.eq(self.divider - 1), left.eq(10), self.pin.eq(0), bits.eq(Cat(self.i.payload, 1)),
            ]  # fmt: skip
        return m
