from __future__ import annotations

import pytest

from hw.params import Params
from hw.scan import Scan


@pytest.mark.parametrize("pes", [1, 8, 16, 64])
@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("waits", [False, True])
def test_scan_streams_every_nonzero_column_in_order(simulate, rng, pes, waits, fold):
    params = Params(pes=pes, act_lines=64)
    dut = Scan(params)
    act_vectors = 3 * params.groups + 2
    acts = [[int(v) for v in rng.integers(1, 1 << 16, 8) * (rng.random(8) < d)]
            for d in rng.choice([0, 0.1, 0.5, 1], act_vectors)]  # fmt: skip
    if fold:
        expected = [
            (100 + w // 2, pair + 4 * (w % 2), act_vector[2 * pair : 2 * pair + 2])
            for w, act_vector in enumerate(acts) for pair in range(4) if any(act_vector[2 * pair : 2 * pair + 2])
        ]  # fmt: skip
    else:
        expected = [(100 + w, lane, [a]) for w, act_vector in enumerate(acts) for lane, a in enumerate(act_vector) if a]
    got, finished = [], []

    async def memory(ctx):
        """Activation banks as the core has them: a word one cycle after its address, held without a read."""
        while not finished:
            _, _, enabled, address = await ctx.tick().sample(dut.r_en, dut.r_addr)
            if enabled:
                for group in range(params.groups):
                    number = (address - 5) * params.groups + group
                    word = acts[number] if 0 <= number < act_vectors else [0xDEAD] * 8
                    ctx.set(dut.r_data[group], sum(a << 16 * lane for lane, a in enumerate(word)))

    async def bench(ctx):
        ctx.set(dut.request, {
            "source": 5, "act_vectors": act_vectors, "pointers": 100, "tag": {"bank": 1, "tile": 0}, "fold": fold,
        })  # fmt: skip
        ctx.set(dut.start, 1)
        ctx.set(dut.open, int(not waits))
        cycle, lines = 0, 0
        while not finished:
            ready = int(not waits or rng.random() < 0.6)
            lines += waits and rng.random() < 0.2  # lines of a chained layer appear one by one
            ctx.set(dut.limit, 5 + lines)
            ctx.set(dut.o.ready, ready)
            _, _, valid, o, end = await ctx.tick().sample(dut.o.valid, dut.o.payload, dut.finished)
            ctx.set(dut.start, 0)
            if valid and ready:
                assert o.tag.bank == 1
                act_vector = 2 * (o.block - 100) + o.lane // 4 if fold else o.block - 100
                if waits:
                    assert act_vector // params.groups < lines  # nothing is read before it is there
                got.append((cycle, o.block, o.lane, [o.acts[n] for n in range(1 + fold)]))
            if end:
                finished.append(cycle)
            cycle += 1

    simulate(dut, memory, bench)
    assert [item[1:] for item in got] == expected
    if not waits:
        # Start in cycle 0: request in 1, first column in 3; then one a cycle, one for an activation vector of zeros.
        width = 2 if fold else 1
        columns = [sum(any(act_vector[n : n + width]) for n in range(0, 8, width)) for act_vector in acts]
        assert finished == [2 + sum(max(1, count) for count in columns)]


@pytest.mark.parametrize("buffer", [0, 1])
def test_a_tile_is_scanned_only_when_it_is_loaded(simulate, buffer):
    dut = Scan(Params(pes=1, act_lines=64))
    seen = []

    async def bench(ctx):
        ctx.set(dut.request, {"act_vectors": 2, "tag": {"tile": 1 << buffer}})
        ctx.set(dut.open, 1)
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.r_data[0], 1)
        ctx.set(dut.start, 1)
        for cycle in range(16):
            # The other buffer does not matter; ours is there in cycle 9.
            ctx.set(dut.loaded, 1 << (1 - buffer) | (cycle >= 9) << buffer)
            seen.append((ctx.get(dut.waiting), ctx.get(dut.r_en)))
            await ctx.tick()
            ctx.set(dut.start, 0)

    simulate(dut, bench)
    assert [waiting for waiting, _ in seen] == [0] + [1] * 8 + [0] * 7
    assert [read for _, read in seen] == [0] * 9 + [1, 1] + [0] * 5
