"""From a broadcast vector to the entries of its columns: pointer read, expander, weight read."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Const, Mux, Signal, Value
from amaranth.lib import data

import hw.weight_read
from hw.expander import Expander
from hw.layouts import entry, pointer_block, weight_word
from hw.params import LANES, Params
from hw.pointer_read import PointerRead
from hw.streams import column, job
from hw.weight_read import WeightRead
from sim.formal.claim import INDUCTION, Claim
from sim.formal.cut import RigidSram, replaced
from sim.formal.planted import planted
from sim.formal.sheet import Sheet

__all__ = ["CLAIMS"]

PARAMS = Params(
    pes=1, rows=2, weight_words=2, pointer_blocks=2, act_lines=2, output_words=2, codebooks=1, descriptors=2, tables=0,
    code_bits=2, index_bits=4, elementwise=False, streams=False, refill=False,
)  # fmt: skip
LONG = PARAMS.replace(rows=16, weight_words=4)
"""For columns of up to three weight words."""


def _word_at(s: Sheet, dut: Any, address: Value) -> Signal:
    """What was written last to a word of the block's memory."""
    word = Signal(len(dut.w_data), name="word")
    with s.m.If(dut.w_en & (dut.w_addr == address)):
        s.m.d.sync += word.eq(dut.w_data)
    return word


def pointers_found(s: Sheet, kind: Any) -> None:
    """Base, lengths and mask of a vector whose pointer block is any one."""
    dut = s.add(kind(PARAMS))
    block = s.constant(len(dut.w_addr), "block")
    s.given(~(dut.w_en & dut.i.valid & (dut.w_addr == dut.i.p.pointers)))  # the memory does not say what that gives
    word = data.View(pointer_block(PARAMS), _word_at(s, dut, block))
    ours = dut.i.valid & (dut.i.p.pointers == block)
    late = kind.LATENCY
    sent, found = s.past(ours, late), data.View(pointer_block(PARAMS), s.past(word.as_value(), late))
    mask = s.past(dut.i.p.mask, late) & Cat(found.lengths[n] != 0 for n in range(LANES))
    o = dut.o.p
    s.must(~sent | (dut.o.valid == mask.any()), "a vector comes out if a column of it has an activation and entries")
    s.must(~sent | (dut.dropped == ~mask.any()), "else it is dropped")
    s.must(dut.o.valid | dut.dropped | ~s.past(dut.i.valid, late), "each leaves after the stated cycles")
    s.must(s.past(dut.i.valid, late) | ~(dut.o.valid | dut.dropped), "nothing leaves that did not come")
    s.must(~(sent & dut.o.valid) | (o.mask == mask), "the mask names the columns with work")
    s.must(
        ~(sent & dut.o.valid) | ((o.base == found.base) & (o.lengths == found.lengths)),
        "base and lengths are those in memory",
    )
    s.reach(sent & dut.o.valid & (o.mask == 0b10010) & (found.base == 9), "two columns have work")
    s.reach(sent & dut.dropped & found.lengths.as_value().any() & s.past(dut.i.p.mask, late).any(), "one is dropped")


def pointers_passed(s: Sheet, kind: Any) -> None:
    """What travels beside the pointer word."""
    dut = s.add(kind(PARAMS.replace(refill=True, codebooks=4)))
    acts, tag = dut.i.p.acts.as_value(), s.past(dut.i.p.tag, kind.LATENCY)
    s.must(~dut.o.valid | (dut.o.p.acts.as_value() == acts), "activations stay with their vector")
    s.must(~dut.o.valid | (dut.o.p.tag.as_value() == tag), "the tag stays with its vector")
    s.must(~dut.dropped | (dut.dropped_tag.as_value() == tag), "the tag of a dropped vector is its own")
    s.reach(dut.o.valid & (dut.o.p.acts[7] == 77), "a vector passes")


