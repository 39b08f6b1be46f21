"""One entry to all engines: golden model, cycle model, Verilog, Amaranth's simulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compiler.errors import InputError
from compiler.image.image import Image
from hw.layouts import COUNTERS
from sim import golden
from sim.decode import decode

__all__ = ["ENGINES", "LayerStats", "Result", "check_input", "run"]

ENGINES = ("golden", "cycles", "rtl", "amaranth")


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

    raw : int16 (batch, outputs) in neuron order, value = raw · 2**exponent.
    layer_raw : the same for every layer.
    input_saturated : input values that did not fit int16 after quantization.
    cycles, drain_cycles : sums over the batch; None where the engine has no cycles.
    waves_cut : the waveform was longer than its limit, and holds the beginning.
    records : for each vector and layer the layer record (times in cycles since its run began, and counters).
    """

    engine: str
    pes: int
    raw: NDArray[np.int16]
    layer_raw: list[NDArray[np.int16]]
    exponent: int
    input_saturated: int
    cycles: int | None
    drain_cycles: int | None
    layers: list[LayerStats]
    waves: Path | None = None
    records: list[list[dict[str, int]]] = field(default_factory=list)
    waves_cut: bool = False

    @property
    def value(self) -> NDArray[np.float64]:
        """float64 (batch, outputs)."""
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


def check_input(image: Image, x: ArrayLike) -> tuple[NDArray[np.int16], int]:
    """Raw int16 (batch, inputs) and the number of saturated values.

    int16 is taken raw; floats are quantized to the image's input exponent.

    Raises
    ------
    InputError
        Wrong dtype, width or rank, an empty batch, NaN or infinity.
    """
    array = np.asarray(x)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype != np.int16 and array.dtype.kind != "f":
        raise InputError(
            f"the input has dtype {array.dtype}; expected int16 (raw) or floats: array.astype(numpy.float32)"
        )
    if array.ndim == 1 and array.shape == (image.inputs,):
        array = array[None]
    if array.ndim != 2 or array.shape[1] != image.inputs:
        raise InputError(f"the input has shape {array.shape}; expected (batch, {image.inputs})")
    if len(array) == 0:
        raise InputError(f"the batch is empty; expected at least one vector of {image.inputs} values")
    if array.dtype == np.int16:
        return np.ascontiguousarray(array), 0
    if not np.isfinite(array).all():
        raise InputError(f"the input holds {int((~np.isfinite(array)).sum())} values that are NaN or infinite")
    return golden.quantize_input(array, image.input_exponent)


def run(
    image: Image,
    x: ArrayLike,
    *,
    engine: str = "golden",
    waves: Path | None = None,
    waves_limit: int | None = None,
    seed: int = 1,
    bus: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Run a batch on one engine.

    Parameters
    ----------
    image : compiled network.
    x : (batch, inputs), int16 raw or float.
    engine : one of `ENGINES`.
    waves : waveform file to write (engine rtl only): FST if its name ends in ``.fst``, else VCD. waves_limit : bytes it
        may have; None for the usual 200 MB.
    seed : of the random initial contents of memories and registers (engine rtl only).
    bus : load and read through the host port instead of preloading (engine rtl only).
    progress : called with (vectors done, vectors).

    Raises
    ------
    InputError
        Unknown engine, or input that does not fit the image.
    ToolError
        The engine needs a tool that is missing.
    """
    if engine not in ENGINES:
        raise InputError(f"unknown engine {engine!r}; expected one of {', '.join(ENGINES)}")
    raw, clipped = check_input(image, x)
    kept, records, cut = None, [], False
    if engine in ("golden", "cycles"):
        results = golden.run(decode(image), raw, image.params.acc_bits)
        layer_raw = [result.raw for result in results]
        if engine == "cycles":
            records = _model(image, raw, layer_raw)
            for vector, layers in enumerate(records):
                for record, result in zip(layers, results, strict=True):
                    record["saturated"] = int(result.saturated[vector])
        else:
            stats = [
                LayerStats(layer.name, None, None, {"saturated": int(result.saturated.sum())})
                for layer, result in zip(image.layers, results, strict=True)
            ]
    elif engine == "rtl":
        decode(image)  # refuses entries that contradict their layer, before they reach the array
        from sim.rtl.engine import run_rtl
        from sim.rtl.waves import WAVES_LIMIT

        limit = WAVES_LIMIT if waves_limit is None else waves_limit
        ran = run_rtl(image, raw, waves=waves, waves_limit=limit, seed=seed, bus=bus, progress=progress)
        layer_raw, records, kept, cut = ran.outputs, ran.records, ran.waves, ran.waves_cut
    else:
        decode(image)
        from sim.amaranth_engine import run_amaranth

        layer_raw, records = run_amaranth(image, raw, progress=progress)
    cycles = drain = None
    if records:
        cycles, drain, stats = summarize(image, records)
    return Result(
        engine, image.params.pes, layer_raw[-1], layer_raw, image.output_exponent, clipped, cycles, drain, stats, kept,
        records, cut,
    )  # fmt: skip


def _model(image: Image, raw: NDArray[np.int16], layer_raw: Sequence[NDArray[np.int16]]) -> list[list[dict[str, int]]]:
    """Layer records by the cycle model, chunk by chunk as the array runs them."""
    from dataclasses import asdict

    from sim import cycles
    from sim.program import chunks, layer_records
    from sim.timing import active_columns, layer_inputs, works

    program, inputs = works(image), layer_inputs(image, raw, layer_raw)
    records = []
    for chunk in chunks(image, raw):
        vectors = range(chunk.first, chunk.first + chunk.count)
        active = [active_columns(image, [values[vector] for values in inputs]) for vector in vectors]
        times = cycles.run(image.params, program, active)
        records += layer_records(image, [asdict(block) for vector in times for block in vector])
    return records


def summarize(image: Image, records: list[list[dict[str, int]]]) -> tuple[int, int, list[LayerStats]]:
    """Cycles, exposed write-back and layer statistics from layer records.

    A layer's cycles run from its accept to the next accept; the last layer of a run ends when it is
    finished. The time of a run counts from its first accept, so a record that is not later than the
    one before begins a new run.
    """
    flat = [record for vector in records for record in vector]
    spans, drain = [], 0
    for n, record in enumerate(flat):
        following = flat[n + 1]["accepted"] if n + 1 < len(flat) else 0
        if following > record["accepted"]:
            spans.append(following - record["accepted"])
        else:
            spans.append(record["finished"] - record["accepted"])
            drain += record["written"] - record["finished"]
    stats = []
    for n, layer in enumerate(image.layers):
        mine = range(n, len(flat), len(image.layers))
        stats.append(LayerStats(
            layer.name,
            sum(spans[i] for i in mine),
            sum(flat[i]["written"] - flat[i]["accepted"] for i in mine),
            {name: sum(flat[i][name] for i in mine) for name in COUNTERS},
        ))  # fmt: skip
    return sum(spans) + drain, drain, stats
