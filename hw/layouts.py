"""Every bit layout of the kit, written once.

Packer, decoder, hardware, register documentation and C header all derive from these; a change here
changes `identity`, which is checked wherever an image meets an array.
"""

from __future__ import annotations

import functools
import hashlib
import json
from typing import TYPE_CHECKING, Any

from amaranth import signed, unsigned
from amaranth.lib import data

from hw.params import LANES, PIECES, Params

__all__ = [
    "ACT_BITS", "COUNTERS", "COUNTER_MOST", "FORMAT_VERSION", "MEMORIES", "REFILL_BITS", "WEIGHT_BITS", "Error", "Join",
    "Memory", "Op", "descriptor", "descriptor_stride", "elementwise", "entry", "fields", "identity", "loop",
    "memory_shape", "near_sum", "output_word", "pointer_block", "record", "refill_header", "table_word", "weight_word",
]  # fmt: skip

if TYPE_CHECKING:  # Amaranth's enumerations are Python's with a shape; type checkers know only the latter
    import enum

    class Enum(enum.Enum):
        """A Python enumeration that accepts Amaranth's `shape`."""

        def __init_subclass__(cls, shape: object = None) -> None: ...

else:
    from amaranth.lib.enum import Enum

_kept = functools.lru_cache(maxsize=256)
"""Layouts are asked for all the time, and Amaranth takes milliseconds to make one; not without end, for files lie."""

FORMAT_VERSION = 6
ACT_BITS = 16
REFILL_BITS = 128
"""Width of the refill stream: any weight word and any pointer block fits one beat."""
WEIGHT_BITS = 16


class Op(Enum, shape=unsigned(4)):
    """Descriptor opcode. Zero is illegal, so that an empty memory is an error and not an end."""

    ILLEGAL = 0
    SEGMENT = 1
    ELEMENTWISE = 2
    LOOP = 3
    END = 15


class Join(Enum, shape=unsigned(2)):
    """How a word of the output table takes its accumulator into the output."""

    START = 0  # the first of an output, with the bias
    ADD = 1  # another part of a row that is split over several PEs
    MAX = 2  # another pixel of a pooling window, with its bias


class Error(Enum, shape=unsigned(4)):
    """Why a run ended before its END descriptor."""

    NONE = 0
    OPCODE = 1  # op not supported
    RANGE = 2  # an address or a size does not fit the memories
    RESERVED = 3  # a reserved field is not zero
    STREAM = 4  # the refill stream: a header that cannot be, TLAST too early or too late, a buffer whose turn it is not


class Memory(Enum, shape=unsigned(4)):
    """Memory numbers of the host port."""

    WEIGHTS = 0
    POINTERS = 1
    CODEBOOK = 2
    ACTIVATIONS = 3
    OUTPUTS = 4
    DESCRIPTORS = 5
    RECORDS = 6
    TABLES = 7


@_kept
def entry(params: Params) -> data.StructLayout:
    """One stored weight: codebook code and relative index (zero rows skipped before it)."""
    return data.StructLayout({"code": params.code_bits, "index": params.index_bits})


@_kept
def weight_word(params: Params) -> data.ArrayLayout:
    """One word of weight memory: eight entries, the first in the low bits."""
    return data.ArrayLayout(entry(params), LANES)


@_kept
def pointer_block(params: Params) -> data.StructLayout:
    """One word of pointer memory: entry address of the first of eight columns, and eight entry counts."""
    return data.StructLayout({
        "base": params.entry_address_bits,
        "lengths": data.ArrayLayout(params.count_bits, LANES),
    })  # fmt: skip


@_kept
def near_sum(params: Params) -> data.StructLayout:
    """One word of near accumulators: a sum, and whether it was written since it was cleared."""
    return data.StructLayout({"sum": params.acc_bits, "used": 1})


@_kept
def output_word(params: Params) -> data.StructLayout:
    """One accumulator that write-back reads: accumulator `slot` of PE `pe` of the group, and what becomes of it.

    It joins the output as `join` says; with ``last`` the output is complete, is requantized by ``shift`` and goes to
    ``lane`` of the activation vector; with ``flush`` the vector is written. ``function`` 1 or 2 puts the output through
    that function of the layer; 0 through none. A START without ``last`` that another START
    follows has no effect: it keeps a group in step with the others.
    """
    return data.StructLayout({
        "bias": params.acc_bits, "shift": 5, "slot": params.row_bits, "pe": 3, "lane": 3, "join": Join, "last": 1,
        "flush": 1, "function": 2,
    })  # fmt: skip


@_kept
def table_word(params: Params) -> data.StructLayout:
    """One straight piece of a function table: the function at its beginning, and how much more it is at its end."""
    return data.StructLayout({"value": signed(ACT_BITS), "step": signed(ACT_BITS + 1)})


