"""Host port: AXI4-Lite registers and a window to the memories."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.core import READ_LATENCY, READABLE
from hw.layouts import Error, Memory, identity, memory_shape
from hw.params import Params
from hw.parity import KINDS
from hw.registers import ID, mask, offset, registers
from hw.streams import memory_access, memory_read, memory_write

__all__ = ["READABLE", "WRITABLE", "Host", "axi_lite"]

WRITABLE = tuple(memory for memory in Memory if memory is not Memory.RECORDS)

OKAY, SLVERR = 0b00, 0b10


def axi_lite() -> wiring.Signature:
    """AXI4-Lite with 12 address bits (one page of 4 KiB) and 32 data bits, as the manager sees it."""
    return wiring.Signature({
        "awaddr": Out(12), "awprot": Out(3), "awvalid": Out(1), "awready": In(1),
        "wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1),
        "bresp": In(2), "bvalid": In(1), "bready": Out(1),
        "araddr": Out(12), "arprot": Out(3), "arvalid": Out(1), "arready": In(1),
        "rdata": In(32), "rresp": In(2), "rvalid": In(1), "rready": Out(1),
    })  # fmt: skip


class Host(wiring.Component):
    """AXI4-Lite subordinate for the registers of `hw.registers`.

    Every ``ready`` is a register: no path leads from an input of the port to an output. The channels are independent:
    none waits for another but a response for its request. Accesses are carried out one at a time, each as a whole
    before the next begins; if a write and a read can begin in the same cycle, the write does, but not twice while one
    read waits.

    Timing: an access that finds the port idle is carried out 2 cycles after its address (and data) is taken; the
    response shows 1 cycle after that, for a read of DATA `READ_LATENCY` + 1 more; behind the end of a run such a read
    waits while the last record is written. The array sees
    a START, a RESTART and a word to write 1 cycle after they are carried out.

    What answers SLVERR changes nothing: unknown offsets, writes of other than whole words, ones written to bits that
    mean nothing, words that are beyond a memory or cannot be accessed. The two low address bits are not looked at.

    Members
    -------
    bus : AXI4-Lite.
    irq : a bit of STATUS is set whose interrupt is enabled.
    new_stream, in_tile : of the refill stream, see `StreamInput`: ``fresh`` and ``inside``.
    The others : see `Core`.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self._asked = Signal(name="asked")  # the array does not take the read yet
        super().__init__({
            "bus": In(axi_lite()), "irq": Out(1),
            "restart": Out(1), "start": Out(1), "first": Out(16), "batch": Out(16, init=1),
            "busy": In(1), "running": In(1), "done": In(1), "error": In(Error), "index": In(16), "now": In(32),
            "new_stream": Out(1), "in_tile": In(1),
            "write": Out(stream.Signature(memory_write(params), always_ready=True)),
            "read": Out(stream.Signature(memory_read(params), always_ready=True)),
            "read_data": In(32), "settling": In(1), **({"wrong": In(len(KINDS))} if params.parity else {}),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._begin = begin = {"write": Signal(name="begin_write"), "read": Signal(name="begin_read")}
        # Of the access that begins: its address, what is written, in a whole word or not.
        self._address = Signal(10, name="address")
        self._to_data = Signal(name="to_data")  # a write goes to DATA
        self._data = Signal(32, name="data")
        self._whole = Signal(name="whole")
        self._bad = Signal(name="bad")  # it is refused
        self._answer = Signal(32, name="answer")  # what a read of a register gives
        self._reads = Signal(name="reads")  # it is a read of DATA
        self._status(m)
        self._window(m)
        idle = self._channels(m)
        self._registers(m)
        self._writes(m)

        # A read of DATA keeps everything else waiting, so nothing changes what it reads from, nor does START or RESTART
        # come between. After these, the array is busy one cycle later, and the next access waits as long.
        waiting = Signal(range(READ_LATENCY + 1))
        bus = self.bus
        # A read may have to wait, so long that what a refill stream brings too much makes the array busy meanwhile.
        asks, asked, holds = Signal(), self._asked, self.settling | self.busy
        m.d.comb += asks.eq(self._reads | asked)
        m.d.sync += [self.read.valid.eq(asks & ~holds), asked.eq(asks & holds)]
        with m.If(self._reads):
            m.d.sync += [
                idle.eq(0), waiting.eq(READ_LATENCY),
                self.read.p.word.eq(self._select), self.read.p.part.eq(self._part),
            ]  # fmt: skip
        with m.If(~idle & ~asked):
            m.d.sync += waiting.eq(waiting - 1)
            with m.If(waiting == 0):
                m.d.sync += [idle.eq(1), bus.rvalid.eq(1), bus.rdata.eq(self.read_data)]
        with m.If(begin["read"]):
            m.d.sync += [
                bus.rvalid.eq(~self._reads), bus.rdata.eq(self._answer),
                bus.rresp.eq(self._bad << 1),
            ]  # fmt: skip
        with m.If(begin["write"]):
            m.d.sync += [bus.bvalid.eq(1), bus.bresp.eq(self._bad << 1)]
        return m

    def _channels(self, m: Module) -> Signal:
        """Requests held until they are carried out, and which one is now; returns the flag that one may."""
        bus = self.bus
        awake = Signal()
        idle = Signal(init=1)
        m.d.sync += awake.eq(1)  # nothing is taken in reset
        held = {}
        for name, payload in (("aw", bus.awaddr[2:]), ("w", Cat(bus.wdata, bus.wstrb.all())), ("ar", bus.araddr[2:])):
            full, kept = Signal(name=f"{name}_full"), Signal(len(payload), name=f"{name}_kept", reset_less=True)
            valid, ready = getattr(bus, f"{name}valid"), getattr(bus, f"{name}ready")
            m.d.comb += ready.eq(awake & ~full)
            with m.If(valid & ready):
                m.d.sync += [full.eq(1), kept.eq(payload)]
            held[name] = full, kept
        for response in ("b", "r"):
            valid, ready = getattr(bus, f"{response}valid"), getattr(bus, f"{response}ready")
            with m.If(valid & ready):
                m.d.sync += valid.eq(0)
        (aw, to), (w, data), (ar, source) = (held[name] for name in ("aw", "w", "ar"))
        free, writes, reads = Signal(name="free"), Signal(name="takes_write"), Signal(name="takes_read")
        # A read that could begin and met a write. The next access is that read: behind a START or RESTART, after which
        # nothing begins for a cycle, another write would be there before it, and so on.
        passed_over = Signal()
        m.d.comb += [
            free.eq(idle & ~(self._begin["write"] | self._begin["read"] | self.start | self.restart)),
            writes.eq(free & aw & w & ~bus.bvalid & ~passed_over), reads.eq(free & ar & ~bus.rvalid & ~writes),
            # What is written stands until the access begins; another word is there behind that at the earliest.
            self._data.eq(data), self._whole.eq(data[32]),
        ]  # fmt: skip
        m.d.sync += [
            self._begin["write"].eq(writes), self._begin["read"].eq(reads), self._address.eq(Mux(writes, to, source)),
            self._to_data.eq(to == offset("DATA") >> 2),
        ]  # fmt: skip
        with m.If(writes):
            m.d.sync += [aw.eq(0), w.eq(0), passed_over.eq(ar & ~bus.rvalid)]
        with m.If(reads):
            m.d.sync += [ar.eq(0), passed_over.eq(0)]
        return idle

    def _status(self, m: Module) -> None:
        """Flags of STATUS, their interrupts, and CYCLES."""
        self._done = Signal(name="done_flag")
        self._refused = Signal(name="refused_flag")
        self._enabled = Signal(9 if self.params.parity else 3, name="enabled")
        self._cycles = Signal(32, name="cycles")
        with m.If(self.running):
            m.d.sync += self._cycles.eq(self.now)
        self._parity = Signal(len(KINDS), name="parity")

    def _failed(self) -> Value:
        """Bits 8 … 15 of STATUS: the first says that a bit of PARITY is set."""
        return Cat(self._parity.any(), Const(0, 7)) if self.params.parity else Const(0, 8)

    def _window(self, m: Module) -> None:
        """The word that DATA accesses, whether it is there, and what of it comes next."""
        params = self.params
        self._select = select = Signal(memory_access(params), name="select")
        parts = {memory: -(-memory_shape(params, memory)[2] // 32) for memory in Memory}
        most = max(parts.values())
        # One bit wider than in the array, so that it does not begin anew behind the last word of the largest memory.
        self._at = Signal(21, name="at")
        self._part = Signal(range(most), name="part")
        self._last_part = Signal(name="last_part")
        self._readable = Signal(name="readable")
        self._writable = Signal(name="writable")
        # They change with an access, and are needed by the next one, 2 cycles later.
        last_part, readable, writable = Signal(), Signal(), Signal()
        m.d.sync += [self._last_part.eq(last_part), self._readable.eq(readable), self._writable.eq(writable)]
        with m.Switch(select.memory):
            for memory in Memory:
                units, words, _ = memory_shape(params, memory)
                if not words:
                    continue
                there = (select.unit < units) & (self._at < words)
                with m.Case(memory.value):
                    m.d.comb += [
                        last_part.eq(self._part == parts[memory] - 1),
                        readable.eq(there if memory in READABLE else 0),
                        writable.eq(there if memory in WRITABLE else 0),
                    ]  # fmt: skip
        m.d.comb += select.address.eq(self._at)

    def _advance(self, m: Module) -> None:
        m.d.sync += self._part.eq(self._part + 1)
        with m.If(self._last_part):
            m.d.sync += [self._part.eq(0), self._at.eq(self._at + 1)]

    def _registers(self, m: Module) -> None:
        """What a read finds."""
        select = self._select
        digest = int(identity(self.params), 16)
        readable: dict[str, Value] = {
            "ID": Const(ID, 32),
            "HASH_LOW": Const(digest & 0xFFFFFFFF, 32),
            "HASH_HIGH": Const(digest >> 32, 32),
            "PES": Const(self.params.pes, 32),
            "CONTROL": Const(0, 32),
            "STATUS": Cat(
                self.busy, self._done, self._refused, self.in_tile, Value.cast(self.error), self._failed(), self.index
            ),
            "INTERRUPT": self._enabled,
            "FIRST": self.first,
            "BATCH": self.batch,
            "CYCLES": self._cycles,
            "SELECT": Cat(select.memory, Const(0, 4), select.unit),
            "ADDRESS": self._at,
            **({"PARITY": self._parity} if self.params.parity else {}),
        }
        with m.If(self._begin["read"]), m.Switch(self._address):
            for name, value in readable.items():
                with m.Case(offset(name) >> 2):
                    m.d.comb += self._answer.eq(value)
            with m.Case(offset("DATA") >> 2):
                with m.If(~self._readable):
                    m.d.comb += self._bad.eq(1)
                with m.Elif(self.busy):
                    m.d.sync += self._refused.eq(1)
                with m.Else():
                    m.d.comb += self._reads.eq(1)
                    self._advance(m)
            with m.Default():
                m.d.comb += self._bad.eq(1)

    def _writes(self, m: Module) -> None:
        """What a write does."""
        select, data = self._select, self._data
        # The word is written from the register in which its parts come together: no copy of the widest word elsewhere,
        # and no path from the pins of the chip to every memory of the array.
        held = Signal(len(self.write.p.data), reset_less=True)
        m.d.comb += self.write.p.data.eq(held)
        m.d.sync += self.write.valid.eq(0)
        restart, start, fresh = Signal(), Signal(), Signal()
        with m.If(self._begin["write"]):
            m.d.comb += self._bad.eq(1)
            with m.If(self._whole), m.Switch(self._address):
                for register in registers(self.params):
                    if register.access == "RO":
                        continue
                    legal = 0xFFFFFFFF if register.access == "W1C" else register.mask
                    with m.Case(register.offset >> 2), m.If((data & ~Const(legal, 32)) == 0):
                        m.d.comb += self._bad.eq(0)
                        match register.name:
                            case "CONTROL":
                                restart_bit, start_bit, new_bit = (
                                    (data & mask("CONTROL", name)).any() for name in ("RESTART", "START", "NEW_STREAM")
                                )
                                m.d.comb += [
                                    restart.eq(restart_bit), fresh.eq(restart_bit & new_bit),
                                    start.eq(start_bit & ~restart_bit & ~self.busy),
                                ]  # fmt: skip
                                with m.If(start):
                                    m.d.sync += self._done.eq(0)
                                with m.If(start_bit & ~restart_bit & self.busy):
                                    m.d.sync += self._refused.eq(1)
                            case "STATUS":
                                for flag, name in ((self._done, "DONE"), (self._refused, "REFUSED")):
                                    with m.If((data & mask("STATUS", name)).any()):
                                        m.d.sync += flag.eq(0)
                            case "PARITY":
                                m.d.sync += self._parity.eq(self._parity & ~data)
                            case "INTERRUPT":
                                m.d.sync += self._enabled.eq(data & register.mask)
                            case "FIRST":
                                m.d.sync += self.first.eq(data)
                            case "BATCH":
                                m.d.sync += self.batch.eq(data)
                            case "SELECT":
                                m.d.sync += [
                                    select.memory.eq(data[:4]), select.unit.eq(data[8:16]), self._part.eq(0),
                                ]  # fmt: skip
                            case "ADDRESS":
                                m.d.sync += [self._at.eq(data), self._part.eq(0)]
        # To the parts of the widest word leads a decoded address.
        with m.If(self._begin["write"] & self._whole & self._to_data):
            self._store(m, held)
        # START and RESTART lead to the whole array, so from registers.
        m.d.sync += [self.restart.eq(restart), self.start.eq(start), self.new_stream.eq(fresh)]
        # Set beats clear, but RESTART both.
        with m.If(self.done):
            m.d.sync += self._done.eq(1)
        irq = (
            (self._done & (self._enabled & mask("STATUS", "DONE")).any())
            | (self._refused & (self._enabled & mask("STATUS", "REFUSED")).any())
        )  # fmt: skip
        if self.params.parity:
            irq |= self._parity.any() & (self._enabled & mask("STATUS", "PARITY")).any()
        m.d.comb += self.irq.eq(irq)
        if self.params.parity:
            for n, wrong in enumerate(self.wrong):
                with m.If(wrong):
                    m.d.sync += self._parity[n].eq(1)
        with m.If(restart | self.restart):
            m.d.sync += [self._done.eq(0), self._refused.eq(0)]

    def _store(self, m: Module, held: Signal) -> None:
        """A part of a word to be written."""
        with m.If(~self._writable):
            m.d.comb += self._bad.eq(1)
        with m.Elif(self.busy):
            m.d.sync += self._refused.eq(1)
        with m.Else():
            place, whole = self._part, self._last_part
            if self.params.slim:  # a part of a descriptor is a word of its own
                one = self._select.memory == Memory.DESCRIPTORS.value
                place, whole = Mux(one, 0, place), one | whole
                m.d.sync += self.write.p.part.eq(self._part)
            with m.Switch(place):
                for n in range(-(-len(held) // 32)):
                    with m.Case(n):
                        m.d.sync += held[32 * n : 32 * n + 32].eq(self._data)
            m.d.sync += [self.write.valid.eq(whole), self.write.p.to.eq(self._select)]
            self._advance(m)
