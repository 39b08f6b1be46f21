"""Recorder: writes layer records into memory, a part of 32 bits a cycle."""

from __future__ import annotations

from collections.abc import Callable

from amaranth import Cat, Module, Mux, ResetSignal, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import COUNTER_MOST, COUNTERS, record
from hw.params import Params
from hw.sram import Sram

__all__ = ["PARTS", "Recorder", "record_words", "stored_record"]

PARTS = len(tuple(record(Params())))
"""Parts of 32 bits of a record."""


def record_words(params: Params) -> int:
    """Words of the memory: as many for each part as numbers can address."""
    return PARTS << _number_bits(params)


def stored_record(params: Params, number: int, word: Callable[[int], int]) -> int:
    """The record with this number; `word` gives a word of the memory. For those who look into a simulation."""
    return sum((word(part << _number_bits(params) | number) & 0xFFFFFFFF) << 32 * part for part in range(PARTS))


def _number_bits(params: Params) -> int:
    return (params.descriptors - 1).bit_length()


class Recorder(wiring.Component):
    """Memory of the records, with one adder: what has run in an earlier round of a loop is added to its record.

    A record of an earlier round keeps when it was first accepted, gets the later times, and its counters add up, up to
    `hw.layouts.COUNTER_MOST`.

    Timing: part n is taken from ``record`` n cycles after ``write``, and is in memory `LATENCY` cycles later. So
    ``record`` stands for `PARTS` cycles, as long as write-back takes for the shortest tile.

    A restart of the array does not stop it: a record is written whole or not at all.

    Members
    -------
    write, number, again, record : write this record; it has run in an earlier round. They stand until the next one.
    settling : a record is not yet in memory.
    r_en, r_number, r_part, r_data : read port, 1 cycle later, only while not ``settling``.
    r_used, wrong : what it read is used; a word that was used had the wrong parity (only with ``params.parity``).
    """

    LATENCY = 4

    def __init__(self, params: Params) -> None:
        self.params = params
        self.memory = Sram(32, record_words(params), parity=params.parity)
        super().__init__({
            "write": In(1), "number": In(16), "again": In(1), "record": In(record(params)), "settling": Out(1),
            "r_en": In(1), "r_number": In(16), "r_part": In(range(PARTS)), "r_data": Out(32),
            **({"r_used": In(1), "wrong": Out(1)} if params.parity else {}),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = self.memory
        bits = _number_bits(self.params)
        names = [name for name, _ in record(self.params)]
        part = Signal(range(PARTS), reset_less=True)  # of this cycle: read, and taken from the record
        takes = Signal()
        m.d.comb += takes.eq(self.write | (part != 0))
        with m.If(takes):
            m.d.sync += part.eq(Mux(part == PARTS - 1, 0, part + 1))

        # taken[n], places[n]: what was taken n + 1 cycles ago. It is read, then chosen, added and written.
        at = data.StructLayout({"number": bits, "part": 4})
        taken = [Signal(name=f"taken_{n}", reset_less=True) for n in range(self.LATENCY - 1)]
        places = [Signal(at, name=f"place_{n}", reset_less=True) for n in range(self.LATENCY - 1)]
        adds = Signal(reset_less=True)  # to the record as it was
        here = Signal(at)
        word, mine, before = (Signal(32, name=name, reset_less=True) for name in ("word", "mine", "before"))
        result = Signal(32, reset_less=True)
        total = mine + before
        m.d.sync += [
            *(late.eq(early) for early, late in zip([takes, *taken], taken, strict=False)),
            *(late.eq(early) for early, late in zip([here, *places], places, strict=False)),
            adds.eq(self.again), mine.eq(word), before.eq(0), result.eq(total | (total > COUNTER_MOST).replicate(32)),
        ]  # fmt: skip
        with m.Switch(part):
            for n, name in enumerate(names):
                with m.Case(n):
                    m.d.sync += word.eq(self.record[name])
        with m.If(adds):
            with m.If(places[0].part == names.index("accepted")):
                m.d.sync += [mine.eq(0), before.eq(memory.r_data)]
            with m.Elif(Cat(places[0].part == names.index(name) for name in COUNTERS).any()):
                m.d.sync += before.eq(memory.r_data)
        m.d.comb += [
            here.number.eq(self.number), here.part.eq(part),
            memory.r_en.eq(takes | self.r_en),
            memory.r_addr.eq(Mux(takes, here.as_value(), Cat(self.r_number[:bits], self.r_part))),
            memory.w_en.eq(taken[-1]), memory.w_addr.eq(places[-1]), memory.w_data.eq(result),
            self.r_data.eq(memory.r_data), self.settling.eq(takes | Cat(taken).any()),
        ]  # fmt: skip
        if self.params.parity:
            m.d.comb += [memory.used.eq((taken[0] & adds) | self.r_used), self.wrong.eq(memory.wrong)]
        with m.If(ResetSignal(allow_reset_less=True)):
            m.d.sync += [part.eq(0), *(each.eq(0) for each in taken)]
        return m
