"""Control: which descriptors are legal, that illegal ones end the run, and the queue of what is written back."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from amaranth import Array, Cat, Const, Mux, Signal, Value
from amaranth.lib import data

import hw.control
from hw.banks import Banks
from hw.control import Control
from hw.descriptor_check import DescriptorCheck
from hw.layouts import Error, Op, descriptor, elementwise, loop
from hw.params import SEGMENTS, WRITE_QUEUE, Params
from hw.tile_loop import TileLoop
from hw.write_queue import WriteQueue
from sim.formal.claim import INDUCTION, Claim
from sim.formal.cut import free_block, replaced
from sim.formal.follow import follow
from sim.formal.planted import planted
from sim.formal.sheet import Sheet

__all__ = ["CLAIMS"]

PARAMS = Params(
    pes=1, rows=2, weight_words=2, pointer_blocks=3, act_lines=2, output_words=5, codebooks=3, descriptors=6, tables=3,
)  # fmt: skip


def legal(s: Sheet, kind: Any) -> None:
    """The error of any descriptor, by what `hw.layouts` and the register map say that it must be."""
    dut = s.add(kind(PARAMS))
    d, params = dut.layer, PARAMS
    e = data.View(elementwise(params), d.as_value())
    ends = data.View(loop(params), d.as_value())
    op = Value.cast(d.op)

    def reserved(view: Any) -> Value:
        fields = [Value.cast(view[str(name)]) for name, _ in view.shape() if str(name).startswith("reserved")]
        return sum((field != 0 for field in fields), Const(0, 1)) != 0

    one_tile = (d.tiles_y == 1) & (d.tiles_x == 1)
    table = {n: d[f"table_{n}"] < params.tables for n in (1, 2)}
    ring = ~d.ring | (
        d.stream_in & ~d.chained & ~d.moves_source & (d.reach >= 1) & (d.reach <= d.ring_rows) & (d.dy <= d.ring_rows)
        & (d.step_y <= d.ring_rows) & (d.y0 <= d.ring_rows) & (d.y0 >= -d.ring_rows)
    )  # fmt: skip
    streams_in = ~d.stream_in | ((d.ring_rows >= 1) & (d.ring_row >= 1) & (d.ring | ~d.first))
    streams_out = ~d.stream_out | ((d.out_rows >= 1) & (d.tile_lines >= 1) & ~d.moves_result)
    sizes = ("vectors", "wy", "wx", "height", "width", "tiles_y", "tiles_x", "row_lines", "words")
    segment = (
        sum((d[name] >= 1 for name in sizes), Const(0, 5)) == len(sizes)
    ) & (dut.batch >= 1) & (d.low <= d.high) & (d.first == dut.begins) & (one_tile | (dut.segment <= SEGMENTS - 1)) & (
        ~d.refill | one_tile
    ) & (d.pointers <= params.pointer_blocks - 1) & (d.outputs + d.words <= params.output_words) & (
        d.codebook <= params.codebooks - 1
    ) & (~d.functions | (table[1] & table[2])) & ring & streams_in & streams_out  # fmt: skip
    operation = (
        (e.lines >= 1) & (dut.batch >= 1) & (e.low <= e.high) & (e.has_c | ~e.has_e)
        & (~e.functions | (e.table_1 < params.tables)) & dut.begins
    )  # fmt: skip
    kinds = {
        Op.SEGMENT: (d, segment), Op.ELEMENTWISE: (e, operation), Op.END: (d, dut.begins),
        Op.LOOP: (ends, (ends.count >= 1) & (ends.first < dut.index) & (ends.first >= dut.floor) & dut.begins),
    }  # fmt: skip
    expected: Value = Const(Error.OPCODE.value, 4)
    for kind_of, (view, right) in kinds.items():
        found = Mux(reserved(view), Error.RESERVED.value, Mux(right, Error.NONE.value, Error.RANGE.value))
        expected = Mux(op == kind_of.value, found, expected)
    expected = Mux(dut.index < params.descriptors, expected, Error.RANGE.value)
    error = Value.cast(dut.error)
    s.must(error == expected, "the error is the one that the descriptor's rules say")
    for number in (Error.NONE, Error.OPCODE, Error.RANGE, Error.RESERVED):
        s.reach(error == number.value, f"{number.name}")
    s.reach((error == 0) & (op == Op.SEGMENT.value) & d.ring & (d.y0 < 0), "a legal segment in a ring")


def illegal(s: Sheet, kind: Any) -> None:
    """Any descriptors, any walk over tiles, any scan, PEs, write-back and streams."""
    free = {name: free_block(getattr(hw.control, name)) for name in ("TileLoop", "Banks", "Ring", "DescriptorCheck")}
    with replaced(hw.control, "TileLoop", free["TileLoop"]), replaced(hw.control, "Banks", free["Banks"]), replaced(
        hw.control, "Ring", free["Ring"]
    ), replaced(hw.control, "DescriptorCheck", free["DescriptorCheck"]):  # fmt: skip
        dut = s.add(kind(PARAMS), built=True)
    m = s.m
    checked = Signal(Error)  # of the descriptor that was checked last, and its number
    number = Signal(16)
    checking = s.past(dut.r_en)
    with m.If(checking):
        m.d.sync += [checked.eq(dut.check.error), number.eq(dut.loop.index)]
    wrong = Value.cast(checked) != Error.NONE.value
    fresh = s.past(checking)  # the descriptor stands at control from now on
    taken = dut.scan_start | (dut.push & dut.push_operation) | s.inner("step")
    fault = dut.scan_fault | dut.write_fault | dut.stream_fault
    stands, at = Signal(), Signal(16)  # a wrong descriptor stands at control
    m.d.comb += stands.eq(wrong & fresh)
    ended, faulty = Signal(), Signal()
    m.d.sync += [ended.eq((ended | stands) & ~dut.done), at.eq(dut.loop.index)]
    m.d.sync += faulty.eq((faulty | (fault & dut.busy)) & ~(dut.start & ~dut.busy))
    s.must(~(stands & taken), "an illegal descriptor is not carried out")
    s.must(~(ended & (taken | dut.push)), "nothing is accepted after it until the run has ended")
    s.must(~(ended & dut.done) | (dut.error != Error.NONE), "the run ends with an error")
    s.must(~(ended & dut.done & ~faulty) | (dut.error == checked), "the error is the one of the check")
    s.must(~(dut.done & faulty) | (dut.error == Error.RANGE), "an address beyond a memory ends the run with RANGE")
    # It ends as soon as what was accepted before is through.
    through = (
        ~dut.banks.pending.any() & ~dut.waiting & ~dut.in_active & ~dut.out_active & ~dut.out_busy & ~dut.scan_busy
    )
    waits = Signal(4)
    m.d.sync += waits.eq(Mux(ended & through & ~dut.done, waits + 1, 0))
    s.must(waits <= 4, "it ends within 5 cycles of the last thing that was accepted before")
    s.must(dut.busy | ~dut.done, "a run ends once")
    s.reach(ended & dut.done & (dut.error == Error.RESERVED), "a run ends with RESERVED")
    s.reach(dut.done & (dut.error == Error.NONE), "a run ends without an error")


def ends(s: Sheet, kind: Any) -> None:
    """Any program of four descriptors, any batch: each step leads on in an order that has an end.

    With (floor, round, first descriptor of the layer, sample, row of tiles, tile, descriptor of the layer) compared
    from the left, each step is larger than the one before, and each of these numbers is limited.
    """
    params = PARAMS.replace(streams=False, refill=False, descriptors=4)
    with replaced(hw.control, "Banks", free_block(Banks)):
        dut = s.add(kind(params), driven=("r_data",), built=True)
    m, walk = s.m, dut.loop
    width = descriptor(params).size
    program = [s.constant(width, f"descriptor_{n}") for n in range(params.descriptors)]
    word = Signal(width)
    with m.If(dut.r_en):
        m.d.sync += word.eq(Array(program)[dut.r_addr[:2]])
    m.d.comb += Value.cast(dut.r_data).eq(word)
    sample, ty, tx, head, rounds = (s.inner(name) for name in ("sample", "ty", "tx", "head", "round_"))
    at = [walk.floor, rounds, head, sample, ty, tx, walk.index - head]
    rank = Signal(16 * len(at))
    m.d.comb += rank.eq(Cat(*(Value.cast(each)[:16] for each in reversed(at))))
    moved = s.past(walk.accept)
    s.must(~moved | (rank > s.past(rank)), "each step leads on in an order that has an end")
    # Nothing else holds a run up but what was accepted before: the scan, write-back, and the queue of what it writes.
    free = dut.scan_ready & ~dut.scan_busy & ~dut.banks.pending.any() & ~dut.full & ~dut.waiting
    waits = Signal(3)
    m.d.sync += waits.eq(Mux(dut.busy & ~dut.clear & free & ~walk.accept & ~dut.done, waits + 1, 0))
    s.must(waits <= 4, "a step, or the end of the run, within 5 cycles in which nothing else is under way")

    # What the induction needs to know: the descriptor that stands at control, and where it is in program and layer.
    state = s.inner("fsm_state")
    checks, stands = state == 3, state == 4
    s.must(checks == walk.prepare, "inside: state Check")
    s.must(~walk.accept | stands, "inside: state Accept")
    s.must(state <= 5, "inside: states")
    longest = Mux(state == 5, Mux(s.inner("unfinished"), 3, 4), Mux(state == 4, 2, Mux(state == 3, 1, 0)))
    s.must(waits <= longest, "inside: how long each state takes")
    index, floor = walk.index, walk.floor
    steps = [data.View(descriptor(params), each) for each in program]
    endings = [data.View(loop(params), each) for each in program]
    s.must(~(checks | stands) | (word == Array(program)[index[:2]]), "inside: descriptor")
    now, ending = data.View(descriptor(params), word), data.View(loop(params), word)
    op = Value.cast(now.op)
    repeats = (op == Op.LOOP.value) & (rounds + 1 != ending.count)
    s.must(~stands | (s.inner("found") == Value.cast(dut.check.error)), "inside: its check")
    s.must(
        ~stands
        | (
            (s.inner("last_column") == (tx + 1 == now.tiles_x))
            & (s.inner("last_row") == (ty + 1 == now.tiles_y))
            & (s.inner("last_sample") == (sample + 1 == dut.samples))
            & (s.inner("is_segment") == (op == Op.SEGMENT.value))
            & (s.inner("is_loop") == (op == Op.LOOP.value))
            & (s.inner("onward") == Mux(repeats, ending.first, index + 1)[:16])
        ),
        "inside: what is known of it",
    )
    walking = (state >= 2) & (state <= 4)
    s.must(~walking | (walk.segment == index - head), "inside: segment of the layer")
    s.must(~walking | ((floor <= head) & (head <= index)), "inside: floor, layer, descriptor")
    closing: list[Value] = []
    for n, (step, end) in enumerate(zip(steps, endings, strict=True)):
        kind_of = [Value.cast(each.op) for each in steps]
        before = [(k < head) | ((kind_of[k] == Op.SEGMENT.value) & ~steps[k].last) for k in range(n)]
        closes = (head <= n) & Cat(*before, Const(1, 1)).all() & (kind_of[n] == Op.SEGMENT.value) & step.last
        closing.append(closes)
        s.must(~(walking & closes) | ((tx == 0) | (tx < step.tiles_x)), f"inside: tile of a layer that ends at {n}")
        s.must(~(walking & closes) | ((ty == 0) | (ty < step.tiles_y)), f"inside: row of a layer that ends at {n}")
        s.must(~(walking & closes) | (index <= n), f"inside: place in a layer that ends at {n}")
        none = [(k < floor) | (kind_of[k] != Op.LOOP.value) for k in range(n)]
        loops = (floor <= n) & Cat(*none, Const(1, 1)).all() & (kind_of[n] == Op.LOOP.value)
        s.must(~(walking & loops) | (index <= n), f"inside: place before the loop that ends at {n}")
        s.must(
            ~(walking & loops) | ((rounds == 0) | (rounds < end.count)), f"inside: round of the loop that ends at {n}"
        )
        passed = (head <= n) & (n < index)  # of the layer
        s.must(~(walking & passed) | ((kind_of[n] == Op.SEGMENT.value) & ~step.last), f"inside: segment {n} of a layer")
    s.must(~walking | ((sample == 0) | (sample < dut.samples)), "inside: sample")
    under_way = (tx != 0) | (ty != 0) | (sample != 0)
    s.must(~(walking & under_way) | Cat(closing).any(), "inside: a layer that is under way has an end")
    s.reach(s.past(moved & (rounds == 1), 2) & moved & (floor == 2), "a loop of two rounds ends")
    s.reach(moved & (sample == 1) & (head == 0), "a second sample")


def queue(s: Sheet, kind: Any) -> None:
    """Tiles and operations in turn."""
    dut = s.add(kind(PARAMS))
    s.given(~(dut.push & dut.full) & ~(dut.pop & ~dut.valid))
    told = data.StructLayout({"operation": 1, "bits": 2})
    item, first = Signal(told), Signal(told)
    s.m.d.comb += [
        item.operation.eq(dut.operation), item.bits.eq(dut.job), first.operation.eq(dut.first_operation),
        first.bits.eq(dut.first_job),
    ]  # fmt: skip
    follow(s, dut.push, dut.pop, item.as_value(), first.as_value(), most=WRITE_QUEUE)
    inside, operations = Signal(range(WRITE_QUEUE + 1)), Signal(range(WRITE_QUEUE + 1))
    s.m.d.sync += inside.eq(inside + dut.push - dut.pop)
    s.m.d.sync += operations.eq(operations + (dut.push & dut.operation) - (dut.pop & dut.first_operation))
    s.must(dut.valid == (inside != 0), "the first one shows")
    s.must(dut.full == (inside == WRITE_QUEUE), "it is full with all places taken")
    s.must(dut.waiting == (operations != 0), "`waiting` while an operation is inside")
    s.reach(dut.full & dut.waiting, "full")


def _with(kind: Any, **blocks: Any) -> Any:
    """A class that is made of other blocks than it should."""

    class Faulty(kind):  # type: ignore[misc]
        def __init__(self, params: Params) -> None:
            with contextlib.ExitStack() as stack:
                for name, block in blocks.items():
                    stack.enter_context(replaced(sys.modules[kind.__module__], name, block))
                super().__init__(params)

    return Faulty


def _two_bits(params: Params) -> data.StructLayout:
    """A job of two bits: the queue looks at none."""
    return data.StructLayout({"bits": 2})


CLAIMS = (
    Claim(
        "descriptor-rules",
        "DescriptorCheck",
        "For every descriptor the error is that of the rules: opcode, reserved "
        "fields, ranges; none for every legal one.",
        legal,
        DescriptorCheck,
        {
            "one word too many": lambda: planted(
                DescriptorCheck, "layer.outputs + layer.words > ", "layer.outputs + layer.words - 1 > "
            ),
            "reserved fields of operations": lambda: planted(
                DescriptorCheck, 'if name.startswith("reserved")', 'if name.startswith("reserved1")'
            ),
            "a ring that is too small": lambda: planted(DescriptorCheck, "(layer.dy > rows)", "0", "_streams"),
            "a loop in the body of another one": lambda: planted(DescriptorCheck, "ending.first < self.floor", "0"),
            "a loop that ends before it begins": lambda: planted(
                DescriptorCheck, "ending.first >= self.index", "ending.first > self.index"
            ),
        },
        engine=INDUCTION,
        depth=2,
        bug_depth=2,
        cover_depth=2,
    ),
    Claim(
        "control-illegal",
        "Control",
        "An illegal descriptor is not carried out; the run ends with the error of the check, "
        "and within 5 cycles once all that was accepted before is through.",
        illegal,
        Control,
        {
            "an illegal descriptor is accepted": lambda: planted(
                Control, "with m.Elif(found != Error.NONE):", "with m.Elif(found == Error.STREAM):"
            ),
            "the run goes on after it": lambda: planted(
                Control,
                'm.d.sync += self.error.eq(found)\n                m.next = "End"',
                'm.d.sync += self.error.eq(found)\n                m.next = "Fetch"',
            ),
            "the error is another one": lambda: planted(Control, "self.error.eq(found)", "self.error.eq(Error.RANGE)"),
            "a beyond of a memory is forgotten": lambda: planted(
                Control, "self.scan_fault | self.write_fault", "self.write_fault"
            ),
        },
        bug_depth=14,
        cover_depth=14,
    ),
    Claim(
        "control-ends",
        "Control",
        "Every run ends: each step leads on in an order that has an end, and none waits for anything but what was "
        "accepted before (programs of any four descriptors, no streams).",
        ends,
        Control,
        {
            "loops in loops": lambda: _with(
                Control, DescriptorCheck=planted(DescriptorCheck, "ending.first < self.floor", "0")
            ),
            "a loop without rounds": lambda: _with(
                Control, TileLoop=planted(TileLoop, "round_.eq(round_ + 1)", "round_.eq(round_)")
            ),
            "a loop goes forwards": lambda: _with(
                Control, DescriptorCheck=planted(DescriptorCheck, "ending.first >= self.index", "0")
            ),
            "a descriptor waits": lambda: planted(Control, "(op == Op.LOOP.value) | (", "("),
        },
        engine=INDUCTION,
        depth=2,
        bug_depth=24,
        cover_depth=24,
    ),
    Claim(
        "write-queue-order",
        "WriteQueue",
        "What is written back leaves in the order in which it was accepted, each once; "
        "full, valid and waiting are right.",
        queue,
        WriteQueue,
        {
            "the last place is not there": lambda: planted(
                WriteQueue, "level == WRITE_QUEUE", "level == WRITE_QUEUE - 1"
            ),
            "operations are not counted out": lambda: planted(WriteQueue, " - (self.pop & self.first_operation)", ""),
            "one place for two": lambda: planted(WriteQueue, "write.addr.eq(tail)", "write.addr.eq(tail & 6)"),
        },
        narrow={"hw.write_queue.elementwise_job": _two_bits},
        bug_depth=14,
        cover_depth=14,
    ),
)
