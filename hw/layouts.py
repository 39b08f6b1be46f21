"""Every bit layout of the kit, written once.

Packer, decoder, hardware, register documentation and C header all derive from these; a change here
changes `identity`, which is checked wherever an image meets an array.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from amaranth import unsigned
from amaranth.lib import data

from hw.params import LANES, Params

__all__ = [
    "ACT_BITS", "COUNTERS", "FORMAT_VERSION", "MEMORIES", "REFILL_BITS", "WEIGHT_BITS", "Error", "Function", "Memory",
    "Op", "descriptor", "entry", "fields", "identity", "memory_shape", "pointer_block", "record", "refill_header",
    "weight_word",
]  # fmt: skip

if TYPE_CHECKING:  # Amaranth's enumerations are Python's with a shape; type checkers know only the latter
    import enum

    class Enum(enum.Enum):
        """A Python enumeration that accepts Amaranth's `shape`."""

        def __init_subclass__(cls, shape: object = None) -> None: ...

else:
    from amaranth.lib.enum import Enum

FORMAT_VERSION = 3
ACT_BITS = 16
REFILL_BITS = 128
"""Width of the refill stream: any weight word and any pointer block fits one beat."""
WEIGHT_BITS = 16


class Op(Enum, shape=unsigned(4)):
    """Descriptor opcode. Zero is illegal, so that an empty memory is an error and not an end."""

    ILLEGAL = 0
    MATVEC = 1
    ELEMENTWISE = 2  # reserved
    CONVOLUTION = 3  # reserved
    TILE = 4  # reserved
    END = 15


class Function(Enum, shape=unsigned(4)):
    """What write-back applies to a finished sum."""

    NONE = 0
    RELU = 1


class Error(Enum, shape=unsigned(4)):
    """Why a run ended before its END descriptor."""

    NONE = 0
    OPCODE = 1  # op or function not supported
    RANGE = 2  # an address or a size does not fit the memories
    RESERVED = 3  # a reserved field is not zero


class Memory(Enum, shape=unsigned(4)):
    """Memory numbers of the host port."""

    WEIGHTS = 0
    POINTERS = 1
    CODEBOOK = 2
    ACTIVATIONS = 3
    BIAS = 4
    DESCRIPTORS = 5
    RECORDS = 6


def entry(params: Params) -> data.StructLayout:
    """One stored weight: codebook code and relative index (zero rows skipped before it)."""
    return data.StructLayout({"code": params.code_bits, "index": params.index_bits})


def weight_word(params: Params) -> data.ArrayLayout:
    """One word of weight memory: eight entries, the first in the low bits."""
    return data.ArrayLayout(entry(params), LANES)


def pointer_block(params: Params) -> data.StructLayout:
    """One word of pointer memory: entry address of the first of eight columns, and eight entry counts."""
    return data.StructLayout({
        "base": params.entry_address_bits,
        "lengths": data.ArrayLayout(params.count_bits, LANES),
    })  # fmt: skip


def descriptor(params: Params) -> data.StructLayout:
    """One layer or one tile of a layer (32 bytes). The same for every parameter set; reserved fields must be zero.

    ``source`` and ``destination`` are lines of activation memory, ``act_vectors`` the activation vectors to scan,
    ``slots`` the accumulators of each PE to write back, of which the last ``fragment_slots`` hold rows that are split
    over ``2**fragment_log2`` neighbouring PEs; ``pointers`` the first pointer block, ``bias`` the first bias word,
    ``chained`` says that the source is the previous layer's result, ``fold`` that a column carries two activations.

    Tiles: ``keep`` leaves the sums in their accumulators for the next descriptor, which goes on in the same bank;
    ``refill`` says that the weights come through the stream port, into ``buffer``.
    """
    return data.StructLayout({
        "op": Op, "function": Function, "chained": 1, "codebook": 4, "shift": 5,
        "fold": 1, "fragment_log2": 2, "keep": 1, "refill": 1, "buffer": 1, "reserved0": 8,
        "source": 16, "destination": 16,
        "act_vectors": 16, "slots": 16,
        "pointers": 16, "bias": 16,
        "fragment_slots": 16, "reserved1": 16,
        "reserved2": 32, "reserved3": 32, "reserved4": 32,
    })  # fmt: skip


def refill_header(params: Params) -> data.StructLayout:
    """First beat of a packet of the refill stream: where the `words` words of the beats that follow go.

    ``last`` marks the last packet of the tile in ``buffer``. A beat holds one memory word in its low bits.
    """
    return data.StructLayout({
        "memory": 4, "unit": 8, "address": 20, "words": 20, "buffer": 1, "last": 1, "reserved": REFILL_BITS - 54,
    })  # fmt: skip


COUNTERS = ("entries", "padding", "starved", "blocked", "skipped", "refill", "saturated")
"""Counters of a layer, in record order; docs/architecture.md defines each."""


def record(params: Params) -> data.StructLayout:
    """What the array writes down about a layer: three times (cycles since start) and the counters."""
    return data.StructLayout({name: 32 for name in ("accepted", "finished", "written", *COUNTERS)})


def memory_shape(params: Params, memory: Memory) -> tuple[int, int, int]:
    """Units, words per unit and bits a word of one memory."""
    match memory:
        case Memory.WEIGHTS:
            return params.pes, params.weight_words, weight_word(params).size
        case Memory.POINTERS:
            return params.pes, params.pointer_blocks, pointer_block(params).size
        case Memory.CODEBOOK:
            return 1, params.codebooks << params.code_bits, WEIGHT_BITS
        case Memory.ACTIVATIONS:
            return params.groups, params.act_lines, ACT_BITS * LANES
        case Memory.BIAS:
            return params.groups, params.bias_words, params.acc_bits
        case Memory.DESCRIPTORS:
            return 1, params.descriptors, descriptor(params).size
        case Memory.RECORDS:
            return 1, params.descriptors, record(params).size


MEMORIES: tuple[Memory, ...] = tuple(Memory)


def fields(layout: data.Layout, prefix: str = "") -> list[tuple[str, int, int]]:
    """(name, first bit, width) of every leaf of a layout, lowest bit first."""
    leaves: list[tuple[str, int, int]] = []
    for key, field in layout:
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(field.shape, data.Layout):
            leaves += [(n, field.offset + o, w) for n, o, w in fields(field.shape, name)]
        else:
            leaves.append((name, field.offset, field.width))
    return leaves


def identity(params: Params) -> str:
    """Hash of parameters and layouts (16 hexadecimal digits) that image, Verilog and bitstream carry."""
    layouts = {
        "weight_word": fields(weight_word(params)),
        "pointer_block": fields(pointer_block(params)),
        "descriptor": fields(descriptor(params)),
        "record": fields(record(params)),
        "refill_header": fields(refill_header(params)),
        "memories": {memory.name: memory_shape(params, memory) for memory in MEMORIES},
    }
    text = json.dumps([FORMAT_VERSION, params.asdict(), layouts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
