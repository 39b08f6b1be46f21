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
from sim.golden_array import Layer, Operation, Program
from sim.streams import map_words, transfers
from sim.tiles import tile_ends
from sim.whole import whole_lines, whole_maps

__all__ = [
    "Chunk", "SimulationError", "WriteLog", "chunks", "cycle_limit", "flat", "frames", "joined", "layer_records",
    "layer_values", "layer_words", "map_values", "map_vectors", "output_lines", "outputs_of", "record_numbers",
    "refill_stream", "streamed_lines", "words",
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

    inputs : int16 (lines, groups, 8), activation lines from line 0 on: those of the rings, a frame for each sample.
    memory : int16 (count, lines, groups, 8), all that the host gives as the models hold it (`sim.whole`).
    """

    first: int
    count: int
    inputs: NDArray[np.int16]
    memory: NDArray[np.int16]


def map_vectors(info: MapInfo, groups: int) -> Int:
    """(height, width, vectors) of the frame's activation vectors in which a map lies."""
    return info.addresses(groups)


def frames(image: Image, inputs: Sequence[NDArray[np.int16]]) -> NDArray[np.int16]:
    """int16 (batch, lines, groups, 8): each sample as the models hold it, with the inputs (batch, H, W, C) in place."""
    groups, maps = image.params.groups, whole_maps(image)
    memory = np.zeros((len(inputs[0]), whole_lines(image) * groups, LANES), np.int16)
    for number, x in zip(image.inputs, inputs, strict=True):
        info, order = maps[number], image.map_orders[number]
        lanes = np.zeros((*x.shape[:3], len(order)), np.int16)
        lanes[..., order >= 0] = x[..., order[order >= 0]]
        memory[:, map_vectors(info, groups)] = lanes.reshape(*x.shape[:3], info.vectors, LANES)
    return memory.reshape(len(memory), -1, groups, LANES)


def map_values(image: Image, number: int, memory: NDArray[np.int16]) -> NDArray[np.int16]:
    """A map of samples as `frames` has them as (batch, H, W, C), channels in order."""
    return _of_lines(image, number, memory[:, whole_maps(image)[number].base :])


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
    fit = min((params.act_lines - image.rings) // max(1, image.frame), (1 << 16) - 1)
    if fit < 1:
        raise InputError(
            f"one sample needs {image.rings + image.frame} activation lines; the array has {params.act_lines}: "
            "compile with larger --set act_lines=…"
        )
    for first in range(0, len(inputs[0]), fit):
        memory = frames(image, [x[first : first + fit] for x in inputs])
        own = memory[:, image.rings : image.rings + image.frame]
        lines = np.zeros((image.rings + own.shape[0] * own.shape[1], *own.shape[2:]), np.int16)
        lines[image.rings :] = own.reshape(-1, *own.shape[2:])
        yield Chunk(first, len(memory), lines, memory)


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
    """Lines of the outputs of all samples of a run, ascending; of those off chip there are none."""
    maps = [image.maps[n] for n in image.outputs if not image.maps[n].off_chip]
    own = {line for info in maps for line in range(info.base, info.base + info.lines)}
    return [sample * image.frame + line for sample in range(count) for line in sorted(own)]


def outputs_of(
    image: Image, count: int, read: NDArray[np.int16], taken: Mapping[int, NDArray[np.uint8]]
) -> dict[str, NDArray[np.int16]]:  # fmt: skip
    """The outputs of a run, (count, H, W, C) by the names of their maps.

    Parameters
    ----------
    read : int16 (lines, groups, 8), what was read of `output_lines`. taken : beats of each map that came out.
    """
    memory = np.zeros((image.rings + count * image.frame, image.params.groups, LANES), np.int16)
    memory[output_lines(image, count)] = read
    samples = np.zeros((count, whole_lines(image), *memory.shape[1:]), np.int16)
    samples[:, image.rings : image.rings + image.frame] = memory[image.rings :].reshape(
        count, image.frame, *memory.shape[1:]
    )
    for number in set(image.outputs) & taken.keys():
        base = whole_maps(image)[number].base
        samples[:, base : base + image.maps[number].lines] = map_words(image, number, taken[number], count)
    return {image.maps[number].name: map_values(image, number, samples) for number in image.outputs}


def record_numbers(image: Image) -> list[int]:
    """Descriptors that get a record: the first of each layer, and each operation."""
    return image.numbers


def layer_records(image: Image, records: Sequence[dict[str, int]]) -> list[list[dict[str, int]]]:
    """Records in order to those of each run."""
    count = len(image.layers)
    return [list(records[at : at + count]) for at in range(0, len(records), count)]


def layer_words(image: Image, program: Program, count: int, log: WriteLog) -> list[NDArray[np.int16]]:
    """What each of `program.runs` wrote in a run of `count` samples, (count, tiles, lines, groups, 8).

    The descriptors say which lines a layer writes, in which order; so nothing is lost when lines are used again. Rows
    that stream in are written by no layer, and left out.

    Raises
    ------
    SimulationError
        Other lines were written, or in another order.
    """
    layers = program.runs
    every = [_written(image, layer, count) for layer in layers]
    expected = np.concatenate(every)
    banks = []
    for bank, (lines, data) in enumerate(log):
        made = _made(image, program, count, lines)
        lines, data = lines[made], data[made]
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


def _made(image: Image, program: Program, count: int, lines: Int) -> NDArray[np.bool_]:
    """Which of the writes to a bank are results. Layers that stream do so one after the other, each in rings apart."""
    made = np.ones(len(lines), np.bool_)
    rings = np.flatnonzero(lines < image.rings)
    sizes = {layer.number: layer.lines.size * count for layer in program.runs}
    at = 0
    for each in transfers(image):
        step, rows = image.steps[each.layer][0], each.row // image.params.groups * each.height * count
        here = rings[at : at + rows + sizes[each.layer] * (each.writes >= 0)]
        at += len(here)
        first, end = step.ring_base, step.ring_base + step.ring_size // image.params.groups
        made[here] = (lines[here] < first) | (lines[here] >= end)
        if (found := len(here) - int(made[here].sum())) != rows:
            name = image.layers[each.layer].name
            raise SimulationError(
                f"{name}: {found} lines of a bank were written by rows that stream in; expected {rows}"
            )
    return made


def streamed_lines(image: Image, count: int) -> int:
    """Writes to each bank in a run of `count` samples that rows make that stream in."""
    return sum(each.row // image.params.groups * each.height * count for each in transfers(image))


def _written(image: Image, layer: Layer | Operation, count: int) -> Int:
    """The lines that a layer writes in a run of `count` samples, in order; those of a ring again and again."""
    sample = np.arange(count, dtype=np.int64)[:, np.newaxis, np.newaxis]
    step = None if isinstance(layer, Operation) else image.steps[layer.number][0]
    if isinstance(layer, Operation) or step is None or not step.stream_out:
        return (sample * image.frame + layer.lines).reshape(-1)
    row = sample * step.tiles_y + np.repeat(np.arange(step.tiles_y), step.tiles_x)[:, np.newaxis]
    whole = layer.step.destination + row % step.tiles_y * step.tile_lines
    lines: Int = layer.lines - whole + step.destination + row % step.out_rows * step.tile_lines
    return lines.reshape(-1)


def layer_values(image: Image, program: Program, written: Sequence[NDArray[np.int16]]) -> dict[str, NDArray[np.int16]]:
    """Every map that layers and operations write, by name, from the words that each of `program.runs` wrote.

    Lines are used again when their last reader is done, so a map is taken while it is whole: behind the last one that
    writes to it. Where none writes, it is zero. A map that a loop writes anew in each round (`Image.repeated`) is taken
    in each, and its values are (batch, 1, rounds, channels), in the order of the steps of the sequence.
    """
    batch = len(written[0])
    memory = np.zeros((batch, whole_lines(image), image.params.groups, LANES), np.int16)
    owner = np.full(memory.shape[1], -1, np.int64)
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
        info = whole_maps(image)[number]
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
    beats = sum(each.row * each.height + 2 * each.beats for each in transfers(image))
    return 20_000 + 8 * count * (tiles + len(image.tiles) + beats)
