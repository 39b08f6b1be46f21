"""One entry to all engines: golden model, cycle model, Verilog, Amaranth's simulator, and a board behind a port."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compiler.errors import InputError
from compiler.image.image import Image, MapInfo
from compiler.image.steps import LoopStep
from hw.layouts import COUNTERS
from sim import golden
from sim.decode import decode
from sim.driver.port import Port
from sim.golden_array import LayerRun, Program, run_layers
from sim.program import flat, frames, joined, layer_values
from sim.whole import whole_lines

__all__ = ["ENGINES", "LayerStats", "Result", "check_input", "golden_runs", "model_cycles", "run", "summarize"]

ENGINES = ("golden", "cycles", "rtl", "amaranth", "board")

GOLDEN_BYTES = 1 << 26
"""Activation memory of the samples that the golden model runs side by side."""


@dataclass(frozen=True)
class LayerStats:
    """One layer over the whole batch: cycles from accept to the next accept, accept to last output, counters.

    on : "array", or "host" for an operator that the array does not run.
    """

    name: str
    cycles: int | None
    latency: int | None
    counters: dict[str, int]
    on: str = "array"


@dataclass(frozen=True)
class Result:
    """What an engine computed.

    values : name → raw int16 (batch, H, W, C) of every map that a layer writes, in order of computation; (batch, n)
        where it is one pixel; of what a loop writes anew in each round (batch, 1, rounds, C), in order of steps.
    exponents : name → e; value = raw · 2**e. names : the outputs, in order; `raw`, `exponent` and `value` are those of
        the first.
    input_saturated : input values that did not fit int16 after quantization.
    cycles, drain_cycles : sums over the batch; None where the engine has no cycles.
    waves_cut : the waveform was longer than its limit, and holds the beginning.
    records : for each run (as many samples as fit on chip) and layer the layer record: times in cycles since the run
        began, and counters over its samples.
    whole : `values` has every map; else, as a host sees it, the outputs alone.
    """

    engine: str
    pes: int
    values: Mapping[str, NDArray[np.int16]]
    exponents: Mapping[str, int]
    names: tuple[str, ...]
    input_saturated: int
    cycles: int | None
    drain_cycles: int | None
    layers: list[LayerStats]
    waves: Path | None = None
    records: list[list[dict[str, int]]] = field(default_factory=list)
    waves_cut: bool = False
    whole: bool = True

    @property
    def raw(self) -> NDArray[np.int16]:
        """The first output."""
        return self.values[self.names[0]]

    @property
    def exponent(self) -> int:
        """Power of two of the first output."""
        return self.exponents[self.names[0]]

    @property
    def value(self) -> NDArray[np.float64]:
        """The first output as float64."""
        return np.ldexp(self.raw.astype(np.float64), self.exponent)

    def asdict(self) -> dict[str, Any]:
        """The documented JSON form."""
        return {
            "engine": self.engine,
            "pes": self.pes,
            "batch": len(self.raw),
            "cycles": self.cycles,
            "drain_cycles": self.drain_cycles,
            "input_saturated": self.input_saturated,
            "layers": [
                {"name": layer.name, "cycles": layer.cycles, "latency": layer.latency, "counters": layer.counters}
                for layer in self.layers
            ],
        }


def check_input(image: Image, x: ArrayLike | Mapping[str, ArrayLike]) -> tuple[list[NDArray[np.int16]], int]:
    """Raw int16 (batch, H, W, C) of each input, and the number of saturated values.

    Parameters
    ----------
    x : the one input, or each by the name of its map. int16 is taken raw; floats are quantized to the exponent of the
        map. Instead of (H, W, C) all values may lie along one axis.

    Raises
    ------
    InputError
        Wrong names, dtype, width or rank, an empty batch, NaN or infinity.
    """
    maps = [image.maps[number] for number in image.inputs]
    given = x if isinstance(x, Mapping) else {maps[0].name: x}
    if set(given) != {info.name for info in maps}:
        wanted = ", ".join(info.name for info in maps)
        raise InputError(f"inputs {', '.join(map(str, given))} are given; the image takes {wanted}")
    checked = [_check_map(info, given[info.name]) for info in maps]
    if len({len(raw) for raw, _ in checked}) > 1:
        raise InputError(f"the inputs have batches of {', '.join(str(len(raw)) for raw, _ in checked)}; expected one")
    return [raw for raw, _ in checked], sum(clipped for _, clipped in checked)


def _check_map(info: MapInfo, x: ArrayLike) -> tuple[NDArray[np.int16], int]:
    array = np.asarray(x)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype != np.int16 and array.dtype.kind != "f":
        raise InputError(
            f"the input has dtype {array.dtype}; expected int16 (raw) or floats: array.astype(numpy.float32)"
        )
    shape = (info.height, info.width, info.channels)
    size = info.height * info.width * info.channels
    if array.shape in (shape, (size,)):
        array = array[None]
    if array.ndim < 2 or array.shape[1:] not in (shape, (size,)):
        form = f"(batch, {size})" if shape[:2] == (1, 1) else f"(batch, {', '.join(map(str, shape))})"
        raise InputError(f"the input has shape {array.shape}; expected {form}")
    if len(array) == 0:
        raise InputError(f"the batch is empty; expected at least one sample of {size} values")
    array = array.reshape(len(array), *shape)
    if array.dtype == np.int16:
        return np.ascontiguousarray(array), 0
    if not np.isfinite(array).all():
        raise InputError(f"the input holds {int((~np.isfinite(array)).sum())} values that are NaN or infinite")
    return golden.quantize_input(array, info.exponent)


def run(
    image: Image,
    x: ArrayLike | Mapping[str, ArrayLike],
    *,
    engine: str = "golden",
    waves: Path | None = None,
    waves_limit: int | None = None,
    waves_depth: int | None = None,
    waves_window: tuple[int, int] | None = None,
    seed: int = 1,
    bus: bool = False,
    port: Port | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Run a batch on one engine.

    Parameters
    ----------
    image : compiled layers.
    x : inputs, see `check_input`.
    engine : one of `ENGINES`.
    waves : waveform file to write (engine rtl only): FST if its name ends in ``.fst``, else VCD. waves_limit : bytes it
        may have; None for the usual 200 MB. waves_depth, waves_window : see `sim.rtl.engine.run_rtl`.
    seed : of the random initial contents of memories and registers (engine rtl only).
    bus : load and read through the host port instead of preloading (engine rtl only).
    port : the way to the accelerator (engine board only), which it needs: `sim.driver.opening.open_port`.
    progress : called with (samples done, samples).

    Raises
    ------
    InputError
        Unknown engine, or input that does not fit the image.
    ImageError
        The image contradicts itself.
    ToolError
        The engine needs a tool that is missing.
    DriverError
        The accelerator behind the port is another one, refuses, or fails.
    """
    if engine not in ENGINES:
        raise InputError(f"unknown engine {engine!r}; expected one of {', '.join(ENGINES)}")
    if (engine == "board") != (port is not None):
        raise InputError("engine board needs a port, and no other engine has one: port=sim.driver.opening.open_port(…)")
    raw, clipped = check_input(image, x)
    program = decode(image)  # refuses entries that contradict their layer, before they reach the array
    kept, cut = None, False
    records: list[list[dict[str, int]]] = []
    stats: list[LayerStats] = []
    if engine == "golden":
        values, saturated = _golden(image, program, raw)
        stats = [
            LayerStats(info.name, None, None, {"saturated": count})
            for info, count in zip(image.layers, saturated, strict=True)
        ]
    elif engine == "cycles":
        values, records = _model(image, program, raw)
    elif engine == "rtl":
        from sim.rtl.engine import run_rtl
        from sim.rtl.waves import WAVES_LIMIT

        limit = WAVES_LIMIT if waves_limit is None else waves_limit
        ran = run_rtl(
            image, raw, program, waves=waves, waves_limit=limit, waves_depth=waves_depth, waves_window=waves_window,
            seed=seed, bus=bus, progress=progress,
        )  # fmt: skip
        values, records, kept, cut = ran.values, ran.records, ran.waves, ran.waves_cut
    elif port is not None:
        from sim.driver.driver import Driver

        driver = Driver(port)
        driver.load(image, verify=True)  # what a memory can give back
        found = driver.run(raw, progress=progress)
        values, records = found.values, found.records
    else:
        from sim.amaranth_engine import run_amaranth

        values, records = run_amaranth(image, raw, program, progress=progress)
    cycles = drain = None
    if records:
        cycles, drain, stats = summarize(image, records)
    return Result(
        engine, image.params.pes, flat(values), {info.name: info.exponent for info in image.maps},
        tuple(image.maps[number].name for number in image.outputs), clipped, cycles, drain, stats, kept, records, cut,
        whole=engine != "board",
    )  # fmt: skip


