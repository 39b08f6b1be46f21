"""Bridge from a byte stream to AXI4-Lite and the streams: the hardware's end of a serial port."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.frames import (
    ANSWER,
    BAD,
    BEATS,
    CRC_INIT,
    CRC_POLYNOMIAL,
    DAMAGED,
    DONE,
    GIVE,
    MOST_WORDS,
    READ,
    REQUEST,
    SHORT,
    TAKE,
    WRITE,
    head,
)
from hw.host import axi_lite
from hw.layouts import ACT_BITS, REFILL_BITS
from hw.params import LANES
from hw.sram import Sram
from hw.stream_input import axi_stream
from hw.uart import UartReceiver, UartTransmitter

__all__ = ["Bridge", "SerialHost", "crc_step"]


def crc_step(crc: Value, byte: Value) -> Value:
    """The checksum with one more byte."""
    bits = [crc[n] for n in range(16)]
    for n in reversed(range(8)):
        feedback = bits[15] ^ byte[n]
        bits = [
            (bits[k - 1] if k else 0) ^ feedback if CRC_POLYNOMIAL >> k & 1 else bits[k - 1] for k in range(16)
        ]  # fmt: skip
    return Cat(*bits)


class Bridge(wiring.Component):
    """Requests in, AXI4-Lite accesses and beats out, answers back; see `hw.frames` and docs/driver.md.

    One request at a time: the other side waits for the answer. Nothing is done before the whole request is there and
    its checksum is right. Bytes that begin no request are dropped.

    Parameters
    ----------
    silence : cycles without a byte within a request after which it is given up.
    patience : cycles for which a beat waits for the stream to take the one before it; then the answer says how many
        were taken. A beat that is taken may still wait at `weights` when the answer is sent.
    refill, streams : there is a refill stream; there are streams of maps.
    style : of the memory for a request, see `Sram`.

    Members
    -------
    i, o : bytes of requests, bytes of answers.
    bus : AXI4-Lite, as the manager.
    weights : AXI4-Stream (only with `refill`). given, taken : maps to and from the array (only with `streams`).
    """

    def __init__(
        self, silence: int, patience: int = 1024, refill: bool = True, streams: bool = False,
        style: str = "distributed",
    ) -> None:  # fmt: skip
        self.silence, self.patience, self.refill, self.streams = silence, patience, refill, streams
        self.style = style
        super().__init__({
            "i": In(stream.Signature(8)), "o": Out(stream.Signature(8)), "bus": Out(axi_lite()),
            **_beat_ports(refill, streams),
        })  # fmt: skip
        self.sinks = {}
        """The streams that beats are offered to, by operation."""
        if refill:
            self.sinks[BEATS] = self.weights
        if streams:
            self.sinks[GIVE] = self.given

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.words = words = Sram(32, MOST_WORDS, self.style)  # of a request
        self._asked = asked = Signal(head())
        self._crc = crc = Signal(16)
        self._word = word = Signal(range(MOST_WORDS + 1))  # the one that is received, or carried out
        self._kind, self._done = Signal(2), Signal(8)
        self._failed = Signal()
        self._shift = shift = Signal(32)  # bytes to send, or received
        byte = Signal(3)
        silent = Signal(range(self.silence + 1))
        taken, sent = Signal(), Signal()
        self._offers, self._takes, self._reads = Signal(), Signal(), Signal()  # what is asked for
        bad = Signal()
        known = Cat(asked.command.operation == n for n in (READ, WRITE, *self.sinks)).any() | self._takes
        m.d.comb += [
            taken.eq(self.i.valid & self.i.ready), sent.eq(self.o.valid & self.o.ready), self.o.payload.eq(shift[:8]),
            self._offers.eq(Cat(asked.command.operation == n for n in self.sinks).any()),
            self._takes.eq((asked.command.operation == TAKE) & self.streams),
            self._reads.eq((asked.command.operation == READ) | self._takes),
            words.w_addr.eq(word), words.w_data.eq(Cat(shift[8:], self.i.payload)), words.r_addr.eq(word),
            bad.eq(
                ~known | (asked.command.reserved != 0) | (asked.reserved != 0) | (asked.count == 0)
                | (asked.count > MOST_WORDS)
                | ((self._offers | self._takes) & ((asked.count[:2] != 0) | (asked.offset != 0)))
            ),
        ]  # fmt: skip
        with m.If(taken | sent):
            m.d.sync += [crc.eq(crc_step(crc, Mux(sent, self.o.payload, self.i.payload))), byte.eq(byte + 1)]
        with m.If(sent):
            m.d.sync += shift.eq(shift >> 8)
        with m.If(taken):
            m.d.sync += shift.eq(Cat(shift[8:], self.i.payload))

        def refuse(kind: int) -> None:
            m.d.sync += self._kind.eq(kind)
            m.next = "Answer"

        def receiving() -> None:
            m.d.comb += self.i.ready.eq(1)
            m.d.sync += silent.eq(Mux(taken, 0, silent + 1))
            with m.If(~taken & (silent == self.silence)):
                refuse(SHORT)

        for sink in self.sinks.values():
            with m.If(sink.tready):
                m.d.sync += sink.tvalid.eq(0)
        with m.FSM():
            with m.State("Hunt"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [
                    crc.eq(crc_step(Const(CRC_INIT, 16), Const(REQUEST, 8))),
                    asked.tag.eq(0), byte.eq(0), word.eq(0), silent.eq(0), self._done.eq(0), self._failed.eq(0),
                ]  # fmt: skip
                with m.If(taken & (self.i.payload == REQUEST)):
                    m.next = "Head"
            with m.State("Head"):
                receiving()
                with m.If(taken):
                    with m.If(byte == 0):
                        m.d.sync += asked.tag.eq(self.i.payload)
                    with m.Else():
                        m.d.sync += asked.as_value()[8:].eq(Cat(asked.as_value()[16:], self.i.payload))
                    with m.If(byte == 4):
                        m.d.sync += byte.eq(0)
                        m.next = "Headed"
            with m.State("Headed"):  # how many bytes follow; no byte comes in the cycle after another
                m.next = "Checksum"
                with m.If(bad):
                    refuse(BAD)
                with m.Elif(~self._reads):
                    m.next = "Words"
            with m.State("Words"):
                receiving()
                with m.If(taken & (byte == 3)):
                    m.d.comb += words.w_en.eq(1)
                    m.d.sync += [byte.eq(0), word.eq(word + 1)]
                    with m.If(word == asked.count - 1):
                        m.next = "Checksum"
            with m.State("Checksum"):
                receiving()
                with m.If(taken & (byte == 1)):
                    m.next = "Checked"
            with m.State("Checked"):
                m.d.sync += [word.eq(0), self._kind.eq(DONE)]
                m.next = "Fetch"
                with m.If(crc != 0):
                    refuse(DAMAGED)
                with m.Elif(self._reads):
                    m.next = "Answer"
            self._carry_out(m, words)
            self._answer(m, byte, sent)
        return m

    def _carry_out(self, m: Module, words: Sram) -> None:
        """Writes and beats, before the answer."""
        asked, word, bus = self._asked, self._word, self.bus
        address, data = Signal(2), Signal()  # the bus has taken them
        beat = Signal(REFILL_BITS)
        m.d.comb += [
            bus.awaddr.eq(asked.offset), bus.araddr.eq(asked.offset), bus.wdata.eq(words.r_data), bus.wstrb.eq(0xF),
        ]  # fmt: skip
        with m.State("Fetch"):
            m.d.comb += words.r_en.eq(1)
            m.next = "Write"
            if self.sinks:
                with m.If(self._offers):
                    m.next = "Collect"
        with m.State("Write"):
            m.d.comb += [bus.awvalid.eq(~address[0]), bus.wvalid.eq(~data), bus.bready.eq(1)]
            with m.If(bus.awvalid & bus.awready):
                m.d.sync += address.eq(1)
            with m.If(bus.wvalid & bus.wready):
                m.d.sync += data.eq(1)
            with m.If(bus.bvalid):
                m.d.sync += [address.eq(0), data.eq(0), word.eq(word + 1)]
                with m.If(asked.command.increment):
                    m.d.sync += asked.offset.eq(asked.offset + 4)
                m.next = "Fetch"
                with m.If(bus.bresp != 0):
                    m.next = "Answer"
                with m.Else():
                    m.d.sync += self._done.eq(self._done + 1)
                    with m.If(word == asked.count - 1):
                        m.next = "Answer"
        if not self.sinks:
            return
        waited = Signal(range(self.patience + 1))
        free = Cat((asked.command.operation == n) & (~s.tvalid | s.tready) for n, s in self.sinks.items()).any()
        with m.State("Collect"):
            m.d.sync += [beat.eq(Cat(beat[32:], words.r_data)), word.eq(word + 1), waited.eq(0)]
            m.next = "Fetch"
            with m.If(word[:2] == 3):
                m.next = "Offer"
        with m.State("Offer"):
            m.d.sync += waited.eq(waited + 1)
            with m.If(free):
                m.d.sync += self._done.eq(self._done + 1)
                for operation, sink in self.sinks.items():
                    with m.If(asked.command.operation == operation):
                        m.d.sync += [
                            sink.tvalid.eq(1), sink.tdata.eq(beat),
                            sink.tlast.eq(asked.command.last & (word == asked.count)),
                        ]  # fmt: skip
                m.next = "Fetch"
                with m.If(word == asked.count):
                    m.next = "Answer"
            with m.Elif(waited == self.patience):
                m.next = "Answer"

    def _answer(self, m: Module, byte: Signal, sent: Signal) -> None:
        """The answer, and reads in the middle of it."""
        asked, word, bus, shift = self._asked, self._word, self.bus, self._shift
        reads = (self._kind == DONE) & self._reads
        asking = Signal()
        beat = Signal(ACT_BITS * LANES)  # what is left of one that is taken
        with m.State("Answer"):
            kind = Cat(self._kind, Const(0, 6))
            m.d.sync += [
                shift.eq(Cat(Const(ANSWER, 8), asked.tag, kind, Mux(reads, asked.count, Const(0, 8)))),
                self._crc.eq(CRC_INIT), byte.eq(0), word.eq(0),
            ]  # fmt: skip
            m.next = "Answer head"
        with m.State("Answer head"):
            m.d.comb += self.o.valid.eq(1)
            with m.If(sent & (byte == 3)):
                m.d.sync += [byte.eq(0), shift.eq(0)]
                m.next = "Answer done"
                with m.If(reads):
                    m.next = "Read"
        with m.State("Read"):
            m.d.comb += [bus.arvalid.eq(~asking & ~self._failed & ~self._takes), bus.rready.eq(1)]
            with m.If(bus.arvalid & bus.arready):
                m.d.sync += asking.eq(1)
            if self.streams:
                with m.If(self._takes):
                    m.d.sync += [shift.eq(beat), beat.eq(beat >> 32), byte.eq(0), word.eq(word + 1)]
                    m.next = "Answer word"
                    with m.If(word[:2] == 0):
                        m.d.comb += self.taken.tready.eq(~self._failed)
                        m.d.sync += [shift.eq(0), beat.eq(0)]
                        with m.If(self.taken.tready & self.taken.tvalid):
                            m.d.sync += [
                                shift.eq(self.taken.tdata), beat.eq(self.taken.tdata >> 32),
                                self._done.eq(self._done + 1),
                            ]  # fmt: skip
                        with m.Else():
                            m.d.sync += self._failed.eq(1)
            with m.If(~self._takes & (self._failed | bus.rvalid)):
                m.d.sync += [asking.eq(0), shift.eq(0), byte.eq(0), word.eq(word + 1)]
                with m.If(asked.command.increment):
                    m.d.sync += asked.offset.eq(asked.offset + 4)
                with m.If(self._failed | (bus.rresp != 0)):
                    m.d.sync += self._failed.eq(1)
                with m.Else():
                    m.d.sync += [shift.eq(bus.rdata), self._done.eq(self._done + 1)]
                m.next = "Answer word"
        with m.State("Answer word"):
            m.d.comb += self.o.valid.eq(1)
            with m.If(sent & (byte == 3)):
                m.next = "Read"
                with m.If(word == asked.count):
                    m.next = "Answer done"
        with m.State("Answer done"):
            m.d.sync += shift.eq(self._done)
            m.next = "Send done"
        with m.State("Send done"):
            m.d.comb += self.o.valid.eq(1)
            with m.If(sent):
                m.next = "Answer checksum"
        with m.State("Answer checksum"):
            m.d.sync += [shift.eq(Cat(self._crc[8:], self._crc[:8])), byte.eq(0)]
            m.next = "Send checksum"
        with m.State("Send checksum"):
            m.d.comb += self.o.valid.eq(1)
            with m.If(sent & (byte == 1)):
                m.next = "Hunt"


def _beat_ports(refill: bool, streams: bool) -> dict[str, wiring.Member]:
    """The ports of the streams that there are."""
    weights = {"weights": Out(axi_stream(REFILL_BITS))} if refill else {}
    maps = axi_stream(ACT_BITS * LANES)
    return {**weights, **({"given": Out(maps), "taken": In(maps)} if streams else {})}


class SerialHost(wiring.Component):
    """A serial line as the host of an accelerator: what a board's top puts beside it.

    Parameters
    ----------
    divider : cycles of a bit of the line.
    silence : bytes' time that the line may be silent within a request.
    refill, streams, style : see `Bridge`.

    Members
    -------
    rx, tx : the line, as this end receives and sends it.
    bus, weights, given, taken : see `Bridge`.
    """

    def __init__(
        self, divider: int, silence: int = 1024, refill: bool = True, streams: bool = False, style: str = "distributed"
    ) -> None:
        self.divider, self.silence, self.refill, self.streams = divider, silence, refill, streams
        self.style = style
        beats = _beat_ports(refill, streams)
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "bus": Out(axi_lite()), **beats})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(self.divider)
        m.submodules.transmitter = transmitter = UartTransmitter(self.divider)
        m.submodules.bridge = bridge = Bridge(
            10 * self.divider * self.silence, refill=self.refill, streams=self.streams, style=self.style,
        )  # fmt: skip
        m.d.comb += [receiver.pin.eq(self.rx), self.tx.eq(transmitter.pin)]
        connect(m, receiver.o, bridge.i)
        connect(m, bridge.o, transmitter.i)
        connect(m, bridge.bus, flipped(self.bus))
        for name in _beat_ports(self.refill, self.streams):
            connect(m, getattr(bridge, name), flipped(getattr(self, name)))
        return m
