"""What an array takes of an FPGA, before synthesis: memories counted, lookup tables by measured figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from compiler.errors import InputError
from hw.frames import MOST_WORDS
from hw.params import PRESETS, Params
from hw.recorder import record_words
from hw.streams import host_write, window_origin
from hw.weight_decode import LOOKUP_WORDS
from sim.energy_table import memories
from sim.fpga.boards import BOARDS, Board

__all__ = ["Estimate", "Held", "check_fits", "estimate", "held_memories", "largest_preset"]

FULL = {"lut": 0.95, "ff": 0.95, "ram": 1.0, "mult": 1.0, "cells": 1.0, "places": 0.95}
"""Part of a resource beyond which place and route does not end."""

ROUTED = {"ecp5": {"lut": 0.66}}
"""The same where it was measured, by family: the fullest array that was routed (record 109)."""

CELL = {"ecp5": {"lut": 6, "ff": 0}, "gowin": {"lut": 8, "ff": 6}}
"""What a cell of 16 words of 4 bits takes the places of, as nextpnr counts."""


@dataclass(frozen=True)
class Logic:
    """Lookup tables or flip-flops without memories: of an array, of each PE, of each write-back group.

    near : of each PE whose queue and accumulators are read within a cycle (`Params.near`).
    slim : what a slim array has more: a narrow word of the host, and no multiplexer of the parts of a descriptor.
        Descriptors lie in block RAM of an iCE40 anyway, so no word of them stands in flip-flops there.
    hop : what a hop takes of each PE. delay : and of the core, for the vector's activations.
    words : whether each PE of an array with hops takes as many as a word of the host has bits (record 137).
    bit : what a bit of a memory takes that is read within a cycle, where no lookup table is memory.
    """

    array: int
    pe: int
    near: int
    group: int
    slim: int
    hop: int = 0
    delay: int = 0
    words: bool = False
    bit: float = 0.0

    def of(self, params: Params) -> int:
        """Sum for an array."""
        pe = (self.near if params.near else self.pe) + self.hop * params.hops
        if self.words and params.hops:
            pe += host_write(params).size + 1
        array = self.array + self.slim * params.slim + self.delay * params.hops
        return array + pe * params.pes + self.group * params.groups


# Measured: docs/fpga.md has the arrays and the commands. Without elementwise operations, function tables and streams.
_LOGIC = {
    "ecp5": {
        "lut": Logic(5287, 1083, 940, 1045, slim=-469),
        "ff": Logic(4930, 1004, 586, 519, slim=-841, hop=46, delay=250, words=True),
    },
    "ice40": {
        "lut": Logic(6390, 1217, 1009, 865, slim=-469, bit=0.8),
        "ff": Logic(4150, 1015, 566, 500, slim=-73, hop=46, delay=250, words=True, bit=1.0),
    },
    "gowin": {
        "lut": Logic(5228, 1042, 843, 1045, slim=-469),
        "ff": Logic(4930, 1004, 586, 519, slim=-841, hop=46, delay=250, words=True),
        "alone": Logic(3269, 715, 348, 230, slim=-793, hop=46, delay=250, words=True),
    },
}


@dataclass(frozen=True)
class Held:
    """One kind of memory: how many, bits of a word, words, and whether it may lie in block RAM.

    style : as `hw.sram.Sram` has it, or "near" if it is read within a cycle: never in block RAM.
    """

    name: str
    number: int
    bits: int
    words: int
    style: str = "auto"


def held_memories(params: Params) -> list[Held]:
    """Every memory of an array with its serial line that is not made of flip-flops anyway."""
    shapes = memories(params)
    codebook = "distributed" if shapes["codebook"][1] <= LOOKUP_WORDS else "auto"
    numbers = {
        "weights": params.pes, "pointers": params.pes, "queue": params.pes, "codebook": params.pes,
        "accumulators": 2 * params.pes, "activations": params.groups, "outputs": params.groups, "descriptors": 1,
        "tables": params.groups if params.tables else 0, "operands": 2 * params.groups if params.elementwise else 0,
    }  # fmt: skip
    styles = {"codebook": codebook, "operands": "distributed"}
    if params.near:
        styles |= {"queue": "near", "accumulators": "near"}
    return [
        *(Held(name, number, *shapes[name], styles.get(name, "auto")) for name, number in numbers.items() if number),
        Held("records", 1, 32 + params.parity, record_words(params)),
        Held("places of segments", 1, window_origin(params).size, params.places, "near"),
        Held("request", 1, 32, MOST_WORDS, "block" if params.slim else "distributed"),
    ]


@dataclass(frozen=True)
class Estimate:
    """What an array takes of a board. needs : by our names of resources. blocks : block RAMs by memory."""

    board: Board
    params: Params
    needs: dict[str, int]
    blocks: dict[str, int]
    bound: bool

    def limit(self, name: str) -> int:
        """How many of a resource an array may take so that place and route ends."""
        part = ROUTED.get(self.board.family.name, {}).get(name, FULL[name])
        return int(part * self.board.holds[name])

    @property
    def excess(self) -> dict[str, int]:
        """By how much the limit of each resource that is too small is exceeded."""
        over = {name: need - self.limit(name) for name, need in self.needs.items()}
        return {name: more for name, more in over.items() if more > 0}

    @property
    def fits(self) -> bool:
        """Whether the board holds it so that it can be routed, as far as can be said."""
        return not self.excess

    def said(self, name: str) -> str:
        """What it takes of a resource; of one that the part has but that cannot be routed, the limit as well."""
        need, holds = self.needs[name], self.board.holds[name]
        routed = f" (up to {self.limit(name):,} place and route ends)" if self.limit(name) < need <= holds else ""
        return f"{need:,} {TITLES[name]} of {holds:,}{routed}"

    def __str__(self) -> str:
        return ", ".join(self.said(name) for name in self.needs)


TITLES = {
    "lut": "lookup tables", "ff": "flip-flops", "ram": "block RAMs", "mult": "multipliers",
    "cells": "memory cells of 16 x 4 bits", "places": "places of lookup tables and of flip-flops without one",
}  # fmt: skip


def estimate(board: Board, params: Params) -> Estimate:
    """What an array with its serial line takes of a board.

    Block RAMs and multipliers are what synthesis makes of them. Lookup tables and flip-flops are measured figures for
    arrays without elementwise operations, function tables, streams and parity; with these, `bound` says that they are
    at least that many. A flip-flop of a Gowin part takes its data from the lookup table in front of it and from nothing
    else: one that another register, a memory or a pin feeds takes the place of a lookup table too (record 108).
    """
    family = board.family
    blocks: dict[str, int] = {}
    near = 0  # bits that become flip-flops
    cells = muxes = 0  # a bit of a memory whose words lie in several cells or block RAMs is chosen from these
    for held in held_memories(params):
        if family.in_blocks(held.bits, held.words, held.style):
            blocks[held.name] = held.number * family.blocks(held.bits, held.words)
            muxes += held.number * held.bits * (family.deep(held.bits, held.words) - 1)
        elif family.distributed:
            cells += held.number * family.cells(held.bits, held.words)
            muxes += held.number * held.bits * (-(-held.words // 16) - 1)
        else:
            near += held.number * held.bits * held.words
    more = params.elementwise + bool(params.tables)
    cell = CELL.get(family.name, {})
    logic = {
        name: each.of(params) + cell.get(name, 0) * cells + (muxes if name == "lut" else 0) + round(each.bit * near)
        for name, each in _LOGIC[family.name].items()
    }  # fmt: skip
    needs = {
        "lut": logic["lut"], "ff": logic["ff"],
        **({"places": logic["lut"] + logic["alone"]} if "alone" in logic else {}),
        "ram": sum(blocks.values()), "mult": params.pes + params.groups * more,
        **({"cells": cells} if family.distributed else {}),
    }  # fmt: skip
    return Estimate(board, params, needs, blocks, bool(more or params.refill or params.streams or params.parity))


def largest_preset(board: Board, presets: Iterable[str] = PRESETS) -> str | None:
    """The preset with the most PEs, and of these the most weights, that a board holds; None if it holds none.

    One of which the estimate is only a bound does not count: it may be larger.
    """
    found = {name: estimate(board, PRESETS[name]) for name in presets}
    fitting = [name for name, each in found.items() if each.fits and not each.bound]
    return max(fitting, key=lambda name: (PRESETS[name].pes, PRESETS[name].weight_words), default=None)


def check_fits(found: Estimate) -> None:
    """Refuse what a board cannot hold.

    Raises
    ------
    InputError
        It does not; the message says by how much, and which preset does.
    """
    if found.fits:
        return
    short = ", ".join(found.said(name) for name in found.excess)
    best = largest_preset(found.board)
    other = (
        f"the largest preset that fits is {best}"
        if best
        else "no preset fits; boards for which one does: "
        + ", ".join(name for name, board in BOARDS.items() if largest_preset(board))
    )
    raise InputError(
        f"{found.board.text} does not hold this array: {'at least ' if found.bound else 'about '}{short}; {other}"
    )