def golden_runs(
    image: Image, program: Program, inputs: Sequence[NDArray[np.int16]], count: int, masks: bool = False
) -> Iterator[tuple[dict[str, NDArray[np.int16]], list[LayerRun]]]:
    """Maps, and what each layer did, for `count` samples at a time."""
    for first in range(0, len(inputs[0]), count):
        memory = frames(image, [x[first : first + count] for x in inputs])
        runs = list(run_layers(program, memory, image.params.acc_bits, masks=masks))
        yield layer_values(image, program, [ran.words for ran in runs]), runs


def _golden(
    image: Image, program: Program, inputs: Sequence[NDArray[np.int16]]
) -> tuple[dict[str, NDArray[np.int16]], list[int]]:
    """Maps, and saturations of each of the image's layers over the batch."""
    count = max(1, GOLDEN_BYTES // (2 * image.params.line * whole_lines(image)))
    parts, saturated = [], [0] * len(image.layers)
    for values, runs in golden_runs(image, program, inputs, count):
        parts.append(values)
        for layer, ran in zip(program.runs, runs, strict=True):
            saturated[layer.number] += int(ran.saturated.sum())
    return joined(parts), saturated


def _model(
    image: Image, program: Program, inputs: Sequence[NDArray[np.int16]]
) -> tuple[dict[str, NDArray[np.int16]], list[list[dict[str, int]]]]:
    """Golden maps, and layer records by the cycle model, run by run as the array does them."""
    from compiler.cycles import model as cycles
    from sim.program import chunks
    from sim.timing import works

    parts, records = [], []
    works_of = works(image)
    count = next(iter(chunks(image, inputs))).count
    for values, runs in golden_runs(image, program, inputs, count, masks=True):
        parts.append(values)
        times = cycles.run(image.params, works_of, [mask for ran in runs for mask in ran.masks])
        saturated = [0] * len(times)
        for (number, _), ran in zip(program.rounds, runs, strict=True):
            saturated[number] += int(ran.saturated.sum())
        records.append([
            {**asdict(record), "saturated": count} for record, count in zip(times, saturated, strict=True)
        ])  # fmt: skip
    return joined(parts), records


def model_cycles(
    image: Image, inputs: Sequence[NDArray[np.int16]], *, resident: bool = False
) -> list[LayerStats]:  # fmt: skip
    """The layers by the cycle model, for inputs (batch, H, W, C) that fit one run.

    resident : as if all maps and weights were on chip.
    """
    from compiler.cycles import model as cycles
    from sim.timing import works

    ((_, runs),) = golden_runs(image, decode(image), inputs, len(inputs[0]), masks=True)
    times = cycles.run(image.params, works(image, resident=resident), [mask for ran in runs for mask in ran.masks])
    return summarize(image, [[{**asdict(record), "saturated": 0} for record in times]])[2]


def summarize(image: Image, records: list[list[dict[str, int]]]) -> tuple[int, int, list[LayerStats]]:
    """Cycles, exposed write-back and layer statistics from layer records.

    A layer's cycles run from its accept to the next accept; the last layer of a run ends when all layers are finished:
    its PEs may be done before those that still work on the layer before. Those of a loop are counted at its first
    layer. Elementwise operations have none: they go on beside layers.
    """
    spans: list[list[int]] = []
    drain = 0
    own = [n for n in range(len(image.layers)) if n not in image.operations]
    loops = [(loop.first, end) for end, loop in enumerate(image.program) if isinstance(loop, LoopStep)]
    bodies = [[n for n in own if first <= image.numbers[n] < end] for first, end in loops]
    inside = {n for body in bodies for n in body[1:]}
    counted = [n for n in own if n not in inside]
    for run_records in records:
        end = max(run_records[n]["finished"] for n in own)
        ends = [run_records[n]["accepted"] for n in counted[1:]] + [end]
        span = dict.fromkeys(range(len(image.layers)), 0)
        span |= {n: last - run_records[n]["accepted"] for n, last in zip(counted, ends, strict=True)}
        spans.append(list(span.values()))
        drain += max(record["written"] for record in run_records) - end
    stats = [
        LayerStats(
            layer.name,
            sum(span[n] for span in spans),
            sum(each[n]["written"] - each[n]["accepted"] for each in records),
            {name: sum(each[n][name] for each in records) for name in COUNTERS},
        )
        for n, layer in enumerate(image.layers)
    ]
    return sum(map(sum, spans)) + drain, drain, stats
