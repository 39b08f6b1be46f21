"""Payloads of the streams between the blocks of the array."""

from __future__ import annotations

from amaranth.lib import data

from hw.layouts import ACT_BITS, WEIGHT_BITS, descriptor, memory_shape
from hw.layouts import Memory as MemoryId
from hw.params import LANES, Params

__all__ = [
    "activations", "broadcast", "drain_request", "event", "host_write", "job", "product_operands", "selected_entry",
    "tag",
]  # fmt: skip


def tag(params: Params) -> data.StructLayout:
    """What a column belongs to: its accumulator bank, and the tile buffer that its weights lie in (bit n: buffer n)."""
    return data.StructLayout({"bank": 1, **({"tile": 2} if params.refill else {})})


def activations(params: Params) -> data.ArrayLayout:
    """The activations of a column: one, or two if it is folded."""
    return data.ArrayLayout(ACT_BITS, params.fold)


def broadcast(params: Params) -> data.StructLayout:
    """One nonzero column, sent to every PE: pointer block and lane, what it belongs to, activations."""
    block = descriptor(params)["pointers"].width
    return data.StructLayout({"block": block, "lane": 3, "tag": tag(params), "acts": activations(params)})


def job(params: Params) -> data.StructLayout:
    """One nonempty column of one PE: where its entries start, how many, and how many in the first word."""
    return data.StructLayout({
        "word": params.entry_address_bits - 3, "lane": 3, "count": params.count_bits, "take": 4,
        "tag": tag(params), "acts": activations(params),
    })  # fmt: skip


def selected_entry(params: Params) -> data.StructLayout:
    """One entry on its way to decode; `first` and `last` of its column."""
    return data.StructLayout({
        "code": params.code_bits, "index": params.index_bits, "first": 1, "last": 1,
        "tag": tag(params), "acts": activations(params),
    })  # fmt: skip


def product_operands(params: Params) -> data.StructLayout:
    """One multiplication: weight times activation onto accumulator `row` of `bank`."""
    return data.StructLayout({
        "weight": data.StructLayout({"raw": WEIGHT_BITS}), "act": ACT_BITS,
        "row": params.row_bits, "tag": tag(params), "last": 1,
    })  # fmt: skip


def event(params: Params) -> data.StructLayout:
    """What a PE did in a cycle, for the counters."""
    return data.StructLayout({"entry": 1, "padding": 1, "bank": 1})


def drain_request(params: Params) -> data.StructLayout:
    """Write-back's access to the accumulators: read `slot` of `bank`, and clear `clear_slot` of the same bank."""
    return data.StructLayout({
        "bank": 1, "slot": params.row_bits, "clear": 1, "clear_all": 1, "clear_slot": params.row_bits,
    })  # fmt: skip


def host_write(params: Params) -> data.StructLayout:
    """A word for one of a PE's memories. `memory` is a number of `hw.layouts.Memory` (the first three)."""
    shapes = [memory_shape(params, m) for m in (MemoryId.WEIGHTS, MemoryId.POINTERS, MemoryId.CODEBOOK)]
    address = max((words - 1).bit_length() for _, words, _ in shapes)
    return data.StructLayout({"memory": 2, "address": address, "data": max(bits for _, _, bits in shapes)})


assert LANES == 8  # the 3-bit lanes above
