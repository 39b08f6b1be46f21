"""Refill: the packets of the stream, and when a buffer may be filled again."""

from __future__ import annotations

from typing import Any

from amaranth import Mux, Signal
from amaranth.lib import data

from hw.layouts import Memory, memory_shape, refill_header
from hw.params import Params
from hw.refill import Refill
from sim.formal.claim import Claim
from sim.formal.planted import planted
from sim.formal.sheet import Sheet

__all__ = ["CLAIMS"]

PARAMS = Params(
    pes=2, rows=2, weight_words=2, pointer_blocks=4, act_lines=2, output_words=2, codebooks=1, descriptors=2, tables=0,
    elementwise=False, streams=False,
)  # fmt: skip
NARROW = 58  # bits of a beat: a header with a few reserved bits
FIRE_TO_BUSY = 2  # cycles from a vector's broadcast to the busy flag of a PE that has work of it


class _Packets:
    """The packets of the stream as the proof reads them, whatever the block does."""

    def __init__(self, s: Sheet, dut: Any) -> None:
        m, i = s.m, dut.i
        self.taken = i.valid & i.ready
        head = data.View(refill_header(PARAMS), i.p.data)
        self.left, self.buffer = Signal(20), Signal()  # words to come, of the packet for this buffer
        self.address, self.header = Signal(20), Signal(refill_header(PARAMS))
        self.begun, self.begun_buffer = Signal(), Signal()  # a tile is under way
        self.is_head = self.taken & (self.left == 0)
        self.is_word = self.taken & (self.left != 0)
        self.of = Mux(self.is_head, head.buffer, self.buffer)
        ends = Mux(self.is_head, head.last & (head.words == 0), self.header.last & (self.left == 1))
        self.filled = self.taken & ends  # the last beat of a tile
        size = Mux(head.memory == Memory.WEIGHTS.value, PARAMS.weight_words, PARAMS.pointer_blocks)
        self.wrong = (
            self.is_head & (
                (head.memory > Memory.POINTERS.value) | (head.unit >= PARAMS.pes) | (head.address + head.words > size)
                | (head.reserved != 0) | (self.begun & (head.buffer != self.begun_buffer))
            )
        ) | (self.taken & (i.p.last != ends))  # fmt: skip
        assert memory_shape(PARAMS, Memory.WEIGHTS)[1] == PARAMS.weight_words
        with m.If(self.is_head):
            m.d.sync += [
                self.left.eq(head.words), self.buffer.eq(head.buffer), self.address.eq(head.address),
                self.header.eq(head), self.begun.eq(~ends), self.begun_buffer.eq(head.buffer),
            ]  # fmt: skip
        with m.If(self.is_word):
            m.d.sync += [self.left.eq(self.left - 1), self.address.eq(self.address + 1)]
            with m.If(ends):
                m.d.sync += self.begun.eq(0)


def words(s: Sheet, kind: Any) -> None:
    """Any stream, right or wrong."""
    dut = s.add(kind(PARAMS))
    p = _Packets(s, dut)
    broken, stuck = Signal(), Signal()
    s.m.d.sync += broken.eq(broken | p.wrong)
    word = s.past(p.is_word)
    s.must(dut.o.valid == word, "each word of a packet is written, no header is")
    o = dut.o.p
    header = data.View(refill_header(PARAMS), s.past(p.header))
    s.must(~word | (o.data == s.past(dut.i.p.data)), "it is the word of the beat")
    s.must(~word | (o.address == s.past(p.address)), "words go to successive addresses from the header's on")
    s.must(~word | ((o.memory == header.memory) & (o.unit == header.unit)), "memory and PE are those of the header")
    s.must(~dut.o.valid | (o.memory <= Memory.POINTERS.value), "no word goes to another memory")
    s.must(~dut.o.valid | (o.unit < PARAMS.pes), "no word goes to a PE that is not there")
    sized = Mux(o.memory == Memory.WEIGHTS.value, PARAMS.weight_words, PARAMS.pointer_blocks)
    s.must(~dut.o.valid | (o.address < sized), "no word goes beyond its memory")
    s.must(~(broken & p.taken), "nothing is taken after a beat that is wrong")
    s.must(~(s.past(broken) & dut.enable) | dut.fault, "which is a fault, 2 cycles later")
    # The only other fault: a second tile for a full buffer while the scan waits for the other one.
    s.given(~(dut.wanted[0] & dut.loaded[0]) & ~(dut.wanted[1] & dut.loaded[1]))
    s.m.d.sync += stuck.eq(stuck | ((dut.loaded[0] & dut.wanted[1]) | (dut.loaded[1] & dut.wanted[0])))
    s.must(~dut.fault | broken | stuck, "a stream that is right is no fault")
    s.reach(dut.o.valid & s.past(dut.o.valid) & (o.unit == 1) & (o.memory == 1), "two words go to a pointer memory")
    s.reach(dut.fault & ~stuck, "a wrong stream is found")
    s.reach(dut.fault & ~broken, "a tile that can never be loaded is found")


