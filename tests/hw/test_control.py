from __future__ import annotations

from collections import deque

import pytest

from hw.control import Control
from hw.layouts import Error, Function, Op, descriptor
from hw.params import Params

SMALL = {
    "rows": 4, "act_lines": 64, "pointer_blocks": 32, "bias_words": 64, "codebooks": 4, "descriptors": 64,
}  # fmt: skip
END = {"op": Op.END}


def matvec(**values):
    return {"op": Op.MATVEC, "act_vectors": 1, "slots": 1, **values}


class Surroundings:
    """Descriptor memory, scan, PEs and drain as control sees them, each as slow as `rng` says (0: as fast as may be).

    accepts : (cycle, front bank, bank, request) of each descriptor accepted; front as it is one cycle later.
    scanned, idle : cycle of the pulse, and first cycle in which no PE has work of it, for each of them.
    finished, written : cycle and bank of each pulse. layers : what drain was told of each layer it wrote.
    """

    def __init__(self, dut, program, rng=None, slowest=(0, 0, 0)):
        self.dut, self.rng, self.slowest = dut, rng, slowest
        layout = descriptor(dut.params)
        self.words = [layout.const(one).as_value().value for one in program]
        self.accepts, self.scanned, self.idle = [], [], []
        self.finished, self.computed, self.written, self.layers, self.numbers = [], [], [], [], []
        self.draining = 0  # bank that drain waits for: it goes on from run to run, as the control does

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

    async def run(self, ctx, first=0, limit=5000):
        """Start in cycle 0; returns (cycle of done, error, index)."""
        dut = self.dut
        scans, begun = deque(), []  # scans under way; (bank, from, up to) in which PEs have work
        writes, accepted, answer = None, None, None
        ctx.set(dut.first, first)
        for cycle in range(limit):
            ctx.set(dut.start, cycle == 0)
            if answer is not None:
                ctx.set(dut.r_data.as_value(), answer)
            if accepted:
                self.accepts.append((*accepted, ctx.get(dut.front)))
            scanning = bool(scans) and scans[0] == cycle
            ctx.set(dut.scanned, scanning)
            for bank in range(2):
                ctx.set(dut.pe_busy[bank], any(b == bank and at + 2 <= cycle < until for b, at, until in begun))
            ctx.set(dut.written, writes == cycle)
            ctx.set(dut.written_bank, self.draining)
            if scanning:
                scans.popleft()
                self.scanned.append(cycle)
            for bank in range(2):
                if ctx.get(dut.finished) >> bank & 1:
                    self.finished.append((cycle, bank))
            if writes is None and ctx.get(dut.computed) >> self.draining & 1:
                self.computed.append((cycle, self.draining))
                layer = ctx.get(dut.layer[self.draining])
                self.layers.append((layer.destination, layer.slots, layer.fragment_slots, layer.fragment_log2,
                                    layer.bias, layer.shift, layer.function))  # fmt: skip
                self.numbers.append(ctx.get(dut.number[self.draining]))
                writes = cycle + 1 + self.wait(2)
            elif writes == cycle:
                assert ctx.get(dut.pending) >> self.draining & 1
                self.written.append((cycle, self.draining))
                self.draining, writes = 1 - self.draining, None
            accepted = None
            if ctx.get(dut.accept):
                assert ctx.get(dut.scan_start)
                assert not scans, "a layer is accepted while one is scanned"
                scan = ctx.get(dut.scan)
                request = (scan.source, scan.act_vectors, scan.pointers, scan.fold if dut.params.fold > 1 else 0,
                           scan.tag.tile if dut.params.refill else 0)  # fmt: skip
                accepted = (cycle, ctx.get(dut.continues), scan.tag.bank, request)
                scans.append(cycle + 1 + self.wait(0))
                # The last column reaches the PEs one cycle after `scanned`, their flags another one later.
                until = scans[0] + self.wait(1)
                begun.append((scan.tag.bank, cycle, until))
                self.idle.append(until)
            if ctx.get(dut.r_en):
                address = ctx.get(dut.r_addr)
                answer = self.words[address] if address < len(self.words) else 0
            else:
                answer = None
            if ctx.get(dut.done):
                result = cycle, Error(ctx.get(dut.error)), ctx.get(dut.index)
                await ctx.tick()
                ctx.set(dut.start, 0)
                assert not ctx.get(dut.busy)
                assert not ctx.get(dut.pending)
                return result
            await ctx.tick()
        raise AssertionError(f"watchdog: no end in {limit} cycles")


