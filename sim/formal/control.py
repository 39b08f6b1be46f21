"""Control: which descriptors are legal, that illegal ones end the run, and the queue of what is written back."""

from __future__ import annotations

import contextlib
from typing import Any

from amaranth import Const, Mux, Signal, Value
from amaranth.lib import data

import hw.control
from hw.control import Control
from hw.descriptor_check import DescriptorCheck
from hw.layouts import Error, Op, elementwise, loop
from hw.params import SEGMENTS, WRITE_QUEUE, Params
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


def _memory(s: Sheet, dut: Any) -> None:
    """The descriptor memory keeps its last word until another one is read."""
    word = Value.cast(dut.r_data)
    s.given(s.past(dut.r_en) | (word == s.past(word)))


def illegal(s: Sheet, kind: Any) -> None:
    """Any descriptors, any walk over tiles, any scan, PEs, write-back and streams."""
    free = {name: free_block(getattr(hw.control, name)) for name in ("TileLoop", "Banks", "Ring", "DescriptorCheck")}
    with replaced(hw.control, "TileLoop", free["TileLoop"]), replaced(hw.control, "Banks", free["Banks"]), replaced(
        hw.control, "Ring", free["Ring"]
    ), replaced(hw.control, "DescriptorCheck", free["DescriptorCheck"]):  # fmt: skip
        dut = s.add(kind(PARAMS), built=True)
    _memory(s, dut)
    m = s.m
    checked = Signal(Error)  # of the descriptor that was checked last, and its number
    number = Signal(16)
    checking = s.past(dut.r_en)
    with m.If(checking):
        m.d.sync += [checked.eq(dut.check.error), number.eq(dut.loop.index)]
    wrong = Value.cast(checked) != Error.NONE.value
    fresh = s.past(checking)  # the descriptor stands at control from now on
    taken = dut.loop.accept | dut.loop.advance
    fault = s.past(dut.scan_fault) | dut.write_fault | dut.stream_fault
    stands, at = Signal(), Signal(16)  # a wrong descriptor stands at control
    m.d.comb += stands.eq(wrong & fresh)
    ended, faulty = Signal(), Signal()
    m.d.sync += [ended.eq((ended | stands) & ~dut.done), at.eq(dut.loop.index)]
    m.d.sync += faulty.eq((faulty | (fault & dut.busy)) & ~(dut.start & ~dut.busy))
    s.must(~(stands & taken), "an illegal descriptor is not carried out")
    s.must(~(ended & (taken | dut.push)), "nothing is accepted after it until the run has ended")
    s.must(~(ended & dut.done) | (dut.error != Error.NONE), "the run ends with an error")
    never = Signal()  # rows that never come end the run with RANGE as well
    m.d.sync += never.eq((never | dut.ring.never) & ~(dut.start & ~dut.busy))
    s.must(~(ended & dut.done & ~faulty & ~never) | (dut.error == checked), "the error is the one of the check")
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


def waits(s: Sheet, kind: Any) -> None:
    """Any descriptors, any walk over tiles; scan, write-back and its queue now and then idle."""
    blocks = {name: getattr(hw.control, name) for name in ("TileLoop", "Banks")}
    with contextlib.ExitStack() as stack:
        for name, block in blocks.items():
            stack.enter_context(replaced(hw.control, name, free_block(block)))
        dut = s.add(kind(PARAMS.replace(streams=False)), built=True)
    _memory(s, dut)
    free = dut.scan_ready & ~dut.scan_busy & ~dut.banks.pending.any() & ~dut.full & ~dut.waiting
    waits, stepped = Signal(3), dut.loop.accept | dut.loop.advance
    s.m.d.sync += waits.eq(Mux(dut.busy & ~dut.clear & free & ~stepped & ~dut.done, waits + 1, 0))
    s.must(waits <= 4, "a step, or the end of the run, within 5 cycles in which nothing else is under way")
    s.must(~stepped | (dut.busy & ~dut.clear), "steps are made during a run only")
    # What `steps-rise` takes for given of control.
    loop_of, prepared = dut.loop, Signal()
    s.m.d.sync += prepared.eq((prepared | loop_of.prepare) & ~stepped & ~loop_of.start)
    s.must(~loop_of.prepare | (s.past(dut.r_en) & ~prepared), "a descriptor is prepared once, when it has been read")
    s.must(~stepped | prepared, "no step without a descriptor that is prepared")
    s.must(~(stepped & (loop_of.prepare | loop_of.start)), "a step is no beginning")
    s.must(~dut.r_en | (dut.r_addr == loop_of.following), "what is read is the descriptor that is next")
    s.must(~dut.r_en | stepped | s.past(loop_of.start), "descriptors are read at a step, or as a run begins")
    s.must(~stepped | dut.r_en, "a step reads the next descriptor")
    s.must(~(loop_of.accept & loop_of.advance), "a descriptor is a segment or none")
    s.reach(s.past(stepped, 2) & stepped, "a step every second cycle")
    s.reach(dut.done & (waits == 2), "a run ends at once")


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
                Control, "right = check.error == Error.NONE", "right = self.busy"
            ),
            "the run goes on after it": lambda: planted(
                Control,
                'm.d.sync += self.error.eq(found)\n                m.next = "End"',
                'm.d.sync += self.error.eq(found)\n                m.next = "Fetch"',
            ),
            "the error is another one": lambda: planted(Control, "self.error.eq(found)", "self.error.eq(Error.RANGE)"),
            "an address beyond a memory is forgotten": lambda: planted(
                Control, "scan_faulted | self.write_fault", "self.write_fault"
            ),
        },
        bug_depth=14,
        cover_depth=14,
    ),
    Claim(
        "control-waits",
        "Control",
        "A run waits for nothing but what it accepted: while no scan and no write-back is under way, a step or the end "
        "comes within 5 cycles (no streams). A step is of a descriptor that was read and prepared, and reads the next.",
        waits,
        Control,
        {
            "another descriptor is read": lambda: planted(
                Control, "self.r_addr.eq(loop.following)", "self.r_addr.eq(loop.index)"
            ),
            "the end of a loop waits": lambda: planted(Control, "(looping | (operating", "((operating"),
            "a tile that is given up is waited for": lambda: planted(
                Control, "closing.eq(~self.scan_busy)", "closing.eq(0)"
            ),
        },
        bug_depth=16,
        cover_depth=14,
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
