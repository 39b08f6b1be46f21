"""Maps off chip: what streams in and out, and the rows of a ring."""

from __future__ import annotations

from typing import Any

from amaranth import Mux, Signal, signed
from amaranth.lib import data

from hw.params import Params
from hw.ring import Ring
from hw.stream_in import StreamIn
from hw.stream_out import StreamOut
from hw.streams import ring_job
from sim.formal.claim import INDUCTION, Claim
from sim.formal.follow import follow
from sim.formal.planted import planted
from sim.formal.sheet import Sheet

__all__ = ["CLAIMS"]

PARAMS = Params(
    pes=16, rows=2, weight_words=2, pointer_blocks=4, act_lines=6, output_words=2, codebooks=1, descriptors=2, tables=0,
)  # fmt: skip


def _stream_in(s: Sheet, kind: Any) -> Any:
    """Layers one behind the other, also given up; the port has beats at any time."""
    dut = s.add(kind(PARAMS), built=True)
    s.steady(dut.i.valid, dut.i.ready, dut.i.payload, "port", given=True)
    s.given(~(dut.start & dut.active))
    return dut


def in_order(s: Sheet, kind: Any) -> None:
    """What is taken is written."""
    dut = _stream_in(s, kind)
    port, wrote = dut.i, dut.w_en | dut.fault
    follow(s, port.valid & port.ready, wrote, port.payload, dut.w_data, most=2)
    s.must(~(wrote & ~dut.active), "nothing is written between layers")
    s.must(~(wrote & dut.blocked), "nothing is written while somebody else writes")
    s.must(~s.past(dut.stop) | ~dut.active, "a layer that is given up is given up at once")
    s.reach(port.valid & ~port.ready & dut.active, "beats wait")


def in_rows(s: Sheet, kind: Any) -> None:
    """Rows, counted by the vectors that are written."""
    dut = _stream_in(s, kind)
    m, job, inside, wrote = s.m, dut.job, Signal(24), dut.w_en | dut.fault
    length, count, last = Signal(24), Signal(32), Signal()
    m.d.comb += last.eq(inside + 1 == length)
    with m.If(wrote):
        m.d.sync += inside.eq(Mux(last, 0, inside + 1))
        with m.If(last):
            m.d.sync += count.eq(count + 1)
    with m.If(dut.start):
        m.d.sync += [length.eq(job.row), inside.eq(0), count.eq(0)]
    s.must(~dut.active | (dut.received == count), "a row counts when its last vector is written")
    s.must(~dut.active | (s.inner("column") == inside), "inside: vectors of the row")
    held = data.View(ring_job(PARAMS), s.inner("job"))
    s.must(~dut.active | (held.row == length), "inside: vectors of a row")
    limit, unlimited = Signal(32), Signal()
    with m.If(dut.move):
        m.d.sync += limit.eq(dut.limit)
    with m.If(dut.finish):
        m.d.sync += unlimited.eq(1)
    with m.If(dut.start):
        m.d.sync += unlimited.eq(0)
    s.must(s.inner("limit") == limit, "inside: the limit")
    s.must(s.inner("unlimited") == unlimited, "inside: no limit any more")
    s.must(~(wrote & ~unlimited) | (count != limit), "no vector of the row at the limit is written until it moves")
    s.reach(wrote & (count == 2) & (length == 2), "a third row is written")
    s.reach(dut.active & dut.i.valid & ~dut.i.ready & (count == limit) & ~unlimited, "beats wait for a row")


def _stream_out(s: Sheet, kind: Any) -> Any:
    """Rows of tiles of any number of lines; the other side takes a beat when it likes."""
    dut = s.add(kind(PARAMS), built=True)
    s.given(~(dut.start & (dut.active | dut.busy)))
    s.given(~(dut.stop & (dut.busy | dut.row_ends)))
    return dut


def out_order(s: Sheet, kind: Any) -> None:
    """The vectors of a line, of a bank that is chosen freely."""
    dut = _stream_out(s, kind)
    m, port, groups = s.m, dut.o, PARAMS.groups
    s.steady(port.valid, port.ready, port.p.data, "beats")
    bank, beat = s.constant(range(groups), "bank"), Signal(range(groups), name="number")
    sent = port.valid & port.ready
    with m.If(sent):
        m.d.sync += beat.eq(Mux(beat == groups - 1, 0, beat + 1))
    loaded, found = s.past(dut.r_en), Signal(len(dut.r_data[0]))
    m.d.comb += found.eq(dut.r_data[0])
    for n in range(1, groups):
        with m.If(bank == n):
            m.d.comb += found.eq(dut.r_data[n])
    follow(s, loaded, sent & (beat == bank), found, port.p.data, most=1)
    s.must(~(loaded & port.valid), "a line is read when the one before is sent")
    s.must(~loaded | (beat == 0), "and its first bank is the first that is sent")
    s.reach(sent & (beat == groups - 1) & s.past(sent), "a line is sent without a pause")


