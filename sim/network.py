"""Run a compiled network: the array's parts on an engine, everything else as the golden model computes it.

For the engine golden, the layers of an image are read back from its memories (`sim.decode`), so that what is compared
with the hardware has been through the packer as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.graph.ir import Node, Type
from compiler.image.image import Image
from compiler.network import MOVES, Network
from sim import golden
from sim.driver.port import Port
from sim.run import ENGINES, LayerStats, Result, run

__all__ = ["NetworkResult", "check_inputs", "from_map", "run_network", "to_map"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class NetworkResult:
    """What an engine computed.

    Attributes
    ----------
    engine, pes : which one, and the processing elements of the array.
    values : name → raw int16 (batch, …): each value that something computed, also within images and loops, and
        each output. Values of a loop's body have all steps, in their order: (batch, steps, …).
    types : name → what one sample of it is.
    names : the outputs, in order; `raw`, `exponent` and `value` are those of the first.
    input_saturated : input values that did not fit int16 after quantization.
    saturated : name → how many of its numbers did not fit int16, of each value that something computed.
    layers : layers of the images, and operators that the host executed, in order of computation.
    runs : what each image did, in order.
    """

    engine: str
    pes: int
    values: Mapping[str, NDArray[Any]]
    types: Mapping[str, Type]
    names: tuple[str, ...]
    input_saturated: int
    saturated: Mapping[str, int]
    layers: tuple[LayerStats, ...]
    runs: tuple[Result, ...]
    waves: Path | None = None

    @property
    def whole(self) -> bool:
        """Every value is there that the array computed; else, as a host sees it, those that leave it."""
        return all(ran.whole for ran in self.runs)

    @property
    def raw(self) -> NDArray[Any]:
        """int16 (batch, …) of the first output."""
        return self.values[self.names[0]]

    @property
    def exponent(self) -> int:
        """Power of two of the first output."""
        return self.types[self.names[0]].exponent or 0

    @property
    def value(self) -> NDArray[np.float64]:
        """float64 (batch, …) of the first output."""
        return self.real(self.names[0])

    def real(self, name: str) -> NDArray[np.float64]:
        """A value as float64: raw · 2**exponent."""
        with np.errstate(over="ignore"):  # beyond all floats: infinity
            return np.ldexp(self.values[name].astype(np.float64), self.types[name].exponent or 0)

    @property
    def cycles(self) -> int | None:
        """Cycles of all images over the batch; None where the engine has none, or the array computes nothing."""
        return _sum([ran.cycles for ran in self.runs])

    @property
    def drain_cycles(self) -> int | None:
        """Those of them in which write-back is exposed."""
        return _sum([ran.drain_cycles for ran in self.runs])

    @property
    def products(self) -> int:
        """Products of a nonzero weight and a nonzero activation that the array counted; 0 where nothing counts."""
        return sum(layer.counters.get("entries", 0) - layer.counters.get("padding", 0) for layer in self.layers)

    @property
    def utilization(self) -> float:
        """Share of PEs times cycles in which a multiplier had such a product; 0.0 without cycles."""
        return self.products / (self.pes * self.cycles) if self.cycles else 0.0

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
                {
                    "name": layer.name, "on": layer.on, "cycles": layer.cycles, "latency": layer.latency,
                    "counters": layer.counters,
                }
                for layer in self.layers
            ],
        }  # fmt: skip


def _sum(parts: Sequence[int | None]) -> int | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known and len(known) == len(parts) else None


def check_inputs(network: Network, given: Any) -> tuple[list[NDArray[Any]], int]:
    """Raw inputs of a network, (batch, *shape) each, and how many values were saturated.

    Parameters
    ----------
    given : an array for a network with one input; or a mapping from the names of the inputs, or a sequence in their
        order. int16 is taken raw, floats are quantized at the input's exponent, indices are any integers. An array may
        have other axes behind the batch if it holds as many values, and (values,) is a batch of one.

    Raises
    ------
    InputError
        Wrong number, dtype or shape, an empty batch, NaN or infinity.
    """
    nodes = network.graph.inputs
    names = [node.name for node in nodes]
    if isinstance(given, Mapping):
        if set(given) != set(names):
            raise InputError(f"inputs {', '.join(map(str, given))} are given; the network takes {', '.join(names)}")
        arrays = [np.asarray(given[name]) for name in names]
    elif isinstance(given, (list, tuple)) and len(nodes) > 1 and len(given) == len(nodes):
        arrays = [np.asarray(array) for array in given]
    elif len(nodes) == 1:
        arrays = [np.asarray(given)]
    else:
        raise InputError(f"the network has {len(nodes)} inputs ({', '.join(names)}); expected an array for each")
    checked = [_check(node, kind, array) for node, kind, array in zip(nodes, network.inputs, arrays, strict=True)]
    batches = {len(raw) for raw, _ in checked}
    if len(batches) > 1:
        raise InputError(f"the inputs have batches of {', '.join(str(len(raw)) for raw, _ in checked)}; expected one")
    return [raw for raw, _ in checked], sum(clipped for _, clipped in checked)


def _check(node: Node, kind: Type, array: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """One input."""
    size = int(np.prod(kind.shape))
    form = ", ".join(["batch", *map(str, kind.shape)])
    if kind.kind == "index":
        if array.dtype.kind not in "iu":
            raise InputError(f"{node.name} has dtype {array.dtype}; expected integers, which are indices")
    elif array.dtype.kind != "f" and not (array.dtype.kind == "i" and array.dtype.itemsize == 2):
        raise InputError(
            f"the input has dtype {array.dtype}; expected int16 (raw) or floats: array.astype(numpy.float32)"
        )
    if array.shape == kind.shape or array.shape == (size,):
        array = array[None]
    if array.ndim < 1 or (array.shape[1:] != kind.shape and (len(array) == 0 or array.size != len(array) * size)):
        raise InputError(f"the input has shape {array.shape}; expected ({form})")
    if len(array) == 0:
        raise InputError(f"the batch is empty; expected at least one sample of shape {kind.shape}")
    array = array.reshape(len(array), *kind.shape)
    if kind.kind == "index":
        return array.astype(np.int64), 0
    if array.dtype.kind == "i":
        return np.ascontiguousarray(array, np.int16), 0
    if not np.isfinite(array).all():
        raise InputError(f"the input holds {int((~np.isfinite(array)).sum())} values that are NaN or infinite")
    return golden.quantize_input(array, kind.exponent or 0)


def run_network(
    network: Network,
    x: Any,
    *,
    engine: str = "golden",
    waves: Path | None = None,
    waves_limit: int | None = None,
    waves_depth: int | None = None,
    waves_window: tuple[int, int] | None = None,
    seed: int = 1,
    port: Port | None = None,
    progress: Progress | None = None,
    watch: Callable[[Image, Mapping[str, NDArray[np.int16]]], None] | None = None,
) -> NetworkResult:
    """Run a batch.

    Parameters
    ----------
    network : compiled network.
    x : inputs, see `check_inputs`.
    engine : one of `sim.run.ENGINES`, for what the array computes; the host's operators are always the golden model's.
    waves : waveform file to write (engine rtl, and networks of one image only): FST if its name ends in ``.fst``, else
        VCD. waves_limit : bytes it may have; None for the usual 200 MB. waves_depth, waves_window : see
        `sim.rtl.engine.run_rtl`.
    seed : of the random initial contents of memories and registers (engine rtl only).
    port : the way to the accelerator (engine board only), see `sim.driver.opening.open_port`; a network of several
        images loads them in turn.
    progress : called with (samples done, samples) of each image in turn.
    watch : called with each image in turn, and with its inputs by the names of their maps.

    Raises
    ------
    InputError
        Unknown engine, or inputs that do not fit the network.
    ToolError
        The engine needs a tool that is missing.
    DriverError
        The accelerator behind the port is another one, refuses, or fails.
    """
    if engine not in ENGINES:
        raise InputError(f"unknown engine {engine!r}; expected one of {', '.join(ENGINES)}")
    if waves is not None and len(network.images) != 1:
        raise InputError(f"a waveform shows one image of the array; this network has {len(network.images)}")
    inputs, clipped = check_inputs(network, x)
    given, batch = iter(inputs), len(inputs[0])
    types = dict(network.types)
    found: dict[str, golden.GoldenValue] = {}
    saturated: dict[str, int] = {}
    layers: list[LayerStats] = []
    runs: list[Result] = []
    host = set(network.host)
    for node in network.graph:
        if node.op == "Input":
            found[node.output] = golden.GoldenValue(next(given), np.zeros(batch, np.int64))
        elif node.op == "Array":
            image = network.image(node)
            maps = {
                image.maps[number].name: to_map(found[name].raw, axes)
                for number, name, axes in zip(image.inputs, node.inputs, node["reads"], strict=True)
            }
            if watch:
                watch(image, maps)
            ran = run(
                image, maps, engine=engine, waves=waves, waves_limit=waves_limit, waves_depth=waves_depth,
                waves_window=waves_window, seed=seed, port=port, progress=progress,
            )  # fmt: skip
            runs.append(ran)
            layers += ran.layers
            for name, kind, raw in _values(image, node, network.types, ran):
                found[name] = golden.GoldenValue(raw, np.zeros(batch, np.int64))
                types[name] = kind
            for info, stats in zip(image.layers, ran.layers, strict=True):
                name = image.maps[info.result].name
                saturated[name] = saturated.get(name, 0) + stats.counters["saturated"]
        else:
            try:
                made = golden.step(node, found, batch, network.params.acc_bits)
            except ValueError as error:  # an index beyond its table
                raise InputError(str(error)) from None
            found.update(made)
            if node in host:
                counts = {name: int(value.saturated.sum()) for name, value in made.items()}
                saturated |= counts
                layers.append(LayerStats(node.name, None, None, {"saturated": sum(counts.values())}, "host"))
    names = tuple(node.inputs[0] for node in network.graph.outputs)
    moved = {name for node in network.graph if node.op in MOVES for name in node.outputs} - set(names)
    values = {name: value.raw for name, value in found.items() if name not in moved}
    return NetworkResult(
        engine, network.params.pes, values, types, names, clipped, saturated, tuple(layers), tuple(runs),
        next((ran.waves for ran in runs), None),
    )  # fmt: skip


def to_map(raw: NDArray[Any], axes: str) -> NDArray[Any]:
    """A value (batch, *shape) whose axes are channels, rows and columns in the order `axes`, as (batch, H, W, C)."""
    order = [axes.index(axis) + 1 for axis in "HWC" if axis in axes]
    sizes = dict(zip(axes, raw.shape[1:], strict=True))
    return raw.transpose(0, *order).reshape(len(raw), sizes.get("H", 1), sizes.get("W", 1), sizes["C"])


def from_map(raw: NDArray[Any], axes: str) -> NDArray[Any]:
    """The opposite; a map of one pixel may also be (batch, C)."""
    whole = raw.reshape(len(raw), 1, 1, -1) if raw.ndim == 2 else raw
    order = [1 + "HWC".index(axis) for axis in axes]
    missing = [1 + "HWC".index(axis) for axis in "HWC" if axis not in axes]
    return whole.transpose(0, *order, *missing).reshape(len(raw), *(whole.shape[axis] for axis in order))


def _values(
    image: Image, node: Node, types: Mapping[str, Type], ran: Result
) -> Iterator[tuple[str, Type, NDArray[Any]]]:
    """The values of an image: results as the graph has them, others with the axes of their maps; all steps of loops."""
    results = {
        image.maps[number].name: (name, axes)
        for number, name, axes in zip(image.outputs, node.outputs, node["makes"], strict=True)
    }
    for number, info in enumerate(image.maps):
        if info.name not in ran.values:
            continue
        steps = number in image.repeated
        name, axes = results.get(info.name, (info.name, "WC" if steps else info.axes))
        raw = np.ascontiguousarray(from_map(ran.values[info.name], axes))
        layout = "TC" if steps else axes
        yield name, types.get(name, Type(raw.shape[1:], layout, exponent=info.exponent)), raw
