"""Small integers as bits: ternary codes in two, sums of them over N workers in as many as hold -N … N.

Codes: four to a byte, the first in the lowest bits, each as code + 1 (0, 1, 2). Sums: sum + N in b bits, eight of
them in b bytes, the first in the lowest bits. Ends are filled up with zeros of the format's own kind.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from compiler.train.terngrad.bytes import sum_bits

__all__ = ["CODES_PER_BYTE", "pack", "pack_sums", "unpack", "unpack_sums"]

CODES_PER_BYTE = 4

_GROUP = 8  # sums
_BYTE = 8  # bits

if sys.byteorder != "little":
    raise ImportError("the lanes of packed gradients are views of little-endian words; this machine is big-endian")


def _lanes() -> Tensor:
    """Byte → its four codes as the bytes of one int32. The fourth value of two bits, which no code has, reads as 2."""
    byte = torch.arange(256, dtype=torch.int32)
    lanes = [((byte >> (2 * lane)) & 3) - 1 for lane in range(CODES_PER_BYTE)]
    return torch.stack(lanes, 1).to(torch.int8).view(torch.int32).reshape(-1)


_LANES = _lanes()


def pack(codes: Tensor) -> Tensor:
    """Codes int8 (n,) of -1, 0, 1 as uint8 (⌈n / 4⌉,)."""
    spare = -len(codes) % CODES_PER_BYTE
    if spare:
        codes = torch.cat([codes, codes.new_zeros(spare)])
    lanes = (codes + 1).view(torch.uint8).view(-1, CODES_PER_BYTE)
    return lanes[:, 0] | (lanes[:, 1] << 2) | (lanes[:, 2] << 4) | (lanes[:, 3] << 6)


def unpack(packed: Tensor, count: int) -> Tensor:
    """The first `count` codes, int8, of bytes uint8 (≥ ⌈count / 4⌉,)."""
    return _LANES[packed.to(torch.int32)].view(torch.int8)[:count]


def pack_sums(sums: Tensor, workers: int) -> Tensor:
    """Sums int16 (n,), each from -workers to workers, as uint8 (b · ⌈n / 8⌉,) with b = `sum_bits(workers)`."""
    spare = -len(sums) % _GROUP
    if spare:
        sums = torch.cat([sums, sums.new_zeros(spare)])
    return _pack_bits(sums.to(torch.int32) + workers, sum_bits(workers))


def unpack_sums(packed: Tensor, workers: int, count: int) -> Tensor:
    """The first `count` sums, int16, that `pack_sums` packed."""
    return (_unpack_bits(packed, sum_bits(workers)) - workers)[:count].to(torch.int16)


def _pack_bits(values: Tensor, bits: int) -> Tensor:
    """Values of `bits` bits, a multiple of eight of them. More than a byte's bits: low bytes first, then the rest."""
    if bits > _BYTE:
        low = (values & 255).to(torch.uint8)
        return torch.cat([low, _pack_bits(values >> _BYTE, bits - _BYTE)])
    lanes = values.view(-1, _GROUP)
    word = torch.zeros(len(lanes), dtype=torch.int64)
    for lane in range(_GROUP):
        word |= lanes[:, lane].to(torch.int64) << (lane * bits)
    return word.view(torch.uint8).view(-1, 8)[:, :bits].reshape(-1)


def _unpack_bits(packed: Tensor, bits: int) -> Tensor:
    if bits > _BYTE:
        count = len(packed) * _BYTE // bits
        return packed[:count].to(torch.int32) | (_unpack_bits(packed[count:], bits - _BYTE) << _BYTE)
    words = packed.new_zeros(len(packed) // bits, 8)
    words[:, :bits] = packed.view(-1, bits)
    word = words.view(torch.int64).view(-1)
    lanes = torch.empty(len(word), _GROUP, dtype=torch.int32)
    for lane in range(_GROUP):
        lanes[:, lane] = (word >> (lane * bits)) & ((1 << bits) - 1)
    return lanes.view(-1)
