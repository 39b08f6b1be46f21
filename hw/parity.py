"""Parity: a bit beside each word of a memory, and the check of the words that are used."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import Memory

__all__ = ["ACCUMULATORS", "KINDS", "OPERANDS", "QUEUE", "ParityBeside", "ParityCheck", "found", "with_parity"]

KINDS = (*(memory.name for memory in Memory), "QUEUE", "ACCUMULATORS", "OPERANDS")
"""Kinds of memory, by their bits of the register PARITY. Those of the host port have their number there."""
QUEUE, ACCUMULATORS, OPERANDS = (KINDS.index(name) for name in ("QUEUE", "ACCUMULATORS", "OPERANDS"))

_BEHIND_MEMORY = 16
"""Bits that are combined before the first register: two levels of lookup tables, since block RAM is slow to answer."""
_BEHIND_SUM = 4
"""The same of a word that is written, behind whatever made it: one level."""


def with_parity(word: int, width: int) -> int:
    """A word of `width` bits as a memory with parity holds it: an even number of ones, so that zero is zero."""
    return word | (word.bit_count() & 1) << width


def found(wrong: int) -> str:
    """Names of the kinds whose bits are set, for a message."""
    return ", ".join(name for n, name in enumerate(KINDS) if wrong >> n & 1)


def _folded(word: Value, together: int) -> Value:
    """The parity of each `together` bits."""
    return Cat(word[n : n + together].xor() for n in range(0, len(word), together))


class ParityCheck(wiring.Component):
    """Look at the words that a memory hands out.

    Timing: ``wrong`` comes 2 cycles after ``word``. It stands beside the data path: nothing waits for it.

    Parameters
    ----------
    width : bits of a word with its parity bit.

    Members
    -------
    word, used : what the memory shows, and that it is used in this cycle. wrong : it has an odd number of ones.
    """

    def __init__(self, width: int) -> None:
        super().__init__({"word": In(width), "used": In(1), "wrong": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parts = _folded(self.word, _BEHIND_MEMORY)
        folded, used = Signal(len(parts), reset_less=True), Signal()
        m.d.sync += [folded.eq(parts), used.eq(self.used), self.wrong.eq(used & folded.xor())]
        return m


class ParityBeside(wiring.Component):
    """The parity bits of a memory whose words are written at the end of a long path, in a memory of their own.

    It is written and read one cycle after the other one, in the same order, and so holds the same words' bits whenever
    it is read. No path of the other memory gets longer.

    Timing: ``wrong`` comes 2 cycles after ``used``, of a near memory 1 cycle.

    Parameters
    ----------
    memory : `hw.sram.Sram` or `hw.near_ram.NearRam`, whose ports it listens to.

    Members
    -------
    used : the word that was addressed in the cycle before is used. wrong : its parity is not that of what was written.
    """

    def __init__(self, memory: Any) -> None:
        self.of = memory
        self.bits = memory.beside()
        super().__init__({"used": In(1), "wrong": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        of, near = self.of, not hasattr(self.of, "r_en")
        m.submodules.bits = bits = self.bits
        given, parts = _folded(of.w_data, _BEHIND_SUM), _folded(of.r_data, _BEHIND_MEMORY)
        written, folded = Signal(len(given), reset_less=True), Signal(len(parts), reset_less=True)
        w_en, w_addr, r_addr = (
            Signal(),
            Signal.like(of.w_addr, reset_less=True),
            Signal.like(of.r_addr, reset_less=True),
        )
        m.d.sync += [
            w_en.eq(of.w_en), w_addr.eq(of.w_addr), written.eq(given), r_addr.eq(of.r_addr), folded.eq(parts),
        ]  # fmt: skip
        m.d.comb += [
            bits.w_en.eq(w_en), bits.w_addr.eq(w_addr), bits.w_data.eq(written.xor()), bits.r_addr.eq(r_addr),
        ]  # fmt: skip
        if near:  # the word stood there in the cycle of its address
            used = self.used
        else:
            r_en, used = Signal(), Signal()
            m.d.comb += bits.r_en.eq(r_en)
            m.d.sync += [r_en.eq(of.r_en), used.eq(self.used)]
        m.d.sync += self.wrong.eq(used & (folded.xor() ^ bits.r_data))
        return m
