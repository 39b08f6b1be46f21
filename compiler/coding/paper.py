"""A matrix of codes as the paper stores it: Huffman-coded codes and Huffman-coded relative indices.

Source: Deep Compression (Han et al., ICLR 2016), sections 2 to 4. The width of a gap is the layer's own, whichever
gives the fewest bytes; fillers are entries like others and are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.coding import huffman
from compiler.coding.gaps import from_positions, to_positions
from compiler.coding.wire import Reader, Writer
from compiler.errors import CodingError

__all__ = ["MAX_WIDTH", "Coded", "read", "write"]

MAX_WIDTH = 12
"""Widest gap: an alphabet of 4096 symbols."""


@dataclass(frozen=True)
class Coded:
    """What a matrix took in the file.

    fillers : entries with code 0. width : bits of a gap before Huffman coding. codes, positions : bits of either
    stream with its table.
    """

    fillers: int
    width: int
    codes: float
    positions: float


def write(writer: Writer, codes: NDArray[np.uint8], alphabet: int) -> Coded:
    """Append a matrix.

    Parameters
    ----------
    codes : uint8 (rows, columns), less than `alphabet`.
    """
    flat = codes.reshape(-1)
    positions = np.flatnonzero(flat)
    nonzero = flat[positions]
    if not len(positions):
        writer.varint(0)
        return Coded(0, 0, 0.0, 0.0)
    width = _best_width(positions, np.bincount(nonzero, minlength=alphabet))
    entry_codes, gaps = from_positions(positions, nonzero, width)
    writer.varint(len(entry_codes))
    bits = []
    for symbols, size in ((entry_codes, alphabet), (gaps, 1 << width)):
        begin = len(writer)
        if symbols is gaps:
            writer.byte(width)
        lengths = huffman.code_lengths(np.bincount(symbols, minlength=size).astype(np.int64))
        huffman.write_lengths(writer, lengths)
        writer.raw(huffman.encode(symbols, lengths))
        bits.append(8.0 * (len(writer) - begin))
    return Coded(len(entry_codes) - len(positions), width, bits[0], bits[1])


def read(reader: Reader, shape: tuple[int, int], alphabet: int, what: str) -> tuple[NDArray[np.uint8], Coded]:
    """The matrix that `write` appended, and what it took.

    Raises
    ------
    CodingError
        The file ends before, or holds what no matrix of this shape and alphabet gives.
    """
    size = shape[0] * shape[1]
    count = reader.varint(f"{what}: entries", size)
    codes = np.zeros(shape, np.uint8)
    if not count:
        return codes, Coded(0, 0, 0.0, 0.0)
    begin = reader.at
    lengths = huffman.read_lengths(reader, alphabet, f"{what}: codes")
    entry_codes = huffman.decode(reader, count, lengths, f"{what}: codes")
    middle = reader.at
    width = reader.byte(f"{what}: width of a gap", MAX_WIDTH)
    lengths = huffman.read_lengths(reader, 1 << width, f"{what}: gaps")
    gaps = huffman.decode(reader, count, lengths, f"{what}: gaps").astype(np.int64)
    codes.reshape(-1)[to_positions(gaps, size, what)] = entry_codes
    fillers = count - int(np.count_nonzero(entry_codes))
    if (gaps[entry_codes == 0] != (1 << width) - 1).any() or not entry_codes[-1]:
        raise CodingError(f"{what}: an entry with code 0 that fills no gap")
    return codes, Coded(fillers, width, 8.0 * (middle - begin), 8.0 * (reader.at - middle))


def _best_width(positions: NDArray[np.int64], histogram: NDArray[np.int64]) -> int:
    """Width of a gap that gives the fewest bits, fillers and tables counted."""
    gaps = np.diff(positions, prepend=-1) - 1
    best: tuple[int, int] | None = None
    for width in range(MAX_WIDTH + 1):
        fillers = int((gaps >> width).sum())
        if fillers > 4 * len(gaps):
            continue
        code_counts, mask = histogram.copy(), (1 << width) - 1
        code_counts[0] += fillers
        gap_counts = np.bincount(gaps & mask, minlength=mask + 1).astype(np.int64)
        gap_counts[mask] += fillers
        bits = sum(huffman.table_bits(huffman.code_lengths(counts), counts) for counts in (code_counts, gap_counts))
        if best is None or bits < best[0]:
            best = (bits, width)
        if not gaps.max() >> width:
            break
    # Gaps of which every width above takes many fillers: the widest has the fewest.
    return MAX_WIDTH if best is None else best[1]
