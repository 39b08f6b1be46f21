"""Host port: AXI4-Lite registers and a window to the memories."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.core import READ_LATENCY
from hw.layouts import Error, Memory, identity, memory_shape
from hw.params import Params
from hw.registers import ID, offset
from hw.streams import memory_access, memory_write

__all__ = ["Host", "axi_lite", "axi_stream"]


def axi_lite() -> wiring.Signature:
    """AXI4-Lite with 8 address bits and 32 data bits, as the manager sees it."""
    return wiring.Signature({
        "awaddr": Out(8), "awprot": Out(3), "awvalid": Out(1), "awready": In(1),
        "wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1),
        "bresp": In(2), "bvalid": In(1), "bready": Out(1),
        "araddr": Out(8), "arprot": Out(3), "arvalid": Out(1), "arready": In(1),
        "rdata": In(32), "rresp": In(2), "rvalid": In(1), "rready": Out(1),
    })  # fmt: skip


def axi_stream(bits: int) -> wiring.Signature:
    """AXI4-Stream without packets or strobes, as the transmitter sees it."""
    return wiring.Signature({"tdata": Out(bits), "tvalid": Out(1), "tready": In(1)})


class Host(wiring.Component):
    """AXI4-Lite subordinate for the registers of `hw.registers`.

    Timing: the response follows the request by 1 cycle, for a read of DATA by ``READ_LATENCY`` more. Whole words only:
    byte strobes other than all ones answer SLVERR and change nothing, as do unknown offsets.

    Members
    -------
    bus : AXI4-Lite.
    irq : a run has ended and the interrupt is enabled.
    The others : see `Core`.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        widest = max(memory_shape(params, m)[2] for m in (Memory.ACTIVATIONS, Memory.DESCRIPTORS, Memory.RECORDS))
        super().__init__({
            "bus": In(axi_lite()), "irq": Out(1),
            "restart": Out(1), "start": Out(1), "first": Out(16), "batch": Out(16, init=1),
            "busy": In(1), "done": In(1), "error": In(Error), "index": In(16), "now": In(32),
            "write": Out(stream.Signature(memory_write(params), always_ready=True)),
            "read": Out(stream.Signature(memory_access(params), always_ready=True)),
            "read_data": In(widest),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.bus
        done = Signal()
        refused = Signal()
        enabled = Signal()
        cycles = Signal(32)
        select = Signal(memory_access(self.params))
        most = max(-(-memory_shape(self.params, memory)[2] // 32) for memory in Memory)
        part = Signal(range(most))
        last_part = Signal(range(most))
        with m.Switch(select.memory):
            for memory in Memory:
                with m.Case(memory.value):
                    m.d.comb += last_part.eq(-(-memory_shape(self.params, memory)[2] // 32) - 1)

        with m.If(self.done):
            m.d.sync += done.eq(1)
        with m.If(self.busy):
            m.d.sync += cycles.eq(self.now)
        m.d.comb += [
            self.irq.eq(done & enabled),
            self.write.p.to.eq(select), self.read.p.eq(select),
        ]  # fmt: skip
        digest = int(identity(self.params), 16)
        readable: dict[str, Value] = {
            "ID": Const(ID, 32),
            "HASH_LOW": Const(digest & 0xFFFFFFFF, 32),
            "HASH_HIGH": Const(digest >> 32, 32),
            "PES": Const(self.params.pes, 32),
            "STATUS": Cat(self.busy, done, refused, Const(0, 1), Value.cast(self.error), Const(0, 8), self.index),
            "INTERRUPT": enabled,
            "FIRST": self.first,
            "BATCH": self.batch,
            "CYCLES": cycles,
            "SELECT": Cat(select.memory, Const(0, 4), select.unit),
            "ADDRESS": select.address,
        }

        def advance() -> None:
            with m.If(part == last_part):
                m.d.sync += [part.eq(0), select.address.eq(select.address + 1)]
            with m.Else():
                m.d.sync += part.eq(part + 1)

        # Writes: address and data are taken together.
        taken = Signal()
        legal = Signal()
        held = Signal(len(self.write.p.data))
        m.d.comb += [
            taken.eq(bus.awvalid & bus.wvalid & ~bus.bvalid), bus.awready.eq(taken), bus.wready.eq(taken),
            legal.eq(bus.wstrb == 0b1111),
        ]  # fmt: skip
        parts = -(-len(held) // 32)
        # A memory access of either kind while busy has no effect beyond being noted.
        with m.If(bus.bvalid & bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(taken):
            m.d.sync += [bus.bvalid.eq(1), bus.bresp.eq(0)]
            with m.Switch(Mux(legal, bus.awaddr, 0xFF)):
                with m.Case(offset("CONTROL")):
                    m.d.comb += self.restart.eq(bus.wdata[1])
                    with m.If(bus.wdata[2] | bus.wdata[1]):
                        m.d.sync += [done.eq(0), refused.eq(0)]
                    with m.If(bus.wdata[0] & ~bus.wdata[1]):
                        m.d.comb += self.start.eq(~self.busy)
                        with m.If(self.busy):
                            m.d.sync += refused.eq(1)
                        with m.Else():
                            m.d.sync += done.eq(0)
                with m.Case(offset("INTERRUPT")):
                    m.d.sync += enabled.eq(bus.wdata[0])
                with m.Case(offset("FIRST")):
                    m.d.sync += self.first.eq(bus.wdata)
                with m.Case(offset("BATCH")):
                    m.d.sync += self.batch.eq(bus.wdata)
                with m.Case(offset("SELECT")):
                    m.d.sync += [select.memory.eq(bus.wdata[:4]), select.unit.eq(bus.wdata[8:16]), part.eq(0)]
                with m.Case(offset("ADDRESS")):
                    m.d.sync += [select.address.eq(bus.wdata), part.eq(0)]
                with m.Case(offset("DATA")):
                    with m.If(self.busy):
                        m.d.sync += refused.eq(1)
                    with m.Else():
                        with m.Switch(part):
                            for n in range(parts):
                                with m.Case(n):
                                    m.d.sync += held[32 * n : 32 * n + 32].eq(bus.wdata)
                                    m.d.comb += self.write.p.data.eq(Cat(held[: 32 * n], bus.wdata))
                        m.d.comb += self.write.valid.eq(part == last_part)
                        advance()
                with m.Default():
                    m.d.sync += bus.bresp.eq(0b10)

        # Reads: registers answer at once, DATA when the memory has.
        waiting = Signal(range(READ_LATENCY + 2))
        with m.FSM():
            with m.State("Idle"):
                with m.If(bus.arvalid & ~taken):  # a write may move the window: one access at a time
                    m.d.comb += bus.arready.eq(1)
                    m.d.sync += [bus.rresp.eq(0), bus.rdata.eq(0)]
                    m.next = "Answer"
                    with m.Switch(bus.araddr):
                        for name, value in readable.items():
                            with m.Case(offset(name)):
                                m.d.sync += bus.rdata.eq(value)
                        with m.Case(offset("CONTROL")):
                            pass
                        with m.Case(offset("DATA")):
                            with m.If(self.busy):
                                m.d.sync += refused.eq(1)
                            with m.Else():
                                m.d.comb += self.read.valid.eq(1)
                                m.d.sync += waiting.eq(READ_LATENCY - 1)
                                m.next = "Wait-Memory"
                        with m.Default():
                            m.d.sync += bus.rresp.eq(0b10)
            with m.State("Wait-Memory"):
                m.d.sync += waiting.eq(waiting - 1)
                with m.If(waiting == 0):
                    with m.If(
                        (select.memory == Memory.ACTIVATIONS.value)
                        | (select.memory == Memory.DESCRIPTORS.value)
                        | (select.memory == Memory.RECORDS.value)
                    ):
                        with m.Switch(part):
                            for n in range(-(-len(self.read_data) // 32)):
                                with m.Case(n):
                                    m.d.sync += bus.rdata.eq(self.read_data[32 * n : 32 * n + 32])
                    advance()
                    m.next = "Answer"
            with m.State("Answer"):
                m.d.comb += bus.rvalid.eq(1)
                with m.If(bus.rready):
                    m.next = "Idle"
        return m
