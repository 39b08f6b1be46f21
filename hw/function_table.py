"""Functions of one number in write-back: tables of straight pieces."""

from __future__ import annotations

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import ACT_BITS, table_word
from hw.params import PIECES, Params
from hw.sram import Sram
from hw.streams import function

__all__ = ["FunctionTable"]

_MOST = (1 << (ACT_BITS - 1)) - 1
_LEAST = -(1 << (ACT_BITS - 1))
_FAR_LEFT, _FAR_RIGHT = ACT_BITS, ACT_BITS + 1
"""Shifts by which every int16 but 0 saturates, and by which every one becomes 0."""


class FunctionTable(wiring.Component):
    """Look numbers up in one of the tables, one a cycle.

    Numerics, for a number y and a function {table T, left, right} (docs/numerics.md, Table)::

        u = saturate16(floor((y * 2**left + h) / 2**right)),  h = 2**(right - 1), 0 for right 0
        i = floor(u / 128) + 256, f = u mod 128
        result = T[i] + floor(((T[i + 1] - T[i]) * f + 64) / 128)

    Only the difference of the two shifts matters: a number shifted left by more than it is shifted right has no bits
    to round. The memory holds T[i] and T[i + 1] - T[i] for the 512 pieces of each table.

    Timing: the result comes `LATENCY` cycles after its number, also where there is no function.

    Members
    -------
    value, which : a number, and its function: 1 or 2, or 0: it passes unchanged.
    function_1, function_2 : stay as they are from 2 cycles before the first number to the last result.
    result : int16.
    valid : there is a number that its function changes (only with ``params.parity``; nothing else asks).
    w_en, w_addr, w_data : host write port; table n has the words from 512 · n on.
    """

    LATENCY = 6

    def __init__(self, params: Params) -> None:
        self.params = params
        self.memory = Sram(table_word(params).size, params.tables * PIECES, parity=params.parity)
        super().__init__({
            "value": In(signed(ACT_BITS)), "which": In(2),
            "function_1": In(function(params)), "function_2": In(function(params)), "result": Out(signed(ACT_BITS)),
            "w_en": In(1), "w_addr": In(range(params.tables * PIECES)), "w_data": In(table_word(params).size),
            **({"valid": In(1)} if params.parity else {}),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = self.memory

        # What to shift by, worked out before the first number comes.
        table, left, right = [], [], []
        for n, each in enumerate((self.function_1, self.function_2)):
            table.append(each.table)
            left.append(Signal(range(_FAR_LEFT + 1), name=f"left_{n}"))
            right.append(Signal(range(_FAR_RIGHT + 1), name=f"right_{n}"))
            more = each.left - each.right
            m.d.sync += [
                left[n].eq(Mux(more < 0, 0, Mux(more > _FAR_LEFT, _FAR_LEFT, more))),
                right[n].eq(Mux(more > 0, 0, Mux(-more > _FAR_RIGHT, _FAR_RIGHT, -more))),
            ]  # fmt: skip

        # values[n], used[n]: the number as it came, and whether it has a function, n cycles later.
        values = [self.value, *(Signal(signed(ACT_BITS), name=f"value_{n}") for n in range(1, self.LATENCY))]
        used = [self.which.any(), *(Signal(name=f"used_{n}") for n in range(1, self.LATENCY))]
        for n in range(1, self.LATENCY):
            m.d.sync += [values[n].eq(values[n - 1]), used[n].eq(used[n - 1])]

        # 0: left, 1: round and right, 2: saturate.
        second = self.which[1]
        tables = [Signal(3, name=f"table_{n}") for n in range(3)]
        lifted = Signal(signed(ACT_BITS + _FAR_LEFT))
        back, half = Signal(range(_FAR_RIGHT + 1)), Signal(_FAR_RIGHT)
        moved = Signal(signed(ACT_BITS + _FAR_LEFT + 1))
        place = Signal(signed(ACT_BITS))
        m.d.comb += half.eq(Mux(back == 0, 0, (1 << back) >> 1))
        m.d.sync += [
            lifted.eq(self.value << Mux(second, left[1], left[0])), back.eq(Mux(second, right[1], right[0])),
            moved.eq((lifted + half) >> back),
            place.eq(Mux(moved > _MOST, _MOST, Mux(moved < _LEAST, _LEAST, moved))),
            tables[0].eq(Mux(second, table[1], table[0])), tables[1].eq(tables[0]), tables[2].eq(tables[1]),
        ]  # fmt: skip

        if self.params.parity:
            counts = [self.valid & self.which.any(), *(Signal(name=f"counts_{n}") for n in range(1, 5))]
            m.d.sync += [late.eq(early) for early, late in pairwise(counts)]
            m.d.comb += memory.used.eq(counts[4])

        # 3: read, 4: multiply, 5: add. A negative place is in the lower half of its table.
        part = Signal(7)
        piece = Signal(table_word(self.params))
        rise = Signal(signed(ACT_BITS + 8))
        begin = Signal(signed(ACT_BITS))
        m.d.comb += [
            memory.w_en.eq(self.w_en), memory.w_addr.eq(self.w_addr), memory.w_data.eq(self.w_data),
            memory.r_en.eq(1), memory.r_addr.eq(Cat(place[7:15], ~place[15], tables[2])),
            piece.eq(memory.r_data),
        ]  # fmt: skip
        m.d.sync += [
            part.eq(place[:7]), rise.eq(piece.step * part), begin.eq(piece.value),
            self.result.eq(Mux(used[5], begin + ((rise + 64) >> 7), values[5])),
        ]  # fmt: skip
        return m
