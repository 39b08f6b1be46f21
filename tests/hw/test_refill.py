from __future__ import annotations

import numpy as np
import pytest

from hw.layouts import Memory, memory_shape, refill_header
from hw.params import Params
from hw.refill import Refill
from sim.tiles import tile_ends

PARAMS = Params(pes=4)


def header(**values):
    return refill_header(PARAMS).const(values).as_value().value


def flags(beats):
    """TLAST of each beat."""
    raw = b"".join(beat.to_bytes(16, "little") for beat in beats)
    return [int(end) for end in tile_ends(PARAMS, np.frombuffer(raw, np.uint8).reshape(-1, 16))]


def packet(memory, unit, address, words, buffer, last):
    head = header(memory=memory, unit=unit, address=address, words=len(words), buffer=buffer, last=last)
    return [head, *words]


@pytest.mark.verifies("refill-packets-waits-n-2")
@pytest.mark.parametrize("waits", [False, True])
def test_packets_go_where_their_headers_say(simulate, rng, waits):
    packets = [
        (int(rng.integers(0, 2)), int(rng.integers(0, 4)), int(rng.integers(0, 1000)),
         [int(v) for v in rng.integers(0, 1 << 62, int(rng.integers(1, 6)))], 0, n == 11)
        for n in range(12)
    ]  # fmt: skip
    beats = [beat for one in packets for beat in packet(*one)]
    dut, last = Refill(PARAMS), flags(beats)
    written, loaded = [], []

    async def bench(ctx):
        ctx.set(dut.enable, 1)
        at = 0
        for cycle in range(400):
            valid = at < len(beats) and (not waits or rng.random() < 0.5)
            ctx.set(dut.i.valid, valid)
            ctx.set(dut.i.payload, {"data": beats[at], "last": last[at]} if at < len(beats) else {})
            if ctx.get(dut.loaded):
                loaded.append(cycle)
            if ctx.get(dut.o.valid):
                o = ctx.get(dut.o.payload)
                written.append((o.memory, o.unit, o.address, o.data))
            at += bool(valid and ctx.get(dut.i.ready))
            await ctx.tick()
        assert at == len(beats)

    simulate(dut, bench)
    assert written == [
        (memory, unit, address + n, word)
        for memory, unit, address, words, *_ in packets
        for n, word in enumerate(words)
    ]
    assert len(written) > 20
    if not waits:  # n + 2 cycles a packet, and one until it shows
        assert loaded[0] == sum(len(one[3]) + 2 for one in packets)


def test_nothing_is_taken_outside_a_run(simulate):
    dut = Refill(PARAMS)

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.i.payload, {"data": header(words=1, last=1)})
        for _ in range(5):
            assert not ctx.get(dut.i.ready)
            await ctx.tick()
        ctx.set(dut.enable, 1)
        assert ctx.get(dut.i.ready)

    simulate(dut, bench)


@pytest.mark.verifies("refill-buffer-filled-again-when")
@pytest.mark.parametrize("busy_until", [0, 12, 30])
def test_a_buffer_is_filled_again_when_the_pes_are_done_with_it(simulate, busy_until):
    """Tile A in buffer 0, B in 1, C in 0 again: C waits until A is scanned and no PE has a vector of it."""
    beats = [*packet(0, 0, 0, [1], 0, 1), *packet(0, 0, 9, [2], 1, 1), *packet(0, 0, 0, [3], 0, 1)]
    dut, last = Refill(PARAMS), flags(beats)
    words, loaded = {}, []
    taken, scanned = 8, 11

    async def bench(ctx):
        ctx.set(dut.enable, 1)
        at = 0
        for cycle in range(60):
            ctx.set(dut.i.valid, at < len(beats))
            ctx.set(dut.i.payload, {"data": beats[min(at, len(beats) - 1)], "last": last[min(at, len(beats) - 1)]})
            ctx.set(dut.taken, int(cycle == taken))
            ctx.set(dut.scanned, int(cycle == scanned))
            ctx.set(dut.pe_busy, int(cycle < busy_until))
            loaded.append(ctx.get(dut.loaded))
            if ctx.get(dut.o.valid):
                words[ctx.get(dut.o.payload.data)] = cycle
            at += bool(at < len(beats) and ctx.get(dut.i.ready))
            await ctx.tick()

    simulate(dut, bench)
    # Header, wait, word: loaded in 3; B in 6.
    assert loaded[:9] == [0, 0, 0, 1, 1, 1, 3, 3, 3]
    # Not to be scanned a second time, though its words may still be read.
    assert loaded[taken + 1] == 2
    # Free 4 cycles after `scanned`, or 2 after the PEs are done; found so, a word, and its write a cycle later.
    free = max(scanned + 4, busy_until + 2)
    assert words == {1: 3, 2: 6, 3: free + 2}
    assert loaded[free + 1 : free + 3] == [2, 3]


