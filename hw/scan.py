"""Activation scan: reads a layer's input from the activation memory and finds its nonzero columns."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.layouts import ACT_BITS, descriptor
from hw.nonzero import LeadingNonzero
from hw.params import LANES, Params
from hw.streams import broadcast, scan_request, tag

__all__ = ["Scan"]


class Scan(wiring.Component):
    """Read activation vectors in order, ahead of the detector by one, and stream the nonzero columns.

    Activation vector `w` lies in bank ``w % groups`` at line ``source + w // groups``. It is read only when its line is
    there: `open` says that all are, otherwise the lines before `limit`. A tile is read only when it is loaded.

    Timing: the first activation vector is requested 1 cycle after ``start``; its first nonzero column is valid 2 cycles
    after the request. One nonzero a cycle, one cycle for an activation vector of zeros, none between activation
    vectors.

    Members
    -------
    start, request : begin a layer (only while idle, that is after ``finished``).
    open, limit : which lines of the activation memory may be read.
    loaded : for each tile buffer, its weights are there. waiting : the tile to scan is not.
    r_en, r_addr, r_data : read port of all activation banks.
    o : nonzero columns.
    finished, skipped : see `LeadingNonzero`.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self.detector = LeadingNonzero(params)
        super().__init__({
            "start": In(1), "request": In(scan_request(params)),
            "open": In(1), "limit": In(16),
            **({"loaded": In(2), "waiting": Out(1)} if params.refill else {}),
            "r_en": Out(1), "r_addr": Out(16), "r_data": In(ACT_BITS * LANES).array(params.groups),
            "o": Out(stream.Signature(broadcast(params))),
            "finished": Out(1), "skipped": Out(range(LANES + 1)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.detector = detector = self.detector
        connect(m, detector.o, flipped(self.o))
        m.d.comb += [self.finished.eq(detector.finished), self.skipped.eq(detector.skipped)]

        address_bits = (self.params.groups - 1).bit_length()
        active = Signal()
        number = Signal(16)
        act_vectors = Signal(16)
        source = Signal(16)
        block = Signal(descriptor(self.params)["pointers"].width)
        belongs = Signal(tag(self.params))
        fold = Signal()
        address = Signal(16)
        waiting = Signal()
        m.d.comb += address.eq(source + (number >> address_bits))
        if self.params.refill:
            m.d.comb += [waiting.eq(active & (belongs.tile & ~self.loaded).any()), self.waiting.eq(waiting)]

        # The activation vector that stands at the output of the memory.
        read = Signal()
        at = Signal(data.StructLayout({"group": max(1, address_bits), "block": 16, "half": 1, "last": 1}))
        last = Signal()
        m.d.comb += [
            last.eq(number + 1 == act_vectors),
            self.r_en.eq(active & ~waiting & (~read | detector.i.ready) & (self.open | (address < self.limit))),
            self.r_addr.eq(address),
            detector.i.valid.eq(read),
            detector.i.p.block.eq(at.block), detector.i.p.tag.eq(belongs), detector.i.p.last.eq(at.last),
        ]  # fmt: skip
        acts = self.r_data[0] if self.params.groups == 1 else Signal(ACT_BITS * LANES)
        if self.params.groups > 1:
            with m.Switch(at.group):
                for group in range(self.params.groups):
                    with m.Case(group):
                        m.d.comb += acts.eq(self.r_data[group])
        m.d.comb += detector.i.p.acts.eq(acts)

        with m.If(self.r_en):
            m.d.sync += [
                number.eq(number + 1), block.eq(block + (~fold | number[0])), active.eq(~last),
                at.group.eq(number[:address_bits]), at.block.eq(block), at.half.eq(number[0]), at.last.eq(last),
            ]  # fmt: skip
        m.d.sync += read.eq(Mux(self.r_en, 1, read & ~detector.i.ready))
        with m.If(self.start):
            m.d.sync += [
                active.eq(1), number.eq(0), act_vectors.eq(self.request.act_vectors), source.eq(self.request.source),
                block.eq(self.request.pointers), belongs.eq(self.request.tag),
            ]  # fmt: skip
        if self.params.fold > 1:
            m.d.comb += [detector.i.p.fold.eq(fold), detector.i.p.half.eq(at.half)]
            with m.If(self.start):
                m.d.sync += fold.eq(self.request.fold)
        return m