def times_of(program, seen):
    """When each descriptor should be accepted, each layer found computed, and the run done, by the docstring.

    Only when each was scanned, when the PEs were done with it and when its bank was written is taken from `seen`.
    """
    accepts, finished, at, keeps = [], [], 2, False
    blocks = 0
    for n, one in enumerate(program):
        if not keeps and blocks >= 2:  # the bank of the layer before the one before must be written
            at = max(at, seen.written[blocks - 2][0] + 1)
        accepts.append(at)
        if not keeps:
            idle = 0
        keeps = bool(one.get("keep", 0))
        idle = max(idle, seen.idle[n])
        if not keeps:
            finished.append(max(seen.scanned[n] + 3, idle + 1))
            blocks += 1
        at = seen.scanned[n] + 1
    if keeps:  # END finds the sums still open: it is decoded one cycle after the last scan, and closes them in the next
        finished.append(max(seen.scanned[-1] + 5, idle + 1))
    return accepts, finished, max(at + 1, seen.written[-1][0] + 1) if seen.written else at + 1


def random_program(rng, params, length):
    """Legal descriptors with everything at random, a third of which `keep` their sums for the next."""
    program = []
    for _ in range(length):
        fragment_log2 = int(rng.integers(0, params.max_split.bit_length()))
        slots = int(rng.integers(1, params.rows + 1))
        refill = int(rng.integers(0, 2)) if params.refill else 0
        program.append(matvec(
            function=rng.choice([Function.NONE, Function.RELU]), chained=int(rng.integers(0, 2)),
            codebook=int(rng.integers(0, params.codebooks)), shift=int(rng.integers(0, 32)),
            fold=int(rng.integers(0, params.fold)), fragment_log2=fragment_log2, keep=int(rng.random() < 0.35),
            refill=refill, buffer=int(rng.integers(0, 2)), source=int(rng.integers(0, 16)),
            destination=int(rng.integers(0, 16)), act_vectors=int(rng.integers(1, 9)), slots=slots,
            pointers=int(rng.integers(0, 16)), bias=int(rng.integers(0, 16)),
            fragment_slots=int(rng.integers(0, slots + 1)),
        ))  # fmt: skip
    return program


@pytest.mark.parametrize("slowest", [(0, 0, 0), (9, 0, 0), (3, 25, 3), (3, 3, 40), (12, 12, 12)])
def test_layers_and_tiles_are_accepted_in_the_stated_cycles(simulate, rng, slowest):
    """Three runs on one control, every time that its docstring states, random waits in scan, PEs and drain."""
    params = Params(pes=4, **SMALL)
    dut = Control(params)
    checked = continued = waited = 0

    async def bench(ctx):
        nonlocal checked, continued, waited
        around = Surroundings(dut, [])
        await around.reset(ctx)
        bank = 0
        for length in (30, 1, 25):
            program = random_program(rng, params, length)
            around = Surroundings(dut, [*program, END], rng, slowest)
            around.draining = bank
            done, error, index = await around.run(ctx)
            assert (error, index) == (Error.NONE, length)
            accepts, finished, end = times_of(program, around)
            assert [at for at, *_ in around.accepts] == accepts
            # In order of time: a layer may be finished before the one before it, in PEs that had little of both.
            assert around.finished == sorted((at, bank ^ n & 1) for n, at in enumerate(finished))
            assert done == end
            # Drain is told a cycle later, or when it is through with the bank before.
            previous = [-1, *(at + 1 for at, _ in around.written)]
            assert [at for at, _ in around.computed] == [
                max(at + 1, free) for at, free in zip(finished, previous, strict=False)
            ]
            # A tile goes on in the bank of the one before, a new layer takes the other one.
            keeps = False
            for one, (_, continues, tag, request, front) in zip(program, around.accepts, strict=True):
                assert (continues, tag, front) == (keeps, bank, bank)
                tile = one["refill"] << one["buffer"]
                assert request == (one["source"], one["act_vectors"], one["pointers"], one["fold"], tile)
                continued += keeps
                keeps = bool(one["keep"])
                bank ^= not keeps
            bank ^= keeps
            ends = [n for n, one in enumerate(program) if not one["keep"] or n == length - 1]
            assert around.numbers == ends
            names = ("destination", "slots", "fragment_slots", "fragment_log2", "bias", "shift", "function")
            assert around.layers == [tuple(program[n][name] for name in names) for n in ends]
            checked += len(accepts)
            written = {at + 1 for at, _ in around.written}
            waited += sum(at in written for at in accepts[1:])

    simulate(dut, bench)
    assert checked == 56
    assert continued > 5
    if slowest[2] > 30:
        assert waited > 5  # write-back was what held layers up


