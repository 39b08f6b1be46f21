from __future__ import annotations

import pytest

from hw.layouts import pointer_block
from hw.params import Params, ParamsError
from hw.pointer_read import PointerRead


def test_start_count_take_and_dropped_columns_three_cycles_later(simulate, rng):
    params = Params(pes=1, rows=16, weight_words=64, pointer_blocks=8)
    dut = PointerRead(params)
    blocks = [(int(rng.integers(0, 200)), [int(n) for n in rng.integers(0, 17, 8) * (rng.random(8) < 0.6)])
              for _ in range(8)]  # fmt: skip
    columns = [(int(b), int(lane)) for b, lane in rng.integers(0, 8, (200, 2))]
    gaps = [int(n) for n in rng.integers(0, 3, len(columns))]
    expected, got = [], []

    async def bench(ctx):
        for address, (base, lengths) in enumerate(blocks):
            word = pointer_block(params).const({"base": base, "lengths": lengths}).as_value().value
            ctx.set(dut.w_en, 1)
            ctx.set(dut.w_addr, address)
            ctx.set(dut.w_data, word)
            await ctx.tick()
        ctx.set(dut.w_en, 0)
        schedule, cycle = {}, 0
        tags = [(n & 1, 1 << (n >> 1 & 1) if n % 3 else 0) for n in range(len(columns))]
        for n, ((block, lane), gap) in enumerate(zip(columns, gaps, strict=True)):
            cycle += gap
            schedule[cycle] = (block, lane, n)
            base, lengths = blocks[block]
            start, count = base + sum(lengths[:lane]), lengths[lane]
            take = min(count, 8 - start % 8)
            at, tag = cycle + 3, tags[n]
            expected.append((at, start // 8, start % 8, count, take, n, tag) if count else (at, "dropped", tag))
            cycle += 1
        for now in range(cycle + 5):
            ctx.set(dut.i.valid, now in schedule)
            if now in schedule:
                block, lane, n = schedule[now]
                bank, tile = tags[n]
                ctx.set(dut.i.payload, {
                    "block": block, "lane": lane, "tag": {"bank": bank, "tile": tile}, "acts": [n, n + 1000],
                })  # fmt: skip
            o = ctx.get(dut.o.payload)
            if ctx.get(dut.o.valid):
                assert o.acts[1] == o.acts[0] + 1000
                got.append((now, o.word, o.lane, o.count, o.take, o.acts[0], (o.tag.bank, o.tag.tile)))
            if ctx.get(dut.dropped):
                tag = ctx.get(dut.dropped_tag)
                got.append((now, "dropped", (tag.bank, tag.tile)))
            await ctx.tick()

    simulate(dut, bench)
    assert got == expected
    assert sum(len(item) == 3 for item in got) > 20


@pytest.mark.parametrize(
    ("field", "value", "legal"),
    [
        ("pes", 3, "power of two"), ("pes", 512, "256"), ("index_bits", 3, "4 to 8"), ("code_bits", 9, "2 to 8"),
        ("queue_depth", 5, "6 to"), ("acc_bits", 50, "33 to 48"), ("rows", True, "integer"), ("refill", 1, "true or"),
    ],
)  # fmt: skip
def test_params_name_field_value_and_range(field, value, legal):
    with pytest.raises(ParamsError, match=legal) as error:
        Params(**{field: value})
    assert field in str(error.value)
    assert repr(value) in str(error.value)
