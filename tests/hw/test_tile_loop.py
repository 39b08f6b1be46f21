"""Tile loop: windows in rings of rows and rows of tiles that stream out, against plain loops."""

from __future__ import annotations

import pytest

from hw.params import Params
from hw.tile_loop import TileLoop
from tests.hw.altered import Altered

PARAMS = Params(pes=16)


def random_layer(rng, number=None):
    """The segments of a layer: some of them read its ring, some a map that lies here as a whole.

    number : of them; one to three if it is not given.
    """
    row, rows, height = int(rng.integers(1, 50)), int(rng.integers(4, 9)), int(rng.integers(1, 12))
    layer = {
        "op": 1, "tiles_y": int(rng.integers(1, 5)), "tiles_x": int(rng.integers(1, 4)),
        "destination": int(rng.integers(100)), "tile_lines": int(rng.integers(1, 20)),
        "column_lines": int(rng.integers(1, 9)), "frame": int(rng.integers(300)),
        "stream_in": 1, "ring_rows": rows, "ring_row": row, "ring_size": rows * row, "ring_skip": height % rows,
        "ring_skip_size": height % rows * row, "stream_out": int(rng.integers(2)), "out_rows": int(rng.integers(1, 4)),
    }  # fmt: skip
    number = number or int(rng.integers(1, 4))
    segments = []
    for n in range(number):
        ring = int(n == 0 or rng.random() < 0.6)
        pitch = row if ring else int(rng.integers(1, 50))
        dy, y0, step_y = (int(rng.integers(*limits)) for limits in ((1, 4), (-4, 5), (1, 4)))
        segments.append({
            **layer, "first": int(n == 0), "last": int(n == number - 1), "ring": ring, "y0": y0, "x0": -n, "dy": dy,
            "step_y": step_y, "step_x": int(rng.integers(1, 4)), "height": height,
            "source": int(rng.integers(1 << 12)), "window_pitch": dy * pitch, "tile_pitch_y": step_y * pitch,
            "tile_pitch_x": int(rng.integers(9)),
        })  # fmt: skip
    return segments


def expected(layers, batch):
    """(address, y, place or None, destination, sample ends, layer ends) of each segment of each tile."""
    found = []
    for segments in layers:
        top = segments[0]
        for b in range(batch):
            for ty in range(top["tiles_y"]):
                for tx in range(top["tiles_x"]):
                    if top["stream_out"]:
                        line = top["destination"] + (b * top["tiles_y"] + ty) % top["out_rows"] * top["tile_lines"]
                    else:
                        line = top["destination"] + b * top["frame"] + ty * top["tile_lines"]
                    line += tx * top["column_lines"]
                    last = tx == top["tiles_x"] - 1 and ty == top["tiles_y"] - 1
                    for each in segments:
                        y = each["y0"] + ty * each["step_y"]
                        place = None
                        at = each["source"] + tx * each["tile_pitch_x"]
                        if each["ring"]:
                            place = (b * each["height"] + y) % each["ring_rows"]
                            at += (place - each["y0"] % each["ring_rows"]) * each["ring_row"]
                        else:
                            at += b * each["frame"] * PARAMS.groups + ty * each["tile_pitch_y"]
                        found.append((at % (1 << 24), y, place, line, int(last), int(last and b == batch - 1)))
    return found


def play(simulate, rng, dut, layers, batch):
    """What the tile loop says of each segment, and the edges of rings."""
    flat = [each for segments in layers for each in segments]
    seen, edges = [], []

    async def bench(ctx):
        ctx.set(dut.batch, batch)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        sample, index = 0, 0
        while index < len(flat):
            layer = flat[index]
            ctx.set(dut.layer, layer)
            skip = sample * layer["height"] % layer["ring_rows"]
            ctx.set(dut.skip, skip)
            ctx.set(dut.skip_size, skip * layer["ring_row"])
            ctx.set(dut.prepare, 1)
            await ctx.tick()
            ctx.set(dut.prepare, 0)
            for _ in range(3 * layer["ring"] + int(rng.integers(3))):
                await ctx.tick()
            place = ctx.get(dut.place) if layer["ring"] else None
            ends = [ctx.get(signal) & layer["last"] for signal in (dut.sample_ends, dut.ends)]
            seen.append((ctx.get(dut.address), ctx.get(dut.y), place, ctx.get(dut.destination)))
            if layer["ring"]:
                edges.append((
                    ctx.get(dut.edge) - layer["ring_rows"] + layer["dy"],
                    (ctx.get(dut.wrap_pitch) - layer["window_pitch"] + layer["ring_size"]) % (1 << 24),
                ))  # fmt: skip
            index = ctx.get(dut.following)
            ctx.set(dut.accept, 1)
            await ctx.tick()
            ctx.set(dut.accept, 0)
            sample = 0 if ends[1] else sample + ends[0]

    simulate(dut, bench, watchdog=50_000)
    return seen, edges


@pytest.mark.verifies("tile-loop-rings-windows-rows")
@pytest.mark.parametrize("batch", [1, 3])
def test_windows_and_rows_of_tiles_go_round_their_rings(simulate, rng, batch):
    layers = [random_layer(rng) for _ in range(8)]
    seen, edges = play(simulate, rng, TileLoop(PARAMS), layers, batch)
    assert seen == [each[:4] for each in expected(layers, batch)]
    assert set(edges) == {(0, 0)}


FAULTS = {
    "ring of windows off by one": lambda inner, outside: inner.layer.ring_rows.eq(outside.layer.ring_rows + 1),
    "ring of results off by one": lambda inner, outside: inner.layer.out_rows.eq(outside.layer.out_rows + 1),
    "samples begin in the same row": lambda inner, outside: inner.skip.eq(0),
}  # fmt: skip


@pytest.mark.verifies("planted-faults-rings-off-samples")
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_caught(simulate, rng, fault):
    layers = [[{**each, "stream_out": 1, "tiles_y": 4} for each in random_layer(rng)] for _ in range(3)]
    seen, _ = play(simulate, rng, Altered(TileLoop(PARAMS), FAULTS[fault]), layers, 3)
    assert seen != [each[:4] for each in expected(layers, 3)]


def places_kept(simulate, rng):
    """What is seen of a layer of several tiles with as many segments as there are descriptors, and what is expected."""
    params = PARAMS.replace(descriptors=16)
    layers = [[{**each, "tiles_y": 3, "tiles_x": 2} for each in random_layer(rng, params.descriptors)]]
    seen, _ = play(simulate, rng, TileLoop(params), layers, 2)
    return seen, [each[:4] for each in expected(layers, 2)]


@pytest.mark.verifies("places-as-many-as-descriptors")
def test_every_segment_that_descriptors_allow_keeps_its_place(simulate, rng):
    seen, wanted = places_kept(simulate, rng)
    assert len(seen) == 2 * 6 * 16
    assert seen == wanted


@pytest.mark.verifies("places-as-many-as-descriptors")
def test_fault_one_place_fewer_is_caught(simulate, rng, monkeypatch):
    kept = PARAMS.replace(descriptors=16).places
    monkeypatch.setattr(Params, "places", kept - 1)
    seen, wanted = places_kept(simulate, rng)
    assert seen != wanted
