"""The AXI4-Lite port: protocol, responses, and what accesses do."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value

from hw.core import READ_LATENCY, READABLE
from hw.host import WRITABLE, Host
from hw.layouts import memory_shape
from hw.params import Params
from hw.platform import ports_of
from hw.registers import REGISTERS, mask, offset
from sim.formal.claim import Claim
from sim.formal.planted import planted
from sim.formal.sheet import Sheet
from sim.formal.twice import no_path

__all__ = ["CLAIMS"]

PARAMS = Params(
    pes=1, rows=2, weight_words=2, pointer_blocks=2, act_lines=2, output_words=2, codebooks=1, descriptors=2, tables=0,
)  # fmt: skip
CHANNELS = (("aw", ("awaddr",)), ("w", ("wdata", "wstrb")), ("ar", ("araddr",)))
OKAY, SLVERR = 0, 2
WAIT = READ_LATENCY + 8
"""Cycles until a request that is taken, and whose response has room, is answered: another access may be before it.
Those in which a record is being written, or a read waits for a busy array, do not count."""


def _port(s: Sheet, kind: Any, begins: tuple[str, ...] = (), params: Params = PARAMS) -> Any:
    """A host port whose manager keeps to the protocol."""
    dut = s.add(kind(params), driven=begins)
    bus = dut.bus
    for name, payload in CHANNELS:
        valid, ready = getattr(bus, f"{name}valid"), getattr(bus, f"{name}ready")
        s.steady(valid, ready, Cat(getattr(bus, field) for field in payload), name, given=True)
    return dut


def _taken(bus: Any, name: str) -> Value:
    return getattr(bus, f"{name}valid") & getattr(bus, f"{name}ready")


def protocol(s: Sheet, kind: Any) -> None:
    """The rules for a subordinate."""
    dut = _port(s, kind)
    bus = dut.bus
    s.steady(bus.bvalid, bus.bready, bus.bresp, "write response")
    s.steady(bus.rvalid, bus.rready, Cat(bus.rdata, bus.rresp), "read data")
    s.must((bus.bresp == OKAY) | (bus.bresp == SLVERR), "a write is answered OKAY or SLVERR")
    s.must((bus.rresp == OKAY) | (bus.rresp == SLVERR), "a read is answered OKAY or SLVERR")
    s.must(s.began | ~Cat(bus.awready, bus.wready, bus.arready, bus.bvalid, bus.rvalid).any(), "silent in reset")
    # Requests that are taken and not answered.
    owed = {name: Signal(range(4), name=f"owed_{name}") for name, _ in CHANNELS}
    answered = {"aw": _taken(bus, "b"), "w": _taken(bus, "b"), "ar": _taken(bus, "r")}
    for name, count in owed.items():
        s.m.d.sync += count.eq(count + _taken(bus, name) - answered[name])
        s.must(count <= 2, f"{name}: two requests are taken ahead at most")
    s.must(~bus.bvalid | ((owed["aw"] != 0) & (owed["w"] != 0)), "a write is answered after its address and its data")
    s.must(~bus.rvalid | (owed["ar"] != 0), "a read is answered after its address")
    for name, pending, valid in (
        ("write", (owed["aw"] != 0) & (owed["w"] != 0), bus.bvalid), ("read", owed["ar"] != 0, bus.rvalid)
    ):  # fmt: skip
        waits = Signal(range(WAIT + 2), name=f"{name}_waits")
        s.m.d.sync += waits.eq(Mux(pending & ~valid, waits + ~(dut.settling | (dut._asked & dut.busy)), 0))
        s.must(waits <= WAIT, f"a {name} is answered within {WAIT} cycles of its turn")
    s.reach(
        dut.start & s.past(dut.start, 4) & ((owed["ar"] != 0) | bus.rvalid), "a START every fourth cycle, and a read"
    )
    s.reach(_taken(bus, "b") & (bus.bresp == OKAY) & s.past(_taken(bus, "r")), "both channels answer")
    s.reach(bus.bvalid & (owed["aw"] == 2) & (owed["w"] == 2), "two writes are taken ahead")
    s.reach(bus.bvalid & bus.rvalid & (bus.bresp == SLVERR) & (bus.rresp == SLVERR), "both are refused")


def path(s: Sheet, kind: Any) -> None:
    """No path from the port's inputs to its outputs."""
    no_path(s, lambda: _BusOnly(kind(PARAMS)))


