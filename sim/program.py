"""A batch as the array sees it: frames of activation lines, in chunks that fit on chip, and what is written to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import EieError, InputError
from compiler.image.image import Image, MapInfo
from hw.layouts import ACT_BITS
from hw.params import LANES
from sim.golden_array import Operation, Program
from sim.tiles import tile_ends

__all__ = [
    "Chunk", "SimulationError", "WriteLog", "chunks", "cycle_limit", "flat", "frames", "joined", "layer_records",
    "layer_values", "layer_words", "map_values", "map_vectors", "output_lines", "record_numbers", "refill_stream",
    "words",
]  # fmt: skip

Int = NDArray[np.int64]
WriteLog = Sequence[tuple[Int, NDArray[np.int16]]]
"""For each bank of the activation memory the lines that were written, in order, and int16 (writes, 8)."""


class SimulationError(EieError):
    """The array hung, ended with an error status, or wrote what no descriptor says."""

    exit_code = 1


@dataclass(frozen=True)
class Chunk:
    """Samples `first` … `first + count` of the batch, run by one start.

    inputs : int16 (lines, groups, 8), activation lines from line 0 on: a frame for each sample.
    """

    first: int
    count: int
    inputs: NDArray[np.int16]


def map_vectors(info: MapInfo, groups: int) -> Int:
    """(height, width, vectors) of the frame's activation vectors in which a map lies."""
    return info.addresses(groups)


def frames(image: Image, inputs: Sequence[NDArray[np.int16]]) -> NDArray[np.int16]:
    """int16 (batch, lines, groups, 8): a frame for each sample, with the inputs (batch, H, W, C) in place."""
    groups = image.params.groups
    memory = np.zeros((len(inputs[0]), image.frame * groups, LANES), np.int16)
    for number, x in zip(image.inputs, inputs, strict=True):
        info, order = image.maps[number], image.map_orders[number]
        lanes = np.zeros((*x.shape[:3], len(order)), np.int16)
        lanes[..., order >= 0] = x[..., order[order >= 0]]
        memory[:, map_vectors(info, groups)] = lanes.reshape(*x.shape[:3], info.vectors, LANES)
    return memory.reshape(len(memory), image.frame, groups, LANES)


def map_values(image: Image, number: int, memory: NDArray[np.int16]) -> NDArray[np.int16]:
    """A map of frames (batch, lines, groups, 8) as (batch, H, W, C), channels in order."""
    return _of_lines(image, number, memory[:, image.maps[number].base :])


def _of_lines(image: Image, number: int, lines: NDArray[np.int16]) -> NDArray[np.int16]:
    """The same of lines from the first one of the map on."""
    info, order = replace(image.maps[number], base=0), image.map_orders[number]
    memory = np.ascontiguousarray(lines)
    vectors = memory.reshape(len(memory), -1, LANES)[:, map_vectors(info, image.params.groups)]
    lanes = vectors.reshape(len(memory), info.height, info.width, -1)
    values = np.zeros((*lanes.shape[:3], info.channels), np.int16)
    values[..., order[order >= 0]] = lanes[..., order >= 0]
    return values


