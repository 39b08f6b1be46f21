from __future__ import annotations

import itertools

import pytest
from amaranth import Mux, Signal
from amaranth.sim import Simulator

import hw.host
from hw.core import READ_LATENCY
from hw.host import READABLE, WRITABLE, Host
from hw.layouts import Memory, memory_shape
from hw.params import Params
from hw.registers import ID, REGISTERS, mask, offset
from hw.stream_input import StreamInput

PARAMS = Params(pes=1)
OKAY, SLVERR = 0, 2


async def write(ctx, dut, register, value, wait=0, response=OKAY, strobes=15):
    """One AXI4-Lite write; returns the cycles from valid to response."""
    bus = dut.bus
    ctx.set(bus.awaddr, register if isinstance(register, int) else offset(register))
    ctx.set(bus.wdata, value)
    ctx.set(bus.wstrb, strobes)
    ctx.set(bus.awvalid, 1)
    while not ctx.get(bus.awready):
        await ctx.tick()
    await ctx.tick()
    ctx.set(bus.awvalid, 0)
    for _ in range(wait):  # the data may come later than the address
        await ctx.tick()
    ctx.set(bus.wvalid, 1)
    if not wait:  # both together
        assert ctx.get(bus.wready)
    while not ctx.get(bus.wready):
        await ctx.tick()
    await ctx.tick()
    ctx.set(bus.wvalid, 0)
    cycles = 1
    while not ctx.get(bus.bvalid):
        await ctx.tick()
        cycles += 1
    for _ in range(wait):  # the manager may take the response later
        await ctx.tick()
        assert ctx.get(bus.bvalid)
    ctx.set(bus.bready, 1)
    assert ctx.get(bus.bresp) == response
    await ctx.tick()
    ctx.set(bus.bready, 0)
    return cycles


async def read(ctx, dut, register, wait=0, response=OKAY):
    """One AXI4-Lite read; returns the data and the cycles from valid to response."""
    bus = dut.bus
    ctx.set(bus.araddr, register if isinstance(register, int) else offset(register))
    ctx.set(bus.arvalid, 1)
    while not ctx.get(bus.arready):
        await ctx.tick()
    await ctx.tick()
    ctx.set(bus.arvalid, 0)
    cycles = 1
    while not ctx.get(bus.rvalid):
        await ctx.tick()
        cycles += 1
    for _ in range(wait):
        await ctx.tick()
        assert ctx.get(bus.rvalid)
    ctx.set(bus.rready, 1)
    data = ctx.get(bus.rdata)
    assert ctx.get(bus.rresp) == response
    await ctx.tick()
    ctx.set(bus.rready, 0)
    return data, cycles


async def value(ctx, dut, register):
    return (await read(ctx, dut, register))[0]


@pytest.mark.verifies("host-port-stated-cycles-random")
def test_registers_answer_in_the_stated_cycles_with_random_waits(simulate, rng):
    dut = Host(PARAMS)
    checked = 0

    async def bench(ctx):
        nonlocal checked
        await ctx.tick()
        assert await read(ctx, dut, "ID") == (ID, 3)  # carried out two cycles after it is taken, then answered
        assert await write(ctx, dut, "FIRST", 1) == 3
        for _ in range(200):
            number = int(rng.integers(0, 1 << 16))
            await write(ctx, dut, "FIRST", number, wait=int(rng.integers(0, 4)))
            got, _ = await read(ctx, dut, "FIRST", wait=int(rng.integers(0, 4)))
            assert got == number
            checked += 1

    simulate(dut, bench)
    assert checked == 200


@pytest.mark.verifies("host-port-neither-way-waits-for-ever")
@pytest.mark.parametrize("command", ["START", "RESTART"])
def test_a_read_does_not_wait_for_commands_without_a_pause(simulate, command):
    """Both channels are never idle: CONTROL is written and ID read again and again."""
    dut = Host(PARAMS)
    answered = []

    async def bench(ctx):
        bus = dut.bus
        ctx.set(bus.awaddr, offset("CONTROL"))
        ctx.set(bus.wdata, mask("CONTROL", command))
        ctx.set(bus.wstrb, 15)
        ctx.set(bus.araddr, offset("ID"))
        for port in (bus.awvalid, bus.wvalid, bus.bready, bus.arvalid, bus.rready):
            ctx.set(port, 1)
        for _ in range(300):
            await ctx.tick()
            answered.append((ctx.get(bus.rvalid), ctx.get(bus.bvalid)))
            assert not answered[-1][0] or ctx.get(bus.rdata) == ID

    simulate(dut, bench)
    for way in range(2):
        cycles = [cycle for cycle, now in enumerate(answered) if now[way]]
        assert len(cycles) > 30
        assert max(later - sooner for sooner, later in itertools.pairwise(cycles)) <= 8