def test_end_after_keep_and_an_error_after_keep_write_the_sums_back(simulate):
    params = Params(pes=4, **SMALL)
    dut = Control(params)
    ends = [END, matvec(act_vectors=0), {"op": Op.ELEMENTWISE}, matvec(reserved1=1)]

    async def bench(ctx):
        around = Surroundings(dut, [])
        await around.reset(ctx)
        for n, last in enumerate(ends):
            around = Surroundings(dut, [matvec(keep=1, destination=3), matvec(keep=1, destination=3), last])
            around.draining = n % 2
            _, error, index = await around.run(ctx)
            assert error == [Error.NONE, Error.RANGE, Error.OPCODE, Error.RESERVED][n]
            assert index == 2
            assert [one[0] for one in around.layers] == [3]
            assert [bank for _, bank in around.written] == [n % 2]
            assert around.finished == [(around.scanned[-1] + 5, n % 2)]

    simulate(dut, bench)


def test_the_record_counts_until_the_youngest_layer_is_finished(simulate):
    """`counting` from the cycle after the first accept to the one in which the last layer was found computed."""
    params = Params(pes=4, **SMALL)
    dut = Control(params)
    counted, opened = [], []

    async def bench(ctx):
        around = Surroundings(dut, [])
        await around.reset(ctx)
        program = [matvec(), matvec(chained=1), matvec(chained=1), END]
        around = Surroundings(dut, program, slowest=(4, 30, 20))
        tick = ctx.tick

        def watched():
            counted.append(ctx.get(dut.counting))
            opened.append((ctx.get(dut.open), ctx.get(dut.pending), ctx.get(dut.front)))
            return tick()

        ctx.tick = watched
        done, *_ = await around.run(ctx)
        accepts, finished, _ = times_of(program[:-1], around)
        assert counted == [int(accepts[0] < cycle < finished[-1]) for cycle in range(done + 1)]
        # A chained layer may read its whole source only when the other bank is no longer pending.
        for cycle in range(accepts[1] + 1, accepts[2] + 1):
            is_open, pending, front = opened[cycle]
            assert is_open == (not pending >> (1 - front) & 1)
        assert {is_open for is_open, *_ in opened[accepts[1] + 1 : accepts[2] + 1]} == {0, 1}

    simulate(dut, bench)


