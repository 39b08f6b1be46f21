"""What travels between the blocks of the array, in its order: payloads of streams, and requests beside them."""

from __future__ import annotations

from amaranth.lib import data

from hw.layouts import ACT_BITS, REFILL_BITS, WEIGHT_BITS, Function, Memory, descriptor, memory_shape
from hw.params import LANES, Params

__all__ = [
    "act_vector",
    "activations",
    "broadcast",
    "drain_request",
    "drain_step",
    "event",
    "host_write",
    "job",
    "layer_output",
    "memory_access",
    "memory_write",
    "product_operands",
    "refill_write",
    "scan_request",
    "selected_entry",
    "tag",
]  # fmt: skip


def tag(params: Params) -> data.StructLayout:
    """What a column belongs to: its accumulator bank, and the tile buffer that its weights lie in (bit n: buffer n)."""
    return data.StructLayout({"bank": 1, **({"tile": 2} if params.refill else {})})


def activations(params: Params) -> data.ArrayLayout:
    """The activations of a column: one, or two if it is folded."""
    return data.ArrayLayout(ACT_BITS, params.fold)


def scan_request(params: Params) -> data.StructLayout:
    """One layer or tile to scan: first line, activation vectors, first pointer block, what its columns belong to."""
    return data.StructLayout({
        "source": 16, "act_vectors": 16, "pointers": 16, "tag": tag(params), **({"fold": 1} if params.fold > 1 else {}),
    })  # fmt: skip


def act_vector(params: Params) -> data.StructLayout:
    """Eight activations of successive columns, the pointer block that describes them, and what they belong to.

    Folded, the activation vector has four columns of two activations; `half` says which half of the pointer block they
    are.
    """
    return data.StructLayout({
        "acts": data.ArrayLayout(ACT_BITS, LANES), "block": broadcast(params)["block"].width, "tag": tag(params),
        **({"fold": 1, "half": 1} if params.fold > 1 else {}), "last": 1,
    })  # fmt: skip


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


def layer_output(params: Params) -> data.StructLayout:
    """What write-back needs to know about a layer."""
    return data.StructLayout({
        "destination": 16, "slots": 16, "fragment_slots": 16, "fragment_log2": 2, "bias": 16, "shift": 5,
        "function": Function,
    })  # fmt: skip


def drain_request(params: Params) -> data.StructLayout:
    """Write-back's access to the accumulators: read `slot` of `bank`, and clear `clear_slot` of the same bank."""
    return data.StructLayout({
        "bank": 1, "slot": params.row_bits, "clear": 1, "clear_all": 1, "clear_slot": params.row_bits,
    })  # fmt: skip


def drain_step(params: Params) -> data.StructLayout:
    """One accumulator to write back: which PE of the group, whether it begins and ends an output, where that goes."""
    return data.StructLayout({
        "pe": 3, "first": 1, "last": 1, "lane": 3, "flush": 1, "bias": 16, "shift": 5, "relu": 1,
    })  # fmt: skip


def memory_access(params: Params) -> data.StructLayout:
    """A word of a memory: `hw.layouts.Memory` number, unit (PE or group), word address."""
    return data.StructLayout({"memory": 4, "unit": 8, "address": 20})


def memory_write(params: Params) -> data.StructLayout:
    """A word to write. Data as wide as the widest memory that the host writes."""
    width = max(memory_shape(params, memory)[2] for memory in Memory if memory is not Memory.RECORDS)
    return data.StructLayout({"to": memory_access(params), "data": width})


def refill_write(params: Params) -> data.StructLayout:
    """A word of the stream on its way to a memory of a PE."""
    return data.StructLayout({"memory": 4, "unit": 8, "address": 20, "data": REFILL_BITS})


def host_write(params: Params) -> data.StructLayout:
    """A word for one of a PE's memories. `memory` is a number of `hw.layouts.Memory` (the first three)."""
    shapes = [memory_shape(params, m) for m in (Memory.WEIGHTS, Memory.POINTERS, Memory.CODEBOOK)]
    address = max((words - 1).bit_length() for _, words, _ in shapes)
    return data.StructLayout({"memory": 2, "address": address, "data": max(bits for _, _, bits in shapes)})


assert LANES == 8  # the 3-bit lanes above