class Backing:
    """The core's part of the window: notes writes, and answers a read `READ_LATENCY` cycles later.

    What it answers says which word was asked for: the request, packed, in each 32-bit part with its number on top.
    """

    def __init__(self, dut):
        self.dut, self.stored, self.asked, self.late = dut, [], [], False

    @staticmethod
    def part(memory, unit, address, part):
        return part << 28 | memory << 24 | unit << 20 | address & 0xFFFFF

    async def serve(self, ctx):
        dut, pipe = self.dut, [None] * READ_LATENCY
        while True:
            _, _, valid, payload, asked, request = await ctx.tick().sample(
                dut.write.valid, dut.write.payload, dut.read.valid, dut.read.payload
            )
            if valid:
                self.stored.append((payload.to.memory, payload.to.unit, payload.to.address, payload.data))
            # Sampled at the edge that ends a cycle: what is set now is seen in the next one.
            word = request.word
            pipe.append((word.memory, word.unit, word.address, request.part) if asked else None)
            answer = pipe[-READ_LATENCY]
            word = 0
            if answer is not None:
                self.asked.append(answer)
                word = self.part(*answer)
            ctx.set(dut.read_data, word)  # there in its cycle, and not before or after


def run(dut, bench, watchdog=20_000):
    """Run a bench on a host port with a core behind it; returns what the core saw."""
    simulator, backing, ended = Simulator(dut), Backing(dut), []
    simulator.add_clock(1e-9)

    async def all_of_it(ctx):
        await ctx.tick()
        await bench(ctx)
        ended.append(True)

    async def guard(ctx):
        for _ in range(watchdog):
            await ctx.tick()
        raise AssertionError("the bench hangs")

    simulator.add_testbench(all_of_it)
    simulator.add_testbench(backing.serve, background=True)
    simulator.add_testbench(guard, background=True)
    simulator.run()
    assert ended
    return backing


@pytest.mark.verifies("host-port-words-parts-reads")
def test_words_are_put_together_and_taken_apart(rng):
    dut = Host(Params(pes=32))
    words = [int.from_bytes(rng.bytes(16), "little") for _ in range(10)]

    async def bench(ctx):
        await write(ctx, dut, "SELECT", Memory.ACTIVATIONS.value | 2 << 8)
        await write(ctx, dut, "ADDRESS", 3)
        for word in words:
            for part in range(4):
                await write(ctx, dut, "DATA", word >> 32 * part & 0xFFFFFFFF)
        await write(ctx, dut, "ADDRESS", 3)
        for n in range(len(words)):
            for part in range(4):
                data, cycles = await read(ctx, dut, "DATA")
                assert cycles == 4 + READ_LATENCY
                assert data == Backing.part(Memory.ACTIVATIONS.value, 2, 3 + n, part)

    seen = run(dut, bench)
    low = (1 << 128) - 1
    assert [(*to, data & low) for *to, data in seen.stored] == [
        (Memory.ACTIVATIONS.value, 2, 3 + n, word) for n, word in enumerate(words)
    ]
    assert seen.asked == [(Memory.ACTIVATIONS.value, 2, 3 + n, part) for n in range(len(words)) for part in range(4)]


@pytest.mark.verifies("host-port-batch-descriptors-twenty")
def test_the_batch_is_one_until_it_is_written(simulate):
    dut = Host(PARAMS)

    async def bench(ctx):
        assert await value(ctx, dut, "BATCH") == 1
        assert ctx.get(dut.batch) == 1
        await write(ctx, dut, "BATCH", 0xFFFE)
        assert await value(ctx, dut, "BATCH") == 0xFFFE
        assert ctx.get(dut.batch) == 0xFFFE
        await write(ctx, dut, "BATCH", 0x10001, response=SLVERR)
        assert await value(ctx, dut, "BATCH") == 0xFFFE

    simulate(dut, bench)


