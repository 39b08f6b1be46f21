"""Window and scan against plain loops: order, addresses, borders, and the cycle of every request and broadcast."""

from __future__ import annotations

import pytest
from amaranth.sim import Simulator

from hw.params import Params
from hw.scan import Scan

SMALL = {"act_lines": 256, "pointer_blocks": 4096}


def random_request(rng, params, **changes):
    """A window on a map that starts at a line of its own; parts of it may lie outside on every side."""
    height, width = int(rng.integers(1, 6)), int(rng.integers(1, 6))
    vectors, pitch = int(rng.integers(1, 4)), int(rng.integers(3, 6))
    row = -(-width * pitch // params.groups) * params.groups
    y, x = int(rng.integers(-2, 3)), int(rng.integers(-2, 3))
    dy, dx = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    origin = int(rng.integers(0, 8)) * params.groups
    return {
        "address": (origin + y * row + x * pitch) % (1 << 24), "y": y, "x": x, "vectors": vectors, "dy": dy, "dx": dx,
        "wy": int(rng.integers(1, 5)), "wx": int(rng.integers(1, 5)), "height": height, "width": width,
        "position_pitch": dx * pitch, "window_pitch": dy * row, "pointers": int(rng.integers(0, 1000)),
        "uniform": int(rng.random() < 0.3), "dense": int(rng.random() < 0.2), "closes": int(rng.random() < 0.5),
        "tag": {"bank": int(rng.integers(2)), "codebook": int(rng.integers(4)), "tile": 0}, **changes,
    }  # fmt: skip


def random_ring(rng, params):
    """A window on a ring of rows: it begins in any of them."""
    request = random_request(rng, params)
    row = request["window_pitch"] // request["dy"]
    rows = int(rng.integers(request["dy"], request["dy"] + 4))
    place = int(rng.integers(rows))
    x = request["x"] * request["position_pitch"] // request["dx"]
    return request | {
        "ring": 1, "place": place, "edge": rows - request["dy"], "address": (16 + place * row + x) % (1 << 24),
        "wrap_pitch": (request["dy"] - rows) * row % (1 << 24),
    }  # fmt: skip


def walk(request):
    """(address or None outside, pointer address, last) of each step of a window."""
    steps, pointer = [], request["pointers"]
    row = request["window_pitch"] // request["dy"]
    rows = request["edge"] + request["dy"] if request.get("ring") else None
    for i in range(request["wy"]):
        for j in range(request["wx"]):
            y, x = request["y"] + i * request["dy"], request["x"] + j * request["dx"]
            if 0 <= y < request["height"] and 0 <= x < request["width"]:
                down = i * request["dy"]
                if rows is not None:
                    down = (request["place"] + down) % rows - request["place"]
                at = request["address"] + down * row + j * request["position_pitch"]
                steps += [[(at + v) % (1 << 24), pointer + v, False] for v in range(request["vectors"])]
            else:
                steps.append([None, pointer, False])
            pointer += 0 if request.get("uniform") else request["vectors"]
    steps[-1][2] = True
    return steps


def play(dut, requests, vectors, rng, limit=None, credit=1.0, chained=0.0, pause=0, claims=0.0):
    """Scan windows one after the other. Returns what happened in each cycle, and when each window started.

    vectors : activation vector of each address. limit, open : with `chained`, lines appear one by one.
    claims : how often somebody else reads the memory.
    """
    params = dut.params
    log, starts, tags = [], [], []

    async def bench(ctx):
        waiting, cycle, lines, idle = list(requests), 0, 0, 0
        answer, ended = None, 0
        while ended < len(requests):
            assert cycle < 20_000, "watchdog"
            if answer is not None:
                for group in range(params.groups):
                    word = vectors.get(answer * params.groups + group, [0xDEAD] * 8)
                    ctx.set(dut.r_data[group], sum(a << 16 * lane for lane, a in enumerate(word)))
            lines += bool(chained and rng.random() < chained)
            ctx.set(dut.open, not chained)
            ctx.set(dut.limit, lines)
            ready = rng.random() < credit
            ctx.set(dut.o.ready, ready)
            claimed = bool(claims and rng.random() < claims)
            ctx.set(dut.claimed, claimed)
            begin = bool(waiting) and ctx.get(dut.ready) and idle == 0
            idle = max(0, idle - 1)
            ctx.set(dut.start, begin)
            if begin:
                ctx.set(dut.request, waiting.pop(0))
                starts.append(cycle)
                idle = int(rng.integers(0, pause + 1))
            o = ctx.get(dut.o.payload)
            sent = None
            if ctx.get(dut.o.valid) and ready:
                sent = (o.pointers, o.mask, tuple(o.acts[n] for n in range(8)), o.tag.bank, o.tag.codebook)
            reads = ctx.get(dut.r_en)
            assert not (reads and claimed)
            answer = ctx.get(dut.r_addr) if reads else -1 if claimed else None
            ended += ctx.get(dut.finished)
            if ctx.get(dut.finished):
                tags.append((o.tag.bank, ctx.get(dut.closes)))
            log.append({
                "read": answer if reads else None, "claimed": claimed, "ready": ready, "lines": lines,
                "sent": sent, "skipped": ctx.get(dut.skipped),
                "finished": ctx.get(dut.finished), "taken": ctx.get(dut.taken), "fault": ctx.get(dut.fault),
            })  # fmt: skip
            await ctx.tick()
            cycle += 1
        assert not ctx.get(dut.busy)

    simulator = Simulator(dut)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()
    return log, starts, tags


def expected(requests, vectors, params, log, starts, chained):
    """The log of the same run from the recurrence in the docstring of `Scan`."""
    reads, sent, skipped, finished, taken = {}, {}, [], [], []
    ready = lambda t: t >= len(log) or log[t]["ready"]  # noqa: E731
    claimed = lambda t: t < len(log) and log[t]["claimed"]  # noqa: E731
    left = moved = -10
    for request, start in zip(requests, starts, strict=True):
        at = start
        for address, pointer, last in walk(request):
            at = max(at + 1, moved)
            while chained and address is not None and address // params.groups >= log[min(at, len(log) - 1)]["lines"]:
                at += 1
            while address is not None and claimed(at):
                at += 1
            acts = vectors[address] if address is not None else [0] * 8
            mask = sum(1 << n for n, a in enumerate(acts) if a)
            if address is not None:
                reads[at] = address // params.groups
                mask = 255 if request["dense"] else mask
            moved = max(at + 1, left)
            while address is not None and claimed(moved - 1):
                moved += 1
            for again in range(at + 1, moved):
                if address is not None and claimed(again - 1) and not claimed(again):
                    reads[again] = address // params.groups
            left = moved + 1
            while mask and not ready(left):
                left += 1
            if mask:
                sent[left] = (pointer, mask, tuple(acts), request["tag"]["bank"], request["tag"]["codebook"])
            else:
                skipped.append(left)
            if last:
                finished.append(left)
                taken.append(at)
    return reads, sent, skipped, finished, taken


def map_of(rng, requests, density):
    vectors = {}
    for request in requests:
        for address, *_ in walk(request):
            if address is not None:
                vectors[address] = [int(a) for a in rng.integers(1, 1 << 16, 8) * (rng.random(8) < rng.choice(density))]
    return vectors


def compare(params, requests, vectors, rng, dut=None, **how):
    """Play and check; returns how many vectors were sent and skipped."""
    log, starts, tags = play(dut or Scan(params), requests, vectors, rng, **how)
    reads, sent, skipped, finished, taken = expected(requests, vectors, params, log, starts, how.get("chained", 0))
    assert {t: each["read"] for t, each in enumerate(log) if each["read"] is not None} == reads
    assert {t: each["sent"] for t, each in enumerate(log) if each["sent"]} == sent
    assert [t for t, each in enumerate(log) if each["skipped"]] == skipped
    assert [t for t, each in enumerate(log) if each["finished"]] == finished
    assert [t for t, each in enumerate(log) if each["taken"]] == taken
    assert tags == [(request["tag"]["bank"], request["closes"]) for request in requests]
    assert not any(each["fault"] for each in log)
    if not how.get("pause"):
        # The next window starts 1 cycle after the last request of the one before.
        assert starts == [0, *(at + 1 for at in taken[:-1])]
    return len(sent), len(skipped)


@pytest.mark.verifies("window-scan-order-banks-positions", "scan-reads-others-claim-lost")
@pytest.mark.parametrize("pes", [1, 16, 64])
@pytest.mark.parametrize("how", [
    {}, {"credit": 0.4}, {"chained": 0.15}, {"credit": 0.5, "chained": 0.3, "pause": 12},
    {"claims": 0.3}, {"claims": 0.6, "credit": 0.4}, {"claims": 0.2, "credit": 0.7, "chained": 0.2, "pause": 3},
])  # fmt: skip
def test_windows_are_scanned_in_order_and_in_the_stated_cycles(rng, pes, how):
    params = Params(pes=pes, **SMALL)
    requests = [random_request(rng, params) for _ in range(50)]
    # A window of one vector follows another: three windows are in the scan at once.
    requests += [random_request(rng, params, wy=1, wx=1, vectors=1) for _ in range(8)]
    sent, skipped = compare(params, requests, map_of(rng, requests, [0, 0.2, 1]), rng, **how)
    assert sent > 30
    assert skipped > 30


@pytest.mark.verifies("window-rings-rows-whole-maps")
@pytest.mark.parametrize("pes", [1, 16])
def test_windows_go_on_in_the_first_row_of_a_ring(rng, pes):
    """Rings and whole maps in turn; a ring may be as small as one step."""
    params = Params(pes=pes, **SMALL)
    requests = [(random_ring if n % 3 else random_request)(rng, params) for n in range(50)]
    sent, skipped = compare(params, requests, map_of(rng, requests, [0, 0.2, 1]), rng, credit=0.7, claims=0.2)
    assert sent > 30
    assert skipped > 30


@pytest.mark.verifies("planted-fault-ring-another-size")
@pytest.mark.parametrize("by", [-1, 1])
def test_fault_a_ring_of_another_size_is_caught(rng, by):
    """The planted fault: windows wrap a row early or late."""
    params = Params(pes=8, **SMALL)
    requests = [request for request in (random_ring(rng, params) for _ in range(40)) if request["edge"]]
    vectors = map_of(rng, requests, [0.5, 1])
    changed = [{**request, "edge": request["edge"] + by} for request in requests]
    log, starts, _ = play(Scan(params), changed, vectors, rng)
    reads, *_ = expected(requests, vectors, params, log, starts, 0)
    assert {t: each["read"] for t, each in enumerate(log) if each["read"] is not None} != reads


@pytest.mark.verifies("planted-faults-weights-shared-differ")
@pytest.mark.parametrize("of", [0, 1])
def test_fault_positions_that_do_not_share_their_weights_are_caught(rng, of):
    """The planted fault: windows whose positions have weights of their own share those of the first, or do not."""
    params = Params(pes=8, **SMALL)
    requests = [random_request(rng, params, uniform=of, wy=2, wx=3) for _ in range(20)]
    vectors = map_of(rng, requests, [0.5, 1])
    log, starts, _ = play(Scan(params), [{**request, "uniform": 1 - of} for request in requests], vectors, rng)
    _, sent, *_ = expected(requests, vectors, params, log, starts, 0)
    assert {t: each["sent"] for t, each in enumerate(log) if each["sent"]} != sent


@pytest.mark.verifies("scan-borders-map-between-others")
def test_the_walk_has_no_position_of_a_neighbouring_row(rng):
    """Every position on the border of a map, with maps next to each other in memory: all read zero, none is read."""
    params = Params(pes=8, **SMALL)
    request = random_request(
        rng, params, height=2, width=3, y=-1, x=-1, dy=1, dx=1, wy=4, wx=5, vectors=1, position_pitch=1,
        window_pitch=3, address=(10 - 3 - 1), pointers=0, dense=0, uniform=0,
    )  # fmt: skip
    assert [address for address, *_ in walk(request) if address is not None] == list(range(10, 16))
    vectors = {address: [address] * 8 for address in range(64)}
    log, _, _ = play(Scan(params), [request], vectors, rng)
    assert [each["sent"][0] for each in log if each["sent"]] == [6, 7, 8, 11, 12, 13]
    assert [each["read"] for each in log if each["read"] is not None] == list(range(10, 16))


@pytest.mark.verifies("planted-fault-border-off")
def test_fault_a_border_off_by_one_is_caught(rng):
    """The planted fault: a map that is one pixel wider than the descriptor says."""
    params = Params(pes=16, **SMALL)
    requests = [random_request(rng, params) for _ in range(20)]
    vectors = map_of(rng, requests, [0.5, 1])
    wider = [{**request, "width": request["width"] + 1} for request in requests]
    log, starts, _ = play(Scan(params), wider, vectors, rng)
    reads, *_ = expected(requests, vectors, params, log, starts, 0)
    assert {t: each["read"] for t, each in enumerate(log) if each["read"] is not None} != reads


@pytest.mark.verifies("scan-tile-read-only-when")
@pytest.mark.parametrize("buffer", [0, 1])
def test_a_tile_is_scanned_only_when_it_is_loaded(simulate, rng, buffer):
    dut = Scan(Params(pes=1, act_lines=64))
    seen = []

    async def bench(ctx):
        ctx.set(dut.request, {
            "vectors": 2, "wy": 1, "wx": 1, "height": 1, "width": 1, "tag": {"tile": 1 << buffer},
        })  # fmt: skip
        ctx.set(dut.open, 1)
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.r_data[0], 1)
        ctx.set(dut.start, 1)
        for cycle in range(16):
            # The other buffer does not matter; ours is there in cycle 9.
            ctx.set(dut.loaded, 1 << (1 - buffer) | (cycle >= 9) << buffer)
            seen.append((ctx.get(dut.waiting), ctx.get(dut.r_en), ctx.get(dut.taken) and ctx.get(dut.taken_tile)))
            await ctx.tick()
            ctx.set(dut.start, 0)

    simulate(dut, bench)
    assert [waiting for waiting, *_ in seen] == [0] + [1] * 8 + [0] * 7
    assert [read for _, read, _ in seen] == [0] * 9 + [1, 1] + [0] * 5
    assert [taken for *_, taken in seen] == [0] * 10 + [1 << buffer] + [0] * 5


@pytest.mark.verifies("scan-addresses-beyond-activation-pointer")
@pytest.mark.parametrize(("change", "faults"), [
    ({}, 0), ({"address": 30}, 0), ({"address": 31}, 1), ({"address": (1 << 24) - 1}, 1), ({"pointers": 98}, 0),
    ({"pointers": 99}, 1), ({"address": 40, "width": 0}, 0), ({"pointers": 99, "dense": 1, "height": 0}, 0),
])  # fmt: skip
def test_addresses_beyond_a_memory_are_noted(rng, change, faults):
    """32 vectors of activations and 100 blocks of pointers; two vectors are scanned."""
    params = Params(pes=16, act_lines=16, pointer_blocks=100)
    request = {
        "address": 0, "y": 0, "x": 0, "vectors": 2, "dy": 1, "dx": 1, "wy": 1, "wx": 1, "height": 1, "width": 1,
        "position_pitch": 2, "window_pitch": 2, "pointers": 0, "dense": 0, "closes": 1, "tag": {}, **change,
    }  # fmt: skip
    log, *_ = play(Scan(params), [request], {n: [1] * 8 for n in range(64)}, rng)
    assert sum(each["fault"] for each in log) == faults
