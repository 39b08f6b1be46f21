"""Control against plain loops: which windows and tiles in which order, and the cycle of each."""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext

import pytest

from hw.control import Control
from hw.layouts import Error, Op, descriptor, elementwise, loop
from hw.params import SEGMENTS, Params
from tests.hw.program_words import packed

SMALL = {
    "rows": 4, "act_lines": 64, "pointer_blocks": 32, "output_words": 64, "codebooks": 4, "descriptors": 64,
    "tables": 2,
}  # fmt: skip
END = {"op": Op.END.value}
LAYER = ("tiles_y", "tiles_x", "destination", "row_lines", "row_pitch", "tile_lines", "column_lines", "outputs",
         "words", "frame", "low", "high", "maximum")  # fmt: skip
WINDOW = ("vectors", "dy", "dx", "wy", "wx", "height", "width", "position_pitch", "window_pitch", "pointers", "dense")


def segment(**values):
    """The smallest legal segment: all of a layer of one tile."""
    zero = {str(name): 0 for name, _ in descriptor(Params())}
    ones = ("op", "first", "last", "vectors", "wy", "wx", "height", "width", "tiles_y", "tiles_x", "row_lines", "words")
    return {**zero, **dict.fromkeys(ones, 1), **values}


def random_layer(rng, params, segments=None):
    """The segments of a layer, everything at random that control only passes on."""
    several = rng.random() < 0.6
    number = segments or int(rng.integers(1, 4))
    layer = {
        "tiles_y": int(rng.integers(1, 4)) if several else 1, "tiles_x": int(rng.integers(1, 4)) if several else 1,
        "destination": int(rng.integers(0, 64)), "row_lines": int(rng.integers(1, 9)),
        "row_pitch": int(rng.integers(1, 99)), "tile_lines": int(rng.integers(0, 200)),
        "column_lines": int(rng.integers(0, 99)), "outputs": int(rng.integers(0, 32)),
        "words": int(rng.integers(1, 33)), "frame": int(rng.integers(0, 1000)), "low": int(rng.integers(-9, 1)),
        "high": int(rng.integers(0, 9)), "maximum": int(rng.integers(2)),
    }  # fmt: skip
    result = []
    for n in range(number):
        fields = {
            name: int(rng.integers(1, 9)) for name in ("vectors", "dy", "dx", "wy", "wx", "height", "width")
        }  # fmt: skip
        pitches = {
            name: int(rng.integers(0, 1 << 12))
            for name in ("position_pitch", "window_pitch", "tile_pitch_x", "tile_pitch_y", "source")
        }
        steps = {"step_y": int(rng.integers(0, 9)), "step_x": int(rng.integers(0, 9)),
                 "y0": int(rng.integers(-4, 5)), "x0": int(rng.integers(-4, 5))}  # fmt: skip
        result.append({
            "op": Op.SEGMENT.value, "first": int(n == 0), "last": int(n == number - 1),
            "chained": int(rng.integers(2)), "dense": int(rng.integers(2)),
            "refill": int(params.refill and not several and rng.random() < 0.3), "buffer": int(rng.integers(2)),
            "codebook": int(rng.integers(params.codebooks)), "pointers": int(rng.integers(32)),
            **fields, **pitches, **steps, **layer,
        })  # fmt: skip
    return result


def unrolled(params, layers, batch):
    """[(layer, first of its tile, last of its tile, tile, request, destination)] in order, by plain loops."""
    result, tile = [], 0
    for number, segments in enumerate(layers):
        top = segments[0]
        places = [(b, ty, tx) for b in range(batch) for ty in range(top["tiles_y"]) for tx in range(top["tiles_x"])]
        for b, ty, tx in places:
            line = top["destination"] + b * top["frame"] + ty * top["tile_lines"] + tx * top["column_lines"]
            for each in segments:
                request = {name: each[name] for name in WINDOW}
                at = each["source"] + b * each["frame"] * params.groups
                request["address"] = (at + ty * each["tile_pitch_y"] + tx * each["tile_pitch_x"]) % (1 << 24)
                request["y"] = each["y0"] + ty * each["step_y"]
                request["x"] = each["x0"] + tx * each["step_x"]
                request["closes"] = each["last"]
                result.append({
                    "layer": number, "first": each["first"], "last": each["last"], "tile": tile, "request": request,
                    "line": line, "tag": (tile % 2, each["codebook"], each["refill"] << each["buffer"]),
                    "ends": (b, ty, tx) == places[-1], "begins": (b, ty, tx) == places[0],
                    "chained": each["chained"] and (b, ty, tx) == places[0],
                })  # fmt: skip
            tile += 1
    return result


