from __future__ import annotations

from types import SimpleNamespace

import pytest

import hw.bridge
from hw.bridge import Bridge
from hw.frames import BAD, BEATS, DAMAGED, DONE, GIVE, MOST_WORDS, READ, SHORT, TAKE, WRITE
from sim.driver.frames import Answer, Receiver, Request, done

SILENCE, PATIENCE = 60, 40
BROKEN = 0x40
"""Offset at which the bus answers with an error."""


class Registers:
    """What lies at the bus: reads count up, so that lost and doubled accesses show."""

    def __init__(self):
        self.log, self.reads = [], 0

    def read(self, offset):
        self.reads += 1
        self.log.append(("read", offset))
        return (0, 2) if offset == BROKEN else (self.reads << 16 | offset, 0)

    def write(self, offset, value):
        self.log.append(("write", offset, value))
        return 2 if offset == BROKEN else 0


def play(simulate, rng, dut, pieces, *, waits=0.3, taking=lambda cycle: True, limit=30_000, comes=(), given=None):
    """Send pieces of bytes (or numbers of idle cycles), each when the answer before is there.

    Returns answers as bytes, the accesses, and the beats (data, last). comes : rows of maps that the array sends.
    given : a list for those that it takes.
    """
    given = [] if given is None else given
    registers, answers, beats = Registers(), bytearray(), []
    bus, state = dut.bus, SimpleNamespace(stop=False, quiet=0)

    async def sender(ctx):
        for piece in pieces:
            if isinstance(piece, int):
                for _ in range(piece):
                    await ctx.tick()
                continue
            for byte in piece:
                while rng.random() < waits:
                    await ctx.tick()
                ctx.set(dut.i.valid, 1)
                ctx.set(dut.i.payload, byte)
                while not ctx.get(dut.i.ready):
                    await ctx.tick()
                await ctx.tick()
                ctx.set(dut.i.valid, 0)
            state.quiet = 0
            while state.quiet < 2 * SILENCE + 2 * PATIENCE:
                await ctx.tick()
        state.stop = True

    async def receiver(ctx):
        while not state.stop:
            ready = rng.random() >= waits
            ctx.set(dut.o.ready, ready)
            state.quiet += 1
            if ready and ctx.get(dut.o.valid):
                answers.append(ctx.get(dut.o.payload))
                state.quiet = 0
            await ctx.tick()

    async def pause(ctx):
        while rng.random() < waits:
            await ctx.tick()

    async def accept(ctx, valid, ready, *payload):
        """One transfer to the bus; valid must stay, with what it offers."""
        offered = None
        for _ in range(1 + int(rng.integers(0, 3) * bool(waits))):
            if ctx.get(valid):
                now = [ctx.get(signal) for signal in payload]
                assert offered in (None, now)
                offered = now
            else:
                assert offered is None
            await ctx.tick()
        ctx.set(ready, 1)
        while not ctx.get(valid):
            await ctx.tick()
            if state.stop:
                return None
        found = [ctx.get(signal) for signal in payload]
        assert offered in (None, found)
        await ctx.tick()
        ctx.set(ready, 0)
        return found

    async def answer(ctx, valid, ready, **values):
        await pause(ctx)
        for signal, value in values.items():
            ctx.set(getattr(bus, signal), value)
        ctx.set(valid, 1)
        while not ctx.get(ready):
            await ctx.tick()
        await ctx.tick()
        ctx.set(valid, 0)

    async def writes(ctx):
        while not state.stop:
            first, second = (bus.awvalid, bus.awready, bus.awaddr), (bus.wvalid, bus.wready, bus.wdata, bus.wstrb)
            swapped = rng.random() < 0.5
            one = await accept(ctx, *(second if swapped else first))
            two = await accept(ctx, *(first if swapped else second))
            if one is None or two is None:
                return
            (address,), (data, strobes) = (two, one) if swapped else (one, two)
            assert strobes == 15
            await answer(ctx, bus.bvalid, bus.bready, bresp=registers.write(address, data))

    async def reads(ctx):
        while not state.stop:
            found = await accept(ctx, bus.arvalid, bus.arready, bus.araddr)
            if found is None:
                return
            data, response = registers.read(*found)
            await answer(ctx, bus.rvalid, bus.rready, rdata=data, rresp=response)

    async def stream(ctx):
        cycle, offered = 0, None
        while not state.stop:
            pins, ready = dut.weights, taking(cycle)
            ctx.set(pins.tready, ready)
            now = (ctx.get(pins.tdata), ctx.get(pins.tlast)) if ctx.get(pins.tvalid) else None
            assert offered in (None, now), "a beat was withdrawn or changed"
            offered = None if ready else now
            if ready and now:
                beats.append(now)
            await ctx.tick()
            cycle += 1

    async def give(ctx):
        while not state.stop:
            ready = rng.random() >= waits
            ctx.set(dut.given.tready, ready)
            if ready and ctx.get(dut.given.tvalid):
                given.append(ctx.get(dut.given.tdata))
            await ctx.tick()

    async def take(ctx):
        for beat in comes:
            ctx.set(dut.taken.tdata, beat)
            ctx.set(dut.taken.tvalid, 1)
            while not ctx.get(dut.taken.tready):
                await ctx.tick()
                if state.stop:
                    return
            await ctx.tick()
            ctx.set(dut.taken.tvalid, 0)

    benches = [sender, receiver, writes, reads, *([stream] if dut.refill else []), *([give, take] * dut.streams)]
    simulate(dut, *benches, watchdog=limit)
    return bytes(answers), registers.log, beats


