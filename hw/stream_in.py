"""In-stream: rows of a map that lies off chip, into the ring of rows of the layer that reads it."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import ACT_BITS
from hw.params import LANES, Params
from hw.skid import Skid
from hw.streams import ROW_BITS, VECTOR_ADDRESS_BITS, ring_job

__all__ = ["StreamIn"]


class StreamIn(wiring.Component):
    """Take `height` rows for each sample, one activation vector a beat, and write them behind write-back.

    Row v, counted on over the samples, goes to row v modulo ``rows`` of the ring. It waits until the row that is there
    is let go: no vector of row `limit` or later is written, until ``finish`` says that nobody reads any of them.

    Timing: the first vector is written 1 cycle after ``start`` at the earliest, then one a cycle but for those with
    ``blocked``; the limit moves 1 cycle after ``move``. A row counts as received 1 cycle after its last vector is
    written. ``active`` falls 1 cycle after the very last one.

    Members
    -------
    enable : take beats; up to two wait here before a layer begins. i : the port.
    start, job, samples : a layer begins, only while not ``active``. move, limit : rows before `limit` may come.
    finish : all that are left may come. stop : give the layer up, now.
    active : rows are missing. received : rows that are there, from the first one of the layer on.
    blocked : somebody else writes in this cycle.
    w_en, w_bank, w_addr, w_data : write a vector. fault : it would lie beyond the activation memory; it is not written.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self.skid = Skid(ACT_BITS * LANES)
        super().__init__({
            "enable": In(1), "i": In(stream.Signature(ACT_BITS * LANES)),
            "start": In(1), "job": In(ring_job(params)), "samples": In(16),
            "move": In(1), "limit": In(ROW_BITS), "finish": In(1), "stop": In(1),
            "active": Out(1), "received": Out(ROW_BITS), "blocked": In(1),
            "w_en": Out(1), "w_bank": Out(range(max(2, params.groups))), "w_addr": Out(range(params.act_lines)),
            "w_data": Out(ACT_BITS * LANES), "fault": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.skid = skid = self.skid
        wiring.connect(m, wiring.flipped(self.i), skid.i)
        job = Signal(ring_job(self.params))
        group_bits = (self.params.groups - 1).bit_length()
        line = Signal(VECTOR_ADDRESS_BITS - group_bits)
        address, base = Signal(VECTOR_ADDRESS_BITS), Signal(VECTOR_ADDRESS_BITS)
        column = Signal(VECTOR_ADDRESS_BITS)  # vector of the row
        place = Signal(16)  # row of the ring
        row, sample = Signal(16), Signal(16)
        limit = Signal(ROW_BITS)
        unlimited = Signal()
        go, beyond = Signal(), Signal()
        m.d.comb += [
            skid.enable.eq(self.enable), self.w_data.eq(skid.o.payload), line.eq(address >> group_bits),
            self.w_bank.eq(address[:group_bits]), self.w_addr.eq(line), beyond.eq(line >= self.params.act_lines),
            go.eq(self.active & skid.o.valid & (unlimited | (self.received != limit)) & ~self.blocked),
            skid.o.ready.eq(go), self.w_en.eq(go & ~beyond), self.fault.eq(go & beyond),
        ]  # fmt: skip
        with m.If(go):
            m.d.sync += [address.eq(address + 1), column.eq(column + 1)]
            with m.If(column + 1 == job.row):
                m.d.sync += [column.eq(0), self.received.eq(self.received + 1), place.eq(place + 1), row.eq(row + 1)]
                with m.If(place + 1 == job.rows):
                    m.d.sync += [place.eq(0), address.eq(base)]
                with m.If(row + 1 == job.height):
                    m.d.sync += [row.eq(0), sample.eq(sample + 1), self.active.eq(sample + 1 != self.samples)]
        with m.If(self.move):
            m.d.sync += limit.eq(self.limit)
        with m.If(self.finish):
            m.d.sync += unlimited.eq(1)
        with m.If(self.start):
            first = self.job.base << group_bits
            m.d.sync += [
                self.active.eq(1), unlimited.eq(0), job.eq(self.job), base.eq(first), address.eq(first),
                column.eq(0), place.eq(0), row.eq(0), sample.eq(0), self.received.eq(0),
            ]  # fmt: skip
        with m.If(self.stop):
            m.d.sync += self.active.eq(0)
        return m