def buffers(s: Sheet, kind: Any) -> None:
    """Tiles of a right or wrong stream against a scan and PEs that take any time."""
    dut = s.add(kind(PARAMS), driven=("taken", "scanned", "pe_busy", "wanted"))
    m = s.m
    p = _Packets(s, dut)
    for n in range(2):
        requested = Signal(name=f"requested_{n}")  # all vectors of the tile, of which not all have left the scan
        taken, scanned, fires, retires = (s.free(1, what) for what in ("taken", "scanned", "fires", "retires"))
        s.given(~taken | dut.loaded[n])
        s.given(~scanned | requested)
        s.given(~fires | dut.loaded[n] | requested)
        m.d.sync += requested.eq((requested | taken) & ~scanned)
        m.d.comb += [dut.taken[n].eq(taken), dut.scanned[n].eq(scanned)]
        waiting = dut.loaded[n] | requested
        m.d.comb += dut.wanted[n].eq(s.free(1, "wanted") & ~dut.loaded[n])
        # A vector that fired is on its way, then in the PEs until these have retired it.
        arriving = fires
        on_the_way = Signal(FIRE_TO_BUSY - 1, name=f"on_the_way_{n}")
        for k in range(FIRE_TO_BUSY - 1):
            m.d.sync += on_the_way[k].eq(arriving)
            arriving = on_the_way[k]
        inside = Signal(3, name=f"in_pes_{n}")
        s.given(~retires | (inside != 0))
        s.given(~arriving | (inside != 7))
        m.d.sync += inside.eq(inside + arriving - retires)
        m.d.comb += dut.pe_busy[n].eq(inside != 0)
        used = waiting | fires | on_the_way.any() | (inside != 0)
        s.must(~(p.is_word & (p.of == n) & used), f"no word of buffer {n} is taken while its tile is used")
        filled = Signal(range(4), name=f"filled_{n}")  # tiles that are there and not yet requested by the scan
        right = p.filled & ~p.wrong & (p.of == n)
        m.d.sync += filled.eq(filled + right - taken)
        s.must(~dut.loaded[n] | (filled != 0), f"buffer {n} is scanned only when its tile is there, and once")
        whole = Signal(
            name=f"whole_{n}"
        )  # the same, but that an empty packet at the end waits until the buffer is free
        m.d.sync += whole.eq((whole & ~taken) | (right & p.is_word))
        s.must(dut.loaded[n] | ~whole, f"a tile that is there shows, buffer {n}")
        again = Signal(name=f"again_{n}")
        m.d.sync += again.eq(again | (s.past(waiting) & ~waiting))
        s.reach(again & p.is_word & (p.of == n), f"buffer {n} is filled again")
        s.reach((inside == 2) & on_the_way.any() & requested, f"vectors of buffer {n} are everywhere")


CLAIMS = (
    Claim(
        "refill-words",
        "Refill",
        "Each word goes to the place that its header says, and none beyond a memory; whatever "
        "cannot be is a fault, and nothing else but a tile that could never be loaded.",
        words,
        Refill,
        {
            "a header is written as a word": lambda: planted(
                Refill,
                "self.o.valid.eq(0), self.o.p.memory",
                "self.o.valid.eq(self.i.ready & self.i.valid), self.o.p.memory",
            ),
            "the size is not checked": lambda: planted(
                Refill, "(header.address + header.words > size)", "(header.address > size)"
            ),
            "TLAST is not checked": lambda: planted(Refill, "(ended != (header.last & empty))", "0"),
            "two buffers in a tile": lambda: planted(Refill, "(begun & (header.buffer != buffer))", "0"),
        },
        narrow={"REFILL_BITS": NARROW},
        bug_depth=12,
        cover_depth=16,
    ),
    Claim(
        "refill-buffers",
        "Refill",
        "No word of a tile is overwritten while the scan or a PE may still use it; a tile is "
        "scanned when all of it is there, once.",
        buffers,
        Refill,
        {
            "a buffer is free two cycles early": lambda: planted(
                Refill, "used_up.eq(scanned[2] & ~busy)", "used_up.eq(scanned[0] & ~busy)"
            ),
            "a tile shows before its last word": lambda: planted(
                Refill, "self.i.p.last != (header.last & (header.words == 1))", "0"
            ),
            "PEs are not waited for": lambda: planted(Refill, "scanned[2] & ~busy", "scanned[2]"),
        },
        narrow={"REFILL_BITS": NARROW},
        bug_depth=20,
        cover_depth=24,
    ),
)