@_kept
def descriptor(params: Params) -> data.StructLayout:
    """One segment of a layer (96 bytes). The same for every parameter set; reserved fields must be zero.

    A segment scans a window of a map and adds products to the accumulators of a tile. The fields from ``tiles_y`` on
    belong to the layer; all of its segments carry the same.

    Window: ``wy`` rows of ``wx`` positions, ``dy`` and ``dx`` pixels apart, of ``vectors`` activation vectors each, in
    a map of ``height`` x ``width`` pixels. The first tile's window begins at pixel (``y0``, ``x0``), the following ones
    ``step_y`` and ``step_x`` pixels further. ``source`` and the pitches say the same in activation vectors: the first
    of pixel (``y0``, ``x0``) (modulo 2**24, that pixel may lie in front of the map), and those from position to
    position, from window row to window row, from tile to tile.
    ``pointers`` is the first pointer block; each vector has its own, in the order of the scan, or with ``uniform`` each
    vector of a position, which is the same at all positions: there all have the same weights. ``chained``: the map is
    what the layer before writes. ``dense``: zeros are sent as well. ``maximum``: accumulators take the maximum instead
    of the sum. ``refill``: the weights come through the stream port, into ``buffer``. ``first`` and ``last`` segment of
    the layer. ``barrier``: it is accepted when all elementwise operations before it are written. ``moves_source``:
    `source` moves with the loop (see `loop`). ``ring``: the map lies off chip, and the layer's ring of rows holds a
    part of it. `source` and the pitches lead through the ring then: `source` is that of pixel (``y0`` modulo
    ``ring_rows``, ``x0``), and a walk that leaves the last row of the ring goes on in the first one. ``reach`` rows of
    the map, one behind the other, are as high as the window, ``(wy - 1) * dy + 1``; 0 without ``ring``. ``dy``,
    ``step_y``, ``reach`` and ``y0`` (without its sign) are not larger than ``ring_rows``.

    Layer: ``tiles_y`` rows of ``tiles_x`` tiles. The first one is written from line ``destination`` on, in rows of
    ``row_lines`` lines that begin ``row_pitch`` lines apart; the next tile of the row begins ``column_lines`` lines
    further, the next row of tiles ``tile_lines``. ``words`` words of the output table from ``outputs`` on make a tile.
    Results are limited to ``low`` … ``high``. Samples of a batch lie ``frame`` lines apart. ``moves_result``:
    `destination` moves with the loop. ``functions``: words of the output table may name function 1 (table ``table_1``,
    read at ``y * 2**left_1 / 2**right_1``, see docs/numerics.md) or function 2; without it their ``function`` is not
    looked at, and write-back is shorter.

    Streamed maps of the layer: with ``stream_in``, `height` rows for each sample come through the stream port into the
    ring, ``ring_row`` activation vectors each, ``ring_rows`` of them (``ring_size`` activation vectors) from line
    ``ring_base`` on; row v, counted on over the samples, takes the place v modulo ``ring_rows``. From sample to sample
    that place moves by ``ring_skip = height % ring_rows`` rows, ``ring_skip_size`` activation vectors. The first
    segment reads the ring, and none begins further up. With ``stream_out`` the result goes out through the other port:
    each row of tiles, its ``tile_lines`` lines, is sent when it is written, and ``out_rows`` rows of tiles behind it
    (counted on over the samples) another one takes its lines.
    """
    return data.StructLayout({
        "op": Op, "first": 1, "last": 1, "chained": 1, "dense": 1, "maximum": 1, "refill": 1, "buffer": 1,
        "barrier": 1, "moves_source": 1, "moves_result": 1, "functions": 1, "ring": 1,
        "codebook": 8, "uniform": 1, "reserved1": 7,
        "source": 24, "reserved2": 8,
        "vectors": 16, "dy": 8, "dx": 8,
        "wy": 16, "wx": 16,
        "height": 16, "width": 16,
        "y0": signed(16), "x0": signed(16),
        "step_y": 16, "step_x": 16,
        "position_pitch": 24, "reserved3": 8,
        "window_pitch": 24, "reserved4": 8,
        "tile_pitch_x": 24, "reserved5": 8,
        "tile_pitch_y": 24, "reserved6": 8,
        "pointers": 20, "reach": 12,
        "tiles_y": 16, "tiles_x": 16,
        "destination": 16, "row_lines": 16,
        "row_pitch": 16, "tile_lines": 16,
        "outputs": 20, "reserved8": 12,
        "words": 16, "frame": 16,
        "low": signed(16), "high": signed(16),
        "column_lines": 16, **_function(1), "stream_in": 1, "stream_out": 1, "reserved9": 1,
        **_function(2), "reserved10": 3, "out_rows": 16,
        "ring_base": 16, "ring_rows": 16,
        "ring_row": 24, "reserved11": 8,
        "ring_size": 24, "ring_skip_size": 24, "ring_skip": 16,
    })  # fmt: skip


