"""Expander: from a vector to its columns, one a cycle."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import ACT_BITS
from hw.params import LANES, Params
from hw.streams import column, job

__all__ = ["Expander"]


def _offsets(lengths: list[Value]) -> list[Value]:
    """Where each of eight columns starts behind the first one: two additions deep."""
    pair, middle, right = (lengths[n] + lengths[n + 1] for n in (0, 2, 4))
    four = pair + middle
    return [
        Const(0, 1), lengths[0], pair, lengths[2] + pair, four, lengths[4] + four, right + four,
        right + (lengths[6] + four),
    ]  # fmt: skip


def _lowest(mask: Value) -> Value:
    """The lowest one of a mask, one-hot."""
    return Cat(mask[n] & ~mask[:n].any() for n in range(len(mask)))


class Expander(wiring.Component):
    """Hand over the columns of a vector that have work, lowest lane first.

    The entries of a vector's columns lie one behind the other, so a column starts at ``base`` plus the lengths of all
    lower columns, whether these have work or not. The eight sums of lengths are worked out when a vector is taken and
    stand in registers, beside the base, the lane that is next (one-hot) and the lanes after it.

    Columns pass through a buffer of two to weight read, so that no path leads from there to the queue: a column
    enters the buffer while at most one stands in it. One column a cycle, without a bubble between vectors.

    Timing: vector j is taken in X_j, its columns enter the buffer in N_k and leave it in J_k (k counts all columns):
    X_j = max(valid, N of the last column of vector j-1); the first column of a vector has
    N_k = max(X_j + 1, N_{k-1} + 1, J_{k-2} + 1), the others N_k = max(N_{k-1} + 1, J_{k-2} + 1); J_k >= N_k + 1.
    So a column is valid `LATENCY` cycles after its vector is taken, at the earliest.

    Members
    -------
    i : vectors (at least one bit of ``mask`` is set). With `Params.near`, ``acts`` are those of the vector taken
        last.
    o : columns, with the number of entries in the first weight word (``take``); ``last`` of its vector.
    """

    LATENCY = 2

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({"i": In(stream.Signature(job(params))), "o": Out(stream.Signature(column(params)))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        params = self.params

        # The vector whose columns are handed over.
        valid = Signal()
        lanes = Signal(LANES)  # the lane of the next column, one-hot
        after = Signal(LANES)  # the lanes of those after it
        ending = Signal()  # there are none; beside `after`, since what takes the next vector leads to all of the queue
        shape = self.i.payload.shape()
        kept = ("base", "lengths", "tag", *(() if params.near else ("acts",)))
        vector = Signal(data.StructLayout({name: shape[name].shape for name in kept}), reset_less=True)
        acts = self.i.p.acts if params.near else vector.acts
        bits = min(params.count_bits + 3, params.entry_address_bits)  # of seven lengths
        offsets = [Signal(bits, name=f"offset_{n}", reset_less=True) for n in range(LANES)]

        # One column of it.
        found = data.StructLayout({
            "start": params.entry_address_bits, "count": params.count_bits, "act": ACT_BITS, "last": 1,
            "tag": vector.tag.shape(),
        })  # fmt: skip
        now = Signal(found)
        first = Signal(found, reset_less=True)
        second = Signal(found, reset_less=True)
        second_valid = Signal()
        pushed, popped = Signal(), Signal()

        def pick(values: list[Value]) -> Value:
            """The value of the lane that is next."""
            terms = [value & lanes[n].replicate(len(value)) for n, value in enumerate(values)]
            while len(terms) > 1:
                terms = [a | b for a, b in zip(terms[::2], terms[1::2], strict=True)]
            return terms[0]

        m.d.comb += [
            now.start.eq(vector.base + pick(list(offsets))),
            now.count.eq(pick([vector.lengths[n] for n in range(LANES)])),
            now.act.eq(pick([acts[n] for n in range(LANES)])), now.last.eq(ending), now.tag.eq(vector.tag),
            pushed.eq(valid & ~second_valid), popped.eq(self.o.valid & self.o.ready),
        ]  # fmt: skip

        def next_lanes(mask: Value) -> None:
            """Split off the lowest lane of a mask."""
            rest = mask & ~_lowest(mask)
            m.d.sync += [lanes.eq(_lowest(mask)), after.eq(rest), ending.eq(rest == 0)]

        m.d.comb += self.i.ready.eq(~valid | (pushed & ending))
        with m.If(self.i.ready):
            m.d.sync += [valid.eq(self.i.valid), *(vector[name].eq(self.i.p[name]) for name in kept)]
            lengths = [self.i.p.lengths[n] for n in range(LANES)]
            m.d.sync += [offset.eq(at) for offset, at in zip(offsets, _offsets(lengths), strict=True)]
            next_lanes(self.i.p.mask)
        with m.Elif(pushed):
            next_lanes(after)

        # A buffer of two: `first` is offered, `second` waits behind it.
        with m.If(pushed):
            m.d.sync += second.eq(now)
        with m.If(~self.o.valid | popped):
            m.d.sync += [self.o.valid.eq(second_valid | pushed), first.eq(Mux(second_valid, second, now))]
            m.d.sync += second_valid.eq(0)
        with m.Elif(pushed):
            m.d.sync += second_valid.eq(1)

        # How many entries the first word gives is worked out here, off the issue loop of weight read.
        lane = first.start[:3]
        m.d.comb += [
            self.o.p.word.eq(first.start[3:]), self.o.p.lane.eq(lane), self.o.p.count.eq(first.count),
            self.o.p.take.eq(Mux(first.count + lane > LANES, LANES - lane, first.count)),
            self.o.p.last.eq(first.last), self.o.p.act.eq(first.act), self.o.p.tag.eq(first.tag),
        ]  # fmt: skip
        return m
