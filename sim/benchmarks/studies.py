"""The publication's studies, on the cycle model: PE count, queue depth, index width, width of the weight memory.

Source: EIE (Han et al., ISCA 2016), section VI: load balance is 1 - starved / (PEs · cycles).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import EieError
from compiler.image.image import Image
from compiler.lower.pipeline import compile_graph
from compiler.options import preset_options
from hw.params import Params, preset
from sim import run as engines
from sim.benchmarks.efficiency import geometric_mean
from sim.benchmarks.layers import Case, Shape, make_case, row_blocks
from sim.benchmarks.model import column_counts
from sim.compare import compare

__all__ = ["DEPTHS", "INDEX_BITS", "PES", "STUDIES", "WIDTHS", "Point", "StudyError", "means", "row_reads", "run_study"]

PES = tuple(1 << n for n in range(9))
DEPTHS = (6, 8, 16, 32, 64, 128, 256)  # 6 is the least that the credit rule admits
INDEX_BITS = (4, 5, 6, 7, 8)
WIDTHS = (4, 8, 16, 32)
ARRAYS = ("BALANCED_64", "EIE_64")
STUDIES = ("pes", "depth", "index", "width")


class StudyError(EieError):
    """Hardware and models disagree in a spot check."""

    exit_code = 1


@dataclass(frozen=True)
class Point:
    """One layer on one array, sums over the batch and over blocks of rows.

    study, array, layer : what was varied, on which preset, for which layer. at : the value.
    cycles : without the exposed write-back. efficiency : nonzeros on active columns / PEs / cycles.
    load_balance : 1 - starved / (PEs · cycles). speedup : over the same layer at the first value of the study.
    bits : of all stored entries. reads, bits_read : weight-memory words and bits per useful entry (study "width").
    rtl : whether the hardware ran too (and agreed in every bit, cycle and counter).
    """

    study: str
    array: str
    layer: str
    at: int
    pes: int
    cycles: int
    efficiency: float
    load_balance: float
    padding: float
    bits: int
    speedup: float | None = None
    reads: float | None = None
    bits_read: float | None = None
    rtl: bool = False

    def asdict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def row_reads(counts: NDArray[np.int64], active: NDArray[np.int64], width: int) -> int:
    """Words of `width` entries that the PEs read for the active columns of one vector.

    The entries of a PE lie one behind the other in the order of columns, and each column reads the words that it
    touches: a word that holds the end of one column and the beginning of the next is read for both.

    Parameters
    ----------
    counts : (columns, pes) entries. active : columns that are broadcast. width : entries in a word.
    """
    starts = np.cumsum(counts, axis=0) - counts
    chosen, first = counts[active], starts[active]
    words = (first + chosen - 1) // width - first // width + 1
    return int(words[chosen > 0].sum())


def _arrays(study: str, full: bool) -> Iterator[tuple[str, int, Params]]:
    """Preset, value and array of each point."""
    for name in ARRAYS:
        base = preset(name)
        if study == "pes":
            # A PE of a small array needs more memory: this is a study of time, not of area.
            roomy = base.replace(weight_words=1 << 20, rows=1024, output_words=1 << 14, descriptors=1 << 12)
            yield from ((name, pes, roomy.replace(pes=pes)) for pes in PES)
        elif study == "depth":
            yield from ((name, depth, base.replace(queue_depth=depth)) for depth in DEPTHS)
        elif study == "index":
            yield from ((name, bits, base.replace(index_bits=bits)) for bits in INDEX_BITS)
        elif name == ARRAYS[0] or full:
            yield name, 8, base


def run_study(
    study: str,
    shapes: Sequence[Shape],
    *,
    seed: int = 1,
    scale: int = 1,
    full: bool = False,
    rtl: Sequence[int] = (),
    hardware: str = "rtl",
    progress: Callable[[int, int], None] | None = None,
) -> list[Point]:
    """All points of one study.

    Parameters
    ----------
    study : one of `STUDIES`.
    rtl : values of the study at which the first layer runs in hardware too, on the first array.

    Raises
    ------
    StudyError
        Hardware and models disagree.
    """
    arrays = list(_arrays(study, full))
    points: list[Point] = []
    total, done = len(arrays) * len(shapes), 0
    for shape in shapes:
        case = make_case(shape, seed, scale=scale)
        first: dict[str, int] = {}
        for name, at, params in arrays:
            check = hardware if at in rtl and shape is shapes[0] and name == ARRAYS[0] else None
            if study == "width":
                points += _widths(case, params, name)
            else:
                point = _point(study, case, params, name, at, first, check)
                first.setdefault(name, point.cycles)
                points.append(point)
            done += 1
            if progress:
                progress(done, total)
    return points


def _point(
    study: str, case: Case, params: Params, name: str, at: int, first: dict[str, int], hardware: str | None
) -> Point:
    cycles, counters, bits = 0, dict.fromkeys(("padding", "starved"), 0), 0
    for block in row_blocks(case, params):
        image = compile_graph(block.graph, params, block.x, preset_options(name)).only
        model = engines.run(image, block.x, engine="cycles")
        if hardware:
            _check(image, block, model, hardware, f"{case.shape.name} on {params.pes} PEs")
        cycles += (model.cycles or 0) - (model.drain_cycles or 0)
        for key in counters:
            counters[key] += model.layers[0].counters[key]
        bits += int(column_counts(image).sum()) * params.entry_bits
    useful, slots = case.nnz_active, params.pes * cycles
    return Point(
        study, name, case.shape.name, at, params.pes, cycles, useful / slots, 1 - counters["starved"] / slots,
        counters["padding"] / useful, bits, first.get(name, cycles) / cycles, rtl=hardware is not None,
    )  # fmt: skip


def _check(image: Image, block: Case, model: engines.Result, hardware: str, where: str) -> None:
    if wrong := compare(engines.run(image, block.x, engine=hardware), model).explain():
        raise StudyError(f"{where}: {'; '.join(wrong)}")


def _widths(case: Case, params: Params, name: str) -> list[Point]:
    """Reads of the weight memory for each width of its word; cycles do not depend on it (one read a cycle suffices)."""
    base = _point("width", case, params, name, 8, {}, None)
    image = compile_graph(case.graph, params, case.x, preset_options(name)).only
    counts = column_counts(image)
    points = []
    for width in WIDTHS:
        reads = 0
        for vector in case.x:
            padded = np.zeros(len(counts), np.bool_)
            padded[: len(vector)] = vector != 0
            reads += row_reads(counts, np.flatnonzero(padded), width)
        useful = case.nnz_active
        values = {**base.asdict(), "at": width, "speedup": None}
        bits_read = reads * width * params.entry_bits / useful
        points.append(Point(**{**values, "reads": reads / useful, "bits_read": bits_read}))
    return points


def means(points: Sequence[Point], array: str, figure: str) -> tuple[list[int], list[float]]:
    """Values of a study on one array, and the mean of a figure over the layers at each: geometric for ratios."""
    at = sorted({point.at for point in points if point.array == array})
    found = []
    for value in at:
        mine = [float(getattr(point, figure)) for point in points if point.array == array and point.at == value]
        mean = geometric_mean(mine) if figure in ("speedup", "efficiency") else sum(mine) / len(mine)
        found.append(mean or 0.0)
    return at, found