def _function(n: int) -> dict[str, int]:
    """The fields of function `n`: its table, and the shifts of what is looked up."""
    return {f"table_{n}": 3, f"left_{n}": 5, f"right_{n}": 5}


def descriptor_stride(params: Params) -> int:
    """Distance of a descriptor's parts in the memory of a slim array: part p of number n is word p * stride + n."""
    return 1 << (params.descriptors - 1).bit_length()


@_kept
def elementwise(params: Params) -> data.StructLayout:
    """One elementwise operation, as wide as a segment; reserved fields must be zero.

    For each sample of the batch, each of ``lines`` lines and every lane of it::

        d = function(limit(saturate((a * (b or scale_a) + c * (e or scale_c) + offset + h) >> shift)))

    h is ``2**(shift - 1)``, 0 for shift 0. ``a`` … ``e`` and ``result`` are the first lines of maps of one layout.
    Without ``has_b`` the factor of a is ``scale_a``; without ``has_c`` there is no second product; without ``has_e``
    the factor of c is ``scale_c``. The sum wraps modulo ``2**acc_bits``; the rest is write-back's, as for a layer:
    ``low``, ``high``, and with ``functions`` function 1. Samples lie ``frame`` lines apart. The addresses with
    ``moves_`` move with the loop. The result may take the place of an operand line by line, or lie elsewhere.
    """
    return _padded(params, {
        "op": Op, "has_b": 1, "has_c": 1, "has_e": 1, "moves_a": 1, "moves_b": 1, "moves_c": 1, "moves_e": 1,
        "moves_result": 1, "functions": 1, "shift": 5, "reserved0": 14,
        "a": 16, "b": 16,
        "c": 16, "e": 16,
        "result": 16, "lines": 16,
        "frame": 16, "reserved1": 16,
        "scale_a": signed(16), "scale_c": signed(16),
        "low": signed(16), "high": signed(16),
        "offset": signed(48), "reserved2": 16,
        **_function(1), "reserved3": 19,
    })  # fmt: skip


@_kept
def loop(params: Params) -> data.StructLayout:
    """End of the body of a loop, as wide as a segment; reserved fields must be zero.

    The body, from descriptor ``first`` to the one before this, runs ``count`` times. The loop offset is 0 in the first
    round and grows by ``pitch`` lines from round to round; it is added to the addresses that move with the loop. A body
    holds no other loop: `first` lies behind the end of the loop before.
    """
    return _padded(params, {
        "op": Op, "reserved0": 12, "first": 16,
        "count": 16, "pitch": signed(16),
    })  # fmt: skip


def _padded(params: Params, members: dict[str, Any]) -> data.StructLayout:
    """A layout with these members, filled up to the width of a descriptor."""
    rest = descriptor(params).size - data.StructLayout(members).size
    return data.StructLayout({**members, "reserved_rest": rest})


@_kept
def refill_header(params: Params) -> data.StructLayout:
    """First beat of a packet of the refill stream: where the `words` words of the beats that follow go.

    ``last`` marks the last packet of the tile in ``buffer``; the last beat of that one carries TLAST. A beat
    holds one memory word in its low bits.
    """
    return data.StructLayout({
        "memory": 4, "unit": 8, "address": 20, "words": 20, "buffer": 1, "last": 1, "reserved": REFILL_BITS - 54,
    })  # fmt: skip


COUNTERS = ("entries", "padding", "starved", "blocked", "skipped", "refill", "stream", "saturated")
"""Counters of a layer, in record order; docs/architecture.md defines each."""

COUNTER_MOST = (1 << 32) - 1
"""Where counters stop: one that has counted more reads this. Times wrap instead, their differences are right."""


@_kept
def record(params: Params) -> data.StructLayout:
    """What the array writes down about a layer: three times (cycles since start) and the counters."""
    return data.StructLayout({name: 32 for name in ("accepted", "finished", "written", *COUNTERS)})


@_kept
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
        case Memory.OUTPUTS:
            return params.groups, params.output_words, output_word(params).size
        case Memory.DESCRIPTORS:
            return 1, params.descriptors, descriptor(params).size
        case Memory.RECORDS:
            return 1, params.descriptors, record(params).size
        case Memory.TABLES:
            return 1, params.tables * PIECES, table_word(params).size


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


@_kept
def identity(params: Params) -> str:
    """Hash of parameters and layouts (16 hexadecimal digits) that image, Verilog and bitstream carry."""
    layouts = {
        "weight_word": fields(weight_word(params)),
        "pointer_block": fields(pointer_block(params)),
        "output_word": fields(output_word(params)),
        "table_word": fields(table_word(params)),
        "descriptor": fields(descriptor(params)),
        "elementwise": fields(elementwise(params)),
        "loop": fields(loop(params)),
        "record": fields(record(params)),
        "refill_header": fields(refill_header(params)),
        "memories": {memory.name: memory_shape(params, memory) for memory in MEMORIES},
    }
    text = json.dumps([FORMAT_VERSION, params.stored(), layouts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