def expander(s: Sheet, kind: Any) -> None:
    """A vector, chosen freely, and its columns."""
    params = PARAMS
    dut = s.add(kind(params), built=True)
    i, o, m = dut.i, dut.o, s.m
    s.given(~i.valid | i.p.mask.any())
    s.steady(i.valid, i.ready, i.payload, "input", given=True)
    taken, given = i.valid & i.ready, o.valid & o.ready
    columns = sum((i.p.mask[n] for n in range(LANES)), Const(0, 1))
    inside, before = Signal(range(16)), Signal(range(16))  # columns in the block; those before the chosen vector
    m.d.sync += inside.eq(inside + Mux(taken, columns, 0) - given)
    chosen, gone = Signal(), Signal()
    kept, left = Signal(job(params)), Signal(LANES)  # the vector, and its columns that have not come out
    lowest = Signal(range(LANES))
    for n in reversed(range(LANES)):
        with m.If(left[n]):
            m.d.comb += lowest.eq(n)
    turn = Signal()
    m.d.comb += turn.eq(chosen & (before == 0))
    with m.If(taken & s.free(1, "choose") & ~chosen & ~gone):
        m.d.sync += [chosen.eq(1), kept.eq(i.payload), left.eq(i.p.mask), before.eq(inside - given)]
    with m.Elif(turn & given):
        m.d.sync += left.eq(left & (left - 1))  # without its lowest one
        with m.If((left & (left - 1)) == 0):
            m.d.sync += [chosen.eq(0), gone.eq(1)]
    with m.Elif(chosen & given):
        m.d.sync += before.eq(before - 1)
    start = Signal(params.entry_address_bits)  # base and the lengths of all lower columns
    m.d.comb += start.eq(sum((Mux(n < lowest, kept.lengths[n], 0) for n in range(LANES)), kept.base))
    shown = turn & o.valid
    s.must(~o.valid | (inside != 0), "no column comes out that did not come in")
    s.must((inside == 0) | o.valid | s.past(taken, 1) | s.past(given, 1), "none stays behind")
    s.must(~shown | (Cat(o.p.lane, o.p.word) == start), "a column starts behind the entries of all lower ones")
    s.must(~shown | (o.p.count == kept.lengths[lowest]), "its number of entries is that of its lane")
    s.must(~shown | (o.p.act == kept.acts[lowest]), "its activation is that of its lane")
    s.must(~shown | (o.p.tag == kept.tag), "its tag is that of the vector")
    s.must(~shown | (o.p.last == ((left & (left - 1)) == 0)), "the last one of a vector says so")
    room = LANES - o.p.lane
    s.must(~o.valid | (o.p.take == Mux(o.p.count > room, room, o.p.count)), "`take` are the entries in the first word")
    s.steady(o.valid, o.ready, o.payload, "output")
    # What the induction needs to know: the columns inside stand one behind the other, those of the chosen vector too.
    valid, lanes, after, vector = (s.inner(name) for name in ("valid", "lanes", "after", "vector"))
    second, second_valid = s.inner("second"), s.inner("second_valid")
    shape = job(params)
    parts = ("base", "lengths", "tag", "acts")
    vector = data.View(data.StructLayout({name: shape[name].shape for name in parts}), vector)
    same = Cat(*(Value.cast(vector[name]) == Value.cast(kept[name]) for name in parts)).all()
    waiting = Signal(LANES)
    m.d.comb += waiting.eq(Mux(valid, lanes | after, 0))
    buffered = Signal(range(4))
    m.d.comb += buffered.eq(o.valid + second_valid)
    rest, of_it = _ones(waiting), _ones(left)
    s.must(inside == buffered + rest, "inside: buffer and vector")
    s.must(o.valid | ~second_valid, "inside: the buffer fills from its front")
    s.must(~valid | (s.inner("ending") == (after == 0)), "inside: no lane after this one")
    s.must(
        ~valid | ((lanes != 0) & (lanes == (waiting & -waiting)[:LANES]) & ((lanes & after) == 0)),
        "inside: lowest lane",
    )
    for n in range(LANES):
        sum_before = Signal(params.entry_address_bits, name=f"sum_{n}")
        m.d.comb += sum_before.eq(sum((vector.lengths[k] for k in range(n)), Const(0, 1)))
        offset = s.inner(f"offset_{n}")
        s.must(~valid | (offset == sum_before[: len(offset)]), f"inside: start of lane {n}")
    stands = chosen & (before + of_it > buffered)  # it is the vector whose columns are handed over
    without = left
    handed = Signal(range(4))  # of its columns, those in the buffer
    m.d.comb += handed.eq(Mux(buffered > before, buffered - before, 0))
    less = [left, left & (left - 1), (left & (left - 1)) & ((left & (left - 1)) - 1)]
    m.d.comb += (without := Signal(LANES)).eq(Mux(handed == 0, less[0], Mux(handed == 1, less[1], less[2])))
    s.must(~chosen | (left != 0), "inside: columns are left")
    s.must(~chosen | (before + of_it <= inside), "inside: they are there")
    s.must(~stands | (valid & same & (waiting == without) & (before + of_it == inside)), "inside: the vector")
    found = _column(s, kept, left)
    further = _column(s, kept, left & (left - 1))
    here = data.View(found.shape(), s.inner("first")).as_value()
    behind = data.View(found.shape(), second).as_value()
    s.must(~shown | (here == found.as_value()), "inside: first in the buffer")
    s.must(~(turn & second_valid & (of_it > 1)) | (behind == further.as_value()), "inside: second in the buffer")
    s.must(
        ~(chosen & (before == 1) & second_valid) | (behind == found.as_value()), "inside: first as second in the buffer"
    )
    s.reach(gone & (kept.mask == 0b10100100) & (kept.base == 3), "a vector of three columns is through")
    s.reach(given & s.past(given) & s.past(given & o.p.last) & s.past(given, 2), "one column a cycle, over two vectors")


