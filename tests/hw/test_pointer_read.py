from __future__ import annotations

import pytest
from amaranth import Const

import hw.pointer_read
from hw.layouts import pointer_block
from hw.params import Params, ParamsError
from hw.pointer_read import PointerRead

PARAMS = Params(pes=1, rows=16, weight_words=64, pointer_blocks=8)


def look_up(simulate, rng, *, sent_mask=lambda mask: mask):
    """Random vectors through the block: what came out and when, and what should; `sent_mask` plants a fault."""
    dut = PointerRead(PARAMS)
    blocks = [(int(rng.integers(0, 200)), [int(n) for n in rng.integers(0, 17, 8) * (rng.random(8) < 0.4)])
              for _ in range(8)]  # fmt: skip
    vectors = [(int(b), int(mask & other)) for b, (mask, other) in
               zip(rng.integers(0, 8, 200), rng.integers(0, 256, (200, 2)), strict=True)]  # fmt: skip
    gaps = [int(n) for n in rng.integers(0, 3, len(vectors))]
    expected, got = [], []

    async def bench(ctx):
        for address, (base, lengths) in enumerate(blocks):
            ctx.set(dut.w_en, 1)
            ctx.set(dut.w_addr, address)
            ctx.set(dut.w_data, pointer_block(PARAMS).const({"base": base, "lengths": lengths}).as_value().value)
            await ctx.tick()
        ctx.set(dut.w_en, 0)
        schedule, cycle = {}, 0
        for n, ((block, mask), gap) in enumerate(zip(vectors, gaps, strict=True)):
            cycle += gap
            tag = (n & 1, n % 5, 1 << (n >> 1 & 1) if n % 3 else 0)
            schedule[cycle] = (block, mask, n, tag)
            base, lengths = blocks[block]
            work = sum(1 << lane for lane in range(8) if mask >> lane & 1 and lengths[lane])
            at = cycle + PointerRead.LATENCY
            expected.append((at, tag, base, lengths, work, n) if work else (at, tag))
            cycle += 1
        for now in range(cycle + 5):
            ctx.set(dut.i.valid, now in schedule)
            if now in schedule:
                block, mask, n, (bank, codebook, tile) = schedule[now]
                ctx.set(dut.i.payload, {
                    "pointers": block, "mask": sent_mask(mask),
                    "tag": {"bank": bank, "codebook": codebook, "tile": tile},
                })  # fmt: skip
            if (before := now - PointerRead.ACTS_LATE) in schedule:
                ctx.set(dut.i.p.acts, [schedule[before][2] + 1000 * lane for lane in range(8)])
            o, tag = ctx.get(dut.o.payload), ctx.get(dut.dropped_tag)
            if ctx.get(dut.o.valid):
                assert list(o.acts) == [o.acts[0] + 1000 * lane for lane in range(8)]
                out = (now, (o.tag.bank, o.tag.codebook, o.tag.tile), o.base, list(o.lengths), o.mask, o.acts[0])
                got.append(out)
            if ctx.get(dut.dropped):
                got.append((now, (tag.bank, tag.codebook, tag.tile)))
            await ctx.tick()

    simulate(dut, bench)
    return got, expected


@pytest.mark.verifies("pointer-read-vectors-work-dropped")
def test_jobs_and_dropped_vectors_three_cycles_later(simulate, rng):
    got, expected = look_up(simulate, rng)
    assert got == expected
    assert PointerRead.LATENCY == 3
    assert 20 < sum(len(item) == 2 for item in got) < 180


@pytest.mark.verifies("planted-faults-mask-ignored-columns")
def test_fault_mask_ignored(simulate, rng):
    got, expected = look_up(simulate, rng, sent_mask=lambda mask: 0xFF)
    assert got != expected


@pytest.mark.verifies("planted-faults-mask-ignored-columns")
def test_fault_columns_without_entries_stay(simulate, rng, monkeypatch):
    monkeypatch.setattr(hw.pointer_read, "Cat", lambda _: Const(0xFF, 8))
    got, expected = look_up(simulate, rng)
    assert got != expected


@pytest.mark.verifies("queue-too-short-hops-refused")
def test_a_queue_too_short_for_the_hops_is_refused():
    assert Params(queue_depth=8, hops=1).round_trip == 7
    with pytest.raises(ParamsError, match="queue_depth is 7; expected at least 8 with hops=1"):
        Params(queue_depth=7, hops=1)


@pytest.mark.verifies("params-illegal-field-names-field")
@pytest.mark.parametrize(
    ("field", "value", "legal"),
    [
        ("pes", 3, "power of two"), ("pes", 512, "256"), ("index_bits", 3, "4 to 8"), ("code_bits", 9, "2 to 8"),
        ("queue_depth", 5, "6 to"), ("acc_bits", 50, "33 to 48"), ("rows", True, "integer"), ("refill", 1, "true or"),
        ("hops", 3, "0 to 2"),
    ],
)  # fmt: skip
def test_params_name_field_value_and_range(field, value, legal):
    with pytest.raises(ParamsError, match=legal) as error:
        Params(**{field: value})
    assert field in str(error.value)
    assert repr(value) in str(error.value)