@pytest.mark.verifies("refill-forty-tiles-against-random")
@pytest.mark.parametrize(("gaps", "slow"), [(0.0, 0), (0.6, 0), (0.0, 60), (0.5, 60)])
def test_no_word_of_a_tile_in_use_is_overwritten_and_none_is_scanned_early(simulate, rng, gaps, slow):
    """Forty tiles through two buffers against a scan and PEs with random delays, the stream with random gaps.

    The scan asks for the tiles in order; the PEs are up to `slow` cycles behind it, so that a tile is often scanned
    while the one two before it, in the same buffer, has only just left the PEs, or the next for it already waits.
    """
    tiles = []  # (buffer, packets); buffers mostly alternate, as the compiler's do
    for n in range(40):
        buffer = n % 2 if rng.random() < 0.8 or not tiles else tiles[-1][0]
        tiles.append((buffer, [[(n << 8) + k for k in range(int(rng.integers(0, 5)))]
                               for _ in range(int(rng.integers(1, 4)))]))  # fmt: skip
    beats = [
        beat
        for buffer, packets in tiles
        for k, words in enumerate(packets)
        for beat in packet(k % 2, k % 4, 16 * buffer + 4 * k, words, buffer, k == len(packets) - 1)
    ]
    dut, ends = Refill(PARAMS), flags(beats)
    events = []  # (cycle, tile) of each word written
    beats_at, loaded_at, taken_at, free_at = [], {}, {}, {}
    waits = {"scan": 0, "stream": 0, "behind": 0}

    async def bench(ctx):
        ctx.set(dut.enable, 1)
        at, cycle, tile = 0, 0, 0
        scan_ends = None  # cycle in which the last vector of the tile is requested
        leaving = {}  # cycle in which it leaves the scan → tile
        done = {}  # tile → first cycle in which no PE has a vector of it
        while tile < len(tiles) or cycle < max(free_at.values(), default=0) + 8:
            valid = at < len(beats) and rng.random() >= gaps
            ctx.set(dut.i.valid, valid)
            ctx.set(dut.i.payload, {"data": beats[min(at, len(beats) - 1)], "last": ends[min(at, len(beats) - 1)]})
            buffer = tiles[tile][0] if tile < len(tiles) else 0
            finishing = scan_ends == cycle
            ctx.set(dut.taken, finishing << buffer)
            ctx.set(dut.scanned, 1 << tiles[leaving[cycle]][0] if cycle in leaving else 0)
            if finishing:
                leaves = max(cycle + 2 + int(rng.integers(0, 4)), max(leaving, default=0) + 1)
                leaving[leaves] = tile
                # The last vector reaches the PEs' flags two cycles later at the latest.
                done[tile] = leaves + (int(rng.integers(0, slow + 1)) if slow else 0)
                taken_at[tile] = cycle
                free_at[tile] = max(leaves + 4, done[tile] + 2)
            for b in range(2):
                ctx.set(dut.pe_busy[b], any(tiles[t][0] == b and cycle < until for t, until in done.items()))
            loaded = ctx.get(dut.loaded)
            if ctx.get(dut.o.valid):
                number = ctx.get(dut.o.payload.data) >> 8
                assert ctx.get(dut.o.payload.address) >> 4 == tiles[number][0]
                events.append((cycle, number))
            ready = ctx.get(dut.i.ready)
            waits["stream"] += bool(valid and not ready)
            if valid and ready:
                beats_at.append(cycle)
                at += 1
            if finishing:
                scan_ends, tile = None, tile + 1
            elif scan_ends is None and tile < len(tiles):
                if loaded >> buffer & 1:
                    loaded_at[tile] = cycle  # seen; it is scanned from now on
                    scan_ends = cycle + 1 + int(rng.integers(0, 6))
                    previous = max((t for t in range(tile) if tiles[t][0] != buffer), default=None)
                    waits["behind"] += previous is not None and cycle < free_at[previous]
                else:
                    waits["scan"] += 1
            await ctx.tick()
            cycle += 1
        assert at == len(beats)

    simulate(dut, bench)
    assert len(taken_at) == len(tiles)
    assert [number for _, number in events] == [
        n for n, (_, packets) in enumerate(tiles) for word in packets for _ in word
    ]
    beat, earlier, back_to_back, now = 0, {}, [], 0
    for n, (buffer, packets) in enumerate(tiles):
        free = free_at[earlier[buffer]] if buffer in earlier else 0
        first = len(packets[0])
        sizes = sum(1 + len(words) for words in packets)
        last = beats_at[beat + sizes - 1]
        # The first header is taken while the buffer may still be in use; what follows it only when it is free.
        assert all(cycle > free for cycle in beats_at[beat + 1 : beat + 1 + first])
        assert all(cycle > free for cycle, number in events if number == n)
        # Without gaps every beat has its cycle: n + 2 a packet, and however long its buffer is not free.
        for words in packets:
            begin = max(now + 1, free) + 1
            back_to_back += [now, *range(begin, begin + len(words))]
            now = begin + len(words)
        # A tile shows 1 cycle after its last word, or after the wait of an empty packet; scans follow one another.
        shows = last + 1 if packets[-1] else max(last + 2, free + 1)
        assert loaded_at[n] == max(shows, taken_at[n - 1] + 1 if n else 0)
        beat += sizes
        earlier[buffer] = n
    if not gaps:
        assert beats_at == back_to_back
    assert waits["scan"] > 20
    assert waits["stream"] > 20
    if slow:
        assert waits["behind"] > 3


