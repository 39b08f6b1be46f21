"""Scan: nothing lost or doubled, the right activations, and the lanes that are not zero."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Signal, Value
from amaranth.lib import data

import hw.scan
from hw.params import LANES, Params
from hw.scan import Scan
from hw.window import Window
from sim.formal.claim import Claim
from sim.formal.cut import free_block, replaced
from sim.formal.follow import follow
from sim.formal.planted import planted
from sim.formal.sheet import Sheet

__all__ = ["CLAIMS"]

PARAMS = Params(
    pes=16, rows=2, weight_words=2, pointer_blocks=2, act_lines=2, output_words=2, codebooks=1, descriptors=2, tables=0,
    elementwise=False, streams=False,
)  # fmt: skip


def vectors(s: Sheet, kind: Any) -> None:
    """Any window, over activation memories of any content that others read at any time."""
    with replaced(hw.scan, "Window", free_block(Window)):
        dut = s.add(kind(PARAMS), driven=("r_data",), built=True)
    m, o, window = s.m, dut.o, dut.window
    width, groups = len(dut.r_data[0]), PARAMS.groups
    banks = [[s.constant(width, f"line_{group}_{n}") for n in range(PARAMS.act_lines)] for group in range(groups)]
    for group, lines in enumerate(banks):
        word = Signal(width, name=f"word_{group}")
        with m.If(dut.claimed):
            m.d.sync += word.eq(s.free(width, "somebody_elses"))
        with m.Elif(dut.r_en):
            m.d.sync += word.eq(Array(lines)[dut.r_addr])
        m.d.comb += dut.r_data[group].eq(word)
    s.given(~window.inside | (window.address < groups * PARAMS.act_lines))
    s.given(window.pointers < PARAMS.pointer_blocks)
    s.given(~(dut.picks & dut.busy))  # the host reads while nothing runs
    go, leaves = window.go, dut.skipped | (o.valid & o.ready)
    acts = Signal(width)
    m.d.comb += acts.eq(Array([bank[n] for n in range(PARAMS.act_lines) for bank in banks])[window.address[:2]])
    told = Cat(window.pointers[: PARAMS.pointer_bits], window.tag, window.closes, window.last)
    shown = Cat(o.p.pointers, o.p.tag, dut.closes, dut.finished)
    one = follow(s, go, leaves, Cat(told, window.inside, window.dense, acts), shown, most=2)
    inside, dense, stored = one.kept[len(told)], one.kept[len(told) + 1], one.kept[len(told) + 2 :]
    lanes = data.View(data.ArrayLayout(width // LANES, LANES), stored)
    mask = Cat((Value.cast(lanes[n]).any() | dense) & inside for n in range(LANES))
    s.must(~go | window.valid, "a vector is taken only where there is one")
    s.must(~(go & window.inside) | ~dut.claimed, "nothing is read while another reads")
    s.must(~one.shown | (dut.skipped == ~mask.any()), "a vector without a lane is skipped, others are sent")
    s.must(~(one.shown & o.valid) | (o.p.mask == mask), "the mask names the lanes that are not zero")
    s.must(~(one.shown & o.valid) | (o.p.acts.as_value() == stored), "activations are those in memory")
    s.must(
        ~o.valid | ~s.past(o.valid & ~o.ready) | (o.payload.as_value() == s.past(o.payload)), "what is offered stays"
    )
    lost = Signal()  # the word of the chosen vector was lost before it moved on
    m.d.sync += lost.eq(s.past(go) & dut.claimed & dut.standing)
    s.reach(one.shown & o.valid & s.past(lost, 3), "one is sent although its word was lost")
    s.reach(one.shown & dut.skipped & inside, "one is skipped")


CLAIMS = (
    Claim(
        "scan-vectors",
        "Scan",
        "Each vector of a window is sent or skipped once, in order, with its activations, however "
        "often others read between; the mask names exactly the lanes that are not zero.",
        vectors,
        Scan,
        {
            "a lost word is not read again": lambda: planted(
                Scan, "lost.eq(self.claimed & read & at.inside & ~moves)", "lost.eq(0)"
            ),
            "the other bank": lambda: planted(Scan, "self.r_data[group]", "self.r_data[-1 - group]"),
            "positions outside are sent": lambda: planted(
                Scan, "(acts[lane].any() | at.dense) & at.inside", "acts[lane].any() | at.dense"
            ),
            "a vector waits without its place": lambda: planted(Scan, "free.eq(~read | moves)", "free.eq(1)"),
        },
        narrow={"ACT_BITS": 1},
        bug_depth=12,
        cover_depth=16,
    ),
)
