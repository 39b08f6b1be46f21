"""The parameter set of one array: validated once, shared by hardware, compiler and models.

A `Params` value decides every width and depth of the generated Verilog and of the memory images that
fit it. Its hash, together with the bit layouts, goes into both (`hw.layouts.identity`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

__all__ = [
    "DESCRIPTOR_PARTS",
    "FUNCTIONS",
    "LANES",
    "LATER",
    "NEAR_WORDS",
    "PIECES",
    "PRESETS",
    "ROUND_TRIP",
    "SEGMENTS",
    "WRITE_QUEUE",
    "Params",
    "ParamsError",
    "preset",
]

LANES = 8
"""Activations in a vector, entries in a weight word, columns in a pointer block, PEs in a write-back group."""

SEGMENTS = 32
"""Segments that a layer of several tiles may have: control keeps the place of each in its map."""

FUNCTIONS = 2
"""Functions that a layer may have: words of the output table choose between two."""

PIECES = 512
"""Straight pieces of a function table."""

DESCRIPTOR_PARTS = 24
"""Words of 32 bits in a descriptor."""

WRITE_QUEUE = 8
"""Tiles and elementwise operations that are accepted and not yet written back."""

ROUND_TRIP = 5
"""Cycles from a broadcast until its credit is seen, without `Params.hops`: 4 to the queue write, 1 for the credit
register."""

NEAR_WORDS = 16
"""Words of a memory that is read within a cycle: as many as a lookup table used as memory has."""

LATER: dict[str, bool] = {"parity": False}
"""Parameters that came after files held all of them, and what a file says that lacks them."""

_NEAR_QUEUE = 2
"""Words that a near queue has more than vectors wait in it."""

_LIMITS: dict[str, tuple[int, int]] = {
    "pes": (1, 256),
    "index_bits": (4, 8),
    "code_bits": (2, 8),
    "rows": (2, 1024),
    "queue_depth": (ROUND_TRIP + 1, 4096),
    "weight_words": (2, 1 << 20),
    "pointer_blocks": (2, 1 << 16),
    "act_lines": (2, 1 << 16),
    "output_words": (2, 1 << 20),
    "codebooks": (1, 256),
    "descriptors": (2, 1 << 12),
    "acc_bits": (33, 48),
    "tables": (0, 8),
    "hops": (0, 2),
}


class ParamsError(ValueError):
    """A parameter is unknown or out of its legal range; the message names field, value and range."""


@dataclass(frozen=True, slots=True)
class Params:
    """Parameters of one array: what shapes the hardware, and nothing else.

    Parameters
    ----------
    pes : processing elements, a power of two, 1 … 256.
    index_bits : width of a relative index (zeros skipped before an entry), 4 … 8.
    code_bits : width of a codebook code, 2 … 8. Code 0 is the weight zero.
    rows : accumulators of a PE in each of its two banks.
    queue_depth : vectors that the activation queue of a PE holds; at least ``round_trip + 1``.
    weight_words : words of weight memory a PE; a word holds eight entries.
    pointer_blocks : words of pointer memory a PE; a word describes eight columns.
    act_lines : lines of activation memory; a line holds ``line`` activations.
    output_words : words of the output table of a write-back group; a word describes one output of a tile.
    codebooks : codebooks on chip; each segment of a layer names one.
    descriptors : segment descriptors (and layer records) on chip.
    acc_bits : width of an accumulator; sums wrap modulo ``2**acc_bits``.
    tables : function tables of each write-back group; 0: there are none, and nothing that interpolates them.
    elementwise : there is the unit that multiplies and adds maps element by element.
    streams : there are stream ports through which maps come and go by rows that activation memory does not hold whole.
    refill : there is a stream port that loads tiles of layers larger than the memories while others compute.
    hops : registers more between scan and PEs, each way, for arrays that are wide on the chip, 0 … 2; with any, each PE
        has one for words that the host or a tile brings as well.
    slim : descriptors lie in a memory of 32-bit words, for small chips: less logic, and each takes `fetch` cycles more.
        Not with streams, refill or elementwise operations.
    parity : every memory of the array that holds words has a parity bit for each, and what is used of them is checked:
        a flipped bit is told in the register PARITY (see docs/robustness.md). Near memories too. What is not covered:
        registers, and the memories made of them (places of segments, the queue of write-back, a serial line's words).

    Raises
    ------
    ParamsError
        A field is out of range; the message names the field, the value and the legal range.
    """

    pes: int = 16
    index_bits: int = 6
    code_bits: int = 4
    rows: int = 256
    queue_depth: int = 32
    weight_words: int = 16384
    pointer_blocks: int = 4096
    act_lines: int = 2048
    output_words: int = 4096
    codebooks: int = 64
    descriptors: int = 256
    acc_bits: int = 40
    tables: int = 4
    elementwise: bool = True
    streams: bool = True
    refill: bool = True
    hops: int = 0
    slim: bool = False
    parity: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ParamsError(f"{name} is {value!r}; expected an integer from {low} to {high}")
        if self.pes & (self.pes - 1):
            raise ParamsError(f"pes is {self.pes}; expected a power of two from 1 to 256")
        if self.queue_depth <= self.round_trip:
            raise ParamsError(
                f"queue_depth is {self.queue_depth}; expected at least {self.round_trip + 1} with hops={self.hops}"
            )
        units = ("elementwise", "streams", "refill")
        for name in (*units, "slim", "parity"):
            if not isinstance(getattr(self, name), bool):
                raise ParamsError(f"{name} is {getattr(self, name)!r}; expected true or false")
        if self.slim and (large := [name for name in units if getattr(self, name)]):
            raise ParamsError(f"slim is true with {', '.join(large)}; expected false for these in a slim array")

    # Derived figures: everything that two places need is computed here and nowhere else.

    @property
    def round_trip(self) -> int:
        """Cycles from a broadcast until its credit is seen: as many vectors may be on their way to a queue."""
        return ROUND_TRIP + 2 * self.hops

    @property
    def fetch(self) -> int:
        """Cycles that a descriptor takes longer than from a memory as wide as it is."""
        return DESCRIPTOR_PARTS + 1 if self.slim else 0

    @property
    def group(self) -> int:
        """PEs that share one write-back unit."""
        return min(LANES, self.pes)

    @property
    def groups(self) -> int:
        """Write-back units, and banks of the activation memory."""
        return self.pes // self.group

    @property
    def line(self) -> int:
        """Activations in one line of the activation memory (one activation vector from each bank)."""
        return LANES * self.groups

    @property
    def entry_bits(self) -> int:
        return self.code_bits + self.index_bits

    @property
    def word_bytes(self) -> int:
        """Bytes of a weight word: eight entries of `entry_bits` bits are exactly `entry_bits` bytes."""
        return self.entry_bits * LANES // 8

    @property
    def entry_address_bits(self) -> int:
        """Width of an entry address: it reaches every entry of the weight memory."""
        return (self.weight_words * LANES - 1).bit_length()

    @property
    def count_bits(self) -> int:
        """Width of a column's entry count: a column has at most one entry an accumulator."""
        return self.rows.bit_length()

    @property
    def row_bits(self) -> int:
        return (self.rows - 1).bit_length()

    @property
    def pointer_bits(self) -> int:
        """Width of the address of a pointer block."""
        return (self.pointer_blocks - 1).bit_length()

    @property
    def codebook_bits(self) -> int:
        """Width of the number of a codebook."""
        return max(1, (self.codebooks - 1).bit_length())

    @property
    def near(self) -> bool:
        """Queue and accumulators are so small that they are read within a cycle.

        See `queue_words` for those of the queue.
        """
        return self.rows <= NEAR_WORDS and self.queue_depth + _NEAR_QUEUE <= NEAR_WORDS

    @property
    def queue_words(self) -> int:
        """Words of the queue's memory.

        A near queue keeps a vector's activations until its last column is handed over: it has two words more than
        vectors, that of the vector at the output and that of the one that is expanded.
        """
        return self.queue_depth + _NEAR_QUEUE * self.near

    @property
    def places(self) -> int:
        """Segments of a layer of several tiles whose place is kept: as many as descriptors allow."""
        return min(SEGMENTS, self.descriptors)

    def act_vectors(self, values: int) -> int:
        """Activation vectors that hold `values` activations."""
        return -(-values // LANES)

    def lines(self, values: int) -> int:
        """Activation-memory lines that hold `values` activations."""
        return -(-values // self.line)

    def asdict(self) -> dict[str, int | bool]:
        return dataclasses.asdict(self)

    def stored(self) -> dict[str, int | bool]:
        """The same for a file, or a hash: without what says no more than a file that lacks it."""
        return {name: value for name, value in self.asdict().items() if LATER.get(name) is not value}

    def replace(self, **changes: Any) -> Params:
        """A copy with fields changed; an unknown field is a `ParamsError`."""
        known = {field.name for field in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                raise ParamsError(f"unknown parameter {name!r}; expected one of {', '.join(sorted(known))}")
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Params:
        """Params from a plain dict (a file's metadata, see `stored`); unknown and missing fields are errors."""
        known = {field.name for field in dataclasses.fields(cls)}
        if missing := known - set(values) - LATER.keys():
            raise ParamsError(f"missing parameter {', '.join(sorted(missing))}")
        return cls().replace(**{**LATER, **values})


# The published array (EIE, section IV: 64 PEs, 4-bit relative index, queue depth 8). What its compiler does differently
# is in `compiler.options`.
_EIE_64 = Params(pes=64, index_bits=4, queue_depth=8, tables=0, elementwise=False, streams=False, refill=False)

# One PE whose memories fit an ECP5-85.
_ECP5_PE = Params(
    pes=1, rows=64, weight_words=1024, pointer_blocks=512, act_lines=512, output_words=256, codebooks=16,
    descriptors=16, tables=0, elementwise=False, streams=False, refill=False,
)  # fmt: skip

# Arrays for boards that a serial line feeds: no streams, narrow entries, accumulators as wide as a block RAM.
_BOARD_4 = _ECP5_PE.replace(
    pes=4, index_bits=4, rows=64, queue_depth=16, output_words=512, codebooks=8, acc_bits=36,
)  # fmt: skip

# The least that runs a network.
_BOARD_MIN = _BOARD_4.replace(
    pes=1, rows=16, queue_depth=8, weight_words=512, pointer_blocks=256, act_lines=256, output_words=256, codebooks=2,
)  # fmt: skip

# The same on a smaller chip still, where logic is scarcer than block RAM: queue and accumulators are large enough to go
# into it.
_BOARD_SLIM = _BOARD_MIN.replace(
    slim=True, rows=64, queue_depth=128, weight_words=1024, pointer_blocks=512, act_lines=512, output_words=512,
)  # fmt: skip

# An array that fills an ECP5-85: so many codebooks that they go into block RAM, and no more accumulators and
# descriptors than a lookup table used as memory has words.
_ECP5_32 = Params(
    pes=32, index_bits=4, rows=16, queue_depth=14, weight_words=512, pointer_blocks=512, act_lines=1024,
    output_words=512, codebooks=32, descriptors=16, acc_bits=36, tables=0, elementwise=False, streams=False,
    refill=False, hops=1,
)  # fmt: skip

# Half as many PEs, each with twice the memory, so that the same networks fit.
_ECP5_16 = _ECP5_32.replace(pes=16, weight_words=1024, act_lines=2048, output_words=1024)

# A quarter of them.
_ECP5_8 = _ECP5_16.replace(pes=8, weight_words=2048, act_lines=4096, output_words=2048)

PRESETS: dict[str, Params] = {
    **{f"BALANCED_{1 << n}": Params(pes=1 << n) for n in range(9)},
    "EIE_64": _EIE_64,
    "ECP5_PE": _ECP5_PE,
    "ECP5_8": _ECP5_8,
    "ECP5_16": _ECP5_16,
    "ECP5_32": _ECP5_32,
    "BOARD_SLIM": _BOARD_SLIM,
    "BOARD_MIN": _BOARD_MIN,
    "BOARD_4": _BOARD_4,
    "BOARD_16": _BOARD_4.replace(pes=16),
}


def preset(name: str) -> Params:
    """The named preset.

    Raises
    ------
    ParamsError
        There is no such preset; the message lists those that exist.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise ParamsError(f"unknown preset {name!r}; expected one of {', '.join(PRESETS)}") from None