def model(pieces, beats=True):
    """The same by `Receiver`; the line is silent after each piece, and the stream takes everything."""
    receiver, registers, answers, sent = Receiver(beats), Registers(), b"", []
    for piece in pieces:
        if isinstance(piece, int):
            continue
        for request in receiver.feed(piece):
            answers += (request if isinstance(request, Answer) else carried_out(request, registers, sent)).pack()
        rest = receiver.silent()
        answers += rest.pack() if rest else b""
    return answers, registers.log, sent


def carried_out(request, registers, sent):
    if request.operation == BEATS:
        for n in range(0, request.count, 4):
            beat = sum(word << 32 * k for k, word in enumerate(request.words[n : n + 4]))
            sent.append((beat, int(request.last and n + 4 == request.count)))
        return done(request, request.count // 4)
    words = []
    for n in range(request.count):
        offset = request.offset + 4 * n * request.increment
        if request.operation == READ:
            word, response = registers.read(offset)
        else:
            word, response = 0, registers.write(offset, request.words[n])
        if response:
            return done(request, n, words)
        words.append(word)
    return done(request, request.count, words)


def random_request(rng, tag, refill=True):
    operation = int(rng.choice([READ, WRITE, BEATS] if refill else [READ, WRITE]))
    count = int(rng.choice([1, 2, 3, 9]))
    offset = 4 * int(rng.integers(0, 20))
    if operation == BEATS:
        count, offset = 4 * int(rng.integers(1, 4)), 0
    words = () if operation == READ else tuple(int(word) for word in rng.integers(0, 1 << 32, count))
    return Request(tag, operation, offset, count, words, bool(rng.integers(0, 2)), bool(rng.integers(0, 2)))


@pytest.mark.verifies("serial-bridge-against-model-python")
@pytest.mark.parametrize("waits", [0.0, 0.4])
def test_requests_are_carried_out_and_answered(simulate, rng, waits):
    pieces = [random_request(rng, tag).pack() for tag in range(40)]
    seen = play(simulate, rng, Bridge(SILENCE, PATIENCE), pieces, waits=waits)
    assert seen == model(pieces)
    kinds = {piece[2] & 15 for piece in pieces}
    assert kinds == {READ, WRITE, BEATS}
    assert any(access[1] == BROKEN for access in seen[1])


@pytest.mark.verifies("serial-bridge-against-model-python")
def test_the_largest_requests(simulate, rng):
    words = tuple(int(word) for word in rng.integers(0, 1 << 32, MOST_WORDS))
    pieces = [
        Request(1, WRITE, 0x2C, MOST_WORDS, words).pack(), Request(2, READ, 0x2C, MOST_WORDS).pack(),
        Request(3, BEATS, 0, MOST_WORDS, words, last=True).pack(), Request(4, WRITE, 0xFF0, 3, words[:3], True).pack(),
    ]  # fmt: skip
    assert play(simulate, rng, Bridge(SILENCE, PATIENCE), pieces, waits=0) == model(pieces)


def check_damage(simulate, rng, make=Bridge):
    """Flipped bits: no access, no beat, and an answer that says so where the request can be told at all."""
    pieces = []
    for tag in range(30):
        content = bytearray(random_request(rng, tag).pack())
        at = int(rng.integers(8, 8 * len(content)))
        if 16 <= at < 48:  # of operation, count or offset: the length may be another; apart below
            at = int(rng.integers(8, 16))
        content[at // 8] ^= 1 << at % 8
        pieces.append(bytes(content))
    answers, accesses, beats = play(simulate, rng, make(SILENCE, PATIENCE), pieces)
    assert not accesses
    assert not beats
    assert answers == model(pieces)[0]
    assert {answers[n + 2] for n in range(0, len(answers), 7)} == {DAMAGED}


@pytest.mark.verifies("serial-bridge-flipped-bits-do")
def test_a_flipped_bit_is_caught_and_nothing_is_done(simulate, rng):
    check_damage(simulate, rng)


@pytest.mark.verifies("planted-fault-bridge-without-checksum")
def test_planted_fault_a_bridge_without_checksum_is_caught(simulate, rng, monkeypatch):
    monkeypatch.setattr(hw.bridge, "crc_step", lambda crc, byte: crc & 0)
    with pytest.raises(AssertionError):
        check_damage(simulate, rng)


@pytest.mark.verifies("serial-bridge-flipped-bits-do")
def test_every_bit_of_a_head_may_flip(simulate, rng):
    """Then the next request is understood all the same, after a silence."""
    request = Request(5, WRITE, 0x1C, 2, (7, 8)).pack()
    pieces, good = [], Request(6, WRITE, 0x1C, 1, (9,)).pack()
    for bit in range(48):
        content = bytearray(request)
        content[bit // 8] ^= 1 << bit % 8
        pieces += [bytes(content), 2 * SILENCE, good]
    answers, accesses, _ = play(simulate, rng, Bridge(SILENCE, PATIENCE), pieces, waits=0.0)
    assert accesses == [("write", 0x1C, 9)] * 48
    assert answers.count(Answer(6, DONE, 1).pack()) == 48


@pytest.mark.verifies("serial-bridge-flipped-bits-do")
def test_bytes_between_requests_are_dropped(simulate, rng):
    noise = bytes(int(byte) for byte in rng.integers(0, 0xE1, 20))
    request = Request(9, READ, 0x10, 1).pack()
    pieces = [noise + request, request[:5], 2 * SILENCE, request]
    answers, accesses, _ = play(simulate, rng, Bridge(SILENCE, PATIENCE), pieces)
    assert (answers, accesses) == model(pieces)[:2]
    assert Answer(9, SHORT).pack() in answers
    assert len(accesses) == 2


@pytest.mark.verifies("serial-bridge-against-model-python")
@pytest.mark.parametrize("refill", [False, True])
def test_commands_that_do_not_exist_are_refused(simulate, rng, refill):
    """Neither of streams that are not there, nor of a part of a beat."""
    beats = (1, 2, 3, 4)
    wrong = [
        Request(1, 0, 0, 1), Request(2, 4, 0, 1), Request(3, 15, 0, 1), Request(4, READ, 0, 0),
        Request(5, READ, 0, MOST_WORDS + 1), Request(6, READ, 0x1000, 1), Request(7, BEATS, 0, 3, beats[:3]),
        Request(8, BEATS, 4, 4, beats), *([] if refill else [Request(9, BEATS, 0, 4, beats)]),
        Request(12, TAKE, 0, 4), Request(13, GIVE, 0, 4, beats),
        Request(10, READ | 0x40, 0, 1), Request(11, READ | 0x80, 0, 1),
    ]  # fmt: skip
    pieces = [request.pack() for request in wrong]
    answers, accesses, sent = play(simulate, rng, Bridge(SILENCE, PATIENCE, refill), pieces)
    assert not accesses
    assert not sent
    for request in wrong:
        assert Answer(request.tag, BAD).pack() in answers


@pytest.mark.verifies("serial-bridge-rows-maps-both")
@pytest.mark.parametrize("waits", [0.0, 0.4])
def test_rows_of_maps_pass_both_ways(simulate, rng, waits):
    """An answer has so many beats as stand there, and zeros behind them."""
    words = tuple(int(word) for word in rng.integers(0, 1 << 32, MOST_WORDS))
    comes = [int.from_bytes(rng.bytes(16), "little") for _ in range(5)]
    requests = [
        Request(1, GIVE, 0, MOST_WORDS, words), Request(2, TAKE, 0, 4), Request(3, READ, 0x10, 2),
        Request(4, TAKE, 0, 12), Request(5, GIVE, 0, 4, words[:4]), Request(6, TAKE, 0, 8), Request(7, TAKE, 0, 4),
        Request(8, WRITE, 0x14, 1, (9,)),
    ]  # fmt: skip
    given = []
    dut = Bridge(SILENCE, PATIENCE, streams=True)
    found, accesses, beats = play(
        simulate, rng, dut, [each.pack() for each in requests], waits=waits, comes=comes, given=given
    )
    parts = [[beat >> 32 * n & 0xFFFFFFFF for n in range(4)] for beat in comes]
    registers, told = Registers(), []
    left = list(parts)
    for request in requests:
        if request.operation == GIVE:
            told.append(done(request, request.count // 4))
        elif request.operation == TAKE:
            here = 0
            while here < request.count // 4 and left[here : here + 1]:
                here += 1
            # With waits of its own the other side may be late with a beat: the answer says how many there were.
            at = sum(len(each.pack()) for each in told)
            here = found[at + 4 + 4 * request.count] if waits else here
            told.append(done(request, here, [word for beat in left[:here] for word in beat]))
            left = left[here:]
        else:
            told.append(carried_out(request, registers, []))
    assert found == b"".join(each.pack() for each in told)
    assert accesses == registers.log
    assert not beats
    assert given == [sum(word << 32 * k for k, word in enumerate(words[n : n + 4]))
                     for n in (*range(0, MOST_WORDS, 4), 0)]  # fmt: skip
    assert len(left) < len(parts)
    assert waits or not left


@pytest.mark.verifies("serial-bridge-rows-maps-both")
def test_planted_fault_the_words_of_a_beat_in_another_order_are_caught(simulate, rng, monkeypatch):
    class Turned(Bridge):
        """The fault: what is taken shows its upper half first."""

        def elaborate(self, platform):
            taken, self.taken = self.taken, SimpleNamespace(
                tready=self.taken.tready, tvalid=self.taken.tvalid, tdata=self.taken.tdata.rotate_right(64)
            )  # fmt: skip
            m = super().elaborate(platform)
            self.taken = taken
            return m

    monkeypatch.setattr(__name__ + ".Bridge", Turned)
    with pytest.raises(AssertionError):
        test_rows_of_maps_pass_both_ways(simulate, rng, 0.0)


@pytest.mark.verifies("serial-bridge-against-model-python")
def test_a_stream_that_takes_nothing_is_told(simulate, rng):
    """One beat waits at the pins; the next is not taken, and comes again later."""
    words = tuple(range(8))
    pieces = [
        Request(1, BEATS, 0, 8, words, last=True).pack(),
        600,
        Request(2, BEATS, 0, 4, words[4:], last=True).pack(),
    ]
    answers, _, beats = play(
        simulate, rng, Bridge(SILENCE, PATIENCE), pieces, taking=lambda cycle: cycle > 500, waits=0
    )
    assert answers == Answer(1, DONE, 1).pack() + Answer(2, DONE, 1).pack()
    values = [sum(word << 32 * n for n, word in enumerate(part)) for part in (words[:4], words[4:])]
    assert beats == [(values[0], 0), (values[1], 1)]