# Four PEs: 4 accumulators, so 16 outputs a group. Each field at its largest legal value, and one beyond.
LEGAL = [
    matvec(slots=4), matvec(act_vectors=32), matvec(act_vectors=64, fold=1), matvec(act_vectors=63, fold=1, pointers=0),
    matvec(act_vectors=2, fold=1, pointers=31), matvec(source=63), matvec(source=60, act_vectors=4),
    matvec(slots=4, destination=62), matvec(slots=4, fragment_slots=4, fragment_log2=2, destination=63),
    matvec(slots=4, bias=48), matvec(slots=4, fragment_slots=4, fragment_log2=2, bias=60),
    matvec(slots=4, fragment_slots=2, fragment_log2=1, bias=52), matvec(fragment_log2=2), matvec(codebook=3),
    matvec(refill=1, buffer=1), matvec(keep=1), matvec(pointers=31), matvec(shift=31, function=Function.RELU),
]  # fmt: skip
OUT_OF_RANGE = [
    matvec(slots=5), matvec(slots=0), matvec(act_vectors=0), matvec(act_vectors=33), matvec(act_vectors=65, source=0,
    fold=1), matvec(act_vectors=3, fold=1, pointers=31), matvec(source=64), matvec(source=61, act_vectors=4),
    matvec(source=0xFFFF), matvec(slots=4, destination=63),
    matvec(slots=4, fragment_slots=2, fragment_log2=1, destination=63), matvec(slots=4, bias=49),
    matvec(slots=4, fragment_slots=4, fragment_log2=2, bias=61),
    matvec(slots=4, fragment_slots=2, fragment_log2=1, bias=53), matvec(fragment_log2=3), matvec(codebook=4),
    matvec(fragment_slots=2), matvec(fragment_slots=0xFFFF), matvec(keep=1, slots=5), matvec(pointers=32),
    matvec(refill=1, act_vectors=33), matvec(slots=0xFFFF), matvec(destination=0xFFFF), matvec(bias=0xFFFF),
]  # fmt: skip
UNSUPPORTED = [
    ({}, Error.OPCODE), ({"op": Op.ELEMENTWISE}, Error.OPCODE), ({"op": Op.CONVOLUTION}, Error.OPCODE),
    ({"op": Op.TILE}, Error.OPCODE), (matvec(reserved0=1), Error.RESERVED), (matvec(reserved0=128), Error.RESERVED),
    (matvec(reserved1=1), Error.RESERVED), (matvec(reserved2=1 << 31), Error.RESERVED),
    (matvec(reserved3=2), Error.RESERVED), (matvec(reserved4=1), Error.RESERVED),
    ({**END, "reserved1": 4}, Error.RESERVED),
]  # fmt: skip
LACKING = [
    # (array, what it does not have, what it has)
    ({"fold": 1}, [matvec(fold=1)], [matvec()]),
    ({"refill": False}, [matvec(refill=1), matvec(refill=1, buffer=1)], [matvec()]),
    ({"fragments": 1}, [matvec(fragment_log2=1), matvec(fragment_log2=3)], [matvec(fragment_slots=1)]),
    ({"fragments": 2}, [matvec(fragment_log2=2)], [matvec(fragment_log2=1, fragment_slots=1)]),
    ({"pes": 1}, [matvec(fragment_log2=1)], [matvec()]),
    ({"pes": 8}, [], [matvec(fragment_log2=3, fragment_slots=1)]),
    (
        {"pes": 16},
        [matvec(source=64, act_vectors=2), matvec(source=63, act_vectors=3)],
        [matvec(source=63, act_vectors=2)],
    ),
]


def answers(simulate, params, programs):
    """(error, index, accepted, written) of each program, on one control."""
    dut = Control(params)
    got = []

    async def bench(ctx):
        around = Surroundings(dut, [])
        await around.reset(ctx)
        bank = 0
        for program in programs:
            around = Surroundings(dut, program)
            around.draining = bank
            _, error, index = await around.run(ctx)
            bank = around.draining
            got.append((error, index, len(around.accepts), len(around.written)))

    simulate(dut, bench)
    return got


def test_every_field_at_its_bound_is_accepted_and_one_beyond_is_an_error(simulate):
    params = Params(pes=4, **SMALL)
    programs = [[one, END] for one in LEGAL]
    assert answers(simulate, params, programs) == [(Error.NONE, 1, 1, 1)] * len(LEGAL)
    # Behind a legal layer, which is computed and written all the same.
    programs = [[matvec(), one, END] for one in OUT_OF_RANGE]
    assert answers(simulate, params, programs) == [(Error.RANGE, 1, 1, 1)] * len(OUT_OF_RANGE)
    programs = [[matvec(), one, END] for one, _ in UNSUPPORTED]
    assert answers(simulate, params, programs) == [(error, 1, 1, 1) for _, error in UNSUPPORTED]


@pytest.mark.parametrize(("array", "lacking", "has"), LACKING)
def test_what_an_array_does_not_have_is_out_of_range(simulate, array, lacking, has):
    params = Params(**{"pes": 4, **SMALL, **array})
    assert answers(simulate, params, [[one, END] for one in lacking]) == [(Error.RANGE, 0, 0, 0)] * len(lacking)
    assert answers(simulate, params, [[one, END] for one in has]) == [(Error.NONE, 1, 1, 1)] * len(has)


def test_a_program_without_end_is_an_error_behind_the_last_descriptor(simulate):
    params = Params(pes=4, **{**SMALL, "descriptors": 6})
    assert answers(simulate, params, [[matvec()] * 6]) == [(Error.RANGE, 6, 6, 6)]
