"""What travels between the blocks of the array, in its order: payloads of streams, and requests beside them."""

from __future__ import annotations

from amaranth import signed
from amaranth.lib import data

from hw.layouts import ACT_BITS, REFILL_BITS, WEIGHT_BITS, Memory, descriptor, memory_shape
from hw.params import DESCRIPTOR_PARTS, LANES, Params

__all__ = [
    "LINE_BITS",
    "ROW_BITS",
    "VECTOR_ADDRESS_BITS",
    "beat",
    "broadcast",
    "column",
    "drain_request",
    "elementwise_job",
    "event",
    "function",
    "host_write",
    "job",
    "lane_step",
    "memory_access",
    "memory_read",
    "memory_write",
    "operand",
    "out_beat",
    "out_job",
    "output_tile",
    "product_operands",
    "refill_write",
    "ring_job",
    "scan_request",
    "selected_entry",
    "tag",
    "vector",
    "window_origin",
]  # fmt: skip

LINE_BITS = 20
"""Width of the number of a line where it may lie beyond the activation memory, which is then found."""

VECTOR_ADDRESS_BITS = 24
"""Width of the address of an activation vector: it wraps, windows may begin in front of their map."""

ROW_BITS = 32
"""Width of the number of a row that is counted on over the samples."""


def tag(params: Params) -> data.StructLayout:
    """What a vector belongs to: accumulator bank, codebook, and the tile buffer of its weights (bit n: buffer n)."""
    return data.StructLayout({
        "bank": 1, "codebook": params.codebook_bits, **({"tile": 2} if params.refill else {}),
    })  # fmt: skip


def scan_request(params: Params) -> data.StructLayout:
    """One window to scan: address and pixel of its first position; `closes`: the last of its tile.

    The other fields as in the descriptor. ``place``: row of the ring in which the window begins; those from ``edge`` on
    are less than ``dy`` rows before its end: a step from there leads to the beginning, `wrap_pitch` vectors further.
    """
    of = descriptor(params)
    names = ("vectors", "dy", "dx", "wy", "wx", "height", "width", "position_pitch", "window_pitch", "uniform")
    ring = {"ring": 1, "place": 16, "edge": 16, "wrap_pitch": VECTOR_ADDRESS_BITS} if params.streams else {}
    return data.StructLayout({
        "address": VECTOR_ADDRESS_BITS, "y": signed(17), "x": signed(17), **{name: of[name].shape for name in names},
        "pointers": params.pointer_bits, "dense": 1, "closes": 1, "tag": tag(params), **ring,
    })  # fmt: skip


def vector(params: Params) -> data.StructLayout:
    """What is known of a vector while it is read; `inside`: of a pixel of the map, `last` of its window.

    ``closes``: its window is the last of a tile.
    """
    return data.StructLayout({
        "pointers": params.pointer_bits, "tag": tag(params), "inside": 1, "dense": 1, "last": 1, "closes": 1,
    })  # fmt: skip


def broadcast(params: Params) -> data.StructLayout:
    """One activation vector, sent to every PE: its pointer block, its nonzero lanes, what it belongs to."""
    return data.StructLayout({
        "pointers": params.pointer_bits, "mask": LANES, "acts": data.ArrayLayout(ACT_BITS, LANES), "tag": tag(params),
    })  # fmt: skip


def job(params: Params) -> data.StructLayout:
    """One vector with work for one PE: where the entries of its columns start, how many, and which columns count."""
    return data.StructLayout({
        "base": params.entry_address_bits, "lengths": data.ArrayLayout(params.count_bits, LANES), "mask": LANES,
        "acts": data.ArrayLayout(ACT_BITS, LANES), "tag": tag(params),
    })  # fmt: skip


def column(params: Params) -> data.StructLayout:
    """One column of a job: its entries, how many of them lie in the first word; `last` of its vector."""
    return data.StructLayout({
        "word": params.entry_address_bits - 3, "lane": 3, "count": params.count_bits, "take": 4, "last": 1,
        "act": ACT_BITS, "tag": tag(params),
    })  # fmt: skip


def selected_entry(params: Params) -> data.StructLayout:
    """One entry on its way to decode; `first` of its column, `last` of its vector."""
    return data.StructLayout({
        "code": params.code_bits, "index": params.index_bits, "first": 1, "last": 1, "act": ACT_BITS,
        "tag": tag(params),
    })  # fmt: skip


def product_operands(params: Params) -> data.StructLayout:
    """One multiplication: weight times activation onto accumulator `row` of the tag's bank; `last` of its vector."""
    return data.StructLayout({
        "weight": data.StructLayout({"raw": WEIGHT_BITS}), "act": ACT_BITS, "row": params.row_bits, "tag": tag(params),
        "last": 1,
    })  # fmt: skip


def event(params: Params) -> data.StructLayout:
    """What a PE did in a cycle, for the counters."""
    return data.StructLayout({"entry": 1, "padding": 1, "bank": 1})


