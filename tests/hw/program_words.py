"""Words of the memories for a random program: an encoder of its own, as simple as it can be."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from amaranth.lib import data
from numpy.typing import NDArray

from hw.layouts import Memory, descriptor, entry, fields, pointer_block, refill_header, weight_word
from hw.params import LANES, Params

__all__ = ["Segment", "Words", "encode", "lay_out", "packed"]


def packed(layout: data.StructLayout, **values: int) -> int:
    """A word of a layout from the values of its leaves (dots in names as ``__``); what is not named is 0."""
    places = {name.replace(".", "__"): (first, width) for name, first, width in fields(layout)}
    word = 0
    for name, value in values.items():
        first, width = places[name]
        assert -(1 << (width - 1)) <= value < (1 << width), f"{name} = {value} does not fit {width} bits"
        word |= (value & ((1 << width) - 1)) << first
    return word


@dataclass
class Segment:
    """One segment: its descriptor, the entries that it shall have, and those that it has once it is encoded.

    Attributes
    ----------
    step : descriptor fields by name. whole : those that differ if maps off chip lay in a frame as a whole.
    codes : (accumulators, columns) code of each weight; 0: no entry.
    counts : uint16 (pointer blocks, 8, pes), entries, padding included. padding : the same, those with code 0.
    starts : uint8 (pointer blocks, 8, pes), place of the first entry in its weight word.
    packets : words of each packet of the refill stream; empty if the weights stay on chip.
    bases : (pe, pointer block) place of the first entry among `areas`. areas : for each PE its entries, gaps included.
    """

    step: dict[str, int]
    codes: NDArray[np.int64]
    counts: NDArray[np.uint16] = field(default_factory=lambda: np.zeros((0, LANES, 0), np.uint16))
    starts: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, LANES, 0), np.uint8))
    padding: NDArray[np.uint16] = field(default_factory=lambda: np.zeros((0, LANES, 0), np.uint16))
    packets: list[int] = field(default_factory=list)
    bases: list[list[int]] = field(default_factory=list)
    areas: list[list[int]] = field(default_factory=list)
    whole: dict[str, int] = field(default_factory=dict)

    @property
    def logical(self) -> dict[str, int]:
        """The descriptor fields for maps that lie in a frame as a whole."""
        return self.step | self.whole


@dataclass
class Words:
    """Weight and pointer words of each PE, descriptors of the segments, the beats of the refill stream.

    `params`: with memories as large as needed, or larger.
    """

    params: Params
    weights: list[list[int]]
    pointers: list[list[int]]
    descriptors: list[int]
    beats: list[int]


def encode(rng: np.random.Generator, params: Params, segment: Segment, owners: list[tuple[int, int]]) -> None:
    """Relative indices with padding entries, each PE on its own. owners : PE and slot of each accumulator."""
    reach = 1 << params.index_bits
    blocks = segment.codes.shape[1] // LANES
    shape = (blocks, LANES, params.pes)
    segment.counts, segment.padding = np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)
    segment.starts = np.zeros(shape, np.uint8)
    for pe in range(params.pes):
        mine = sorted((slot, n) for n, (owner, slot) in enumerate(owners) if owner == pe)
        area: list[int] = []
        bases: list[int] = []
        for block in range(blocks):
            if rng.random() < 0.3:
                area += _junk(rng, params, int(rng.integers(10)))
            bases.append(len(area))
            for lane in range(LANES):
                place, below = len(area), 0
                for slot, n in mine:
                    code = int(segment.codes[n, block * LANES + lane])
                    if not code:
                        continue
                    while slot - below >= reach:
                        area.append(packed(entry(params), code=0, index=reach - 1))
                        segment.padding[block, lane, pe] += 1
                        below += reach
                    area.append(packed(entry(params), code=code, index=slot - below))
                    below = slot + 1
                segment.starts[block, lane, pe] = place % LANES
                segment.counts[block, lane, pe] = len(area) - place
        area += _junk(rng, params, -len(area) % LANES)
        segment.bases.append(bases)
        segment.areas.append(area)


def _junk(rng: np.random.Generator, params: Params, number: int) -> list[int]:
    return [int(value) for value in rng.integers(0, 1 << params.entry_bits, number)]


def lay_out(
    rng: np.random.Generator, params: Params, batch: int, layers: list[list[Segment]], order: list[int]
) -> Words:
    """Addresses for all: segments that stay on chip first, then the two buffers of the stream.

    order : the layers as they run, some of them again and again.
    """
    flat = [segment for layer in layers for segment in layer]
    resident = [segment for segment in flat if not segment.step["refill"]]
    streamed = [segment for segment in flat if segment.step["refill"]]
    block = 0
    for segment in resident:
        segment.step["pointers"] = block + int(rng.integers(3))
        block = segment.step["pointers"] + len(segment.counts)
    word = max(sum(len(segment.areas[pe]) // LANES for segment in resident) for pe in range(params.pes))
    for n, segment in enumerate(streamed):
        segment.step["buffer"] = n % 2 if rng.random() < 0.9 else int(rng.integers(2))
    first = []
    for buffer in range(2):
        own = [segment for segment in streamed if segment.step["buffer"] == buffer]
        first.append(word)
        for segment in own:
            segment.step["pointers"] = block
        word += max((len(area) // LANES for each in own for area in each.areas), default=0)
        block += max((len(each.counts) for each in own), default=0)
    # One more word: a block without entries may stand behind the last one.
    params = params.replace(
        weight_words=max(params.weight_words, word + 1), pointer_blocks=max(params.pointer_blocks, block)
    )

    weights: list[list[int]] = [[] for _ in range(params.pes)]
    pointers: list[list[int]] = [[] for _ in range(params.pes)]
    for segment in resident:
        for pe in range(params.pes):
            pointers[pe] += [0] * (segment.step["pointers"] - len(pointers[pe]))
            pointers[pe] += _pointer_words(params, segment, pe, len(weights[pe]) * LANES)
            weights[pe] += _weight_words(params, segment, pe)
    streams: list[list[int]] = []
    for layer in layers:
        streams.append([])
        for segment in layer:
            if segment.step["refill"]:
                streams[-1] += _packets(rng, params, segment, first[segment.step["buffer"]])
    beats = [beat for n in order for beat in streams[n] * batch]
    return Words(params, weights, pointers, [packed(descriptor(params), **segment.step) for segment in flat], beats)


def _pointer_words(params: Params, segment: Segment, pe: int, base: int) -> list[int]:
    return [
        packed(
            pointer_block(params), base=base + first,
            **{f"lengths__{lane}": int(segment.counts[n, lane, pe]) for lane in range(LANES)},
        )
        for n, first in enumerate(segment.bases[pe])
    ]  # fmt: skip


def _weight_words(params: Params, segment: Segment, pe: int) -> list[int]:
    area, bits = segment.areas[pe], params.entry_bits
    assert weight_word(params).size == bits * LANES
    return [
        sum(value << bits * n for n, value in enumerate(area[first : first + LANES]))
        for first in range(0, len(area), LANES)
    ]


def _packets(rng: np.random.Generator, params: Params, segment: Segment, word: int) -> list[int]:
    """The beats of one tile: a packet of pointers and one of weights for each PE, in any order."""
    parts = []
    block = segment.step["pointers"]
    for pe in range(params.pes):
        parts.append((Memory.POINTERS, pe, block, _pointer_words(params, segment, pe, word * LANES)))
        if segment.areas[pe] or rng.random() < 0.5:
            parts.append((Memory.WEIGHTS, pe, word, _weight_words(params, segment, pe)))
    beats = []
    for n, at in enumerate(rng.permutation(len(parts))):
        memory, pe, address, words = parts[at]
        beats.append(packed(
            refill_header(params), memory=memory.value, unit=pe, address=address, words=len(words),
            buffer=segment.step["buffer"], last=int(n == len(parts) - 1),
        ))  # fmt: skip
        beats += words
        segment.packets.append(len(words))
    return beats