class _BusOnly(Host):
    """A host port whose commands to the core are not looked at: those do follow from what the core shows."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner.params)
        self.inner = inner

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.inner = self.inner
        mine = ports_of(self, self.signature)
        for name, (port, way) in ports_of(self.inner, self.inner.signature).items():
            if way == "i":
                m.d.comb += port.eq(mine[name][0])
            elif name.startswith("bus__"):
                m.d.comb += mine[name][0].eq(port)
        return m


def _oldest(s: Sheet, bus: Any, name: str, payload: Value, response: str) -> Signal:
    """The oldest request of a channel that is not answered; a second one may be taken ahead."""
    oldest, after, owed = Signal(len(payload)), Signal(len(payload)), Signal(2)
    s.m.d.sync += owed.eq(owed + _taken(bus, name) - _taken(bus, response))
    with s.m.If(_taken(bus, response)):
        s.m.d.sync += oldest.eq(after)
    with s.m.If(_taken(bus, name)):
        s.m.d.sync += after.eq(payload)
        with s.m.If(owed == _taken(bus, response)):
            s.m.d.sync += oldest.eq(payload)
    return oldest


def effects(s: Sheet, kind: Any) -> None:
    """What writes of registers do, and what reads find, by the register map."""
    dut = _port(s, kind)
    bus = dut.bus
    held = {
        "aw": _oldest(s, bus, "aw", bus.awaddr[2:], "b"),
        "w": _oldest(s, bus, "w", Cat(bus.wdata, bus.wstrb), "b"),
    }
    source = _oldest(s, bus, "ar", bus.araddr[2:], "r")
    wrote = bus.bvalid & s.past(~bus.bvalid)
    found = bus.rvalid & s.past(~bus.rvalid)
    data, strobes = held["w"][:32], held["w"][32:]
    legal, known = Const(0, 1), Const(0, 1)
    for register in REGISTERS:
        here = held["aw"] == register.offset >> 2
        bits = 0xFFFFFFFF if register.access == "W1C" else register.mask
        if register.access != "RO":
            legal = legal | (here & ((data & (0xFFFFFFFF ^ bits)) == 0))
        known = known | (source == register.offset >> 2)
    legal = legal & strobes.all()
    of_data = held["aw"] == offset("DATA") >> 2
    s.must(~wrote | of_data | ((bus.bresp == OKAY) == legal), "a write is answered OKAY if the register map allows it")
    s.must(~wrote | legal | (bus.bresp == SLVERR), "a write that the register map forbids is refused")
    read_data = source == offset("DATA") >> 2
    s.must(~found | read_data | ((bus.rresp == OKAY) == known), "a read is answered OKAY if there is such a register")

    values = {"FIRST": (dut.first, 0), "BATCH": (dut.batch, 1)}
    for name, (value, initial) in values.items():
        model = Signal(16, init=initial, name=f"model_{name}")
        now = Mux(wrote & (bus.bresp == OKAY) & (held["aw"] == offset(name) >> 2), data[:16], model)
        s.m.d.sync += model.eq(now)
        s.must(value == now, f"{name} holds what was written to it last, and nothing else changes it")
        at = found & (source == offset(name) >> 2)
        s.must(~at | (bus.rdata == s.past(now)), f"{name} is read as it is")
    command = dut.start | dut.restart | dut.new_stream
    is_control = held["aw"] == offset("CONTROL") >> 2
    s.must(~command | (wrote & (bus.bresp == OKAY) & is_control), "commands come from CONTROL only, and once")
    s.must(~dut.write.valid | (wrote & (bus.bresp == OKAY)), "a word is stored by a write that is answered OKAY")
    s.must(
        ~(s.past(dut.busy) & (dut.start | dut.write.valid | dut.read.valid)),
        "nothing is begun, stored or read while busy",
    )
    s.must(~(dut.read.valid & s.past(dut.settling)), "nothing is read while a record is being written")
    for name, access, to, which in (
        ("stored", dut.write, dut.write.p.to, WRITABLE),
        ("read", dut.read, dut.read.p.word, READABLE),
    ):
        there = Const(0, 1)
        for memory in which:
            units, words, _ = memory_shape(PARAMS, memory)
            there = there | ((to.memory == memory.value) & (to.unit < units) & (to.address < words))
        s.must(~access.valid | there, f"a word is {name} only where there is one, of a memory that allows it")
    s.must(~(dut.start & dut.restart), "RESTART goes before START")
    s.reach(wrote & (bus.bresp == OKAY) & (held["aw"] == offset("BATCH") >> 2) & (dut.batch == 77), "BATCH is written")
    s.reach(found & (source == offset("FIRST") >> 2) & (bus.rdata == 99), "FIRST is read back")
    s.reach(dut.start & s.began, "a run is started")
    s.reach(dut.read.valid, "a word is read")
    s.reach(wrote & (bus.bresp == SLVERR) & s.past(dut.busy), "refused while busy")


def parity(s: Sheet, kind: Any) -> None:
    """The register PARITY, what STATUS says of it, and the interrupt."""
    dut = _port(s, kind, params=PARAMS.replace(parity=True))
    bus = dut.bus
    to, data = _oldest(s, bus, "aw", bus.awaddr[2:], "b"), _oldest(s, bus, "w", bus.wdata, "b")
    source = _oldest(s, bus, "ar", bus.araddr[2:], "r")
    wrote = bus.bvalid & s.past(~bus.bvalid) & (bus.bresp == OKAY)
    found = bus.rvalid & s.past(~bus.rvalid)

    # The definition: a kind that was wrong is remembered until a one is written to its bit; a set beats a clear.
    flags, enabled = Signal(len(dut.wrong), name="flags"), Signal(name="enabled")
    now, on = Signal.like(flags), Signal()
    s.m.d.comb += [
        now.eq((flags & ~Mux(wrote & (to == offset("PARITY") >> 2), data, 0)) | s.past(dut.wrong)),
        on.eq(Mux(wrote & (to == offset("INTERRUPT") >> 2), (data & mask("INTERRUPT", "PARITY")).any(), enabled)),
    ]  # fmt: skip
    s.m.d.sync += [flags.eq(now), enabled.eq(on)]
    s.must(~(now.any() & on) | dut.irq, "a wrong word raises the interrupt that is enabled for it")
    at = found & (source == offset("PARITY") >> 2)
    s.must(~at | (bus.rdata == s.past(now)), "PARITY has the kinds that were wrong since they were cleared")
    status = found & (source == offset("STATUS") >> 2)
    bit = (bus.rdata & mask("STATUS", "PARITY")).any()
    s.must(~status | (bit == s.past(now.any())), "STATUS.PARITY is set while one of them is")
    s.reach(at & (bus.rdata == 0b10000000001), "two kinds are read")
    s.reach(at & (bus.rdata == 0) & s.past(flags.any(), 6), "cleared")


CLAIMS = (
    Claim(
        "axi-lite-protocol",
        "Host",
        "AXI4-Lite: a response only after its request, one for each, unchanged until it is "
        f"taken, within {WAIT} cycles in which no record is being written and no read waits for a busy array; silent "
        "in reset.",
        protocol,
        Host,
        {
            "a response is given before its data": lambda: planted(
                Host, "free & aw & w & ~", "free & aw & ~", "_channels"
            ),
            "a write goes before a read again and again": lambda: planted(Host, " & ~passed_over", "", "_channels"),
            "a read that is passed over once goes before all": lambda: planted(
                Host, "[ar.eq(0), passed_over.eq(0)]", "[ar.eq(0)]", "_channels"
            ),
            "a response is changed while it waits": lambda: planted(
                Host, "aw & w & ~bus.bvalid", "aw & w", "_channels"
            ),
            "a response is not held": lambda: planted(
                Host,
                "m.If(valid & ready):\n            m.d.sync += valid",
                "m.If(valid):\n            m.d.sync += valid",
                "_channels",
            ),
            "requests are taken in reset": lambda: planted(Host, "awake & ~full", "~full", "_channels"),
            "a read is never answered": lambda: planted(
                Host, "[idle.eq(1), bus.rvalid.eq(1), bus.rdata.eq(self.read_data)]", "[idle.eq(1)]"
            ),
        },
        bug_depth=18,
        cover_depth=14,
    ),
    Claim(
        "axi-lite-effects",
        "Host",
        "Registers hold what was written to them; what the register map forbids answers "
        "SLVERR and does nothing; nothing is begun while busy.",
        effects,
        Host,
        {
            "parts of words are written": lambda: planted(Host, "m.If(self._whole), ", "", "_writes"),
            "reserved bits are taken": lambda: planted(
                Host,
                "m.Case(register.offset >> 2), m.If((data & ~Const(legal, 32)) == 0)",
                "m.Case(register.offset >> 2)",
                "_writes",
            ),
            "BATCH goes to FIRST": lambda: planted(Host, "self.batch.eq(data)", "self.first.eq(data)", "_writes"),
            "a run is started while busy": lambda: planted(
                Host, "start_bit & ~restart_bit & ~self.busy", "start_bit & ~restart_bit", "_writes"
            ),
            "a refused word is stored": lambda: planted(Host, "with m.If(~self._writable):", "with m.If(0):", "_store"),
        },
    ),
    Claim(
        "parity-register",
        "Host",
        "With parity: a kind of memory that was wrong stays in PARITY until a one is written to its bit, and shows in "
        "STATUS and at the interrupt.",
        parity,
        Host,
        {
            "a clear goes before a set": lambda: planted(
                Host, "with m.If(wrong):", "with m.If(wrong & ~self._begin['write']):", "_writes"
            ),
            "RESTART forgets": lambda: planted(
                Host,
                "m.d.sync += [self._done.eq(0), self._refused.eq(0)]",
                "m.d.sync += [self._done.eq(0), self._refused.eq(0), self._parity.eq(0)]",
                "_writes",
            ),
            "the interrupt is not raised": lambda: planted(
                Host, 'irq |= self._parity.any() & (self._enabled & mask("STATUS", "PARITY")).any()', "pass", "_writes"
            ),
        },
    ),
    Claim(
        "axi-lite-path",
        "Host",
        "No output of the bus depends on an input of the bus within a cycle.",
        path,
        Host,
        {
            "awready follows awvalid": lambda: planted(Host, "awake & ~full", "awake & ~full & valid", "_channels"),
        },
    ),
)