SIZES = {memory: memory_shape(PARAMS, memory)[1] for memory in (Memory.WEIGHTS, Memory.POINTERS)}
GOOD = {"memory": 0, "unit": 0, "address": 0, "words": 2, "buffer": 0, "last": 1}
WRONG = {
    # name → (header fields that differ, beats with TLAST, beats that are taken until the fault)
    "memory": ({"memory": Memory.CODEBOOK.value}, (2,), 1),
    "far memory": ({"memory": 15}, (2,), 1),
    "unit": ({"unit": PARAMS.pes}, (2,), 1),
    "address": ({"address": SIZES[Memory.WEIGHTS]}, (2,), 1),
    "words": ({"address": SIZES[Memory.WEIGHTS] - 1}, (2,), 1),
    "words of pointers": ({"memory": 1, "address": SIZES[Memory.POINTERS] - 1}, (2,), 1),
    "reserved": ({"reserved": 1 << 73}, (2,), 1),
    "TLAST with the header": ({}, (0,), 1),
    "TLAST too early": ({}, (1,), 2),
    "TLAST too late": ({}, (), 3),
    "TLAST between packets": ({"last": 0}, (2,), 3),
    "TLAST missing at an empty end": ({"words": 0}, (), 1),
}


def offer(simulate, dut, beats, last, cycles=40, **inputs):
    """(words written, whether there was a fault, beats taken, loaded) with an endless rest of zeros behind `beats`."""
    written, faults, taken = [], [], 0

    async def bench(ctx):
        nonlocal taken
        ctx.set(dut.enable, 1)
        for name, value in inputs.items():
            ctx.set(getattr(dut, name), value)
        for _ in range(cycles):
            ctx.set(dut.i.valid, 1)
            beat = {"data": beats[taken], "last": last[taken]} if taken < len(beats) else {}
            ctx.set(dut.i.payload, beat)
            if ctx.get(dut.o.valid):
                written.append(ctx.get(dut.o.payload.data))
            taken += ctx.get(dut.i.ready)
            faults.append(ctx.get(dut.fault))
            await ctx.tick()
        ctx.set(dut.enable, 0)
        assert not ctx.get(dut.fault)

    simulate(dut, bench)
    assert faults == sorted(faults)  # until a restart
    return written, bool(faults[-1]), taken, dut


