"""Performance counters: one record a layer."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import record
from hw.params import LANES, Params
from hw.population import ones
from hw.streams import event

__all__ = ["Counters"]


class Counters(wiring.Component):
    """Count what happens in each accumulator bank and hand out a record when its layer is written back.

    ``entries`` and ``padding`` belong to the layer of the entry. ``starved`` (PE cycles without an entry),
    ``blocked``, ``skipped`` and ``refill`` belong to the layer accepted last; for the last layer of a run, cycles count
    until it is finished. So over a run, ``entries + starved == pes * sum(cycles)``.

    Timing: ``write`` and ``record`` come 1 cycle after ``written``.

    Members
    -------
    now : cycles since the run began.
    accept, front, finished, counting, written, written_bank : see `Control`. `accept`: not of a tile that goes on
        with the sums of the one before.
    blocked, skipped, refill : of this cycle. saturated : for each group, of this cycle.
    activity : of all PEs.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({
            "start": In(1), "now": Out(32),
            "accept": In(1), "accept_bank": In(1), "front": In(1), "finished": In(2), "counting": In(1),
            "written": In(1), "written_bank": In(1),
            "blocked": In(1), "skipped": In(range(LANES + 1)), "refill": In(1), "saturated": In(params.groups),
            "activity": In(event(params)).array(params.pes),
            "write": Out(1), "bank": Out(1), "record": Out(record(params)),
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
        front, counting = [self.front], [self.counting]
        for n in range(2):
            front.append(Signal(name=f"front_{n}"))
            counting.append(Signal(name=f"counting_{n}"))
            m.d.sync += [front[n + 1].eq(front[n]), counting[n + 1].eq(counting[n])]
        m.d.sync += idle.eq(ones(~self.activity[pe].entry for pe in range(pes)))
        for n in range(2):
            entries = Signal(range(pes + 1), name=f"entries_{n}")
            padding = Signal(range(pes + 1), name=f"padding_{n}")
            mine = [(self.activity[pe], self.activity[pe].bank == n) for pe in range(pes)]
            m.d.sync += [
                entries.eq(ones(activity.entry & here for activity, here in mine)),
                padding.eq(ones(activity.padding & here for activity, here in mine)),
                records[n].entries.eq(records[n].entries + entries),
                records[n].padding.eq(records[n].padding + padding),
            ]
            with m.If((front[2] == n) & counting[2]):
                m.d.sync += records[n].starved.eq(records[n].starved + idle)
            with m.If(self.front == n):
                m.d.sync += [
                    records[n].blocked.eq(records[n].blocked + self.blocked),
                    records[n].skipped.eq(records[n].skipped + self.skipped),
                    records[n].refill.eq(records[n].refill + self.refill),
                ]
            with m.If(self.finished[n]):
                m.d.sync += records[n].finished.eq(self.now - 1)
            with m.If(self.accept & (self.accept_bank == n)):
                m.d.sync += [records[n].eq(0), records[n].accepted.eq(self.now)]

        # One layer at a time is written back, so its saturations need no bank.
        saturated = Signal(32)
        m.d.sync += [
            saturated.eq(saturated + ones(self.saturated[group] for group in range(self.params.groups))),
            self.write.eq(self.written), self.bank.eq(self.written_bank),
        ]  # fmt: skip
        with m.If(self.written):
            m.d.sync += saturated.eq(0)
            for n in range(2):
                with m.If(self.written_bank == n):
                    m.d.sync += self.record.eq(records[n])
            m.d.sync += [self.record.saturated.eq(saturated), self.record.written.eq(self.now + 1)]
        return m
