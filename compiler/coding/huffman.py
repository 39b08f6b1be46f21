"""Canonical Huffman codes, encoded and decoded with array arithmetic.

A code is its lengths: symbols of equal length have consecutive code words in the order of symbols, shorter lengths
first. Kept libraries were looked at: constriction has a Huffman tree that takes one call a symbol and gives no
lengths, so this is our own. Sources: Huffman (1952); the package-merge of Larmore and Hirschberg (1990) for lengths
with a limit; Deep Compression (Han et al., ICLR 2016), section 4, for its use here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.coding.wire import Reader, Writer
from compiler.errors import CodingError

__all__ = ["MAX_LENGTH", "code_lengths", "decode", "encode", "read_lengths", "table_bits", "write_lengths"]

Int = NDArray[np.int64]

MAX_LENGTH = 15
"""Longest code word: a length fits four bits, a table of all windows 32768 entries."""

_CHUNK_BYTES = 1 << 17  # of a stream that is looked at from every bit; bounds the memory of decoding


def code_lengths(counts: Int) -> NDArray[np.uint8]:
    """Lengths of the code words with the least total, none above `MAX_LENGTH`; 0 for symbols that do not occur.

    A single symbol gets length 1.
    """
    used = np.flatnonzero(counts)
    lengths = np.zeros(len(counts), np.uint8)
    if len(used) < 2:
        lengths[used] = 1
        return lengths
    # Package-merge: pairs of the round before compete with single symbols; a symbol's length is how often it is
    # among the 2n − 2 cheapest packages of the last round.
    single: list[tuple[int, tuple[int, ...]]] = sorted((int(counts[symbol]), (int(symbol),)) for symbol in used)
    packages = single
    for _ in range(MAX_LENGTH - 1):
        pairs = zip(packages[::2], packages[1::2], strict=False)
        packages = sorted([*single, *((a[0] + b[0], a[1] + b[1]) for a, b in pairs)])
    for _, symbols in packages[: 2 * len(used) - 2]:
        np.add.at(lengths, list(symbols), 1)
    return lengths


def table_bits(lengths: NDArray[np.uint8], counts: Int) -> int:
    """Bits of a stream and of its table of lengths."""
    writer = Writer()
    write_lengths(writer, lengths)
    return int(lengths.astype(np.int64) @ counts) + 8 * len(writer)


def write_lengths(writer: Writer, lengths: NDArray[np.uint8]) -> None:
    """The table of lengths: 4 bits each; 0 stands for a run of symbols that do not occur, 4 more bits its length − 1.

    Symbols after the last that occurs are left out; a byte says how many there are, less one.
    """
    last = int(np.flatnonzero(lengths)[-1])
    nibbles: list[int] = []
    at = 0
    while at <= last:
        run = 0
        while lengths[at + run] == 0 and run < 16:
            run += 1
        nibbles += [0, run - 1] if run else [int(lengths[at])]
        at += max(run, 1)
    writer.varint(last)
    writer.raw(bytes(high << 4 | low for high, low in zip(nibbles[::2], [*nibbles[1::2], 0], strict=False)))


def read_lengths(reader: Reader, symbols: int, what: str) -> NDArray[np.uint8]:
    """Lengths of an alphabet of `symbols`.

    Raises
    ------
    CodingError
        They are not those of a prefix code in which every window means something.
    """
    last = reader.varint(f"{what}: last symbol", symbols - 1)
    lengths = np.zeros(symbols, np.uint8)
    at = 0
    pending: list[int] = []

    def nibble() -> int:
        if not pending:
            byte = reader.byte(f"{what}: code lengths")
            pending.extend((byte & 15, byte >> 4))
        return pending.pop()

    while at <= last:
        length = nibble()
        if length:
            lengths[at] = length
            at += 1
        else:
            at += nibble() + 1
    kraft = int((1 << (MAX_LENGTH - lengths[lengths > 0].astype(np.int64))).sum())
    single = np.count_nonzero(lengths) == 1 and lengths[last] == 1
    if at != last + 1 or not lengths[last] or (kraft != 1 << MAX_LENGTH and not single):
        raise CodingError(f"{what}: the code lengths are not those of a Huffman code")
    return lengths


def _words(lengths: NDArray[np.uint8]) -> Int:
    """Code word of each symbol, `lengths` bits."""
    order = np.lexsort((np.arange(len(lengths)), lengths))
    order = order[lengths[order] > 0]
    # Seen as numbers of MAX_LENGTH bits, each word begins where the one before ends.
    spans = 1 << (MAX_LENGTH - lengths[order].astype(np.int64))
    words = np.zeros(len(lengths), np.int64)
    words[order] = (np.cumsum(spans) - spans) >> (MAX_LENGTH - lengths[order].astype(np.int64))
    return words


def encode(symbols: NDArray[np.integer], lengths: NDArray[np.uint8]) -> bytes:
    """The stream of `symbols`, the high bit of a word first, zeros to the end of the last byte."""
    pieces: list[NDArray[np.uint8]] = []
    words = _words(lengths).astype(np.uint16)
    left_bits = np.zeros(0, np.uint8)
    for start in range(0, len(symbols), _CHUNK_BYTES):
        part = symbols[start : start + _CHUNK_BYTES]
        left_aligned = (words[part] << (16 - lengths[part].astype(np.uint16))).astype(">u2")
        bits = np.unpackbits(left_aligned.view(np.uint8)).reshape(len(part), 16)
        used = np.concatenate([left_bits, bits[np.arange(16) < lengths[part, np.newaxis]]])
        whole = len(used) // 8 * 8
        pieces.append(np.packbits(used[:whole]))
        left_bits = used[whole:]
    pieces.append(np.packbits(left_bits))
    return b"".join(piece.tobytes() for piece in pieces)


def decode(reader: Reader, count: int, lengths: NDArray[np.uint8], what: str) -> NDArray[np.uint16]:
    """`count` symbols; afterwards the reader stands behind the last byte of the stream.

    Raises
    ------
    CodingError
        The file ends before.
    """
    if count > 8 * reader.left:
        raise CodingError(f"the file ends within {what}: {count} code words in {reader.left} bytes")
    # What each window of MAX_LENGTH bits begins with. A code of one symbol has windows without a meaning.
    window_length = np.zeros(1 << MAX_LENGTH, np.uint8)
    window_symbol = np.zeros(1 << MAX_LENGTH, np.uint16)
    words = _words(lengths)
    for symbol in np.flatnonzero(lengths):
        length = int(lengths[symbol])
        first = int(words[symbol]) << (MAX_LENGTH - length)
        window_length[first : first + (1 << (MAX_LENGTH - length))] = length
        window_symbol[first : first + (1 << (MAX_LENGTH - length))] = symbol
    found: list[NDArray[np.uint16]] = []
    start, place, remaining = reader.at, 0, count  # place: bit of the next word, from `start`
    while remaining:
        # No more than these words can take, so that a short stream costs little.
        size = min(_CHUNK_BYTES, len(reader.data) - start, remaining * MAX_LENGTH // 8 + 2)
        if size <= 0:
            raise CodingError(f"the file ends within {what}: {remaining} code words are missing")
        windows = _windows(reader.data[start : start + size + 2], size)
        at_bit = window_length[windows].tobytes()
        end = len(at_bit)
        places: list[int] = []
        # The only step that goes word by word: each length tells where the next word begins.
        while place < end and len(places) < remaining:
            places.append(place)
            step = at_bit[place]
            if not step:
                raise CodingError(f"{what}: a code word that the table does not hold")
            place += step
        found.append(window_symbol[windows[places]])
        remaining -= len(places)
        start += place // 8
        place %= 8
    if start + (place + 7) // 8 > len(reader.data):
        raise CodingError(f"the file ends within {what}")
    reader.at = start + (place + 7) // 8
    return np.concatenate(found) if found else np.zeros(0, np.uint16)


def _windows(data: bytes, count: int) -> NDArray[np.uint16]:
    """The MAX_LENGTH bits from each bit of the first `count` bytes on; zeros behind the end of `data`."""
    padded = np.frombuffer(data.ljust(count + 2, b"\0"), np.uint8)[: count + 2].astype(np.uint32)
    three = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]
    shifts = np.arange(24 - MAX_LENGTH, 24 - MAX_LENGTH - 8, -1, dtype=np.uint32)
    windows: NDArray[np.uint16] = (three[:, np.newaxis] >> shifts & ((1 << MAX_LENGTH) - 1)).astype(np.uint16)
    return windows.reshape(-1)
