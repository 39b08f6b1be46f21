"""Efficiency of the array on the nine layers: useful work over multipliers times cycles, and where the rest went.

Each measurement is also a comparison: outputs of hardware and golden model in every bit, times and counters of
hardware and cycle model in every field.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.image.image import Image
from compiler.lower.pipeline import compile_graph
from compiler.options import DEFAULT, Options
from hw.params import Params
from sim import run as engines
from sim.benchmarks.layers import Case, Shape, make_case
from sim.compare import compare
from sim.run import Result

__all__ = [
    "ENGINES",
    "MHZ",
    "Measurement",
    "NetworkLayer",
    "Row",
    "geometric_mean",
    "measure",
    "measure_case",
    "measure_network",
]

ENGINES = ("cycles", "rtl", "amaranth")
"""The cycle model (with golden outputs) always runs; the others are the hardware."""

MHZ = 800
"""Clock that cycles are scaled with for a comparison with the publication; not a claim about this design."""

DRAIN_SLACK = 64  # cycles by which the exposed write-back may be longer than one word of the output table a cycle


@dataclass(frozen=True)
class Row:
    """One layer and seed.

    nnz_active : nonzeros on active columns, summed over the batch. padding : padding entries multiplied.
    ideal_cycles : nnz_active / pes. rtl_cycles, model_cycles : cycles without the exposed write-back; rtl_cycles
        is None if only the model ran. efficiency : ideal over RTL cycles (model cycles if only it ran).
    drain_cycles, drain_bound : exposed write-back, and what it should not exceed.
    counters : as the array counts them. lost : share of pes · cycles that did no useful work, by reason; with
        efficiency the shares sum to 1. differences : what hardware and models disagree on, in words.
    """

    layer: str
    seed: int | None
    nnz_active: int
    padding: int
    ideal_cycles: float
    rtl_cycles: int | None
    model_cycles: int
    efficiency: float
    drain_cycles: int
    drain_bound: int
    counters: dict[str, int]
    lost: dict[str, float]
    us: float
    paper_us: float | None = None
    simulator: float | None = None
    differences: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class NetworkLayer:
    """A layer within a network, fields as of `Row`.

    Cycles last until the next layer is accepted. PEs still work on entries of a layer then, so the utilization
    (products of a nonzero weight and a nonzero activation over PEs x cycles) of a layer alone can exceed 1.
    """

    layer: str
    nnz_active: int
    padding: int
    ideal_cycles: float
    rtl_cycles: int | None
    model_cycles: int
    utilization: float
    counters: dict[str, int]


@dataclass(frozen=True)
class Measurement:
    """All rows on one array."""

    params: Params
    rows: list[Row]

    @property
    def late(self) -> list[str]:
        """Layer and seed of every row whose exposed write-back is longer than its bound."""
        return [f"{row.layer} (seed {row.seed})" for row in self.rows if row.drain_cycles > row.drain_bound]

    @property
    def differences(self) -> list[str]:
        """Every disagreement, with its layer and seed."""
        return [f"{row.layer}, seed {row.seed}: {text}" for row in self.rows for text in row.differences]

    @property
    def geomean(self) -> float | None:
        """Geometric mean of the efficiencies, None without rows."""
        return geometric_mean(row.efficiency for row in self.rows)

    @property
    def geomean_by_seed(self) -> dict[str, float | None]:
        """The same for each seed alone."""
        seeds = dict.fromkeys(row.seed for row in self.rows)
        return {str(seed): geometric_mean(row.efficiency for row in self.rows if row.seed == seed) for seed in seeds}


def geometric_mean(values: Iterable[float]) -> float | None:
    """None for no values; 0 if one of them is 0."""
    given = list(values)
    if not given:
        return None
    return 0.0 if min(given) <= 0 else math.exp(sum(map(math.log, given)) / len(given))


def _cases(shapes: Sequence[Shape], seeds: Sequence[int], matrices: str, scale: int) -> Iterator[tuple[int, Case]]:
    for seed in seeds:
        for shape in shapes:
            yield seed, make_case(shape, seed, matrices=matrices, scale=scale)


def measure(
    params: Params,
    shapes: Sequence[Shape],
    seeds: Sequence[int],
    *,
    matrices: str = "uniform",
    scale: int = 1,
    hardware: str | None = "rtl",
    options: Options = DEFAULT,
    progress: Callable[[int, int], None] | None = None,
) -> Measurement:
    """Run every layer with every seed.

    Parameters
    ----------
    params : the array.
    options : how the compiler lays the layers out.
    hardware : "rtl", "amaranth", or None for the cycle model alone.
    progress : called with (rows done, rows).

    Raises
    ------
    InputError, ImageError
        Something does not fit the array.
    """
    rows: list[Row] = []
    total = len(shapes) * len(seeds)
    if progress:
        progress(0, total)
    for seed, case in _cases(shapes, seeds, matrices, scale):
        rows.append(measure_case(case, params, seed, hardware, options))
        if progress:
            progress(len(rows), total)
    return Measurement(params, rows)


def measure_case(case: Case, params: Params, seed: int, hardware: str | None, options: Options = DEFAULT) -> Row:
    """One layer. The batch calibrates, so that the compiler sees which inputs are dense."""
    image = compile_graph(case.graph, params, case.x, options).only
    if not image.layers[0].exact:
        raise InputError(f"{case.shape.name}: the weights were not kept exactly; give the array a wider codebook")
    model, result, differences = _run(image, case.x, hardware, seed)
    return _row(
        case.shape.name, seed, case.nnz_active, image, model, result, differences, len(case.x), case.shape,
    )  # fmt: skip


def measure_network(image: Image, x: NDArray[Any], name: str, hardware: str | None) -> tuple[list[NetworkLayer], Row]:
    """A compiled network and a batch: a row for each layer, and one for all together.

    Layers overlap: see `NetworkLayer`.
    """
    model, result, differences = _run(image, x, hardware, 1)
    measured = result or model
    raw, _ = engines.check_input(image, x)
    pes = image.params.pes
    rows, every = [], 0
    for number, stats in enumerate(measured.layers):
        modelled = model.layers[number].cycles or 0
        taken = (stats.cycles if result else modelled) or 0
        useful = stats.counters["entries"] - stats.counters["padding"]
        every += useful
        rows.append(NetworkLayer(
            stats.name, useful, stats.counters["padding"], useful / pes, stats.cycles if result else None, modelled,
            useful / (pes * taken) if taken else 0.0, stats.counters,
        ))  # fmt: skip
    whole = _row(name, None, every, image, model, result, differences, len(raw[0]))
    return rows, whole


def _run(image: Image, x: NDArray[Any], hardware: str | None, seed: int) -> tuple[Result, Result | None, list[str]]:
    """Model, hardware, and in which they differ."""
    model = engines.run(image, x, engine="cycles")
    if hardware is None:
        return model, None, []
    result = engines.run(image, x, engine=hardware, seed=seed + 1)
    return model, result, compare(result, model).explain()


def _row(
    name: str,
    seed: int | None,
    useful: int,
    image: Image,
    model: Result,
    result: Result | None,
    differences: list[str],
    batch: int,
    shape: Shape | None = None,
) -> Row:
    measured, params = result or model, image.params
    drain = measured.drain_cycles or 0
    taken, modelled = _busy(measured), _busy(model)
    counters = {key: sum(layer.counters[key] for layer in measured.layers) for key in measured.layers[0].counters}
    return Row(
        layer=name,
        seed=seed,
        nnz_active=useful,
        padding=counters["padding"],
        ideal_cycles=useful / params.pes,
        rtl_cycles=taken if result else None,
        model_cycles=modelled,
        efficiency=useful / params.pes / taken,
        drain_cycles=drain,
        drain_bound=len(measured.records) * (image.steps[-1][-1].words + DRAIN_SLACK),
        counters=counters,
        lost=_lost(useful, params.pes, taken, counters),
        us=taken / batch / MHZ,
        paper_us=shape.paper_us if shape else None,
        simulator=shape.simulator if shape else None,
        differences=differences,
    )


def _busy(result: Result) -> int:
    """Cycles without the write-back that nothing hides."""
    return (result.cycles or 0) - (result.drain_cycles or 0)


def _lost(useful: int, pes: int, taken: int, counters: dict[str, int]) -> dict[str, float]:
    """Shares of the multiplier cycles.

    padding : entries that only bridge rows. starved : no entry to multiply, for any reason: full queues of other PEs
    (the counter `blocked`), empty queues, start and end.
    """
    slots = pes * taken
    return {
        "padding": counters["padding"] / slots,
        "starved": counters["starved"] / slots,
    }