def _ones(bits: Value) -> Value:
    return sum((bits[n] for n in range(len(bits))), Const(0, 1))


def _column(s: Sheet, vector: Any, left: Value) -> Any:
    """The column of the lowest lane of `left`, as the expander keeps it."""
    fields = {
        "start": PARAMS.entry_address_bits, "count": PARAMS.count_bits, "act": len(vector.acts[0]), "last": 1,
        "tag": vector.tag.shape(),
    }  # fmt: skip
    made = Signal(data.StructLayout(fields), name="made")
    s.m.d.comb += [made.tag.eq(vector.tag), made.last.eq((left & (left - 1)) == 0)]
    start = vector.base
    for n in range(LANES):
        with s.m.If(left[n] & (left[:n] == 0)):
            s.m.d.comb += [made.start.eq(start), made.count.eq(vector.lengths[n]), made.act.eq(vector.acts[n])]
        start = start + vector.lengths[n]
    return made


def weight_read(s: Sheet, kind: Any) -> None:
    """A column, chosen freely, and its entries, of which those in a word that is chosen freely are compared."""
    params = LONG
    with replaced(hw.weight_read, "Sram", RigidSram):
        dut = s.add(kind(params), built=True)
    i, o, m = dut.i, dut.o, s.m
    room = LANES - i.p.lane
    first = Cat(i.p.lane, i.p.word)
    s.given(~i.valid | ((i.p.count != 0) & (i.p.count <= params.rows)))
    s.given(~i.valid | (i.p.take == Mux(i.p.count > room, room, i.p.count)))
    s.given(~i.valid | (first + i.p.count <= LANES * params.weight_words))
    s.steady(i.valid, i.ready, i.payload, "input", given=True)
    taken = i.valid & i.ready
    inside, before = Signal(range(64)), Signal(range(64))  # entries in the block; those before the chosen column
    m.d.sync += inside.eq(inside + Mux(taken, i.p.count, 0) - o.valid)
    chosen, gone = Signal(), Signal()
    kept, done = Signal(column(params)), Signal(range(params.rows + 1))  # the column, and entries that came out
    turn, at = Signal(), Signal(params.entry_address_bits)
    m.d.comb += [turn.eq(chosen & (before == 0)), at.eq(Cat(kept.lane, kept.word) + done)]
    with m.If(taken & s.free(1, "choose") & ~chosen & ~gone):
        m.d.sync += [chosen.eq(1), kept.eq(i.payload), done.eq(0), before.eq(inside - o.valid)]
    with m.Elif(turn & o.valid):
        m.d.sync += done.eq(done + 1)
        with m.If(done + 1 == kept.count):
            m.d.sync += [chosen.eq(0), gone.eq(1)]
    with m.Elif(chosen & o.valid):
        m.d.sync += before.eq(before - 1)
    shown = turn & o.valid
    words = [data.View(weight_word(params), word) for word in dut.memory.words]
    entries = Array([word[n].as_value() for word in words for n in range(LANES)])
    stored = data.View(entry(params), entries[at])
    s.must(~o.valid | (inside != 0), "no entry comes out that did not come in")
    quiet = s.past(taken) | s.past(taken, 2) | s.past(taken, 3)
    s.must((inside == 0) | o.valid | quiet, "none stays behind: an entry a cycle while there are some")
    s.must(~shown | ((o.p.code == stored.code) & (o.p.index == stored.index)), "each entry is the next one in memory")
    s.must(~shown | (o.p.first == (done == 0)), "the first one of a column says so")
    s.must(~shown | (o.p.last == (kept.last & (done + 1 == kept.count))), "the last one of a vector says so")
    s.must(~shown | ((o.p.act == kept.act) & (o.p.tag == kept.tag)), "activation and tag are those of the column")
    # What the induction needs to know: entries stand one behind the other in the output, the row buffer, and `next`.
    next_valid, take, rest = (s.inner(name) for name in ("next_valid", "next_take", "next_rest"))
    buffer, lane, more = s.inner("left"), s.inner("lane"), s.inner("more")
    later = Signal(range(2 * params.rows))  # entries in `next`
    ahead, of_it = Signal(range(64)), Signal(range(params.rows + 1))
    m.d.comb += [later.eq(Mux(next_valid, take + rest, 0)), ahead.eq(o.valid + buffer), of_it.eq(kept.count - done)]
    s.must(inside == ahead + later, "inside: output, row buffer and next word")
    s.must(~next_valid | (take + rest <= params.rows), "inside: entries of a column")
    s.must(buffer <= LANES, "inside: eight entries in the row buffer")
    s.must(s.inner("few") == (buffer <= 1), "inside: one or none in the row buffer")
    s.must(~next_valid | (s.inner("next_more") == (rest != 0)), "inside: words after the next one")
    room = LANES - s.inner("next_lane")
    s.must(
        ~next_valid | ((take != 0) & (take == Mux(take + rest > room, room, take + rest))), "inside: entries of a word"
    )
    s.must(~more | next_valid | (buffer == 0), "inside: a column that goes on has a next word")
    s.must(~chosen | ((kept.count <= params.rows) & (done < kept.count)), "inside: entries are left")
    s.must(~chosen | (before + of_it <= inside), "inside: they are there")
    s.must(~chosen | (done == 0) | (before == 0), "inside: entries come out in turn")
    s.must(~chosen | (before <= o.valid) | (before >= ahead), "inside: the row buffer has entries of one column")
    s.must(
        ~chosen | (before + of_it <= o.valid) | (before + of_it >= ahead) | (before >= ahead), "inside: all of a word's"
    )
    begins = Cat(kept.lane, kept.word)
    s.must(~chosen | (begins + kept.count <= LANES * params.weight_words), "inside: they are in memory")
    stands = chosen & (before + of_it > ahead)  # it is the column of `next`
    place = Signal(range(64))  # of the next word's first entry in the column
    m.d.comb += place.eq(kept.count - later)
    beside = Cat(kept.last, kept.act, kept.tag)
    s.must(
        ~stands | (
            next_valid & (before + of_it == inside) & (later <= kept.count) & (s.inner("next_first") == (place == 0))
            & (Cat(s.inner("next_lane"), s.inner("next_word")) == begins + place)
            & (Value.cast(s.inner("next_beside")) == beside)
        ), "inside: the next word",
    )  # fmt: skip
    held = chosen & (buffer != 0) & (before < ahead) & (before + of_it > o.valid)  # it is the column of the row buffer
    at_buffer = Signal(params.entry_address_bits)
    sent = Signal(range(64))  # entries of the column before the row buffer's next one
    m.d.comb += [sent.eq(kept.count - Mux(stands, later, 0) - buffer), at_buffer.eq(begins + sent)]
    row = Array([word.as_value() for word in words])[at_buffer[3:]]
    s.must(
        ~held | (
            (lane == at_buffer[:3]) & (lane + buffer <= LANES) & (more == stands) & (s.inner("first") == (sent == 0))
            & (sent == done + (turn & o.valid)) & (Value.cast(s.inner("now")) == beside) & (dut.memory.r_data == row)
        ), "inside: the row buffer",
    )  # fmt: skip
    s.reach(gone & (kept.count == 15) & (kept.lane == 6), "a column of three words is through")
    s.reach(shown & (o.p.code == 2) & (o.p.index == 9), "an entry comes out")


