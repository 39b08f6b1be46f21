"""The activation queue, alone and behind the broadcast of the real core."""

from __future__ import annotations

from functools import partial
from typing import Any

from amaranth import Module, Signal
from amaranth.lib import data

import hw.core
import hw.pe
from hw.activation_queue import ActivationQueue
from hw.core import Core
from hw.expander import Expander
from hw.params import ROUND_TRIP, Params
from hw.scan import Scan
from sim.formal.claim import Claim
from sim.formal.cut import free_block, replaced
from sim.formal.follow import follow
from sim.formal.planted import planted
from sim.formal.sheet import Sheet

__all__ = ["CLAIMS"]

PARAMS = Params(
    pes=1, rows=2, queue_depth=ROUND_TRIP + 2, weight_words=2, pointer_blocks=2, act_lines=2, output_words=2,
    codebooks=1, descriptors=2, tables=0, elementwise=False, streams=False, refill=False,
)  # fmt: skip


def _narrow_job(params: Params) -> data.StructLayout:
    """A vector of two bits, and activations of one: the queue looks at none."""
    return data.StructLayout({"bits": 2, "acts": 1})


def order(s: Sheet, kind: Any) -> None:
    """Vectors through the queue, while no more are sent than it holds."""
    dut = s.add(kind(PARAMS), built=True)
    i, o = dut.i, dut.o
    s.given(~(i.valid & (dut.level == dut.depth)))
    taken = o.valid & o.ready
    inside = Signal(range(dut.depth + 2))
    s.m.d.sync += inside.eq(inside + i.valid - taken)
    out = o.p.bits if dut.params.near else o.payload
    one = follow(s, i.valid, taken, i.payload, out, most=dut.depth + 1)
    s.steady(o.valid, o.ready, out, "output")
    if dut.params.near:
        words = dut.depth + 2
        front, tail, before = (s.inner(name) for name in ("front", "tail", "before"))
        ever = Signal()  # one was taken
        s.m.d.sync += ever.eq(ever | taken)
        s.must((front < words) & (tail < words) & (before < words), "inside: places")
        behind = front + inside
        s.must((behind == tail) | (behind == tail + words), "inside: those between front and tail")
        s.must(~ever | (before + 1 == front) | (before + 1 == front + words), "inside: the one taken last")
        last = Signal()  # the chosen one was taken last
        with s.m.If(taken):
            s.m.d.sync += last.eq(one.shown)
        s.must(~last | (o.p.acts == one.kept[-1]), "activations are those of the vector taken last")
    s.must(dut.level + o.valid == inside, "`level` counts all vectors but the one at the output")
    s.must(~s.past(i.valid, 2) | o.valid | s.past(o.valid), "a vector shows after two cycles")
    s.must(~(o.valid & s.past(i.valid & (inside == 0))), "and not before")
    s.must((inside == 0) | o.valid | s.past(i.valid) | s.past(o.valid & o.ready), "none stays behind")
    s.reach((dut.level == dut.depth) & o.valid, "it is full")
    s.reach(i.valid & o.valid & o.ready & s.past(i.valid & o.valid & o.ready), "one vector in and one out a cycle")


def credit(s: Sheet, kind: Any) -> None:
    """The queue behind a delay of the broadcast's length; any vector may be dropped on the way."""
    dut = s.add(kind(PARAMS), driven=("i__valid",))
    fires = [s.free(1, "offered") & dut.credit]
    for n in range(ROUND_TRIP - 1):
        late = Signal(name=f"fired_{n}")
        s.m.d.sync += late.eq(fires[-1] & (1 if n < ROUND_TRIP - 2 else s.free(1, "has_work")))
        fires.append(late)
    s.m.d.comb += dut.i.valid.eq(fires[-1])
    s.must(~(dut.i.valid & (dut.level == dut.depth)), "no vector meets a full queue")
    s.reach(dut.i.valid & (dut.level == dut.depth - 1), "the last place is taken")
    full = Signal()
    s.m.d.sync += full.eq(full | (dut.level == dut.depth))
    s.reach(full & dut.credit, "credit comes back")