@pytest.mark.verifies("host-port-batch-descriptors-twenty")
def test_a_descriptor_is_put_together_from_twenty_four_parts(rng):
    dut = Host(PARAMS)
    word = int.from_bytes(rng.bytes(96), "little")

    async def bench(ctx):
        await write(ctx, dut, "SELECT", Memory.DESCRIPTORS.value)
        for part in range(2 * 24):
            await write(ctx, dut, "DATA", word >> 32 * (part % 24) & 0xFFFFFFFF)

    seen = run(dut, bench)
    assert [(address, data) for _, _, address, data in seen.stored] == [(0, word), (1, word)]


@pytest.mark.verifies("host-port-slim-descriptors")
@pytest.mark.parametrize("fault", [False, True])
def test_a_slim_array_takes_each_part_of_a_descriptor_as_it_comes(rng, fault, monkeypatch):
    """With the fault, the host puts them together as elsewhere: then each but the first brings rubbish."""
    params = PARAMS.replace(slim=True, elementwise=False, streams=False, refill=False)
    dut = Host(params)
    parts = [int(part) for part in rng.integers(1, 1 << 32, 2 * 24)]
    if fault:
        monkeypatch.setattr(hw.host, "Mux", lambda test, a, b: b if isinstance(a, int) else Mux(test, a, b))

    async def bench(ctx):
        await write(ctx, dut, "SELECT", Memory.DESCRIPTORS.value)
        await write(ctx, dut, "ADDRESS", 3)
        for part in parts:
            await write(ctx, dut, "DATA", part)
        assert await value(ctx, dut, "ADDRESS") == 5

    seen = run(dut, bench)
    expected = [(3 + n // 24, part) for n, part in enumerate(parts)]
    found = [(address, data & 0xFFFFFFFF) for _, _, address, data in seen.stored]
    assert (found == expected) is not fault
    assert len(found) == len(expected)


@pytest.mark.verifies("host-port-memory-beyond-units")
@pytest.mark.parametrize("memory", Memory)
def test_beyond_a_memory_all_is_refused_and_nothing_changes(memory):
    """The last word of the last unit can be accessed; the one behind, another unit, and what cannot be read cannot."""
    params = Params(pes=16, act_lines=512, weight_words=1 << 20)
    units, words, bits = memory_shape(params, memory)
    parts = -(-bits // 32)
    dut = Host(params)

    async def refused(ctx):
        """Neither way, and the window stands where it stood."""
        before = [await value(ctx, dut, name) for name in ("ADDRESS", "SELECT")]
        await read(ctx, dut, "DATA", response=SLVERR)
        await write(ctx, dut, "DATA", 9, response=SLVERR)
        assert before == [await value(ctx, dut, name) for name in ("ADDRESS", "SELECT")]

    async def bench(ctx):
        await write(ctx, dut, "SELECT", memory.value | (units - 1) << 8)
        for allowed, access in ((memory in READABLE, read), (memory in WRITABLE, write)):
            await write(ctx, dut, "ADDRESS", words - 1)
            for part in range(parts):
                await access(
                    ctx, dut, "DATA", *([part] if access is write else []), response=OKAY if allowed else SLVERR
                )
            assert await value(ctx, dut, "ADDRESS") == words - (not allowed)
        await write(ctx, dut, "ADDRESS", words)
        await refused(ctx)
        await write(ctx, dut, "ADDRESS", 0)
        for wrong in (memory.value | units << 8, 8, 15):
            await write(ctx, dut, "SELECT", wrong)
            await refused(ctx)
        for register in ("ADDRESS", "SELECT"):
            before = await value(ctx, dut, register)
            await write(ctx, dut, register, 1 << 21, response=SLVERR)
            assert await value(ctx, dut, register) == before
        assert not await value(ctx, dut, "STATUS")

    seen = run(dut, bench)
    assert len(seen.stored) == (memory in WRITABLE)
    assert all(address == words - 1 for _, _, address, _ in seen.stored + seen.asked)


@pytest.mark.verifies("host-port-memory-beyond-units")
@pytest.mark.parametrize("name", [register.name for register in REGISTERS if register.access != "RO"])
def test_other_than_legal_whole_words_change_nothing(name):
    dut = Host(PARAMS)
    illegal = 0xFFFFFFFF & ~mask(name) if name != "STATUS" else 0

    async def bench(ctx):
        await write(ctx, dut, "SELECT", Memory.ACTIVATIONS.value)
        before = [await value(ctx, dut, register.name) for register in REGISTERS if register.name != "DATA"]
        for strobes in range(15):
            await write(ctx, dut, name, mask(name) & 0x0FFF0FFF, strobes=strobes, response=SLVERR)
        for bit in range(32):
            if illegal >> bit & 1:
                await write(ctx, dut, name, 1 << bit, response=SLVERR)
        for gap in (0x34, 0x80, 0x100, offset(name) + 0x100, 0xFFC):
            await write(ctx, dut, gap, 0, response=SLVERR)
            await read(ctx, dut, gap, response=SLVERR)
        after = [await value(ctx, dut, register.name) for register in REGISTERS if register.name != "DATA"]
        assert before == after

    assert not run(dut, bench).stored


@pytest.mark.verifies("host-port-memory-beyond-units")
def test_registers_that_are_only_read_refuse_a_write():
    dut = Host(PARAMS)

    async def bench(ctx):
        for register in REGISTERS:
            if register.access == "RO":
                await write(ctx, dut, register.name, 0, response=SLVERR)

    run(dut, bench)


# Flags of STATUS.

DONE, REFUSED = mask("STATUS", "DONE"), mask("STATUS", "REFUSED")


async def pulse(ctx, signal):
    ctx.set(signal, 1)
    await ctx.tick()
    ctx.set(signal, 0)


async def flags(ctx, dut):
    return await value(ctx, dut, "STATUS") & (DONE | REFUSED)


def acknowledged():
    """A run ends between the read of STATUS and its acknowledgement, as a host that saw REFUSED does it."""
    dut = Host(PARAMS)
    seen = {}

    async def bench(ctx):
        await write(ctx, dut, "INTERRUPT", DONE)
        ctx.set(dut.busy, 1)
        await write(ctx, dut, "CONTROL", mask("CONTROL", "START"))
        status = await value(ctx, dut, "STATUS")
        seen["refused"] = status & (DONE | REFUSED)
        ctx.set(dut.busy, 0)
        await pulse(ctx, dut.done)
        await write(ctx, dut, "STATUS", status)  # as it was read, all bits
        seen["left"] = await flags(ctx, dut)
        seen["irq"] = ctx.get(dut.irq)

    run(dut, bench)
    return seen


@pytest.mark.verifies("host-port-completion-lost-between")
def test_a_completion_between_read_and_acknowledge_is_not_lost():
    assert acknowledged() == {"refused": REFUSED, "left": DONE, "irq": 1}


@pytest.mark.verifies("planted-fault-acknowledgement-both-flags")
def test_planted_fault_an_acknowledge_of_both_flags_loses_it(monkeypatch):
    both = lambda name, *fields: DONE | REFUSED if name == "STATUS" else mask(name, *fields)  # noqa: E731
    monkeypatch.setattr(hw.host, "mask", both)
    assert acknowledged()["left"] == 0


@pytest.mark.verifies("host-port-completion-lost-between")
def test_flags_are_cleared_one_by_one_and_enabled_one_by_one():
    dut = Host(PARAMS)

    async def both(ctx):
        ctx.set(dut.busy, 1)
        await write(ctx, dut, "DATA", 1)
        ctx.set(dut.busy, 0)
        await pulse(ctx, dut.done)
        assert await flags(ctx, dut) == DONE | REFUSED

    async def bench(ctx):
        for enabled in (0, DONE, REFUSED, DONE | REFUSED):
            await write(ctx, dut, "INTERRUPT", enabled)
            for cleared in (DONE, REFUSED, DONE | REFUSED):
                await both(ctx)
                assert ctx.get(dut.irq) == bool(enabled)
                await write(ctx, dut, "STATUS", 0xFFFFFFFF & ~(DONE | REFUSED))
                assert await flags(ctx, dut) == DONE | REFUSED
                await write(ctx, dut, "STATUS", cleared)
                left = (DONE | REFUSED) & ~cleared
                assert await flags(ctx, dut) == left
                assert ctx.get(dut.irq) == bool(enabled & left)
        await both(ctx)
        await write(ctx, dut, "CONTROL", mask("CONTROL", "START"))
        assert await flags(ctx, dut) == REFUSED  # a new run: DONE would say that it has ended
        await both(ctx)
        await write(ctx, dut, "CONTROL", mask("CONTROL", "RESTART"))
        assert await flags(ctx, dut) == 0

    run(dut, bench)


@pytest.mark.verifies("host-port-completion-lost-between")
@pytest.mark.parametrize("late", range(6))
def test_set_beats_clear_in_the_same_cycle(late):
    """A run ends in every cycle around an acknowledgement: the flag is lost only if it ends before that is done."""
    dut = Host(PARAMS)
    order = []

    async def bench(ctx):
        ctx.set(dut.bus.awaddr, offset("STATUS"))
        ctx.set(dut.bus.wdata, DONE)
        ctx.set(dut.bus.wstrb, 15)
        ctx.set(dut.bus.bready, 1)
        for cycle in range(10):
            ctx.set(dut.bus.awvalid, cycle == 0)
            ctx.set(dut.bus.wvalid, cycle == 0)
            ctx.set(dut.done, cycle == late)
            if ctx.get(dut.bus.bvalid):
                order.append(cycle - 1)  # the cycle in which it is carried out
            await ctx.tick()
        ctx.set(dut.bus.bready, 0)
        assert bool(await flags(ctx, dut)) == (late >= order[0])

    run(dut, bench)
    assert order == [2]


@pytest.mark.verifies("cycles-counts-runs-only")
def test_cycles_are_those_of_the_last_run_only():
    dut = Host(PARAMS)

    async def bench(ctx):
        ctx.set(dut.now, 63)
        ctx.set(dut.busy, 1)  # the accumulators are cleared after reset
        for _ in range(5):
            await ctx.tick()
        ctx.set(dut.busy, 0)
        assert await value(ctx, dut, "CYCLES") == 0
        for now in range(8):
            ctx.set(dut.running, 1)
            ctx.set(dut.busy, 1)
            ctx.set(dut.now, now)
            await ctx.tick()
        ctx.set(dut.running, 0)
        for now in range(50):
            ctx.set(dut.busy, now < 20)
            ctx.set(dut.now, now)
            await ctx.tick()
        assert await value(ctx, dut, "CYCLES") == 7

    run(dut, bench)


# Overlap of the two channels.


def overlapped(register, number, late, make=Host):
    """A read of the last part of a word and a write that begins `late` cycles later; (data, ADDRESS, SELECT, cycles).

    The window stands at line 100 of bank 0, of a word with four parts.
    """
    dut = make(Params(pes=16))
    bus, seen = dut.bus, {}

    async def bench(ctx):
        await write(ctx, dut, "SELECT", Memory.ACTIVATIONS.value)
        await write(ctx, dut, "ADDRESS", 100)
        for _ in range(3):
            await read(ctx, dut, "DATA")
        ctx.set(bus.araddr, offset("DATA"))
        ctx.set(bus.awaddr, offset(register))
        ctx.set(bus.wdata, number)
        ctx.set(bus.wstrb, 15)
        ctx.set(bus.rready, 1)
        ctx.set(bus.bready, 1)
        for cycle in range(16):
            ctx.set(bus.arvalid, cycle == 4)
            ctx.set(bus.awvalid, cycle == 4 + late)
            ctx.set(bus.wvalid, cycle == 4 + late)
            assert not ctx.get(bus.arvalid) or ctx.get(bus.arready)
            assert not ctx.get(bus.awvalid) or ctx.get(bus.awready)
            if ctx.get(bus.rvalid):
                seen["data"] = ctx.get(bus.rdata)
            if ctx.get(bus.bvalid):
                seen["response"] = ctx.get(bus.bresp)
            await ctx.tick()
        ctx.set(bus.rready, 0)
        ctx.set(bus.bready, 0)
        for name in ("ADDRESS", "SELECT"):
            seen[name] = await value(ctx, dut, name)
        seen["next"] = await value(ctx, dut, "DATA")

    seen["stored"] = run(dut, bench).stored
    return seen


LATE = range(-4, 8)


def check_address(make=Host):
    """ADDRESS written in any cycle around a read of DATA: the one comes as a whole before the other."""
    orders = set()
    for late in LATE:
        seen = overlapped("ADDRESS", 7, late, make)
        first = Backing.part(Memory.ACTIVATIONS.value, 0, 100, 3)  # read, then moved
        after = Backing.part(Memory.ACTIVATIONS.value, 0, 7, 0)  # moved, then the first part of another word
        assert (seen["data"], seen["ADDRESS"], seen["response"]) in [(first, 7, OKAY), (after, 7, OKAY)], late
        assert (seen["data"] == first) == (late > 0), late
        assert seen["next"] == Backing.part(Memory.ACTIVATIONS.value, 0, 7, int(late <= 0)), late
        orders.add(seen["data"])
    assert len(orders) == 2


@pytest.mark.verifies("host-port-writes-address-select")
def test_a_write_of_address_in_any_cycle_of_a_read_of_data():
    check_address()


@pytest.mark.verifies("host-port-writes-address-select")
def test_a_write_of_select_in_any_cycle_of_a_read_of_data():
    for late in LATE:
        seen = overlapped("SELECT", Memory.RECORDS.value, late)
        memory, part = (Memory.ACTIVATIONS, 3) if late > 0 else (Memory.RECORDS, 0)
        assert seen["data"] == Backing.part(memory.value, 0, 100, part)
        assert seen["ADDRESS"] == 100 + (late > 0)
        assert seen["SELECT"] == Memory.RECORDS.value


@pytest.mark.verifies("host-port-writes-address-select")
def test_a_write_of_data_in_any_cycle_of_a_read_of_data():
    """Both move the one window on: whichever comes first has the last part of word 100."""
    for late in LATE:
        seen = overlapped("DATA", 5, late)
        address, part = (100, 3) if late > 0 else (101, 0)
        assert seen["data"] == Backing.part(Memory.ACTIVATIONS.value, 0, address, part)
        assert seen["ADDRESS"] == 101
        assert [address for _, _, address, _ in seen["stored"]] == [100] * (late <= 0)


@pytest.mark.verifies("host-port-writes-address-select")
def test_a_restart_in_any_cycle_of_a_read_of_data_comes_before_or_after_it():
    """The array forgets what it reads in a restart; so that waits."""
    for late in LATE:
        seen = overlapped("CONTROL", mask("CONTROL", "RESTART"), late)
        assert seen["data"] == Backing.part(Memory.ACTIVATIONS.value, 0, 100, 3)
        assert seen["ADDRESS"] == 101


class Late(Host):
    """Moves on some cycles after an access, from wherever the window then is."""

    def _window(self, m):
        super()._window(m)
        self._moves = Signal(7)
        m.d.sync += self._moves.eq(self._moves << 1)
        with m.If(self._moves[6]):
            super()._advance(m)

    def _advance(self, m):
        m.d.sync += self._moves[0].eq(1)


@pytest.mark.verifies("planted-fault-window-moves-late")
def test_planted_fault_a_window_that_moves_late_is_caught():
    with pytest.raises(AssertionError):
        check_address(Late)


@pytest.mark.verifies("path-input-pin-output-pin")
def test_nothing_is_taken_in_reset():
    """`ready` of every channel is low in the first cycle after reset and high in the next."""
    for dut, names in ((Host(PARAMS), ("awready", "wready", "arready")), (StreamInput(8), ("tready",))):
        port = dut.bus if isinstance(dut, Host) else dut.pins
        ready = []

        async def bench(ctx, port=port, names=names, ready=ready):
            for _ in range(2):
                ready.append({ctx.get(getattr(port, name)) for name in names})
                await ctx.tick()

        simulator = Simulator(dut)
        simulator.add_clock(1e-9)
        simulator.add_testbench(bench)
        simulator.run()
        assert ready == [{0}, {1}]
