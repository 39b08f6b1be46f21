"""Drain: walks the output table for each finished tile and steers all write-back groups in lockstep."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.params import Params
from hw.streams import LINE_BITS, output_tile
from hw.writeback import Writeback

__all__ = ["Drain"]


class Drain(wiring.Component):
    """Write the tiles back in the order in which they were accepted, each while the next is computed.

    One word of the output table a cycle, in all groups at once. The lines of a tile are written in rising order: rows
    of ``row_lines`` lines, ``row_pitch`` lines from the first of a row to the first of the next.

    Timing: the first word is addressed 1 cycle after ``computed`` is seen, then one a cycle; ``written`` comes
    ``Writeback.LATENCY`` cycles after the last one is addressed, in the cycle in which what it flushes is written.
    ``computed`` of the next tile is seen 1 cycle after that at the earliest.

    Members
    -------
    computed : for each bank, its tile's sums are complete (stays high until ``written``).
    tile : for each bank, where its outputs go and how.
    read, address : the word of the output table to take. low, high : limits of the tile's results.
    flush : the groups hand out a vector in this cycle. write, line : it is written, there.
    draining : write-back is under way: all lines of the tile in `bank` before `line` are written.
    written, bank : the last word of the tile in `bank` is through in this cycle.
    fault : the vector would be written beyond the activation memory; it is not.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        tile = output_tile(params)
        super().__init__({
            "computed": In(2), "tile": In(tile).array(2),
            "read": Out(1), "address": Out(range(params.output_words)),
            "low": Out(tile["low"].shape), "high": Out(tile["high"].shape),
            "flush": In(1), "write": Out(1), "line": Out(LINE_BITS),
            "draining": Out(1), "written": Out(1), "bank": Out(1), "fault": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        tile = Signal(output_tile(self.params))
        left = Signal(16)  # words
        in_row = Signal(16)  # lines of the row that are written
        row = Signal(LINE_BITS)  # first line of the row
        flushing = Signal(range(Writeback.LATENCY + 1))
        next_row = Signal(LINE_BITS)
        beyond = Signal()
        m.d.comb += [
            tile.eq(Mux(self.bank, self.tile[1], self.tile[0])),
            self.low.eq(tile.low), self.high.eq(tile.high),
            next_row.eq(row + tile.row_pitch),
            beyond.eq(self.line >= self.params.act_lines),
            self.write.eq(self.flush & ~beyond), self.fault.eq(self.flush & beyond),
        ]  # fmt: skip
        with m.If(self.flush):
            with m.If(in_row + 1 == tile.row_lines):
                m.d.sync += [in_row.eq(0), row.eq(next_row), self.line.eq(next_row)]
            with m.Else():
                m.d.sync += [in_row.eq(in_row + 1), self.line.eq(self.line + 1)]

        with m.FSM():
            with m.State("Idle"):
                with m.If(self.computed.bit_select(self.bank, 1)):
                    m.d.sync += [
                        self.address.eq(tile.outputs), left.eq(tile.words), in_row.eq(0), row.eq(tile.destination),
                        self.line.eq(tile.destination), self.draining.eq(1),
                    ]  # fmt: skip
                    m.next = "Read"
            with m.State("Read"):
                m.d.comb += self.read.eq(1)
                m.d.sync += [self.address.eq(self.address + 1), left.eq(left - 1)]
                with m.If(left == 1):
                    m.d.sync += flushing.eq(Writeback.LATENCY - 1)
                    m.next = "Flush"
            with m.State("Flush"):
                m.d.sync += flushing.eq(flushing - 1)
                with m.If(flushing == 0):
                    m.d.comb += self.written.eq(1)
                    m.d.sync += [self.bank.eq(~self.bank), self.draining.eq(0)]
                    m.next = "Idle"
        return m