class Surroundings:
    """Descriptor memory, scan, PEs and drain as control sees them, each as slow as `rng` says (0: as fast as may be).

    accepts : (cycle, request, tag). taken : cycle of the last request of each. layers : cycles of `accept_layer`.
    finished, written : (cycle, bank) of each pulse. tiles : what drain was told of each tile.
    """

    def __init__(self, dut, program, rng=None, slowest=(0, 0, 0), bank=0):
        self.dut, self.rng, self.slowest = dut, rng, slowest
        layouts = {Op.ELEMENTWISE.value: elementwise, Op.LOOP.value: loop}
        self.words = [packed(layouts.get(one.get("op"), descriptor)(dut.params), **one) for one in program]
        self.accepts, self.taken, self.layers, self.scanned, self.idle = [], [], [], [], []
        self.finished, self.computed, self.written, self.tiles = [], [], [], []
        self.opened = []  # (open, pending of the other bank) in each cycle
        self.draining = bank  # bank that drain waits for: it goes on from run to run, as control does
        self.fault = None  # (cycle, kind)

    def wait(self, kind):
        return int(self.rng.integers(0, self.slowest[kind] + 1)) if self.rng is not None else self.slowest[kind]

    async def reset(self, ctx):
        """The accumulators are cleared, each slot once, and start is ignored until then."""
        slots = []
        while ctx.get(self.dut.busy):
            assert ctx.get(self.dut.clear)
            slots.append(ctx.get(self.dut.clear_slot))
            await ctx.tick()
        assert slots == list(range(self.dut.params.rows))

    async def run(self, ctx, first=0, batch=1, limit=20_000):
        """Start in cycle 0; returns (cycle of done, error, index)."""
        dut = self.dut
        reading = -1  # last cycle in which the window is not used up
        leaving = deque()  # (cycle, bank, closes) in which the last vector of a window leaves
        begun = []  # (bank, from, up to) in which PEs have work
        writes, answer = None, None
        ctx.set(dut.first, first)
        ctx.set(dut.batch, batch)
        for cycle in range(limit):
            ctx.set(dut.start, cycle == 0)
            if answer is not None:
                ctx.set(dut.r_data.as_value(), answer)
            ctx.set(dut.scan_ready, cycle > reading)
            ctx.set(dut.scan_busy, bool(leaving) or cycle <= reading)
            left = leaving.popleft() if leaving and leaving[0][0] == cycle else None
            ctx.set(dut.scanned, bool(left and left[2]))
            ctx.set(dut.scanned_bank, left[1] if left else 0)
            for kind, signal in (("scan", dut.scan_fault), ("write", dut.write_fault)):
                ctx.set(signal, self.fault == (cycle, kind))
            for bank in range(2):
                ctx.set(dut.pe_busy[bank], any(b == bank and at + 2 <= cycle < until for b, at, until in begun))
            ctx.set(dut.written, writes == cycle)
            ctx.set(dut.written_bank, self.draining)
            for bank in range(2):
                if ctx.get(dut.finished) >> bank & 1:
                    self.finished.append((cycle, bank))
            self.opened.append((ctx.get(dut.open), ctx.get(dut.pending) >> (1 - ctx.get(dut.front)) & 1))
            if writes is None and ctx.get(dut.computed) >> self.draining & 1:
                self.computed.append((cycle, self.draining))
                tile = ctx.get(dut.tiles[self.draining])
                self.tiles.append({
                    **{name: tile[name] for name in ("destination", "row_lines", "row_pitch", "outputs", "words", "low",
                                                     "high")},
                    "maximum": ctx.get(dut.maxima) >> self.draining & 1,
                    "ends": ctx.get(dut.ends) >> self.draining & 1,
                    "number": ctx.get(dut.number[ctx.get(dut.layer_of[self.draining])]),
                })  # fmt: skip
                writes = cycle + 1 + self.wait(2)
            elif writes == cycle:
                assert ctx.get(dut.pending) >> self.draining & 1
                self.written.append((cycle, self.draining))
                self.draining, writes = 1 - self.draining, None
            if ctx.get(dut.accept_layer):
                self.layers.append(cycle)
            if ctx.get(dut.scan_start):
                assert cycle > reading, "a segment is accepted while one is read"
                scan = ctx.get(dut.scan)
                names = (*WINDOW, "address", "y", "x", "closes")
                tile = scan.tag.tile if dut.params.refill else 0
                tag = (scan.tag.bank, scan.tag.codebook, tile)
                self.accepts.append((cycle, {name: scan[name] for name in names}, tag))
                reading = cycle + 1 + self.wait(0)
                self.taken.append(reading)
                leaves = max(reading + 2 + self.wait(1), leaving[-1][0] + 1 if leaving else 0)
                leaving.append((leaves, scan.tag.bank, scan.closes))
                self.scanned.append(leaves)
                # The last vector reaches the PEs one cycle after it leaves the scan, their flags another one later.
                until = leaves + self.wait(1)
                begun.append((scan.tag.bank, cycle, until))
                self.idle.append(until)
            answer = None
            if ctx.get(dut.r_en):
                address = ctx.get(dut.r_addr)
                answer = self.words[address] if address < len(self.words) else 0
            if ctx.get(dut.done):
                result = cycle, Error(ctx.get(dut.error)), ctx.get(dut.index)
                await ctx.tick()
                ctx.set(dut.start, 0)
                assert not ctx.get(dut.busy)
                assert not ctx.get(dut.pending)
                return result
            await ctx.tick()
        raise AssertionError(f"watchdog: no end in {limit} cycles")