@pytest.mark.verifies("refill-thing-cannot-header-tlast")
@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_a_fault_and_nothing_more_is_taken(simulate, name):
    changes, last, until = WRONG[name]
    beats = [header(**{**GOOD, **changes}), 11, 12]
    written, fault, taken, _ = offer(simulate, Refill(PARAMS), beats, [int(n in last) for n in range(3)])
    assert (fault, taken) == (True, until)
    assert len(written) <= 2
    assert not written or taken > 1


@pytest.mark.verifies("refill-thing-cannot-header-tlast")
def test_the_last_words_of_both_memories_are_no_fault(simulate):
    beats = []
    for memory, words in SIZES.items():
        beats += packet(memory.value, PARAMS.pes - 1, words - 2, [11, 12], 0, memory is Memory.POINTERS)
    beats += packet(0, 0, SIZES[Memory.WEIGHTS], [], 1, 1)
    written, fault, *_ = offer(simulate, Refill(PARAMS), beats, flags(beats), cycles=12)
    assert (written, fault) == ([11, 12, 11, 12], False)


@pytest.mark.verifies("refill-thing-cannot-header-tlast")
def test_a_tile_in_two_buffers_is_a_fault(simulate):
    beats = packet(0, 0, 0, [1], 0, 0) + packet(0, 1, 0, [2], 1, 1)
    written, fault, *_ = offer(simulate, Refill(PARAMS), beats, flags(beats))
    assert (written, fault) == ([1], True)


@pytest.mark.verifies("refill-thing-cannot-header-tlast")
@pytest.mark.parametrize(("wanted", "fault"), [(0, False), (1, False), (2, True)])
def test_a_second_tile_for_a_full_buffer_is_a_fault_when_the_scan_waits_for_the_other(simulate, wanted, fault):
    """Tiles for buffer 0, twice: the second waits if nothing is known, and for ever if the scan wants buffer 1."""
    beats = packet(0, 0, 0, [1], 0, 1) + packet(0, 0, 0, [2], 0, 1)
    written, found, *_ = offer(simulate, Refill(PARAMS), beats, flags(beats), wanted=wanted)
    assert (written, found) == ([1], fault)


FAULTS = {
    "size": (lambda dut: setattr(dut, "_words", lambda memory: 1 << 20), "words"),
    "memories": (lambda dut: setattr(dut, "MEMORIES", (*dut.MEMORIES, Memory.CODEBOOK)), "memory"),
}


@pytest.mark.verifies("planted-faults-sizes-memories-checked")
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_of_the_check_is_caught(simulate, fault):
    plant, name = FAULTS[fault]
    dut = Refill(PARAMS)
    plant(dut)
    changes, last, _ = WRONG[name]
    beats = [header(**{**GOOD, **changes}), 11, 12]
    assert not offer(simulate, dut, beats, [int(n in last) for n in range(3)], cycles=6)[1]


@pytest.mark.verifies("refill-words-taken-only-during")
def test_words_are_taken_only_during_a_run(simulate):
    """A run that ends inside a packet holds the stream: what comes then is for the next run."""
    dut = Refill(PARAMS)
    beats = packet(0, 0, 0, [1, 2, 3], 0, 1)
    written = []

    async def bench(ctx):
        at = 0
        for cycle in range(30):
            ctx.set(dut.enable, cycle < 4 or cycle > 20)
            ctx.set(dut.i.valid, at < len(beats))
            ctx.set(dut.i.payload, {"data": beats[min(at, 3)], "last": at == 3})
            if ctx.get(dut.o.valid):
                written.append((cycle, ctx.get(dut.o.payload.data)))
            at += bool(at < len(beats) and ctx.get(dut.i.ready))
            await ctx.tick()

    simulate(dut, bench)
    assert written == [(3, 1), (4, 2), (22, 3)]
