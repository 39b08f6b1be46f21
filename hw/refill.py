"""Refill: weights of the next tile from a stream into the buffer that is free."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import REFILL_BITS, Memory, memory_shape, refill_header
from hw.params import Params
from hw.streams import beat, refill_write

__all__ = ["Refill"]


class Refill(wiring.Component):
    """Unpack the refill stream: packets of a header (`hw.layouts.refill_header`) and the words that it counts.

    Two buffers: while the PEs work on one, the other is filled. A packet waits until its buffer is free, which
    holds the stream back. A buffer is taken from the last packet of its tile until no PE has a vector of it.
    TLAST stands at the end of a tile, so that the stream and the array can find together again after a restart.

    What cannot be is a fault, after which nothing is taken or written until a restart: a header that names no memory or
    PE that there is, or words beyond its memory, or another buffer than the tile began with, or with reserved bits;
    TLAST elsewhere than at the end of a tile, or missing there; a tile for a full buffer while the scan waits for the
    other one, which would be for ever.

    Timing: a packet of n words takes n + 2 cycles if the stream never waits: one for its header, one in which its
    buffer is found free. A tile shows as loaded 1 cycle after its last word was taken; its buffer is free again
    1 cycle after its tile is retired; that is 3 cycles after ``scanned`` at the earliest, and 1 cycle after
    all PEs show that they are done with it.

    Members
    -------
    i : the stream; taken only while `enable`, that is during a run.
    fault : the stream is wrong, shown while `enable`: in the run that would use it.
    o : words to write (always ready), one cycle after they are taken.
    wanted : for each buffer, the scan waits for its tile.
    taken : for each buffer, the last vector of its tile is requested. scanned : it has left the scan.
    pe_busy : for each buffer, a PE has work of its tile.
    loaded : for each buffer, its tile is there and not yet taken. (`full` stays until the PEs are done with it: the
        next tile for the same buffer may be accepted before that, and must not scan this one's vectors.)
    """

    MEMORIES = (Memory.WEIGHTS, Memory.POINTERS)

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({
            "enable": In(1), "fault": Out(1),
            "i": In(stream.Signature(beat(REFILL_BITS))),
            "o": Out(stream.Signature(refill_write(params), always_ready=True)),
            "taken": In(2), "scanned": In(2), "pe_busy": In(2), "wanted": In(2),
            "loaded": Out(2),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        header = Signal(refill_header(self.params), reset_less=True)
        target = Signal(2)  # the buffer of the packet, one-hot
        filled = Signal()
        full = Signal(2)
        ended = Signal(reset_less=True)  # the header came with TLAST
        begun, buffer = Signal(), Signal()  # a tile is under way, and for this buffer
        m.d.comb += target.eq(1 << header.buffer)
        m.d.sync += [
            self.o.valid.eq(0), self.o.p.memory.eq(header.memory), self.o.p.unit.eq(header.unit),
            self.o.p.address.eq(header.address), self.o.p.data.eq(self.i.p.data),
        ]  # fmt: skip

        wrong = Signal()
        size = Signal(range(max(self._words(memory) for memory in self.MEMORIES) + 1))
        with m.Switch(header.memory):
            for memory in self.MEMORIES:
                with m.Case(memory.value):
                    m.d.comb += size.eq(self._words(memory))
        empty = header.words == 0
        m.d.comb += wrong.eq(
            (header.memory > max(memory.value for memory in self.MEMORIES))
            | (header.unit >= self.params.pes)
            | (header.address + header.words > size)
            | (header.reserved != 0)
            | (begun & (header.buffer != buffer))
            | (ended != (header.last & empty))
            | ((full & self.loaded & target).any() & (self.wanted & ~target).any())
        )

        with m.FSM():
            with m.State("Header"):
                m.d.comb += self.i.ready.eq(self.enable)
                with m.If(self.i.ready & self.i.valid):
                    m.d.sync += [header.eq(self.i.p.data), ended.eq(self.i.p.last)]
                    m.next = "Wait"
            with m.State("Wait"):
                with m.If(wrong):
                    m.next = "Fault"
                with m.Elif((full & target) == 0):
                    m.d.sync += [begun.eq(1), buffer.eq(header.buffer)]
                    with m.If(empty):
                        m.d.comb += filled.eq(header.last)
                        m.next = "Header"
                    with m.Else():
                        m.next = "Words"
            with m.State("Words"):
                m.d.comb += self.i.ready.eq(self.enable)
                with m.If(self.i.ready & self.i.valid):
                    m.d.sync += [
                        self.o.valid.eq(1),
                        header.address.eq(header.address + 1), header.words.eq(header.words - 1),
                    ]  # fmt: skip
                    with m.If(self.i.p.last != (header.last & (header.words == 1))):
                        m.next = "Fault"
                    with m.Elif(header.words == 1):
                        m.d.comb += filled.eq(header.last)
                        m.next = "Header"
            with m.State("Fault"):
                m.d.comb += self.fault.eq(self.enable)
        with m.If(filled):
            m.d.sync += begun.eq(0)

        # As in `Banks`: `scanned` reaches the PEs' busy flags 3 cycles later.
        scanned = [Signal(2, name=f"scanned_{n}") for n in range(3)]
        busy = Signal(2)
        used_up = Signal(2)
        m.d.comb += used_up.eq(scanned[2] & ~busy)
        m.d.sync += busy.eq(self.pe_busy)
        for n in range(2):
            with m.If(used_up[n]):
                m.d.sync += [full[n].eq(0), *(flags[n].eq(0) for flags in scanned)]
            with m.Else():
                with m.If(filled & target[n]):
                    m.d.sync += [full[n].eq(1), self.loaded[n].eq(1)]
                m.d.sync += [scanned[1][n].eq(scanned[0][n]), scanned[2][n].eq(scanned[1][n])]
                with m.If(self.scanned[n]):
                    m.d.sync += scanned[0][n].eq(1)
            with m.If(self.taken[n]):
                m.d.sync += self.loaded[n].eq(0)
        return m

    def _words(self, memory: Memory) -> int:
        return memory_shape(self.params, memory)[1]
