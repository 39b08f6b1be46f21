"""How often each memory and unit of the array is used in a run: counts, from what the models know of it.

What the golden model says of the activations (which of each vector are not zero) and what the image says of the columns
(how many entries each has in each PE, and where they begin) decide every one of these numbers; nothing is sampled or
estimated. Cycles are those of the cycle model. docs/energy.md says of each count what is left out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compiler.cycles import model as cycles
from compiler.cycles.model import Work
from compiler.image.image import Image
from compiler.image.steps import ElementwiseStep, LoopStep, Step
from hw.params import LANES, Params
from sim.decode import decode
from sim.golden_array import Layer, Operation, run_layers, window_addresses
from sim.program import chunks
from sim.run import check_input, summarize
from sim.streams import Transfer, transfers
from sim.timing import works

__all__ = ["ACCESSES", "Counts", "Scanned", "count", "scanned"]

Int = NDArray[np.int64]

ACCESSES: dict[str, str] = {
    "weight_reads": "words of eight entries read from the weight memories",
    "weight_writes": "words that the stream of weights writes into them",
    "pointer_reads": "words read from the pointer memories: one in each PE for each vector sent",
    "pointer_writes": "words that the stream of weights writes into them",
    "queue_writes": "vectors written into activation queues: those with work for the PE",
    "queue_reads": "vectors read out of them",
    "codebook_reads": "weights looked up: one for each entry",
    "multiplications": "products: of entries, of elementwise operations, of function tables",
    "additions": "sums: one for each entry, for each word of the output table, for each elementwise product",
    "accumulator_reads": "one for each entry, one for each word of the output table",
    "accumulator_writes": "one for each entry, and one that clears for each word of the output table",
    "activation_reads": "vectors of eight read from the banks: scan, operations and the stream of results read one "
    "from every bank at once",
    "activation_writes": "vectors of eight written back, or that come by stream",
    "output_reads": "words read from the output tables",
    "table_reads": "pieces read from the function tables",
    "operand_writes": "vectors of eight put into the operand buffers of elementwise operations",
    "operand_reads": "vectors of eight read from them, two for each product",
    "stream_beats": "beats of 128 bits of weights that come from outside, headers included",
    "map_beats": "vectors of maps that come from outside or go there, a beat of 128 bits each",
    "descriptor_reads": "descriptors read",
    "working_cycles": "cycles in which a PE takes an entry",
    "pe_cycles": "cycles of all PEs, working or not",
}
"""What is counted, by name."""

_AT_ONCE = 1 << 22
_MASKS = 256


@dataclass(frozen=True)
class Counts:
    """A run of one image, over all samples of its batch.

    layers : for each layer of the image the counts by the names of `ACCESSES`. names : of the layers.
    cycles : of the run, exposed write-back included. records : sums of the layer records that the cycle model gives.
    """

    names: tuple[str, ...]
    layers: tuple[dict[str, int], ...]
    samples: int
    cycles: int
    records: tuple[dict[str, int], ...]


@dataclass(frozen=True)
class Scanned:
    """What scanning a segment does, over all samples and tiles.

    sent, skipped : vectors sent; vectors and positions outside the map that are not. read : vectors read.
    entries, words : entries and weight words of the columns that count. jobs : vectors with work, in all PEs.
    """

    sent: int
    skipped: int
    read: int
    entries: int
    words: int
    jobs: int


def count(image: Image, x: ArrayLike | Mapping[str, ArrayLike]) -> Counts:
    """Count the accesses of a batch.

    Parameters
    ----------
    image : what the array runs. x : its inputs, see `sim.run.check_input`.

    Raises
    ------
    InputError
        The input does not fit the image.
    ImageError
        The image contradicts itself.
    """
    params, groups = image.params, image.params.groups
    raw, _ = check_input(image, x)
    program, every = decode(image), works(image)
    totals = [dict.fromkeys(ACCESSES, 0) for _ in image.layers]
    records: list[list[dict[str, int]]] = []
    for chunk in chunks(image, raw):
        runs = list(run_layers(program, chunk.memory.copy(), params.acc_bits, masks=True))
        times = cycles.run(params, every, [mask for ran in runs for mask in ran.masks])
        records.append([{**asdict(each), "saturated": 0} for each in times])
        for (number, _), ran in zip(program.rounds, runs, strict=True):
            total, layer = totals[number], program.layers[number]
            if isinstance(layer, Operation):
                _add(total, _operation(layer.step, groups, chunk.count))
                continue
            first = image.numbers[number]
            for work, mask in zip(every[first : first + len(ran.masks)], ran.masks, strict=True):
                assert isinstance(work, Work)
                _add(total, _segment(params, work, scanned(work, mask), layer.maximum, chunk.count))
            _add(total, _write_back(params, layer, every[first], chunk.count))
        for each in transfers(image):
            _add(totals[each.layer], _transfer(each, chunk.count))
        # The first fetch of a run, and the ends of loops.
        ends = sum(step.count for step in image.program if isinstance(step, LoopStep))
        totals[0]["descriptor_reads"] += 1 + ends
    spent, drain, stats = summarize(image, records)
    for total, layer_stats in zip(totals, stats, strict=True):
        total["pe_cycles"] = params.pes * (layer_stats.cycles or 0)
    totals[-1]["pe_cycles"] += params.pes * drain
    return Counts(
        tuple(info.name for info in image.layers), tuple(totals), len(raw[0]), spent,
        tuple(each.counters for each in stats),
    )  # fmt: skip


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, number in more.items():
        total[name] += int(number)


def scanned(work: Work, mask: NDArray[np.uint8]) -> Scanned:
    """What scanning one segment does.

    Parameters
    ----------
    work : the segment. mask : uint8 (batch, height, width, vectors), bit n of a vector: lane n is not zero.
    """
    seen, outside = _histogram(work.step, mask)
    skipped = int(seen[:, 0].sum())
    read = int(seen.sum())
    seen[:, 0] = 0  # what is left is sent
    counts = work.counts.astype(np.int64)
    words = np.where(counts > 0, (work.starts + counts + LANES - 1) // LANES, 0)
    bits = np.arange(_MASKS)[:, np.newaxis] >> np.arange(LANES) & 1
    times = seen @ bits  # (blocks, 8): how often each column counts
    return Scanned(
        read - skipped, skipped + outside, read, int((times * counts.sum(axis=2)).sum()),
        int((times * words.sum(axis=2)).sum()), _jobs(seen, counts),
    )  # fmt: skip


def _histogram(step: Step, mask: NDArray[np.uint8]) -> tuple[Int, int]:
    """(blocks, 256) how often each vector of the window is read with each mask, and positions outside the map."""
    _, inside = window_addresses(step)
    tile_y, tile_x = np.indices((step.tiles_y, step.tiles_x)).reshape(2, -1, 1)
    i, j = np.indices((step.wy, step.wx)).reshape(2, 1, -1)
    pixel = (step.y0 + tile_y * step.step_y + i * step.dy) * step.width + step.x0 + tile_x * step.step_x + j * step.dx
    pixels = mask.reshape(len(mask), -1, step.vectors)
    size = step.pointer_blocks * _MASKS
    seen = np.zeros(size, np.int64)
    together = max(1, _AT_ONCE // max(1, step.pointer_blocks * len(mask)))
    for first in range(0, len(pixel), together):
        tile, position = np.nonzero(inside[first : first + together])
        block = (0 if step.uniform else position[:, np.newaxis] * step.vectors) + np.arange(step.vectors)
        found = pixels[:, pixel[first : first + together][tile, position]]
        if step.dense:
            found = np.full_like(found, _MASKS - 1)
        seen += np.bincount((block * _MASKS + found).reshape(-1), minlength=size)
    return seen.reshape(-1, _MASKS), int((~inside).sum()) * len(mask)


def _jobs(sent: Int, counts: Int) -> int:
    """Vectors that have work, summed over PEs: a column that counts has entries there."""
    filled = np.packbits(counts > 0, axis=1, bitorder="little")[:, 0]  # (blocks, pes)
    block, mask = np.nonzero(sent)
    total = 0
    together = max(1, _AT_ONCE // counts.shape[2])
    for first in range(0, len(block), together):
        own, masks = block[first : first + together], mask[first : first + together]
        work = ((filled[own] & masks[:, np.newaxis]) != 0).sum(axis=1)
        total += int((work * sent[own, masks]).sum())
    return total


def _segment(params: Params, work: Work, scan: Scanned, maximum: bool, samples: int) -> dict[str, int]:
    step = work.step
    tiles = step.tiles * samples
    pointers = step.pointer_blocks * params.pes if work.packets else 0
    streamed = sum(work.packets)
    return {
        "weight_reads": scan.words,
        "weight_writes": (streamed - pointers) * tiles,
        "pointer_reads": scan.sent * params.pes,
        "pointer_writes": pointers * tiles,
        "queue_writes": scan.jobs,
        "queue_reads": scan.jobs,
        "codebook_reads": scan.entries,
        "multiplications": 0 if maximum else scan.entries,
        "additions": scan.entries,
        "accumulator_reads": scan.entries,
        "accumulator_writes": scan.entries,
        "activation_reads": scan.read * params.groups,
        "stream_beats": (streamed + len(work.packets)) * tiles,
        "descriptor_reads": tiles,
        "working_cycles": scan.entries,
    }


def _write_back(params: Params, layer: Layer, work: Any, samples: int) -> dict[str, int]:
    """What a layer's tiles take from their output table to the lines."""
    step = layer.step
    tiles = step.tiles * samples
    words = step.words * params.groups * tiles
    functions = int(np.count_nonzero(layer.outputs.function)) * tiles if step.functions else 0
    return {
        "output_reads": words,
        "accumulator_reads": words,
        "accumulator_writes": words,
        "additions": words,
        "table_reads": functions,
        "multiplications": functions,
        "activation_writes": len(work.flushes) * params.groups * tiles,
    }


def _transfer(each: Transfer, samples: int) -> dict[str, int]:
    """What the streams of a layer take: a vector that comes is written, one that goes is read, with its whole line."""
    comes, goes = each.row * each.height * samples, each.beats * samples
    return {"activation_writes": comes, "activation_reads": goes, "map_beats": comes + goes}


def _operation(step: ElementwiseStep, groups: int, samples: int) -> dict[str, int]:
    vectors = step.lines * groups * samples
    products = vectors * LANES * step.products
    functions = vectors * LANES if step.functions else 0
    return {
        "activation_reads": vectors * step.reads,
        "activation_writes": vectors,
        "operand_writes": vectors * step.reads,
        "operand_reads": 2 * products,
        "multiplications": products + functions,
        "additions": products,
        "table_reads": functions,
        "descriptor_reads": 1,
    }
