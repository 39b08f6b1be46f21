"""Every run ends: the steps of a run only lead on, for every list of descriptors."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Const, Mux, Signal, Value
from amaranth.lib import data

from hw.descriptor_check import DescriptorCheck
from hw.layouts import Error, Op, descriptor, loop
from hw.params import Params
from hw.tile_loop import TileLoop
from sim.formal.claim import INDUCTION, Claim
from sim.formal.planted import planted
from sim.formal.sheet import Sheet

__all__ = ["CLAIMS"]

WORDS = 4
PARAMS = Params(
    pes=1, rows=2, weight_words=2, pointer_blocks=2, act_lines=2, output_words=2, codebooks=1, descriptors=WORDS,
    tables=0, streams=False,
)  # fmt: skip


def rises(s: Sheet, kind: Any) -> None:
    """Any descriptor memory, any batch; steps in any cycle that control could make them in."""
    m, of = s.m, descriptor(PARAMS)
    check = DescriptorCheck(PARAMS)
    s.add(check, "check", driven=("layer", "index", "batch", "floor", "begins", "segment"))
    dut = s.add(kind(PARAMS), driven=("layer", "batch", "prepare", "accept", "advance", "start", "first"), built=True)
    words = [s.constant(len(check.layer.as_value()), f"word_{n}") for n in range(WORDS)]
    batch, now = s.constant(16, "batch"), Signal(len(words[0]))
    start, prepare, accept = (s.free(1, name) for name in ("start", "prepare", "accept"))
    op = data.View(of, now).op
    is_segment, is_loop = Value.cast(op) == Op.SEGMENT.value, Value.cast(op) == Op.LOOP.value
    m.d.comb += [
        now.eq(Array(words)[dut.index[:2]]), dut.layer.eq(now), dut.batch.eq(batch), dut.start.eq(start),
        dut.first.eq(s.free(16, "first")), dut.prepare.eq(prepare), dut.accept.eq(accept & is_segment),
        dut.advance.eq(accept & ~is_segment),
        check.layer.eq(now), check.index.eq(dut.index), check.batch.eq(batch), check.floor.eq(dut.floor),
        check.begins.eq(dut.opens), check.segment.eq(dut.segment),
    ]  # fmt: skip
    # What control does (`control-illegal`, `control-waits`): each descriptor is prepared, then accepted if it is legal.
    prepared = Signal()
    m.d.sync += prepared.eq((prepared | prepare) & ~accept & ~start)
    s.given(~(prepare & (prepared | accept | start)) & ~(accept & start))
    s.given(~accept | (prepared & (check.error == Error.NONE) & (Value.cast(op) != Op.END.value)))

    tx, ty, sample, head, done = (s.inner(name) for name in ("tx", "ty", "sample", "head", "round_"))
    place = Cat(dut.index, tx, ty, sample, head, done, dut.floor)  # the highest ones last
    s.must(
        ~s.past(accept) | (place > s.past(place)),
        "(floor, round, layer, sample, row of tiles, tile, segment) rises with every step",
    )

    s.must(~s.past(start) | (dut.following == dut.index), "a run begins with its first descriptor")

    # What must be known of the states. Of each descriptor: the last one of its layer, and the loop that it stands in.
    layers = [data.View(of, word) for word in words]
    loops = [data.View(loop(PARAMS), word) for word in words]
    kinds = [Value.cast(layer.op) for layer in layers]
    wide, high, times = Signal(16), Signal(16), Signal(16)  # tiles of the layer, rounds of the loop; 0 if there is none
    for at, value, size in ((head, wide, "tiles_x"), (head, high, "tiles_y")):
        found: Value = Const(0, 16)
        per = [Const(0, 16)] * WORDS
        for n in reversed(range(WORDS)):
            behind = found
            found = Mux(kinds[n] == Op.SEGMENT.value, Mux(layers[n].last, layers[n][size], behind), 0)
            per[n] = found
        m.d.comb += value.eq(Mux(at < WORDS, Array(per)[at[:2]], 0))
    found, per = Const(0, 16), [Const(0, 16)] * WORDS
    for n in reversed(range(WORDS)):
        found = Mux(kinds[n] == Op.LOOP.value, loops[n].count, found)
        per[n] = found
    m.d.comb += times.eq(Mux(dut.index < WORDS, Array(per)[dut.index[:2]], 0))
    for n in range(WORDS):
        s.must(
            ~((dut.floor <= n) & (n < dut.index)) | (kinds[n] != Op.LOOP.value),
            f"inside: no loop between floor and descriptor ({n})",
        )
        in_tile = (head <= n) & (n < dut.index)
        s.must(
            ~in_tile | ((kinds[n] == Op.SEGMENT.value) & ~layers[n].last),
            f"inside: what a tile has accepted are segments, and not its last ({n})",
        )
    s.must(dut.floor <= head, "inside: a layer begins behind the floor")
    s.must(head <= dut.index, "inside: a segment is none before its layer")
    s.must(dut.opens == (head == dut.index), "inside: a tile opens with the first segment of its layer")
    s.must((tx == 0) | (tx < wide), "inside: tiles of a row")
    s.must((ty == 0) | (ty < high), "inside: rows of tiles")
    s.must((sample == 0) | (sample < batch), "inside: samples")
    s.must((Cat(tx, ty, sample) == 0) | (wide != 0), "inside: a tile is one of a layer")
    s.must((done == 0) | (done < times), "inside: rounds")
    layer, ends = data.View(of, now), data.View(loop(PARAMS), now)
    column, row, last = tx + 1 == layer.tiles_x, ty + 1 == layer.tiles_y, sample + 1 == batch
    again = is_loop & (done + 1 != ends.count)
    following = Mux(is_segment & layer.last & ~(column & row & last), head, Mux(again, ends.first, dut.index + 1)[:16])
    closes = layer.last & column
    for name, value in (
        ("last_column", column), ("last_row", row), ("last_sample", last), ("row_closes", closes),
        ("sample_closes", closes & row), ("layer_closes", closes & row & last), ("is_loop", is_loop),
    ):  # fmt: skip
        s.must(~prepared | (s.inner(name) == value), f"inside: {name} is of the descriptor that is prepared")
    s.must(~(prepared & is_loop) | (s.inner("goes_on") == again), "inside: so is whether a loop goes on")
    s.must(~prepared | (dut.following == following), "inside: so is the one that follows")
    s.reach(s.past(accept) & (done == 1) & (dut.index == 1), "a second round")
    s.reach(s.past(accept) & (sample == 1) & (tx == 1), "a tile of the second sample")


CLAIMS = (
    Claim(
        "steps-rise",
        "TileLoop",
        "Every step of a run leads on: (floor, round, layer, sample, row of tiles, tile, segment), compared from the "
        "left, rises with each, for any descriptors; so there are finitely many.",
        rises,
        TileLoop,
        {
            "a round is not counted": lambda: planted(TileLoop, "round_.eq(round_ + 1), ", ""),
            "a loop that has ended may be gone back to": lambda: planted(
                TileLoop, ", self.floor.eq(self.following)]", "]"
            ),
            "a tile is not counted": lambda: planted(TileLoop, "tx.eq(tx + 1)", "tx.eq(tx)"),
            "the last sample is run again": lambda: planted(
                TileLoop, "~(next_column & next_row & next_sample)", "~(next_column & next_row)"
            ),
            "the next layer begins with the first one": lambda: planted(
                TileLoop, "head.eq(self.index + 1)", "head.eq(head)"
            ),
        },
        narrow={"SEGMENTS": 2},
        engine=INDUCTION,
        depth=2,
        bug_depth=16,
        cover_depth=16,
    ),
)