def times_of(steps, seen):
    """When each segment should be accepted, each tile found computed, and the run done, by the docstrings.

    Only when each was read and left the scan, when the PEs were done and when its bank was written comes from `seen`.
    """
    accepts, finished, at, idle = [], [], 3, 0
    for n, step in enumerate(steps):
        if step["first"]:
            idle = 0
            if step["tile"] >= 2:  # the bank of the tile before the one before must be written
                at = max(at, seen.written[step["tile"] - 2][0] + 1)
        accepts.append(at)
        idle = max(idle, seen.idle[n])
        if step["last"]:
            finished.append(max(seen.scanned[n] + 3, idle + 1))
        at = seen.taken[n] + 1
    return accepts, finished, max(at + 1, seen.written[-1][0] + 1)


def compare(params, layers, batch, around, outcome, bank):
    """Check a run against plain loops and the stated cycles; returns the number of tiles."""
    steps = unrolled(params, layers, batch)
    done, error, index = outcome
    assert (error, index) == (Error.NONE, sum(len(layer) for layer in layers))
    tags = [((step["tag"][0] + bank) % 2, *step["tag"][1:]) for step in steps]
    assert [(request, tag) for _, request, tag in around.accepts] == [
        (step["request"], tag) for step, tag in zip(steps, tags, strict=True)
    ]
    accepts, finished, end = times_of(steps, around)
    assert [at for at, *_ in around.accepts] == accepts
    # In order of time: a tile may be finished before the one before it, in PEs that had little of both.
    assert around.finished == sorted((at, (n + bank) % 2) for n, at in enumerate(finished))
    assert done == end
    assert around.layers == [at for at, step in zip(accepts, steps, strict=True) if step["begins"] and step["first"]]
    first = [sum(len(layer) for layer in layers[:n]) for n in range(len(layers))]
    closing = [step for step in steps if step["last"]]
    assert around.tiles == [
        {
            **{name: layers[step["layer"]][0][name] for name in ("row_lines", "row_pitch", "outputs", "words", "low",
                                                                 "high", "maximum")},
            "destination": step["line"], "ends": step["ends"], "number": first[step["layer"]],
        }
        for step in closing
    ]  # fmt: skip
    # A chained segment of a first tile may read its whole map only when the other bank is free.
    for n, (at, step) in enumerate(zip(accepts, steps, strict=True)):
        for is_open, pending in around.opened[at + 1 : accepts[n + 1] if n + 1 < len(accepts) else at + 2]:
            assert is_open == (not (step["chained"] and pending))
    return len(closing)