def core(s: Sheet, kind: Any, hops: int = 0) -> None:
    """The real core, in which the scan may send anything at any time and the expander take it at any time."""
    params = PARAMS.replace(pes=2, hops=hops, queue_depth=PARAMS.queue_depth + 2 * hops)
    with replaced(hw.core, "Scan", free_block(Scan)), replaced(hw.pe, "Expander", free_block(Expander)):
        dut = s.add(kind(params), built=True)
    queues = [pe.queue for pe in dut.pes]
    for n, queue in enumerate(queues):
        s.must(~(queue.i.valid & (queue.level == queue.depth)), f"no vector meets a full queue in PE {n}")
    s.reach(queues[0].i.valid & (queues[0].level == queues[0].depth - 1), "the last place is taken")
    s.reach((queues[0].level == 3) & (queues[1].level == 1), "the queues differ")


def _late(m: Module, value: Signal) -> Signal:
    late = Signal.like(value)
    m.d.sync += late.eq(value)
    return late


CLAIMS = (
    Claim(
        "queue-order",
        "ActivationQueue",
        "Vectors leave in their order, each once, unchanged, and stand still until "
        "they are taken; `level` counts them.",
        order,
        ActivationQueue,
        {
            "the end of the memory is one place early for writes": lambda: planted(
                ActivationQueue, "_advance(m, tail, words,", "_advance(m, tail, words - 1,", "_near"
            ),
            "a place is used again while its activations are needed": lambda: planted(
                ActivationQueue, "self.params.queue_words", "self.params.queue_words - 1", "_near"
            ),
            "a vector is read before it is written": lambda: planted(
                ActivationQueue, "read.eq((self.level != 0)", "read.eq(((self.level != 0) | self.i.valid)"
            ),
            "a vector at the output is overwritten": lambda: planted(
                ActivationQueue, "(~self.o.valid | self.o.ready)", "1"
            ),
        },
        narrow={"hw.activation_queue.job": _narrow_job},
        bug_depth=16,
        cover_depth=16,
    ),
    Claim(
        "queue-order-far",
        "ActivationQueue",
        "The same of a queue that is too large to be read within a cycle.",
        order,
        ActivationQueue,
        {
            "the end of the memory is one place early for writes": lambda: planted(
                ActivationQueue, "_advance(m, tail, self.depth,", "_advance(m, tail, self.depth - 1,", "_far"
            ),
        },
        narrow={"hw.activation_queue.job": _narrow_job, "hw.params.NEAR_WORDS": 0},
        bug_depth=16,
        cover_depth=16,
    ),
    Claim(
        "queue-credit",
        "ActivationQueue",
        f"With {ROUND_TRIP - 1} cycles from a broadcast to its queue, no vector ever meets a full queue.",
        credit,
        ActivationQueue,
        {
            "credit counts one vector less": lambda: planted(
                ActivationQueue, "(self.round_trip + 1) <= self.depth", "self.round_trip <= self.depth"
            ),
        },
        narrow={"hw.activation_queue.job": _narrow_job},
        bug_depth=20,
        cover_depth=32,
        sample=True,
    ),
    Claim(
        "core-credit",
        "Core",
        "In the core as it is built, whatever the scan sends and the PEs take, no vector ever meets a full queue.",
        core,
        Core,
        {
            "the broadcast is one register longer than the rule says": lambda: planted(
                Core, "pe.i.valid.eq(valid)", "pe.i.valid.eq(_late(m, valid))", "_broadcast", _late=_late
            ),
            "a vector fires when the first PE has credit": lambda: planted(
                Core, "self.scan.o.ready.eq(Cat(flags).all())", "self.scan.o.ready.eq(flags[0])", "_broadcast"
            ),
        },
        bug_depth=24,
        cover_depth=24,
    ),
    Claim(
        "core-credit-hops",
        "Core",
        "The same in a core with two registers more between scan and PEs each way.",
        partial(core, hops=2),
        Core,
        {
            "credit is seen one register later than the rule says": lambda: planted(
                Core, "eq(Cat(flags).all())", "eq(_late(m, Cat(flags).all()))", "_broadcast", _late=_late
            ),
        },
        bug_depth=32,
        cover_depth=32,
    ),
)
