"""Which rows a segment waits for and lets go, against the formulas, over tiles and samples."""

from __future__ import annotations

import pytest

from hw.params import Params
from hw.ring import Ring
from tests.hw.altered import Altered


def play(simulate, rng, dut, number=12):
    """Walk random layers; returns what was wrong."""
    wrong = []

    async def bench(ctx):
        for _ in range(number):
            rows, height, row = (int(rng.integers(1, 9)) for _ in range(3))
            batch, tiles_y = int(rng.integers(1, 5)), int(rng.integers(1, 5))
            y0, step_y = int(rng.integers(-4, 3)), int(rng.integers(1, 4))
            layer = {
                "ring": 1, "height": height, "reach": int(rng.integers(1, 5)), "ring_rows": rows, "ring_row": row,
                "ring_size": rows * row, "ring_skip": height % rows, "ring_skip_size": height % rows * row,
            }  # fmt: skip
            ctx.set(dut.enable, 1)
            for b in range(batch):
                for ty in range(tiles_y):
                    y = y0 + ty * step_y
                    need = b * height + min(height, max(0, y + layer["reach"]))
                    keep = b * height + min(height, max(0, y))
                    ctx.set(dut.layer, layer)
                    ctx.set(dut.prepare, 1)
                    ctx.set(dut.received, max(0, need - 1))
                    await ctx.tick()
                    ctx.set(dut.prepare, 0)
                    ctx.set(dut.y, y)
                    for _ in range(Ring.SETTLES - 1):
                        wrong.append(ctx.get(dut.settled))
                        await ctx.tick()
                    wrong.append(not ctx.get(dut.settled))
                    wrong.append(ctx.get(dut.limit) != keep + rows)
                    wrong.append(ctx.get(dut.there) != (need == 0))
                    wrong.append(ctx.get(dut.skip) != b * height % rows)
                    wrong.append(ctx.get(dut.skip_size) != b * height % rows * row)
                    ctx.set(dut.received, need)
                    wrong.append(ctx.get(dut.there) != (need == 0))
                    await ctx.tick()
                    wrong.append(not ctx.get(dut.there))
                    ctx.set(dut.move, 1)  # what another window of this tile needs
                    await ctx.tick()
                    ctx.set(dut.move, 0)
                    below = int(rng.integers(0, 9))
                    ctx.set(dut.prepare, 1)
                    await ctx.tick()
                    ctx.set(dut.prepare, 0)
                    ctx.set(dut.y, y + below)
                    await ctx.tick().repeat(Ring.SETTLES)
                    lowest = b * height + min(height, max(0, y + below + layer["reach"]))
                    wrong.append(ctx.get(dut.never) != (lowest > keep + rows))
                    ends = ty == tiles_y - 1
                    ctx.set(dut.sample_ends, ends)
                    ctx.set(dut.layer_ends, ends and b == batch - 1)
                    if rng.random() < 0.5:  # the last segment reads another map, that lies here as a whole
                        ctx.set(dut.layer, {**layer, "ring": 0, "height": 77})
                        ctx.set(dut.prepare, 1)
                        ctx.set(dut.sample_ends, 0)
                        ctx.set(dut.layer_ends, 0)
                        await ctx.tick()
                        ctx.set(dut.prepare, 0)
                        ctx.set(dut.sample_ends, ends)
                        ctx.set(dut.layer_ends, ends and b == batch - 1)
                    await ctx.tick()
                    ctx.set(dut.sample_ends, 0)
                    ctx.set(dut.layer_ends, 0)
            ctx.set(dut.enable, 0)
            await ctx.tick()
            wrong.append(ctx.get(dut.there))

    simulate(dut, bench)
    return any(wrong)


@pytest.mark.verifies("ring-rows-waited-let-go")
def test_rows_count_on_over_the_samples(simulate, rng):
    assert not play(simulate, rng, Ring(Params()))


FAULTS = {
    "a row is not waited for": lambda inner, outside: inner.layer.reach.eq(outside.layer.reach - 1),
    "released early": lambda inner, outside: inner.layer.ring_rows.eq(outside.layer.ring_rows + 1),
    "another row would come": lambda inner, outside: inner.y.eq(outside.y - 1),
    "samples in the same rows": lambda inner, outside: inner.layer.ring_skip.eq(0),
}  # fmt: skip


@pytest.mark.verifies("planted-faults-row-waited-released")
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_caught(simulate, rng, fault):
    assert play(simulate, rng, Altered(Ring(Params()), FAULTS[fault]))
