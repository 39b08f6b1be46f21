"""Parity bits beside a memory: however words are written and read, what has flipped is told, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth import Array, Signal

import hw.near_ram
import hw.sram
from hw.near_ram import NearRam
from hw.parity import ParityBeside
from hw.sram import Sram
from sim.formal.claim import Claim
from sim.formal.cut import replaced
from sim.formal.mac import OpenNearRam, OpenSram
from sim.formal.planted import planted
from sim.formal.sheet import Sheet

__all__ = ["CLAIMS"]

WIDTH, WORDS = 5, 2


def _exact(s: Sheet, kind: Any, memory: Sram | NearRam) -> None:
    """Any writes and reads of a memory, from which any bits may come back changed."""
    near = isinstance(memory, NearRam)
    m = s.m
    s.add(memory, "memory")
    changed, seen = s.free(WIDTH, "changed"), Signal(WIDTH)
    m.d.comb += seen.eq(memory.r_data ^ changed)
    names = ("w_en", "w_addr", "w_data", "r_addr", *(() if near else ("r_en",)))
    ports = {name: getattr(memory, name) for name in names}
    with replaced(hw.sram, "Sram", OpenSram), replaced(hw.near_ram, "NearRam", OpenNearRam):
        check = kind(SimpleNamespace(**ports, r_data=seen, beside=memory.beside))
    s.add(check, driven=("used",))
    if not near:
        s.given(~(memory.w_en & memory.r_en & (memory.w_addr == memory.r_addr)))

    # A word is used, a cycle after its address, only if it was written before.
    written = Array(Signal(name=f"written_{n}") for n in range(WORDS))
    known = Signal()
    with m.If(memory.w_en):
        m.d.sync += written[memory.w_addr].eq(1)
    with m.If(1 if near else memory.r_en):
        m.d.sync += known.eq(written[memory.r_addr])
    used = s.free(1, "used")
    m.d.comb += check.used.eq(used & known)
    odd = changed.xor()
    late = s.past(check.used & s.past(odd)) if near else s.past(check.used & odd, 2)
    s.must(
        check.wrong == late, "a word that is used is told as wrong if an odd number of its bits has changed, else not"
    )
    s.reach(check.wrong & s.past(~check.wrong), "a flip is told")
    s.reach(s.past(check.used, 2) & ~check.wrong & s.past(memory.w_en), "a right word is used")


def near(s: Sheet, kind: Any) -> None:
    """A memory that is read within a cycle."""
    _exact(s, kind, OpenNearRam(WIDTH, WORDS))


def far(s: Sheet, kind: Any) -> None:
    """A memory that answers a cycle later; what it answers to a read of a word that is written is not looked at."""
    _exact(s, kind, OpenSram(WIDTH, WORDS))


def _bugs(more: dict[str, Any]) -> dict[str, Any]:
    """What is wrong in both forms, and more."""
    return {
        "the bit goes to the next word that is written": lambda: planted(
            ParityBeside, "w_addr.eq(of.w_addr)", "w_addr.eq(of.w_addr + 1)"
        ),
        "a part of what is written is forgotten": lambda: planted(ParityBeside, "written.xor()", "written[0]"),
        "the bit is looked up a cycle early": lambda: planted(
            ParityBeside, "bits.r_addr.eq(r_addr)", "bits.r_addr.eq(of.r_addr)"
        ),
        **more,
    }


CLAIMS = (
    Claim(
        "parity-beside",
        "ParityBeside",
        "Of words that were written and are used, those that come back changed in an odd number of bits are told, "
        "and no other; of a memory that is read within a cycle.",
        near,
        ParityBeside,
        _bugs({}),
    ),
    Claim(
        "parity-beside-far",
        "ParityBeside",
        "The same of a memory that answers a cycle after the address.",
        far,
        ParityBeside,
        _bugs({"a use is told of another word": lambda: planted(ParityBeside, "used.eq(self.used)", "used.eq(1)")}),
    ),
)