@pytest.mark.verifies("control-samples-tiles-segments-plain")
@pytest.mark.parametrize("slowest", [(0, 0, 0), (9, 0, 0), (3, 25, 3), (3, 3, 40), (12, 12, 12)])
def test_tiles_and_segments_are_accepted_in_the_stated_cycles(simulate, rng, slowest):
    """Three runs on one control, every time that its docstring states, random waits in scan, PEs and drain."""
    params = Params(pes=16, **SMALL)
    dut = Control(params)
    checked = waited = 0

    async def bench(ctx):
        nonlocal checked, waited
        await Surroundings(dut, []).reset(ctx)
        bank = 0
        for length, batch in ((6, 1), (1, 2), (5, 3)):
            layers = [random_layer(rng, params) for _ in range(length)]
            program = [each for layer in layers for each in layer]
            around = Surroundings(dut, [*program, END], rng, slowest, bank)
            outcome = await around.run(ctx, batch=batch)
            tiles = compare(params, layers, batch, around, outcome, bank)
            bank = (bank + tiles) % 2
            checked += tiles
            written = {at + 1 for at, _ in around.written}
            waited += sum(at in written for at, *_ in around.accepts[1:])

    simulate(dut, bench, watchdog=60_000)
    assert checked > 15
    if slowest[2] > 30:
        assert waited > 5  # write-back was what held tiles up


@pytest.mark.verifies("control-layer-tile-many-segments")
def test_a_layer_of_one_tile_may_have_any_number_of_segments(simulate, rng):
    params = Params(pes=16, **SMALL)
    dut = Control(params)

    async def bench(ctx):
        await Surroundings(dut, []).reset(ctx)
        top = segment(frame=3, destination=5)
        many = [{**top, "first": int(n == 0), "last": int(n == 19), "source": 7 * n, "y0": -n} for n in range(20)]
        many = [{**random_layer(rng, params)[0], **each, "refill": 0} for each in many]
        for name in LAYER:
            for each in many:
                each[name] = many[0][name]
        layers = [many, [{**many[0], "last": 1}]]
        around = Surroundings(dut, [each for layer in layers for each in layer] + [END], rng)
        compare(params, layers, 2, around, await around.run(ctx, batch=2), 0)

    simulate(dut, bench)


@pytest.mark.verifies("control-cycles-records-count")
def test_cycles_count_until_all_layers_are_finished(simulate):
    """`counting` from the cycle after the first accept to the one in which the last tile is found computed."""
    params = Params(pes=4, **SMALL)
    dut = Control(params)
    counted = []

    async def bench(ctx):
        await Surroundings(dut, []).reset(ctx)
        layers = [[segment(tiles_x=3)], [segment(chained=1)], [segment(chained=1)]]
        around = Surroundings(dut, [*(layer[0] for layer in layers), END], slowest=(4, 30, 20))
        tick = ctx.tick

        def watched():
            counted.append(ctx.get(dut.counting))
            return tick()

        ctx.tick = watched
        done, *_ = await around.run(ctx)
        accepts, finished, _ = times_of(unrolled(params, layers, 1), around)
        assert counted == [int(accepts[0] < cycle < max(finished)) for cycle in range(done + 1)]

    simulate(dut, bench)


# Each field at its largest legal value, and one beyond.
def operation(**values):
    """The smallest legal elementwise operation."""
    zero = {str(name): 0 for name, _ in elementwise(Params())}
    return {**zero, "op": Op.ELEMENTWISE.value, "lines": 1, **values}


def ending(**values):
    """The smallest legal end of a loop."""
    return {"op": Op.LOOP.value, "count": 1, **values}


def streamed(**values):
    """The smallest legal segment of a map that streams in, with a ring of four rows."""
    return segment(**{"ring": 1, "stream_in": 1, "ring_rows": 4, "ring_row": 1, "reach": 1, **values})


