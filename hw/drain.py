"""Drain: what is written back, one after the other; walks the output table for each finished tile."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.function_table import FunctionTable
from hw.params import Params
from hw.streams import LINE_BITS, elementwise_job, output_tile
from hw.writeback import Writeback

__all__ = ["Drain"]


class Drain(wiring.Component):
    """Write the tiles back in the order in which they were accepted, each while the next is computed.

    With ``params.elementwise`` elementwise operations stand between them; of these, drain keeps the lines of the
    results, and `Elementwise` does what the output table does for a tile.

    One word of the output table a cycle, in all groups at once. The lines of a tile are written in rising order: rows
    of ``row_lines`` lines, ``row_pitch`` lines from the first of a row to the first of the next.

    Timing: the first word is addressed 1 cycle after ``computed`` is seen, then one a cycle; ``written`` comes
    ``Writeback.LATENCY`` cycles after the last one is addressed (with functions ``FunctionTable.LATENCY`` more), in the
    cycle in which what it flushes is written. ``computed`` of the next tile is seen 1 cycle after that at the earliest.
    The first tile of a row of tiles that streams out is seen only with ``room``.
    An operation begins (``start``) in the cycle in which a tile would be seen computed; it is written
    ``Writeback.LATENCY - Writeback.STEP_AHEAD`` cycles after `ends`, with functions as much longer.

    Members
    -------
    computed : for each bank, its tile's sums are complete (stays high until ``written``).
    tile : for each bank, where its outputs go and how.
    read, address : the word of the output table to take. now : what is written back.
    valid, operation, job : the first in the queue, if there is one: an elementwise operation or a tile.
    start : it is an operation, and begins. ends : its last product is stepped.
    flush : the groups hand out a vector in this cycle. write, line : it is written, there.
    draining : write-back is under way: all lines of the tile in `bank` before `line` are written.
    written, bank : the last word of the tile in `bank` is through in this cycle. through : of a tile or an operation.
    room : the ring of a result that streams out has place for another row of tiles. row_begins, row_ends : the first
        tile of a row is seen, the last one is written (only with ``params.streams``).
    fault : the vector would be written beyond the activation memory; it is not.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        tile = output_tile(params)
        operations = {
            "valid": In(1), "operation": In(1), "job": In(elementwise_job(params)), "start": Out(1), "ends": In(1),
        } if params.elementwise else {}  # fmt: skip
        if params.streams:
            operations |= {"room": In(1), "row_begins": Out(1), "row_ends": Out(1)}
        super().__init__({
            "computed": In(2), "tile": In(tile).array(2),
            "read": Out(1), "address": Out(range(params.output_words)),
            "now": Out(tile),
            "flush": In(1), "write": Out(1), "line": Out(LINE_BITS),
            "draining": Out(1), "written": Out(1), "through": Out(1), "bank": Out(1), "fault": Out(1), **operations,
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        tile = self.now
        left = Signal(16)  # words
        in_row = Signal(16)  # lines of the row that are written
        row = Signal(LINE_BITS)  # first line of the row
        flushing = Signal(range(Writeback.LATENCY + FunctionTable.LATENCY))
        after = Signal.like(flushing)  # cycles from the last word to the line
        seen = Signal()  # the tile is computed
        holds = Signal()  # there is no place for it
        next_row = Signal(LINE_BITS)
        beyond = Signal()
        m.d.comb += [
            tile.eq(Mux(self.bank, self.tile[1], self.tile[0])),
            next_row.eq(row + tile.row_pitch),
            beyond.eq(self.line >= self.params.act_lines),
            self.write.eq(self.flush & ~beyond), self.fault.eq(self.flush & beyond),
            after.eq(Writeback.LATENCY - 1 + Mux(tile.functions, FunctionTable.LATENCY, 0)),
            seen.eq(self.computed.bit_select(self.bank, 1) & ~holds),
        ]  # fmt: skip
        if self.params.streams:
            m.d.comb += [holds.eq(tile.row_begins & ~self.room), self.row_ends.eq(self.written & tile.row_ends)]
        if self.params.elementwise:
            self._operation(m)
            m.d.comb += seen.eq(self.valid & ~self.operation & self.computed.bit_select(self.bank, 1) & ~holds)
        with m.If(self.flush):
            with m.If(in_row + 1 == tile.row_lines):
                m.d.sync += [in_row.eq(0), row.eq(next_row), self.line.eq(next_row)]
            with m.Else():
                m.d.sync += [in_row.eq(in_row + 1), self.line.eq(self.line + 1)]

        with m.FSM():
            with m.State("Idle"):
                m.d.sync += [
                    self.address.eq(tile.outputs), left.eq(tile.words), in_row.eq(0), row.eq(tile.destination),
                    self.line.eq(tile.destination),
                ]  # fmt: skip
                with m.If(seen):
                    m.d.sync += self.draining.eq(1)
                    if self.params.streams:
                        m.d.comb += self.row_begins.eq(tile.row_begins)
                    m.next = "Read"
                if self.params.elementwise:
                    with m.Elif(self.valid & self.operation):
                        m.d.comb += self.start.eq(1)
                        m.next = "Operate"
            if self.params.elementwise:
                with m.State("Operate"):
                    with m.If(self.ends):
                        m.d.sync += flushing.eq(after - Writeback.STEP_AHEAD)
                        m.next = "Flush"
            with m.State("Read"):
                m.d.comb += self.read.eq(1)
                m.d.sync += [self.address.eq(self.address + 1), left.eq(left - 1)]
                with m.If(left == 1):
                    m.d.sync += flushing.eq(after)
                    m.next = "Flush"
            with m.State("Flush"):
                m.d.sync += flushing.eq(flushing - 1)
                with m.If(flushing == 0):
                    m.d.comb += [self.through.eq(1), self.written.eq(self.draining)]
                    m.d.sync += [self.bank.eq(self.bank ^ self.draining), self.draining.eq(0)]
                    m.next = "Idle"
        return m

    def _operation(self, m: Module) -> None:
        """An operation writes its lines as a tile does: a row for each sample."""
        job, now = self.job, self.now
        with m.If(self.valid & self.operation):
            m.d.comb += [
                now.destination.eq(job.result), now.row_lines.eq(job.lines), now.row_pitch.eq(job.frame),
                now.low.eq(job.low), now.high.eq(job.high), now.functions.eq(job.functions),
                now.function_1.eq(job.function_1),
            ]  # fmt: skip
