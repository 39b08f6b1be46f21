"""Windows: every address, pixel and pointer block by its place in the window."""

from __future__ import annotations

from typing import Any

from amaranth import Mux, Signal, Value, signed
from amaranth.lib import data

from hw.params import Params
from hw.streams import VECTOR_ADDRESS_BITS, scan_request
from hw.window import POINTER_WALK_BITS, Window
from sim.formal.claim import INDUCTION, Claim
from sim.formal.planted import planted
from sim.formal.sheet import Sheet

__all__ = ["CLAIMS"]

PARAMS = Params(
    pes=1, rows=2, weight_words=2, pointer_blocks=2, act_lines=2, output_words=2, codebooks=1, descriptors=2, tables=0,
    elementwise=False, refill=False,
)  # fmt: skip


def walk(s: Sheet, kind: Any) -> None:
    """A window of any size and pitches, also in a ring of rows, against three counters of the proof's own.

    What the counters are multiplied by is added up: `down` is row times pitch, `across` column times pitch.
    """
    dut = s.add(kind(PARAMS), built=True)
    m, ask = s.m, dut.request
    s.given(~(dut.start & dut.valid) & ~(dut.go & ~dut.valid))
    s.given(~dut.start | ((ask.vectors != 0) & (ask.wx != 0) & (ask.wy != 0)))
    s.given(
        ~dut.start | ~ask.ring | ((ask.place < ask.edge + ask.dy) & (ask.edge + ask.dy < 1 << 16))
    )  # rows of the ring
    asked = Signal(scan_request(PARAMS))
    row, column, vector = Signal(16), Signal(16), Signal(16)
    down, across = Signal(VECTOR_ADDRESS_BITS), Signal(VECTOR_ADDRESS_BITS)
    blocks = Signal(POINTER_WALK_BITS)  # vectors of all positions before
    y, x, place = Signal(signed(34)), Signal(signed(34)), Signal(17)
    inside, ends_position, ends_row, ends = Signal(), Signal(), Signal(), Signal()
    rows = Signal(17)
    m.d.comb += [
        inside.eq((y >= 0) & (y < asked.height) & (x >= 0) & (x < asked.width)),
        ends_position.eq(~inside | (vector == asked.vectors - 1)), ends_row.eq(column == asked.wx - 1),
        ends.eq(ends_position & ends_row & (row == asked.wy - 1)), rows.eq(asked.edge + asked.dy),
    ]  # fmt: skip
    # Rows and columns of pixels are numbers of 17 bits.
    s.given((y < 1 << 16) & (x < 1 << 16))
    with m.If(dut.go):
        m.d.sync += vector.eq(vector + 1)
        with m.If(ends_position):
            m.d.sync += [vector.eq(0), column.eq(column + 1), blocks.eq(blocks + asked.vectors)]
            m.d.sync += [across.eq(across + asked.position_pitch), x.eq(x + asked.dx)]
            with m.If(ends_row):
                beyond = place + asked.dy >= rows
                m.d.sync += [column.eq(0), across.eq(0), x.eq(asked.x), row.eq(row + 1), y.eq(y + asked.dy)]
                m.d.sync += place.eq(place + asked.dy - Mux(beyond, rows, 0))
                m.d.sync += down.eq(down + Mux(asked.ring & beyond, asked.wrap_pitch, asked.window_pitch))
    with m.If(dut.start):
        m.d.sync += [asked.eq(ask), y.eq(ask.y), x.eq(ask.x), place.eq(ask.place)]
        m.d.sync += [each.eq(0) for each in (row, column, vector, down, across, blocks)]
    runs = Signal()
    m.d.sync += runs.eq(dut.start | (runs & ~(dut.go & ends)))
    v = dut.valid
    s.must(v == runs, "a window ends with its last vector")
    s.must(~v | (dut.inside == inside), "positions outside the map are known")
    s.must(~v | (dut.last == ends), "the last vector is known")
    address, pointers = Signal(VECTOR_ADDRESS_BITS), Signal(POINTER_WALK_BITS)
    m.d.comb += [
        address.eq(asked.address + down + across + vector),
        pointers.eq(asked.pointers + Mux(asked.uniform, 0, blocks) + vector),
    ]
    s.must(~(v & inside) | (dut.address == address), "address: row, column and vector times their pitches")
    s.must(~v | (dut.pointers == pointers), "pointer block: the vector's place in the window")
    s.must(~v | ((dut.dense == asked.dense) & (dut.closes == asked.closes) & (dut.tag == asked.tag)), "of its request")
    # What the induction needs to know.
    held = data.View(scan_request(PARAMS), s.inner("held"))
    start, position = Signal(VECTOR_ADDRESS_BITS), Signal(VECTOR_ADDRESS_BITS)
    m.d.comb += [start.eq(asked.address + down), position.eq(start + across)]
    s.must(~v | ((held.address == start) & (s.inner("position") == position)), "inside: beginnings of row and position")
    s.must(
        ~v | ((s.inner("row") == (row + 1)[:16]) & (s.inner("column") == (column + 1)[:16])),
        "inside: place in the window",
    )
    s.must(~v | ((s.inner("vector") == vector + 1) & (vector < asked.vectors)), "inside: place in the position")
    s.must(~v | inside | (vector == 0), "inside: a position outside the map is one step")
    reached = Signal(VECTOR_ADDRESS_BITS)
    m.d.comb += reached.eq(position + vector)
    s.must(~v | (dut.address == reached), "inside: address, also outside the map")
    s.must(~v | ((s.inner("y") == y) & (s.inner("x") == x)), "inside: pixel")
    s.must(~v | (s.inner("inside_y") == ((y >= 0) & (y < asked.height))), "inside: row of the map")
    s.must(~v | (s.inner("inside_x") == ((x >= 0) & (x < asked.width))), "inside: column of the map")
    s.must(
        ~v | (s.inner("begins_inside") == ((asked.x >= 0) & (asked.x < asked.width))), "inside: first column of a row"
    )
    s.must(~(v & asked.ring) | ((held.place == place) & (place < rows) & (rows < 1 << 16)), "inside: place in the ring")
    s.must(~v | ((asked.vectors != 0) & (asked.wx != 0) & (asked.wy != 0)), "inside: a window is not empty")
    for name in ("vectors", "dy", "dx", "wy", "wx", "height", "width", "position_pitch", "window_pitch", "x", "dense",
                 "closes", "tag", "ring", "edge", "wrap_pitch", "uniform", "pointers"):  # fmt: skip
        mine, theirs = (each[name] for each in (held, asked))
        s.must(~v | (Value.cast(mine) == Value.cast(theirs)), f"inside: {name}")
    s.reach(
        v & dut.last & inside & (row == 1) & (column == 1) & (vector == 1) & (asked.dx == 2),
        "2 x 2 positions of 2 vectors",
    )
    s.reach(v & ~inside & (row == 1) & (asked.height == 1), "a position below the map")
    s.reach(
        v & asked.ring & (row == 2) & (place == 0) & (asked.dy == 1), "a window goes on in the first row of the ring"
    )


CLAIMS = (
    Claim(
        "window-addresses",
        "Window",
        "Each vector's address, pixel, pointer block and place are the window's by row, column "
        "and number, for all sizes and pitches, also in a ring.",
        walk,
        Window,
        {
            "a row begins where the last one ended": lambda: planted(
                Window, "next_row.eq(held.address + held.window_pitch)", "next_row.eq(position + held.window_pitch)"
            ),
            "pointer blocks of outside positions are not passed over": lambda: planted(
                Window, "Mux(self.inside, 1, held.vectors)", "1"
            ),
            "the border is one pixel off": lambda: planted(
                Window, "_below(next_x, held.width)", "_below(next_x - 1, held.width)"
            ),
            "the ring is one row larger": lambda: planted(Window, "held.place >= held.edge", "held.place > held.edge"),
            "a window is one row shorter": lambda: planted(
                Window, "window_ends.eq(row == held.wy)", "window_ends.eq(row + 1 == held.wy)"
            ),
        },
        engine=INDUCTION,
        depth=2,
        bug_depth=12,
        cover_depth=12,
    ),
)
