"""Banks: which tile each of the two accumulator banks holds, and how far it is."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.params import Params
from hw.streams import output_tile

__all__ = ["Banks"]


class Banks(wiring.Component):
    """A tile in a bank is open (its segments are scanned), then scanned, then computed, then written.

    Timing: a bank counts as computed (``finished``) 3 cycles after ``scanned`` at the earliest, and 1 cycle after all
    PEs show that they are done with it. It is free 1 cycle after ``written``.

    Members
    -------
    open, bank, tile, maximum : a tile begins in `bank`, what is known of it.
    scanned, scanned_bank : all vectors of the tile in this bank have left the scan.
    pe_busy : for each bank, a PE has work for it.
    written, written_bank : the tile in this bank is written back.
    pending : for each bank, it holds a tile. finished : for each bank, in this cycle its tile was found computed.
    computed : for each bank, its tile was found computed and is not yet written.
    tiles, maxima : what is known of the tile in each bank (`tiles` only while it is pending).
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({
            "open": In(1), "bank": In(1), "tile": In(output_tile(params)), "maximum": In(1),
            "scanned": In(1), "scanned_bank": In(1), "pe_busy": In(2), "written": In(1), "written_bank": In(1),
            "pending": Out(2), "finished": Out(2), "computed": Out(2),
            "tiles": Out(output_tile(params)).array(2), "maxima": Out(2),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # `scanned` reaches the PEs' busy flags 3 cycles later: broadcast register, count, busy register.
        scanned = [Signal(2, name=f"scanned_{n}") for n in range(3)]
        busy = Signal(2)
        m.d.comb += self.finished.eq(scanned[2] & ~busy & self.pending & ~self.computed)
        m.d.sync += [
            busy.eq(self.pe_busy), scanned[1].eq(scanned[0]), scanned[2].eq(scanned[1]),
            self.computed.eq(self.computed | self.finished),
        ]  # fmt: skip
        for n in range(2):
            with m.If(self.scanned & (self.scanned_bank == n)):
                m.d.sync += scanned[0][n].eq(1)
            with m.If(self.written & (self.written_bank == n)):
                m.d.sync += [self.pending[n].eq(0), self.computed[n].eq(0)]
            with m.If(self.open & (self.bank == n)):
                m.d.sync += [self.pending[n].eq(1), self.maxima[n].eq(self.maximum)]
                m.d.sync += [flags[n].eq(0) for flags in scanned]
            # Nobody looks at the tile of a free bank: what opens it next is taken in every cycle, and so in that one.
            with m.If(~self.pending[n]):
                m.d.sync += self.tiles[n].eq(self.tile)
        return m