def output_tile(params: Params) -> data.StructLayout:
    """What write-back needs to know about a tile: `destination` of this tile, the other fields as in the descriptor.

    ``row_begins``, ``row_ends``: it is the first, the last one of a row of tiles that streams out.
    """
    of = descriptor(params)
    names = ("row_lines", "row_pitch", "outputs", "words", "low", "high", "functions")
    return data.StructLayout({
        "destination": LINE_BITS, **{name: of[name].shape for name in names}, "function_1": function(params),
        "function_2": function(params), **({"row_begins": 1, "row_ends": 1} if params.streams else {}),
    })  # fmt: skip


def function(params: Params) -> data.StructLayout:
    """A function of a layer: its table, and the shifts of what is looked up."""
    return data.StructLayout({"table": 3, "left": 5, "right": 5})


def elementwise_job(params: Params) -> data.StructLayout:
    """One elementwise operation with the lines where it begins; the other fields as in its descriptor.

    ``number`` is that of its descriptor. ``again``: it has run in an earlier round of a loop.
    """
    return data.StructLayout({
        **dict.fromkeys(("a", "b", "c", "e", "result"), LINE_BITS), "has_b": 1, "has_c": 1, "has_e": 1,
        "scale_a": signed(ACT_BITS), "scale_c": signed(ACT_BITS), "offset": signed(params.acc_bits), "shift": 5,
        "lines": 16, "frame": 16, "low": signed(ACT_BITS), "high": signed(ACT_BITS), "functions": 1,
        "function_1": function(params), "number": 16, "again": 1,
    })  # fmt: skip


def operand(params: Params) -> data.StructLayout:
    """Where a vector just read goes: first or second factor, of the second product, in this buffer."""
    return data.StructLayout({"factor": 1, "second": 1, "buffer": 1})


def lane_step(params: Params) -> data.StructLayout:
    """One product of one lane of the line in `buffer`; `last` of the lane. ``flush``: it ends the line."""
    return data.StructLayout({"buffer": 1, "second": 1, "lane": 3, "last": 1, "flush": 1})


def ring_job(params: Params) -> data.StructLayout:
    """Rows to take: first line and rows of the ring, activation vectors of a row, rows of a sample."""
    return data.StructLayout({"base": 16, "rows": 16, "row": VECTOR_ADDRESS_BITS, "height": 16})


def out_job(params: Params) -> data.StructLayout:
    """Rows of tiles to send: first line and rows of the ring, lines of a row, rows of a sample."""
    return data.StructLayout({"line": LINE_BITS, "rows": 16, "lines": 16, "tiles_y": 16})


def out_beat(params: Params) -> data.StructLayout:
    """An activation vector on its way off chip; `last` of its map."""
    return data.StructLayout({"data": ACT_BITS * LANES, "last": 1})


def drain_request(params: Params) -> data.StructLayout:
    """Write-back's access to one accumulator: read `slot` of `bank`, and clear `clear_slot` of the same bank.

    To a PE `slot` comes a cycle earlier than to its `hw.mac.Mac`.
    """
    return data.StructLayout({
        "bank": 1, "slot": params.row_bits, "clear": 1, "clear_all": 1, "clear_slot": params.row_bits,
    })  # fmt: skip


def beat(bits: int) -> data.StructLayout:
    """One transfer of an AXI4-Stream; `last` of its packet."""
    return data.StructLayout({"data": bits, "last": 1})


def memory_access(params: Params) -> data.StructLayout:
    """A word of a memory: `hw.layouts.Memory` number, unit (PE or group), word address."""
    return data.StructLayout({"memory": 4, "unit": 8, "address": 20})


def memory_read(params: Params) -> data.StructLayout:
    """32 bits of a word to read: `part` n holds its bits from 32·n on."""
    return data.StructLayout({"word": memory_access(params), "part": 5})


def memory_write(params: Params) -> data.StructLayout:
    """A word to write. Data as wide as the widest memory that the host writes.

    Descriptors of a slim array come in parts of 32 bits, as of `memory_read`.
    """
    parts = (Memory.RECORDS, *([Memory.DESCRIPTORS] if params.slim else []))
    width = max(memory_shape(params, memory)[2] for memory in Memory if memory not in parts)
    return data.StructLayout({
        "to": memory_access(params), "data": width, **({"part": range(DESCRIPTOR_PARTS)} if params.slim else {}),
    })  # fmt: skip


def refill_write(params: Params) -> data.StructLayout:
    """A word of the stream on its way to a memory of a PE."""
    return data.StructLayout({"memory": 4, "unit": 8, "address": 20, "data": REFILL_BITS})


def host_write(params: Params) -> data.StructLayout:
    """A word for one of a PE's memories. `memory` is a number of `hw.layouts.Memory` (the first three)."""
    shapes = [memory_shape(params, m) for m in (Memory.WEIGHTS, Memory.POINTERS, Memory.CODEBOOK)]
    address = max((words - 1).bit_length() for _, words, _ in shapes)
    return data.StructLayout({"memory": 2, "address": address, "data": max(bits for _, _, bits in shapes)})


assert LANES == 8  # the 3-bit lanes above


def window_origin(params: Params) -> data.StructLayout:
    """The place of a segment's window that is kept from tile to tile."""
    return data.StructLayout({
        "row": VECTOR_ADDRESS_BITS, "address": VECTOR_ADDRESS_BITS, "y": signed(17), "x": signed(17),
        **({"place": 16} if params.streams else {}),
    })  # fmt: skip