LEGAL = [
    streamed(reach=4), streamed(dy=4, step_y=4), streamed(y0=4), streamed(y0=-4),
    segment(stream_out=1, out_rows=1, tile_lines=1, y0=99),
    segment(codebook=3), segment(pointers=31), segment(outputs=63), segment(words=64), segment(outputs=60, words=4),
    segment(refill=1, buffer=1), segment(low=5, high=5), segment(low=-32768, high=32767), segment(source=0xFFFFFF),
    segment(y0=-32768, x0=32767), segment(destination=0xFFFF), segment(vectors=0xFFFF), segment(tiles_y=2, tiles_x=3),
    segment(maximum=1, dense=1, chained=1), segment(frame=0xFFFF), segment(functions=1, table_1=1, table_2=1),
    segment(table_1=7), segment(barrier=1, moves_source=1, moves_result=1),
]  # fmt: skip
OUT_OF_RANGE = [
    streamed(reach=5), streamed(reach=0), streamed(dy=5), streamed(step_y=5), streamed(y0=5), streamed(y0=-5),
    streamed(ring_rows=0, reach=0), streamed(ring_row=0), streamed(ring=0), streamed(stream_in=0),
    streamed(chained=1), streamed(moves_source=1), segment(stream_out=1, tile_lines=1),
    segment(stream_out=1, out_rows=1), segment(stream_out=1, out_rows=1, tile_lines=1, moves_result=1),
    segment(codebook=4), segment(pointers=32), segment(outputs=64), segment(words=65), segment(outputs=61, words=4),
    segment(low=6, high=5), segment(low=0, high=-1), segment(first=0), segment(refill=1, tiles_y=2),
    segment(functions=1, table_1=2), segment(functions=1, table_2=7), operation(lines=0), operation(low=1),
    operation(has_e=1), operation(functions=1, table_1=2), ending(first=5), ending(count=0),
    segment(refill=1, tiles_x=2), segment(outputs=0xFFFFF), segment(codebook=255), segment(pointers=0xFFFFF),
    *(segment(**{name: 0}) for name in ("vectors", "wy", "wx", "height", "width", "tiles_y", "tiles_x", "row_lines",
                                        "words")),
]  # fmt: skip
UNSUPPORTED = [
    ({}, Error.OPCODE), ({"op": 4}, Error.OPCODE), ({"op": 14}, Error.OPCODE), (segment(reserved9=1), Error.RESERVED),
    (segment(reserved10=1 << 2), Error.RESERVED), (operation(reserved0=1), Error.RESERVED),
    (operation(reserved_rest=1), Error.RESERVED), (ending(reserved0=1), Error.RESERVED),
    ({**END, "reserved1": 4}, Error.RESERVED),
    *((segment(**{f"reserved{n}": 1}), Error.RESERVED) for n in (1, 2, 3, 4, 5, 6, 8, 9, 10, 11)),
]  # fmt: skip
SEQUENCES = [
    # (descriptors, which of them is wrong)
    ([segment(last=0), segment()], 1), ([segment(last=0), END], 1), ([segment(), segment(first=0)], 1),
    ([segment(last=0), segment(first=0, last=0), segment(first=0, codebook=4)], 2),
    ([segment(last=0), operation()], 1), ([segment(last=0), ending()], 1), ([segment(), ending(first=1)], 1),
    ([segment(), operation(), ending(count=0)], 2),
    # A loop in the body of another one would never end: rounds are counted for one loop.
    ([segment(), ending(), ending(count=3)], 2), ([segment(), ending(), segment(), ending(first=1)], 3),
    ([segment(tiles_x=2, first=int(n == 0), last=int(n == SEGMENTS)) for n in range(SEGMENTS + 1)], SEGMENTS),
    ([segment(tiles_y=2, first=int(n == 0), last=0) for n in range(SEGMENTS + 2)], SEGMENTS),
]  # fmt: skip


async def ends_with(ctx, dut, program, error, index, bank=0, batch=1):
    """A run that ends so; returns the number of tiles."""
    around = Surroundings(dut, program, bank=bank)
    _, got, at = await around.run(ctx, batch=batch)
    assert (got, at) == (error, index), program[index : index + 1]
    return len(around.written)