CLAIMS = (
    Claim(
        "pointer-lookup",
        "PointerRead",
        "A vector gets base and lengths of its pointer block, and leaves as a job exactly "
        "if a column of it has an activation and entries.",
        pointers_found,
        PointerRead,
        {
            "columns without entries stay": lambda: planted(
                PointerRead, "passing[1].mask & Cat(block.lengths[n] != 0 for n in range(LANES))", "passing[1].mask"
            ),
            "the mask is not looked at": lambda: planted(PointerRead, "mask.eq(passing[1].mask & ", "mask.eq("),
            "a dropped vector leaves as well": lambda: planted(PointerRead, "valid[2] & work", "valid[2]"),
        },
        narrow={"ACT_BITS": 1},
    ),
    Claim(
        "pointer-beside",
        "PointerRead",
        "Activations and tag stay with their vector, with all 16 bits.",
        pointers_passed,
        PointerRead,
        {
            "the tag is one cycle early": lambda: planted(
                PointerRead, "belongs.eq(passing[1].tag)", "belongs.eq(passing[0].tag)"
            ),
        },
        engine=INDUCTION,
        depth=6,
    ),
    Claim(
        "expander-columns",
        "Expander",
        "Each column with work comes out once, lowest lane first, with the sum of all "
        "lengths before it as its start, its own count and activation.",
        expander,
        Expander,
        {
            "a length is left out of a sum": lambda: planted(
                Expander, "_offsets(lengths)", "_offsets([*lengths[:6], lengths[5], lengths[7]])"
            ),
            "the highest lane first": lambda: planted(
                Expander, "next_lanes(self.i.p.mask)", "next_lanes(self.i.p.mask[::-1])"
            ),
            "a column in the buffer is overwritten": lambda: planted(Expander, "valid & ~second_valid", "valid"),
            "`last` with the last but one": lambda: planted(
                Expander, "ending.eq(rest == 0)", "ending.eq((rest & (rest - 1)) == 0)"
            ),
        },
        engine=INDUCTION,
        depth=3,
        cover_depth=14,
    ),
    Claim(
        "weight-entries",
        "WeightRead",
        "Each entry of a column comes out once, in order, as it lies in memory, over up to three words.",
        weight_read,
        WeightRead,
        {
            "a column goes on one word too far": lambda: planted(WeightRead, "next_word + 1", "next_word + 2"),
            "the other half of the word": lambda: planted(
                WeightRead, "Mux(upper, halves[1], halves[0])", "Mux(lane[2], halves[1], halves[0])"
            ),
            "an entry is skipped where a word ends": lambda: planted(
                WeightRead, "few.eq(left <= 2)", "few.eq(left <= 3)"
            ),
            "`last` in each word": lambda: planted(
                WeightRead, "(left == 1) & ~more & now.last", "(left == 1) & now.last"
            ),
        },
        engine=INDUCTION,
        depth=3,
        cover_depth=26,
        bug_depth=24,
    ),
)