def words(lines: NDArray[np.int16]) -> NDArray[np.uint8]:
    """(lines, groups, 8) int16 to memory words, as bytes (groups, lines, 16), lowest first."""
    ordered = np.ascontiguousarray(lines.transpose(1, 0, 2)).astype("<i2")
    return ordered.view(np.uint8).reshape(*ordered.shape[:2], LANES * ACT_BITS // 8)


def chunks(image: Image, inputs: Sequence[NDArray[np.int16]]) -> Iterator[Chunk]:
    """Split a batch (batch, H, W, C) of each input into runs that fit the activation memory.

    Raises
    ------
    InputError
        Not even one sample fits.
    """
    params = image.params
    fit = min(params.act_lines // max(1, image.frame), (1 << 16) - 1)
    if fit < 1:
        raise InputError(
            f"one sample needs {image.frame} activation lines; the array has {params.act_lines}: "
            "compile with larger --set act_lines=…"
        )
    for first in range(0, len(inputs[0]), fit):
        memory = frames(image, [x[first : first + fit] for x in inputs])
        yield Chunk(first, len(memory), memory.reshape(-1, *memory.shape[2:]))


def refill_stream(image: Image, count: int) -> NDArray[np.uint8]:
    """(beats, 16) of the refill stream for a run of `count` samples: the tiles of a layer again for each of them."""
    if count == 1 or not len(image.tiles):
        return image.tiles
    ends = [0, *(np.flatnonzero(tile_ends(image.params, image.tiles)) + 1)]
    parts, done = [], 0
    for steps in image.steps:
        begin = done
        done += sum(bool(step.refill) for step in steps)
        parts.append(np.tile(image.tiles[ends[begin] : ends[done]], (count, 1)))
    return np.concatenate(parts)


def output_lines(image: Image, count: int) -> list[int]:
    """Lines of the outputs of all samples of a run, ascending."""
    own = {line for info in (image.maps[n] for n in image.outputs) for line in range(info.base, info.base + info.lines)}
    return [sample * image.frame + line for sample in range(count) for line in sorted(own)]


def record_numbers(image: Image) -> list[int]:
    """Descriptors that get a record: the first of each layer, and each operation."""
    return image.numbers


def layer_records(image: Image, records: Sequence[dict[str, int]]) -> list[list[dict[str, int]]]:
    """Records in order to those of each run."""
    count = len(image.layers)
    return [list(records[at : at + count]) for at in range(0, len(records), count)]


def layer_words(image: Image, program: Program, count: int, log: WriteLog) -> list[NDArray[np.int16]]:
    """What each of `program.runs` wrote in a run of `count` samples, (count, tiles, lines, groups, 8).

    The descriptors say which lines a layer writes, in which order; so nothing is lost when lines are used again.

    Raises
    ------
    SimulationError
        Other lines were written, or in another order.
    """
    shift = np.arange(count, dtype=np.int64)[:, np.newaxis] * image.frame
    layers = program.runs
    every = [(shift + layer.lines.reshape(-1)).reshape(-1) for layer in layers]
    expected = np.concatenate(every)
    banks = []
    for bank, (lines, data) in enumerate(log):
        if not np.array_equal(lines, expected):
            both = min(len(lines), len(expected))
            at = int(np.argmax(np.append(lines[:both] != expected[:both], True)))
            wrote, right = (
                f"line {int(of[at])}" if at < len(of) else "nothing" for of in (lines, expected)
            )  # fmt: skip
            raise SimulationError(f"write {at} to bank {bank} of the activation memory: {wrote}; expected {right}")
        banks.append(data)
    together = np.stack(banks, axis=1)
    ends = np.cumsum([len(lines) for lines in every])[:-1]
    return [
        part.reshape(count, *layer.lines.shape, *part.shape[1:])
        for layer, part in zip(layers, np.split(together, ends), strict=True)
    ]


def layer_values(image: Image, program: Program, written: Sequence[NDArray[np.int16]]) -> dict[str, NDArray[np.int16]]:
    """Every map that layers and operations write, by name, from the words that each of `program.runs` wrote.

    Lines are used again when their last reader is done, so a map is taken while it is whole: behind the last one that
    writes to it. Where none writes, it is zero. A map that a loop writes anew in each round (`Image.repeated`) is taken
    in each, and its values are (batch, 1, rounds, channels), in the order of the steps of the sequence.
    """
    batch = len(written[0])
    memory = np.zeros((batch, image.frame, image.params.groups, LANES), np.int16)
    owner = np.full(image.frame, -1, np.int64)
    values: dict[str, NDArray[np.int16]] = {}
    last = {layer.result: n for n, layer in enumerate(program.runs)}
    ends = {program.layers[place].result: place for place, _ in sorted(program.rounds)}  # of a round
    rounds: dict[int, list[NDArray[np.int16]]] = {number: [] for number in image.repeated}
    for n, ((place, _), layer, part) in enumerate(zip(program.rounds, program.runs, written, strict=True)):
        lines, number = layer.lines.reshape(-1), layer.result
        memory[:, lines] = part.reshape(batch, len(lines), *part.shape[3:])
        owner[lines] = number
        if last[number] != n and (number not in rounds or ends[number] != place):
            continue
        info = image.maps[number]
        here = slice(info.base, info.base + info.lines)
        own = _of_lines(image, number, np.where((owner[here] == number)[:, np.newaxis, np.newaxis], memory[:, here], 0))
        if number in rounds:
            rounds[number].append(own)
        if last[number] == n:
            values[info.name] = own
            if number in rounds:
                steps = rounds[number][:: -1 if image.repeated[number].pitch < 0 else 1]
                values[info.name] = np.stack([step[:, 0, 0] for step in steps], axis=1)[:, np.newaxis]
    return values


def flat(values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Maps of one pixel as (batch, n); others as they are."""
    return {name: raw.reshape(len(raw), -1) if raw.shape[1:3] == (1, 1) else raw for name, raw in values.items()}


def joined(parts: Sequence[Mapping[str, NDArray[np.int16]]]) -> dict[str, NDArray[np.int16]]:
    """The maps of successive parts of a batch as those of the whole batch."""
    if len(parts) == 1:
        return dict(parts[0])
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def cycle_limit(image: Image, program: Program, count: int) -> int:
    """Cycles that no run of `count` samples can need: every entry of every PE one after the other, and more."""
    tiles = 0
    padding = sum(info.padding for info in image.layers)
    for layer in program.runs:
        if isinstance(layer, Operation):
            tiles += 2 * LANES * layer.step.lines + 100
            continue
        work = sum(segment.weight.nnz + LANES * segment.step.pointer_blocks + 100 for segment in layer.segments)
        tiles += layer.step.tiles * (work + layer.step.words + 100 + padding)
    return 20_000 + 8 * count * (tiles + len(image.tiles))
