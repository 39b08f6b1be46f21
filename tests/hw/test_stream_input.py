from __future__ import annotations

import itertools

import pytest

from hw.host import Host, axi_lite
from hw.params import Params
from hw.stream_input import StreamInput

BITS = 32


def drive(simulate, rng, dut, *, gaps, stalls, restarts, fresh, cycles=3000):
    """A source of packets of one to five beats, numbered packet << 8 | beat; (what came after each restart, counts).

    A source that does not begin anew goes on with its packet, whatever the array does.
    """
    came, counts = [[]], {"restarts": 0, "dropped": 0, "inside": 0, "taken": 0}

    async def bench(ctx):
        packet, at, size = 0, 0, int(rng.integers(1, 6))
        offered = False
        for _ in range(cycles):
            offered = offered or rng.random() >= gaps  # valid stays until it is taken
            ctx.set(dut.pins.tvalid, offered)
            ctx.set(dut.pins.tdata, packet << 8 | at)
            ctx.set(dut.pins.tlast, at == size - 1)
            ready = rng.random() >= stalls
            ctx.set(dut.o.ready, ready)
            restart = rng.random() < restarts
            ctx.set(dut.restart, restart)
            ctx.set(dut.fresh, restart and fresh)
            if ready and ctx.get(dut.o.valid):
                came[-1].append(ctx.get(dut.o.payload.data))
            taken = offered and ctx.get(dut.pins.tready)
            if taken:
                counts["taken"] += 1
                offered, at = False, at + 1
                if at == size:
                    packet, at, size = packet + 1, 0, int(rng.integers(1, 6))
            await ctx.tick()
            if restart:
                counts["restarts"] += 1
                counts["inside"] += at > 0
                came.append([])
                if fresh:  # the source gives up its packet too
                    offered, packet, at, size = False, packet + 1, 0, int(rng.integers(1, 6))
            assert ctx.get(dut.inside) == (at > 0)

    simulate(dut, bench)
    return came, counts


def check(came):
    """Each part begins with the first beat of a packet, and leaves nothing out and doubles nothing from there."""
    last = -1
    for part in came:
        if not part:
            continue
        assert part[0] & 0xFF == 0, f"packet {part[0] >> 8} comes from its beat {part[0] & 0xFF} on"
        assert part[0] >> 8 > last
        for before, after in itertools.pairwise(part):
            assert after in (before + 1, (before >> 8) + 1 << 8)
        last = part[-1] >> 8


@pytest.mark.verifies("stream-input-packets-order-whole")
@pytest.mark.parametrize(("gaps", "stalls"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.4, 0.4)])
@pytest.mark.parametrize("fresh", [False, True])
def test_packets_pass_in_order_and_a_restart_begins_with_a_whole_one(simulate, rng, gaps, stalls, fresh):
    came, counts = drive(simulate, rng, StreamInput(BITS), gaps=gaps, stalls=stalls, restarts=0.03, fresh=fresh)
    check(came)
    assert counts["restarts"] > 50
    assert counts["inside"] > 20
    assert sum(map(len, came)) > 300


@pytest.mark.verifies("stream-input-packets-order-whole")
def test_one_beat_a_cycle(simulate, rng):
    came, counts = drive(simulate, rng, StreamInput(BITS), gaps=0, stalls=0, restarts=0, fresh=False, cycles=500)
    check(came)
    assert counts["taken"] == 499  # all but the first cycle after reset
    assert len(came[0]) == 498


class Forgetful(StreamInput):
    """Takes what comes after a restart for the beginning of a packet."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.restart):
            m.d.sync += self.dropping.eq(0)
        return m


@pytest.mark.verifies("planted-fault-rest-packet-after")
def test_planted_fault_the_rest_of_a_packet_after_a_restart_is_caught(simulate, rng):
    came, _ = drive(simulate, rng, Forgetful(BITS), gaps=0.2, stalls=0.2, restarts=0.03, fresh=False)
    with pytest.raises(AssertionError, match="comes from its beat"):
        check(came)


# No path from an input to an output within a cycle (AXI: IHI 0022, A3.1; AXI-Stream: IHI 0051, 2.2).


def ports(dut):
    """(inputs, outputs) at the pins of a host port or a stream input."""
    if isinstance(dut, Host):
        members = axi_lite().members
        inputs = [
            (getattr(dut.bus, name), member.shape) for name, member in members.items() if member.flow.name == "Out"
        ]
        outputs = [getattr(dut.bus, name) for name, member in members.items() if member.flow.name == "In"]
        return inputs, [*outputs, dut.irq]
    return [(dut.pins.tdata, BITS), (dut.pins.tlast, 1), (dut.pins.tvalid, 1)], [dut.pins.tready]


def paths(simulate, rng, dut, cycles=400):
    """Outputs that change within a cycle when an input does, in random traffic."""
    inputs, outputs = ports(dut)
    found, seen = set(), set()

    async def bench(ctx):
        for _ in range(cycles):
            if isinstance(dut, StreamInput):
                ctx.set(dut.o.ready, int(rng.integers(0, 2)))
            for signal, bits in inputs:
                before = [ctx.get(output) for output in outputs]
                ctx.set(signal, int(rng.integers(0, 1 << bits)))
                after = [ctx.get(output) for output in outputs]
                found.update(out.name for out, a, b in zip(outputs, before, after, strict=True) if a != b)
            seen.add(tuple(after))
            await ctx.tick()

    simulate(dut, bench)
    assert len(seen) > 1
    return found


class Short(Host):
    """`awready` waits for `wvalid`, in the same cycle."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.bus.awready.eq(self.bus.wvalid)
        return m


@pytest.mark.verifies("path-input-pin-output-pin")
@pytest.mark.parametrize("make", [lambda: Host(Params(pes=1)), lambda: StreamInput(BITS)])
def test_no_path_leads_from_an_input_to_an_output(simulate, rng, make):
    assert paths(simulate, rng, make()) == set()


@pytest.mark.verifies("planted-fault-ready-waits-valid")
def test_planted_fault_a_path_from_an_input_to_ready_is_caught(simulate, rng):
    assert paths(simulate, rng, Short(Params(pes=1))) == {"bus__awready"}
