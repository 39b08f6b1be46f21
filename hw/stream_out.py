"""Out-stream: a layer's result, row of tiles after row of tiles, from its ring off chip."""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import ACT_BITS
from hw.params import LANES, Params
from hw.streams import LINE_BITS, out_beat, out_job

__all__ = ["StreamOut"]


class StreamOut(wiring.Component):
    """Send each row of tiles when it is written: line by line, of each line the vectors of all banks in order.

    The ring holds so many rows of tiles; write-back begins another one only with `room`.

    Timing: with ``row_ends`` in W the first line is read in W + 2 at the earliest. A line read in cycle r is sent from
    r + 2 on, one vector a beat; the next one is read in the cycle after its last beat, the first line of the next row
    2 cycles after. ``room`` comes 2 cycles after the last beat of a row; ``active`` falls 1 cycle after the very last.

    Members
    -------
    start, job, samples : a layer begins that streams out, only while not ``active``.
    row_begins, row_ends : write-back begins the first tile of a row of tiles; the last one is written. room : it may.
    stop : give up what is not written, only while not ``busy``.
    active : not all rows are sent. busy : a row is written and not sent.
    r_en, r_addr, r_data : read this line of all banks. It comes before the scan. fault : there is no such line.
    o : the port; `last` beat of the layer.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({
            "start": In(1), "job": In(out_job(params)), "samples": In(16), "stop": In(1),
            "row_begins": In(1), "row_ends": In(1), "room": Out(1),
            "active": Out(1), "busy": Out(1),
            "r_en": Out(1), "r_addr": Out(range(params.act_lines)),
            "r_data": In(ACT_BITS * LANES).array(params.groups), "fault": Out(1),
            "o": Out(stream.Signature(out_beat(params))),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        groups = self.params.groups
        job = Signal(out_job(self.params))
        held = Signal(16)  # rows of tiles in the ring
        written = Signal(16)  # those of them that are complete
        line, place, left = Signal(LINE_BITS), Signal(16), Signal(16)  # row of the ring, lines of the row to come
        row, sample = Signal(16), Signal(16)
        beats = Signal(data.ArrayLayout(ACT_BITS * LANES, groups))
        beat = Signal(range(max(2, groups)))
        sent = Signal()  # a row
        final = Signal()  # it is the last one of the layer
        m.d.comb += [
            self.r_addr.eq(line), self.fault.eq(self.r_en & (line >= self.params.act_lines)),
            self.busy.eq(written != 0), self.o.p.data.eq(beats[0]),
            final.eq((row + 1 == job.tiles_y) & (sample + 1 == self.samples)),
            self.o.p.last.eq(final & (left == 1) & (beat == groups - 1)),
        ]  # fmt: skip
        m.d.sync += [
            self.room.eq(held != job.rows), held.eq(held + self.row_begins - sent),
            written.eq(written + self.row_ends - sent),
        ]  # fmt: skip
        with m.FSM():
            with m.State("Idle"):
                m.d.sync += left.eq(job.lines)
                with m.If(self.busy):
                    m.next = "Read"
            with m.State("Read"):
                m.d.comb += self.r_en.eq(1)
                m.d.sync += line.eq(line + 1)
                m.next = "Load"
            with m.State("Load"):
                m.d.sync += [beats.eq(Cat(self.r_data)), beat.eq(0)]
                m.next = "Send"
            with m.State("Send"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += [beat.eq(beat + 1), beats.eq(beats.as_value() >> ACT_BITS * LANES)]
                    with m.If(beat == groups - 1):
                        m.d.sync += left.eq(left - 1)
                        m.next = "Read"
                        with m.If(left == 1):
                            m.d.comb += sent.eq(1)
                            m.next = "Idle"
        with m.If(sent):
            m.d.sync += [place.eq(place + 1), row.eq(row + 1)]
            with m.If(place + 1 == job.rows):
                m.d.sync += [place.eq(0), line.eq(job.line)]
            with m.If(row + 1 == job.tiles_y):
                m.d.sync += [row.eq(0), sample.eq(sample + 1)]
            with m.If(final):
                m.d.sync += self.active.eq(0)
        with m.If(self.start):
            m.d.sync += [
                self.active.eq(1), job.eq(self.job), line.eq(self.job.line), place.eq(0), row.eq(0), sample.eq(0),
            ]  # fmt: skip
        with m.If(self.stop):
            m.d.sync += [self.active.eq(0), held.eq(0)]
        return m