def out_rows(s: Sheet, kind: Any) -> None:
    """One is read when it is written, and counts in the ring until it is sent."""
    dut = _stream_out(s, kind)
    held, complete, sent = Signal(16), Signal(16), s.inner("sent")
    s.m.d.sync += [
        complete.eq(complete + dut.row_ends - sent), held.eq(Mux(dut.stop, 0, held + dut.row_begins - sent)),
    ]  # fmt: skip
    s.given(complete < 1000)
    s.must(s.inner("held") == held, "inside: rows that are begun and not sent")
    s.must(s.inner("written") == complete, "inside: rows that are written")
    s.must(dut.busy == (complete != 0), "`busy` while a row is written and not sent")
    s.must(~dut.r_en | dut.busy, "only rows that are written are read")
    s.must(~dut.o.valid | dut.busy, "only rows that are written are sent")
    s.must(~s.past(dut.r_en) | dut.busy, "inside: and so in between")
    s.must(~sent | (dut.o.valid & dut.o.ready), "a row is sent with a beat that is taken")
    s.reach(sent & (complete == 2), "a row is sent and another one is there")
    s.reach(dut.o.valid & dut.o.ready & dut.o.p.last, "the last beat of a layer")


def rows(s: Sheet, kind: Any) -> None:
    """Segments of a layer that streams in, sample after sample, layer after layer."""
    dut = s.add(kind(PARAMS), built=True)
    m, layer = s.m, dut.layer
    # What control keeps to: a descriptor stands from the cycle in which it arrives on, and is accepted when settled.
    s.given(dut.prepare | (layer.as_value() == s.past(layer.as_value())))
    s.given(dut.prepare | (dut.y == s.past(dut.y)))
    fresh = Signal()  # nothing was accepted since the descriptor arrived that ends a sample or a layer
    ends = dut.sample_ends | dut.layer_ends
    with m.If(dut.prepare):
        m.d.sync += fresh.eq(1)
    with m.Elif(ends):
        m.d.sync += fresh.eq(0)
    s.given(~(ends & ~(fresh & dut.settled & ~dut.prepare)))
    s.given(~dut.layer_ends | dut.sample_ends)
    s.given((layer.height < 256) & (layer.ring_rows < 256) & (layer.reach < 256) & (dut.y < 256) & (dut.y >= -256))

    # The definition: row y of sample b is row b * height + y.
    height, above = Signal(16), Signal(32)
    with m.If(dut.prepare & layer.ring):
        m.d.sync += height.eq(layer.height)
    # All segments of a layer that stream in have one height.
    s.given(~(dut.prepare & layer.ring) | (layer.height == height) | (above == 0))
    with m.If(dut.sample_ends):
        m.d.sync += above.eq(Mux(dut.layer_ends, 0, above + height))
    s.given(above < (1 << 31))
    behind = Signal(signed(18))
    first, need = Signal(16), Signal(32)
    m.d.comb += behind.eq(dut.y + layer.reach)
    m.d.comb += first.eq(Mux(dut.y < 0, 0, Mux(dut.y > height, height, dut.y)))
    m.d.comb += need.eq(above + Mux(behind < 0, 0, Mux(behind > height, height, behind)))
    ready = dut.settled & fresh & layer.ring & ~dut.prepare
    s.must(
        ~ready | (dut.there == (s.past(dut.enable) & (s.past(dut.received) >= need))),
        "a window is there when all its rows of the map have come, and not before",
    )
    s.must(
        ~ready | (dut.limit == (above + first + layer.ring_rows)[:32]), "rows before the window are let go, no other"
    )
    held = Signal(32)
    with m.If(dut.move):
        m.d.sync += held.eq(dut.limit)
    s.must(~ready | s.past(dut.move) | (dut.never == (need > held)), "a window that can never come is said")
    s.must(s.inner("above") == above, "inside: rows of the samples before")
    s.must(s.inner("height") == height, "inside: rows of a sample")
    s.must(s.inner("held") == held, "inside: the limit that holds")
    s.reach(ready & dut.there & (above == 6) & (dut.y < 0), "a window above the third sample")
    s.reach(ready & dut.never, "rows that never come")


