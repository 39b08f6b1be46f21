"""Skid buffer and the ends of AXI4-Stream ports."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Mux, Signal

from hw.skid import Skid
from hw.stream_input import StreamInput
from sim.formal.claim import Claim
from sim.formal.follow import follow
from sim.formal.planted import planted
from sim.formal.sheet import Sheet
from sim.formal.twice import no_path

__all__ = ["CLAIMS"]


def skid_order(s: Sheet, kind: Any) -> None:
    """Words through a skid buffer."""
    dut = s.add(kind(8))
    i, o = dut.i, dut.o
    follow(s, i.valid & i.ready, o.valid & o.ready, i.payload, o.payload, most=2)
    s.steady(o.valid, o.ready, o.payload, "output")
    s.must(dut.enable | ~i.ready, "nothing is taken unless enabled")
    s.must(~(s.past(i.valid & i.ready)) | o.valid, "what is taken shows in the next cycle")
    full = s.past(i.valid & i.ready) & s.past(o.valid & o.ready) & i.ready & o.valid
    s.reach(full & s.past(full), "one word a cycle")
    s.reach(s.past(i.ready) & ~i.ready & dut.enable, "both places are full")


def input_order(s: Sheet, kind: Any) -> None:
    """Beats through a stream input that is never restarted."""
    dut = s.add(kind(8), driven=("restart", "fresh"))
    pins, o = dut.pins, dut.o
    taken, given = pins.tvalid & pins.tready, o.valid & o.ready
    follow(s, taken, given, Cat(pins.tdata, pins.tlast), o.payload, most=2)
    s.steady(o.valid, o.ready, o.payload, "output")
    s.must(dut.inside == (s.past(taken & ~pins.tlast) | (s.past(dut.inside) & ~s.past(taken))), "`inside` is right")
    s.must(s.began | ~pins.tready, "nothing is taken in reset")
    s.reach(s.past(taken & given, 2) & s.past(taken & given) & taken & given, "one beat a cycle")


def input_packets(s: Sheet, kind: Any) -> None:
    """Packets through a stream input that is restarted at any time.

    A source that marks the first beat of each packet in its data: so must those that come out be marked.
    """
    dut = s.add(kind(2))
    pins, o = dut.pins, dut.o
    begins, expected = Signal(init=1), Signal(init=1)  # the next beat begins a packet: at the pins, at the output
    restarted = Signal()  # nothing was handed out since the last one
    taken, given = pins.tvalid & pins.tready, o.valid & o.ready
    s.m.d.sync += [
        begins.eq((dut.restart & dut.fresh) | Mux(taken, pins.tlast, begins)),
        expected.eq(dut.restart | Mux(given, o.p.last, expected)),
        restarted.eq(dut.restart | (restarted & ~given)),
    ]
    s.given(~pins.tvalid | (pins.tdata[0] == begins))
    s.must(
        ~o.valid | (o.p.data[0] == expected), "what comes out are whole packets, after a restart from a first beat on"
    )
    rest, inside = Signal(), Signal()  # the rest of a packet that began before the restart
    goes_on = Mux(taken, ~pins.tlast, inside)
    s.m.d.sync += [inside.eq(goes_on), rest.eq(rest & goes_on)]
    with s.m.If(dut.restart):
        s.m.d.sync += [inside.eq(goes_on & ~dut.fresh), rest.eq(goes_on & ~dut.fresh)]
    follow(s, taken & ~rest, given, Cat(pins.tdata, pins.tlast), o.payload, most=2, forget=dut.restart)
    s.must(~s.past(dut.restart) | ~o.valid, "what was held at a restart is forgotten")
    left = s.past(dut.restart & ~dut.fresh) & s.past(taken & ~pins.tlast)
    s.reach(given & restarted & s.past(left, 5), "after a restart inside a packet the next one comes out")
    s.reach(given & restarted & s.past(dut.restart & dut.fresh, 2), "after a restart with a new source")


def input_path(s: Sheet, kind: Any) -> None:
    """No path from an input of the stream input to an output within a cycle."""
    no_path(s, lambda: kind(4))


CLAIMS = (
    Claim(
        "skid-order",
        "Skid",
        "Words leave in their order, each once, unchanged, and stand still until they are taken.",
        skid_order,
        Skid,
        {
            "a word is taken without a place for it": lambda: planted(Skid, "self.enable & ~filled", "self.enable"),
            "the second place is forgotten": lambda: planted(Skid, "filled | taken", "taken"),
            "words overtake": lambda: planted(Skid, "front.eq(spare)", "front.eq(self.i.payload)"),
            "words are taken while not enabled": lambda: planted(Skid, "self.enable & ~filled", "~filled"),
        },
        sample=True,
    ),
    Claim(
        "stream-input-order",
        "StreamInput",
        "AXI4-Stream: every beat that is taken comes out once, in order, unchanged; the output keeps what it offers.",
        input_order,
        StreamInput,
        {
            "TLAST is lost": lambda: planted(StreamInput, "Cat(pins.tdata, pins.tlast)", "pins.tdata"),
            "beats are taken in reset": lambda: planted(StreamInput, "skid.enable.eq(awake)", "skid.enable.eq(1)"),
            "a beat is dropped without a restart": lambda: planted(
                StreamInput, "dropping.eq(dropping & goes_on)", "dropping.eq(pins.tlast & ~goes_on)"
            ),
        },
    ),
    Claim(
        "stream-input-packets",
        "StreamInput",
        "AXI4-Stream: whatever restarts come, the array sees whole packets only.",
        input_packets,
        StreamInput,
        {
            "the rest of a packet is not dropped": lambda: planted(
                StreamInput, "[dropping.eq(goes_on & ~self.fresh)", "[dropping.eq(0)"
            ),
            "a new source loses its first packet": lambda: planted(
                StreamInput, "[dropping.eq(goes_on & ~self.fresh)", "[dropping.eq(goes_on)"
            ),
            "what is held stays at a restart": lambda: planted(
                StreamInput, "ResetInserter(self.restart)(skid)", "skid"
            ),
        },
    ),
    Claim(
        "stream-input-path",
        "StreamInput",
        "No output of the port depends on an input within a cycle.",
        input_path,
        StreamInput,
        {
            "ready follows valid": lambda: planted(
                StreamInput, "tready.eq(skid.i.ready)", "tready.eq(skid.i.ready & pins.tvalid)"
            ),
        },
    ),
)