@pytest.mark.verifies("control-descriptor-field-bound-beyond")
def test_legal_descriptors_run_and_others_end_the_run(simulate):
    params = Params(pes=4, **SMALL)
    dut = Control(params)

    async def bench(ctx):
        await Surroundings(dut, []).reset(ctx)
        ctx.set(dut.received, 9)
        bank = 0
        for one in LEGAL:
            bank += await ends_with(ctx, dut, [one, END], Error.NONE, 1, bank % 2)
        cases = [([one], Error.RANGE, 0) for one in OUT_OF_RANGE] + [([one], error, 0) for one, error in UNSUPPORTED]
        cases += [([segment(), *wrong], error, 1) for wrong, error, _ in cases]
        cases += [(program, Error.RANGE, index) for program, index in SEQUENCES]
        for program, error, index in cases:
            # What was accepted before is written back, also half a tile; the next run finds the array as it was.
            tiles = await ends_with(ctx, dut, program, error, index, bank % 2)
            assert tiles == sum(one.get("first", 0) for one in program[:index])
            bank += tiles
        await ends_with(ctx, dut, [segment(), END], Error.RANGE, 0, bank % 2, batch=0)
        assert await ends_with(ctx, dut, [segment(), END], Error.NONE, 1, bank % 2, batch=2) == 2

    simulate(dut, bench)


@pytest.mark.verifies("control-streamed-layers-array-without")
def test_an_array_without_refill_takes_no_streamed_layer(simulate):
    dut = Control(Params(pes=4, **SMALL, refill=False))

    async def bench(ctx):
        await Surroundings(dut, []).reset(ctx)
        await ends_with(ctx, dut, [segment(refill=1)], Error.RANGE, 0)
        await ends_with(ctx, dut, [segment(), END], Error.NONE, 1)

    simulate(dut, bench)


@pytest.mark.verifies("control-functions-operations-array-without")
def test_an_array_without_tables_or_elementwise_unit_refuses_them(simulate):
    dut = Control(Params(pes=4, **{**SMALL, "tables": 0}, elementwise=False))

    async def bench(ctx):
        await Surroundings(dut, []).reset(ctx)
        await ends_with(ctx, dut, [segment(functions=1)], Error.RANGE, 0)
        await ends_with(ctx, dut, [operation()], Error.OPCODE, 0)
        await ends_with(ctx, dut, [segment(), ending(count=3), END], Error.NONE, 2)

    simulate(dut, bench)


@pytest.mark.verifies("control-maps-stream-array-without")
def test_an_array_without_streams_takes_no_map_that_streams(simulate):
    dut = Control(Params(pes=4, **SMALL, streams=False))

    async def bench(ctx):
        await Surroundings(dut, []).reset(ctx)
        for one in (streamed(), segment(stream_out=1, out_rows=1, tile_lines=1)):
            await ends_with(ctx, dut, [one], Error.RANGE, 0)
        await ends_with(ctx, dut, [segment(), END], Error.NONE, 1)

    simulate(dut, bench)


@pytest.mark.verifies("control-operations-loops-told-against")
def test_operations_are_queued_and_loops_move_addresses(simulate, rng):
    """The order of a program with a loop, and what each push and each window is told, against plain loops."""
    params = Params(pes=16, **SMALL)
    dut = Control(params)
    program = [
        operation(a=1, lines=3), segment(source=1000, moves_source=1, destination=9), operation(
            a=20, b=21, c=22, e=23, result=24, has_b=1, has_c=1, has_e=1, moves_a=1, moves_c=1, moves_result=1,
            offset=-5, frame=77, shift=3, scale_a=-2, scale_c=9, functions=1, table_1=1, left_1=4, right_1=6,
        ), segment(source=50, destination=30, moves_result=1), ending(first=1, count=3, pitch=-4),
        operation(a=7, moves_a=1), segment(source=5, moves_source=1), END,
    ]  # fmt: skip
    seen = []

    async def bench(ctx):
        await Surroundings(dut, []).reset(ctx)
        around = Surroundings(dut, program, rng, (3, 3, 3))
        tick = ctx.tick

        def watched():
            if ctx.get(dut.push):
                job = ctx.get(dut.push_job)
                seen.append(
                    {name: job[name] for name in ("number", "a", "b", "c", "e", "result", "again", "offset", "shift")}
                    if ctx.get(dut.push_operation) else (ctx.get(dut.scan.address), ctx.get(dut.loop.destination))
                )  # fmt: skip
            return tick()

        ctx.tick = watched
        _, error, index = await around.run(ctx)
        assert (error, index) == (Error.NONE, 7)

    simulate(dut, bench)

    def queued(number, offset, again):
        one = program[number]
        moved = {name: one[name] + offset * one[f"moves_{name}"] for name in ("a", "b", "c", "e", "result")}
        return {"number": number, **moved, "again": again, "offset": one["offset"], "shift": one["shift"]}

    expected = [queued(0, 0, 0)]
    for n in range(3):
        expected += [(1000 - 8 * n, 9), queued(2, -4 * n, n > 0), (50, 30 - 4 * n)]
    assert seen == [*expected, queued(5, 0, 0), (5, 0)]


