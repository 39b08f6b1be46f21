"""Performance counters: one record a layer."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import COUNTER_MOST, COUNTERS, record
from hw.params import LANES, Params
from hw.population import added, ones
from hw.streams import event

__all__ = ["Counters"]

WIDTH = COUNTER_MOST.bit_length()


def _sum(counter: Value, more: Value) -> Value:
    """A counter and what is added to it, up to `COUNTER_MOST`."""
    total = counter + more
    return Mux(total > COUNTER_MOST, COUNTER_MOST, total)


class _Counter:
    """A sum that stops: beyond its width it sets a flag, and what is read then is all ones.

    So no carry decides what the sum becomes, and a bit of it takes no lookup table beside its adder.
    """

    def __init__(self, name: str) -> None:
        self.sum = Signal(WIDTH, name=name)
        self.full = Signal(name=f"{name}_full")

    def with_more(self, more: Value) -> tuple[Value, Value]:
        """Sum and flag when this is added."""
        result = self.sum + more
        return result[:WIDTH], self.full | result[WIDTH:].any()

    def clear(self) -> list[Any]:
        return [self.sum.eq(0), self.full.eq(0)]

    def add(self, more: Value) -> list[Any]:
        now, full = self.with_more(more)
        return [self.sum.eq(now), self.full.eq(full)]

    @property
    def value(self) -> Value:
        return self.sum | self.full.replicate(WIDTH)


class Counters(wiring.Component):
    """Count what happens for each layer, and hand out its record when its last tile is written back.

    Two layers can be under way, of even and of odd number; a bank belongs to one of them at a time. ``entries`` and
    ``padding`` belong to the layer of the entry, ``blocked`` and ``skipped`` to that of the vector that waits or is
    skipped. ``starved`` (PE cycles without an entry) and ``refill`` belong to the layer accepted last; for the last
    layer of a run, cycles count until all layers are finished: the one before it may be finished after it. So over a
    run, ``entries + starved`` are PEs times the cycles from the first accept to the last finish.

    A layer is accepted with its first tile. It is finished when all its tiles are, and written with its last one.

    A counter stops at `hw.layouts.COUNTER_MOST`.

    Timing: ``write`` and ``record`` come 1 cycle after ``written``; ``record`` stands until the next one.

    Members
    -------
    now : cycles since the run began.
    accept_layer, front_layer, layer_of, ends, finished, counting, written, written_bank : see `Control`.
    blocked, skipped, scan_bank : of this cycle, and the bank of the vector. refill : of this cycle.
    saturated : for each group, of this cycle.
    stream, accept : a segment waits for nothing but streams; it is accepted, and what it waited is its layer's (only
        with ``params.streams``).
    activity : of all PEs.
    writing, writing_again : number of what is written back, and whether it has run in an earlier round of a loop.
    write, layer, record, number, again : the record of this layer (parity) is complete. A restart leaves it.
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
            "writing": In(16), "writing_again": In(1),
            "write": Out(1), "layer": Out(1), "record": Out(record(params)), "number": Out(16), "again": Out(1),
            **dict.fromkeys(names, In(1)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pes = self.params.pes
        m.d.sync += self.now.eq(self.now + 1)
        with m.If(self.start):
            m.d.sync += self.now.eq(0)

        # Population counts take a cycle; what they are added to is delayed to match. The layer of a bank stands from
        # before its tile's first entry to long after the last one.
        names = [name for name in COUNTERS if name != "saturated"]
        counts = [{name: _Counter(f"{name}_{n}") for name in names} for n in range(2)]
        accepted_at = [Signal(32, name=f"accepted_{n}") for n in range(2)]
        finished_at = [Signal(32, name=f"finished_{n}") for n in range(2)]
        idle = Signal(range(pes + 1))
        front, counting = [self.front_layer], [self.counting]
        for n in range(2):
            front.append(Signal(name=f"front_{n}"))
            counting.append(Signal(name=f"counting_{n}"))
            m.d.sync += [front[n + 1].eq(front[n]), counting[n + 1].eq(counting[n])]
        m.d.sync += idle.eq(ones(~self.activity[pe].entry for pe in range(pes)))
        # A layer begins to count a cycle after it is accepted: that leads to all counters, and comes late.
        begins, refill = Signal(), Signal()
        m.d.sync += [begins.eq(self.accept_layer), refill.eq(self.refill)]
        waited, accepted, waits = Signal(32), Signal(), Signal(32)
        if self.params.streams:
            m.d.sync += [
                accepted.eq(self.accept), waited.eq(Mux(accepted | self.start, 0, _sum(waited, self.stream))),
                waits.eq(Mux(accepted, waited, 0)),
            ]  # fmt: skip
        for n, count in enumerate(counts):
            here = [self.layer_of[bank] == n for bank in range(2)]
            scanned = Mux(self.scan_bank, here[1], here[0])
            entries, padding = Signal(range(pes + 1), name=f"more_{n}"), Signal(range(pes + 1), name=f"zeros_{n}")
            mine = [(each, Mux(each.bank, here[1], here[0])) for each in (self.activity[pe] for pe in range(pes))]
            # Group by group first: the last entry of a tile is counted long before its record.
            near = [mine[first : first + LANES] for first in range(0, pes, LANES)]
            selected = [Signal(range(LANES + 1), name=f"more_{n}_{group}") for group in range(len(near))]
            stuffed = [Signal(range(LANES + 1), name=f"zeros_{n}_{group}") for group in range(len(near))]
            for group, count_of, zeros_of in zip(near, selected, stuffed, strict=True):
                m.d.sync += [
                    count_of.eq(ones(activity.entry & own for activity, own in group)),
                    zeros_of.eq(ones(activity.padding & own for activity, own in group)),
                ]
            m.d.sync += [
                entries.eq(added(selected)), padding.eq(added(stuffed)),
                *count["entries"].add(entries), *count["padding"].add(padding),
                *count["blocked"].add(self.blocked & scanned), *count["skipped"].add(self.skipped & scanned),
            ]  # fmt: skip
            with m.If((front[2] == n) & counting[2]):
                m.d.sync += count["starved"].add(idle)
            with m.If(front[1] == n):
                m.d.sync += count["refill"].add(refill)
                if self.params.streams:
                    m.d.sync += count["stream"].add(waits)
            with m.If((self.finished[0] & here[0]) | (self.finished[1] & here[1])):
                m.d.sync += finished_at[n].eq(self.now - 1)
            with m.If(begins & (self.front_layer == n)):
                m.d.sync += [each.clear() for each in count.values()]
                m.d.sync += [accepted_at[n].eq(self.now - 1), finished_at[n].eq(0)]

        # One tile or operation at a time is written back, in order, so saturations need no bank.
        saturated = _Counter("saturated")
        total, full = saturated.with_more(ones(self.saturated[group] for group in range(self.params.groups)))
        layer, ends = Signal(), Signal()
        whole = Signal(record(self.params))
        m.d.comb += [
            layer.eq(Mux(self.written_bank, self.layer_of[1], self.layer_of[0])),
            ends.eq(self.written & self.ends.bit_select(self.written_bank, 1)),
            whole.accepted.eq(Mux(layer, *reversed(accepted_at))),
            whole.finished.eq(Mux(layer, *reversed(finished_at))),
            *(whole[name].eq(Mux(layer, counts[1][name].value, counts[0][name].value)) for name in names),
        ]  # fmt: skip
        if self.params.elementwise:
            began, finished = Signal(32), Signal(32)
            with m.If(self.operation_begins):
                m.d.sync += began.eq(self.now)
            with m.If(self.operation_ends):
                m.d.sync += finished.eq(self.now)
            with m.If(self.operation):
                m.d.comb += [
                    ends.eq(self.written), whole.eq(0), whole.accepted.eq(began), whole.finished.eq(finished),
                ]  # fmt: skip
        m.d.comb += [whole.saturated.eq(total | full.replicate(WIDTH)), whole.written.eq(self.now + 1)]
        m.d.sync += [self.write.eq(ends), saturated.sum.eq(total), saturated.full.eq(full)]
        with m.If(ends):
            m.d.sync += saturated.clear()
        # Written down even if a restart comes: see `Recorder`.
        shape = data.StructLayout({"record": record(self.params), "layer": 1, "number": 16, "again": 1})
        kept = Signal(shape, reset_less=True)
        with m.If(ends):
            m.d.sync += [
                kept.record.eq(whole), kept.layer.eq(layer), kept.number.eq(self.writing),
                kept.again.eq(self.writing_again),
            ]  # fmt: skip
        m.d.comb += [
            self.record.eq(kept.record), self.layer.eq(kept.layer), self.number.eq(kept.number),
            self.again.eq(kept.again),
        ]  # fmt: skip
        return m
