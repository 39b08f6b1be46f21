"""Performance counters: one record a layer."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import COUNTER_MOST, COUNTERS, record
from hw.params import Params
from hw.population import ones
from hw.streams import event

__all__ = ["Counters"]


def _sum(counter: Value, more: Value) -> Value:
    """A counter and what is added to it, up to `COUNTER_MOST`."""
    total = counter + more
    return Mux(total > COUNTER_MOST, COUNTER_MOST, total)


class Counters(wiring.Component):
    """Count what happens for each layer, and hand out its record when its last tile is written back.

    Two layers can be under way, of even and of odd number; a bank belongs to one of them at a time. ``entries`` and
    ``padding`` belong to the layer of the entry, ``blocked`` and ``skipped`` to that of the vector that waits or is
    skipped. ``starved`` (PE cycles without an entry) and ``refill`` belong to the layer accepted last; for the last
    layer of a run, cycles count until all layers are finished: the one before it may be finished after it. So over a
    run, ``entries + starved`` are PEs times the cycles from the first accept to the last finish.

    A layer is accepted with its first tile. It is finished when all its tiles are, and written with its last one.

    A counter stops at `hw.layouts.COUNTER_MOST`.

    Timing: ``write`` and ``record`` come 1 cycle after ``written``.

    Members
    -------
    now : cycles since the run began.
    accept_layer, front_layer, layer_of, ends, finished, counting, written, written_bank : see `Control`.
    blocked, skipped, scan_bank : of this cycle, and the bank of the vector. refill : of this cycle.
    saturated : for each group, of this cycle.
    stream, accept : a segment waits for nothing but streams; it is accepted, and what it waited is its layer's (only
        with ``params.streams``).
    activity : of all PEs.
    write, layer, record : the record of this layer (parity) is complete.
    again, before : what is written back has run in an earlier round of a loop, and its record as that left it (at the
        latest 2 cycles before ``written``): the record keeps when it was first accepted, and the counters add up.
    operation, operation_begins, operation_ends : an elementwise operation is written back; it begins, and its last
        product is stepped, in this cycle (only with ``params.elementwise``). It has a record of its own, with these
        times as ``accepted`` and ``finished``.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        names = ["operation", "operation_begins", "operation_ends"] if params.elementwise else []
        names += ["stream", "accept"] if params.streams else []
        super().__init__({
            "start": In(1), "now": Out(32),
            "accept_layer": In(1), "front_layer": In(1), "layer_of": In(1).array(2), "ends": In(2), "finished": In(2),
            "counting": In(1), "written": In(1), "written_bank": In(1),
            "blocked": In(1), "skipped": In(1), "scan_bank": In(1), "refill": In(1), "saturated": In(params.groups),
            "activity": In(event(params)).array(params.pes),
            "write": Out(1), "layer": Out(1), "record": Out(record(params)),
            "again": In(1), "before": In(record(params)), **dict.fromkeys(names, In(1)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pes = self.params.pes
        m.d.sync += self.now.eq(self.now + 1)
        with m.If(self.start):
            m.d.sync += self.now.eq(0)

        # Population counts take a cycle; what they are added to is delayed to match.
        records = [Signal(record(self.params), name=f"record_{n}") for n in range(2)]
        idle = Signal(range(pes + 1))
        front, counting = [self.front_layer], [self.counting]
        for n in range(2):
            front.append(Signal(name=f"front_{n}"))
            counting.append(Signal(name=f"counting_{n}"))
            m.d.sync += [front[n + 1].eq(front[n]), counting[n + 1].eq(counting[n])]
        m.d.sync += idle.eq(ones(~self.activity[pe].entry for pe in range(pes)))
        entries = [Signal(range(pes + 1), name=f"entries_{n}") for n in range(2)]
        padding = [Signal(range(pes + 1), name=f"padding_{n}") for n in range(2)]
        for n in range(2):
            mine = [(self.activity[pe], self.activity[pe].bank == n) for pe in range(pes)]
            m.d.sync += [
                entries[n].eq(ones(activity.entry & here for activity, here in mine)),
                padding[n].eq(ones(activity.padding & here for activity, here in mine)),
            ]
        waited, accepted = Signal(32), Signal()
        if self.params.streams:
            m.d.sync += [accepted.eq(self.accept), waited.eq(Mux(accepted | self.start, 0, _sum(waited, self.stream)))]
        for n in range(2):
            here = [self.layer_of[bank] == n for bank in range(2)]
            scanned = Mux(self.scan_bank, here[1], here[0])
            m.d.sync += [
                records[n].entries.eq(
                    _sum(records[n].entries, Mux(here[0], entries[0], 0) + Mux(here[1], entries[1], 0))
                ),
                records[n].padding.eq(
                    _sum(records[n].padding, Mux(here[0], padding[0], 0) + Mux(here[1], padding[1], 0))
                ),
                records[n].blocked.eq(_sum(records[n].blocked, self.blocked & scanned)),
                records[n].skipped.eq(_sum(records[n].skipped, self.skipped & scanned)),
            ]  # fmt: skip
            with m.If((front[2] == n) & counting[2]):
                m.d.sync += records[n].starved.eq(_sum(records[n].starved, idle))
            with m.If(self.front_layer == n):
                m.d.sync += records[n].refill.eq(_sum(records[n].refill, self.refill))
                if self.params.streams:
                    m.d.sync += records[n].stream.eq(_sum(records[n].stream, Mux(accepted, waited, 0)))
            with m.If((self.finished[0] & here[0]) | (self.finished[1] & here[1])):
                m.d.sync += records[n].finished.eq(self.now - 1)
            with m.If(self.accept_layer & (self.front_layer != n)):
                m.d.sync += [records[n].eq(0), records[n].accepted.eq(self.now)]

        # One tile or operation at a time is written back, in order, so saturations need no bank.
        saturated = Signal(32)
        total = Signal(32)
        layer, ends = Signal(), Signal()
        mine, before = Signal(record(self.params)), Signal(record(self.params))
        m.d.comb += [
            total.eq(_sum(saturated, ones(self.saturated[group] for group in range(self.params.groups)))),
            layer.eq(Mux(self.written_bank, self.layer_of[1], self.layer_of[0])),
            ends.eq(self.written & self.ends.bit_select(self.written_bank, 1)),
            mine.eq(Mux(layer, records[1], records[0])),
        ]  # fmt: skip
        if self.params.elementwise:
            began, finished = Signal(32), Signal(32)
            with m.If(self.operation_begins):
                m.d.sync += began.eq(self.now)
            with m.If(self.operation_ends):
                m.d.sync += finished.eq(self.now)
            with m.If(self.operation):
                m.d.comb += [
                    ends.eq(self.written), mine.eq(0), mine.accepted.eq(began), mine.finished.eq(finished),
                ]  # fmt: skip
        m.d.comb += [mine.saturated.eq(total), mine.written.eq(self.now + 1)]
        m.d.sync += [
            saturated.eq(Mux(ends, 0, total)), self.write.eq(ends), self.layer.eq(layer),
            before.eq(self.before), self.record.eq(mine),
        ]  # fmt: skip
        with m.If(self.again):
            m.d.sync += self.record.accepted.eq(before.accepted)
            m.d.sync += [self.record[name].eq(_sum(mine[name], before[name])) for name in COUNTERS]
        return m