def test_descriptors_end_where_their_memory_ends(simulate):
    dut = Control(Params(pes=4, **{**SMALL, "descriptors": 3}))

    async def bench(ctx):
        await Surroundings(dut, []).reset(ctx)
        await ends_with(ctx, dut, [segment(), segment(), segment(), END], Error.RANGE, 3)

    simulate(dut, bench)


@pytest.mark.verifies("control-address-beyond-memory-ends")
@pytest.mark.parametrize("kind", ["scan", "write"])
@pytest.mark.parametrize("cycle", [5, 12, 40, 70])
def test_an_address_beyond_a_memory_ends_the_run(simulate, kind, cycle):
    """Nothing is accepted any more, what was accepted is written; the next run is not concerned."""
    dut = Control(Params(pes=4, **SMALL))

    async def bench(ctx):
        await Surroundings(dut, []).reset(ctx)
        program = [segment(tiles_x=40, last=0), segment(first=0, tiles_x=40), END]
        around = Surroundings(dut, program, slowest=(2, 3, 4))
        around.fault = (cycle, kind)
        _, error, index = await around.run(ctx)
        accepted = [at for at, *_ in around.accepts if at <= cycle + 1]
        assert len(around.accepts) == len(accepted)
        assert (error, index) == (
            Error.RANGE,
            (len([at for at in accepted if at < cycle]) - 1) % 2 if kind == "scan" else 0,
        )
        assert len(around.written) == -(-len(accepted) // 2) < 40
        await ends_with(ctx, dut, [segment(), END], Error.NONE, 1, around.draining)

    simulate(dut, bench)


# Faults: control that goes wrong in one place.


class SecondRow(Control):
    """The second row of tiles begins where a step to the right would."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.loop.layer.tile_pitch_y.eq(self.r_data.tile_pitch_x)
        return m


class EarlyRelease(Control):
    """A bank is taken for a new tile when its sums are computed, not when they are written."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.pending.eq(self.banks.pending & ~self.banks.computed)
        return m


class LostSegment(Control):
    """The second segment of a layer is not scanned: the third follows the first."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(~self.r_data.last):
            m.d.comb += self.loop.layer.last.eq(self.loop.segment == 1)
        return m


class OneSample(Control):
    """Every sample is that in the first frame."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.loop.layer.frame.eq(0)
        return m


@pytest.mark.verifies("planted-faults-second-row-tiles")
@pytest.mark.parametrize("fault", [Control, SecondRow, EarlyRelease, LostSegment, OneSample])
def test_faults_are_caught(simulate, rng, fault):
    params = Params(pes=4, **SMALL)
    dut = fault(params)

    async def bench(ctx):
        await Surroundings(dut, []).reset(ctx)
        layer = random_layer(rng, params, 3)
        same = {"tiles_y": 3, "tiles_x": 2, "frame": 7}
        layer = [{**each, **same, "refill": 0, "tile_pitch_y": 5, "tile_pitch_x": 3} for each in layer]
        around = Surroundings(dut, [*layer, END], slowest=(0, 0, 40))
        caught = nullcontext() if fault is Control else pytest.raises((AssertionError, IndexError))
        with caught:
            compare(params, [layer], 2, around, await around.run(ctx, batch=2, limit=3000), 0)

    simulate(dut, bench)