CLAIMS = (
    Claim(
        "stream-in-order",
        "StreamIn",
        "Each vector that the port takes is written once, in order, unchanged, while nobody else writes.",
        in_order,
        StreamIn,
        {
            "a vector is written again": lambda: planted(
                StreamIn, "skid.o.ready.eq(go)", "skid.o.ready.eq(go & (column != 1))"
            ),
            "a vector is lost while others write": lambda: planted(
                StreamIn, "skid.o.ready.eq(go)", "skid.o.ready.eq(go | (self.active & self.blocked))"
            ),
            "written over write-back": lambda: planted(StreamIn, " & ~self.blocked", ""),
        },
        narrow={"ACT_BITS": 1},
        bug_depth=14,
        cover_depth=10,
    ),
    Claim(
        "stream-in-rows",
        "StreamIn",
        "A row counts as received when its last vector is written; no vector of the row at the limit is written.",
        in_rows,
        StreamIn,
        {
            "the limit is not looked at": lambda: planted(StreamIn, "(unlimited | (self.received != limit))", "1"),
            "a row counts with its second vector": lambda: planted(
                StreamIn, "m.If(column + 1 == job.row)", "m.If((column + 1 == job.row) | (column == 1))"
            ),
            "the limit of the layer before": lambda: planted(StreamIn, "unlimited.eq(0), job", "job"),
        },
        narrow={"ACT_BITS": 1},
        engine=INDUCTION,
        depth=3,
        bug_depth=14,
        cover_depth=14,
    ),
    Claim(
        "stream-out-order",
        "StreamOut",
        "Each vector of each line that is read is sent once, in the order of the banks, unchanged, and stands until it "
        "is taken.",
        out_order,
        StreamOut,
        {
            "a beat is changed while it waits": lambda: planted(
                StreamOut, "with m.If(self.o.ready):", "with m.If(self.o.ready | (left == 3)):"
            ),
            "the last bank is left out": lambda: planted(
                StreamOut, "with m.If(beat == groups - 1):", "with m.If(beat == groups - 2):"
            ),
            "a line is taken a cycle early": lambda: planted(
                StreamOut,
                'm.d.sync += line.eq(line + 1)\n            m.next = "Load"',
                'm.d.sync += [line.eq(line + 1), beats.eq(Cat(self.r_data)), beat.eq(0)]\n            m.next = "Send"',
            ),
        },
        narrow={"ACT_BITS": 1},
        bug_depth=16,
        cover_depth=16,
    ),
    Claim(
        "stream-out-rows",
        "StreamOut",
        "A row of tiles is read and sent only when it is written, and counts in the ring until its last beat is taken.",
        out_rows,
        StreamOut,
        {
            "a row is sent before it is written": lambda: planted(
                StreamOut, "with m.If(self.busy):", "with m.If(held != 0):"
            ),
            "a row that is sent stays": lambda: planted(StreamOut, "self.row_ends - sent", "self.row_ends"),
            "a row counts as sent while its last beat waits": lambda: planted(
                StreamOut, "with m.If(self.o.ready):", "with m.If(1):"
            ),
        },
        narrow={"ACT_BITS": 1},
        engine=INDUCTION,
        depth=3,
        bug_depth=16,
        cover_depth=20,
    ),
    Claim(
        "ring-rows",
        "Ring",
        "A segment waits for exactly the rows of its window, counted on over the samples, and lets go exactly those "
        "before it; a window that can never come is said.",
        rows,
        Ring,
        {
            "a row too few": lambda: planted(Ring, "self.received >= need", "self.received + 1 >= need"),
            "rows behind the map are waited for": lambda: planted(
                Ring, "Mux(end > height, next_above, above + end)", "above + end"
            ),
            "a row too many is let go": lambda: planted(Ring, "keep + layer.ring_rows", "keep + layer.ring_rows + 1"),
            "samples in the same rows": lambda: planted(Ring, "above.eq(next_above)", "above.eq(above)"),
            "settled a cycle early": lambda: planted(Ring, "age == self.SETTLES - 1", "age >= self.SETTLES - 2"),
        },
        engine=INDUCTION,
        depth=7,
        bug_depth=14,
        cover_depth=20,
    ),
)
