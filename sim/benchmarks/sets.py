"""Published networks layer by layer, on random weights and maps of their densities: useful products a cycle.

Each layer is compiled by itself, computed by the golden model and timed by the exact cycle model. Memories are as large
as the parameters of an array may be, since what a layer needs of them is a result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from compiler.errors import ImageError
from compiler.graph.passes import run_passes
from compiler.lower.pipeline import compile_graph
from compiler.network import Network
from compiler.options import DEFAULT, Options
from hw.params import Params
from sim.benchmarks.convolutions import ConvCase, ConvShape, choose_set, make_conv
from sim.compare import compare_networks
from sim.network import NetworkResult, run_network

__all__ = ["RTL_CYCLES", "measure_sets", "roomy", "total"]

RTL_CYCLES = 20_000
"""Cycles of a layer as Verilog; the rows of its map are halved until it takes no more."""

MEMORIES = {"act_lines": 1 << 16, "weight_words": 1 << 17, "pointer_blocks": 1 << 16, "output_words": 1 << 16}
"""What the memories of the array hold at least."""

PARTS = ("useful", "padding", "beyond", "starved", "write_back")
"""Where the cycles of the PEs go."""


def roomy(params: Params) -> Params:
    """An array with memories for any of the layers."""
    return params.replace(**{name: max(size, getattr(params, name)) for name, size in MEMORIES.items()})


def measure_sets(
    names: Sequence[str],
    params: Params,
    *,
    seed: int = 1,
    rtl_layers: int = 0,
    kinds: Sequence[str] = (),
    options: Options = DEFAULT,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[dict[str, Any]]:
    """A row a layer.

    ``rows``, ``of_rows`` : of the input map that are computed: half of them, and so on, if all do not fit.
    ``useful`` : products of a nonzero weight and a nonzero activation inside the map. ``cycles`` : of the whole run,
    ``exposed`` of them until the last write-back is done. ``utilization`` : useful / (PEs x cycles). ``parts`` : shares
    of PEs x cycles, by `PARTS`: useful products, padding entries, products of pixels beyond the map, no entry, exposed
    write-back. ``blocked``, ``skipped`` : counters. ``dense_cycles`` : of as many multipliers that take a product each
    cycle. ``seconds`` : that golden and cycle model took. ``break_even`` : density of weights at which the array takes
    as long as these, if its cycles are as the weights. ``memory`` : used words. ``rtl`` : if it ran as Verilog, of how
    many rows, and what was compared.

    Parameters
    ----------
    names : of sets, see `choose_set`.
    params : the array; its memories are made larger where a layer may need it, see `roomy`.
    rtl_layers : of each set, so many layers (the first ones) run as Verilog too, on a part of the map that takes at
        most `RTL_CYCLES`.
    kinds : of layers, those that are measured; all if empty.

    Raises
    ------
    InputError
        There is no such set.
    """
    params = roomy(params)
    sets = {name: [shape for shape in choose_set(name) if not kinds or shape.kind in kinds] for name in names}
    for name, shapes in sets.items():
        for number, shape in enumerate(shapes):
            progress(f"{name} {shape.name} ({number + 1} of {len(shapes)})")
            case, network = _fitting(shape, params, seed, options)
            begin = time.perf_counter()
            result = run_network(network, list(case.inputs), engine="cycles")
            row = _row(name, shape, case, network, result, time.perf_counter() - begin)
            if number < rtl_layers:
                progress(f"{name} {shape.name}: Verilog")
                row["rtl"] = _rtl(case, network, result, params, seed, options)
            yield row


def _compiled(shape: ConvShape, params: Params, seed: int, options: Options) -> tuple[ConvCase, Network]:
    case = make_conv(shape, seed)
    densities = dict.fromkeys(("x", "y"), shape.activations)
    return case, compile_graph(run_passes(case.graph), params, options=options, densities=densities)


def _fitting(shape: ConvShape, params: Params, seed: int, options: Options) -> tuple[ConvCase, Network]:
    """The layer on as many rows as fit the activation memory."""
    while True:
        try:
            return _compiled(shape, params, seed, options)
        except ImageError as e:
            if "activation memory" not in str(e) or shape.height < 4:
                raise
            shape = replace(shape, height=shape.height // 2)


def _rtl(
    case: ConvCase, network: Network, result: NetworkResult, params: Params, seed: int, options: Options
) -> dict[str, Any]:
    while (result.cycles or 0) > RTL_CYCLES and case.shape.height // 2 >= case.shape.kernel[0]:
        case, network = _compiled(replace(case.shape, height=case.shape.height // 2), params, seed, options)
        result = run_network(network, list(case.inputs), engine="cycles")
    compared = compare_networks(run_network(network, list(case.inputs), engine="rtl"), result)
    return {
        "rows": case.shape.height, "cycles": result.cycles, "values": compared.values, "records": compared.records,
        "equal": compared.equal,
    }  # fmt: skip


def _row(
    name: str, whole: ConvShape, case: ConvCase, network: Network, result: NetworkResult, seconds: float
) -> dict[str, Any]:  # fmt: skip
    image, pes, shape = network.only, network.params.pes, case.shape
    cycles, exposed = result.cycles or 0, result.drain_cycles or 0
    counters = {key: sum(layer.counters[key] for layer in result.layers if layer.on == "array") for key in _COUNTERS}
    capacity = pes * cycles
    parts = {
        "useful": case.useful, "padding": counters["padding"],
        "beyond": counters["entries"] - counters["padding"] - case.useful,
        "starved": counters["starved"], "write_back": pes * exposed,
    }  # fmt: skip
    dense = -(-shape.dense_products // pes)
    return {
        "set": name, "layer": whole.name, "kind": whole.kind, "times": whole.times,
        "rows": shape.height, "of_rows": whole.height,
        "weights": whole.weights, "activations": whole.activations,
        "tiles": [[layer.tile_y, layer.tile_x] for layer in image.layers],
        "useful": case.useful, "cycles": cycles, "exposed": exposed, "utilization": case.useful / capacity,
        "parts": {part: parts[part] / capacity for part in PARTS},
        "blocked": counters["blocked"], "skipped": counters["skipped"], "seconds": round(seconds, 2),
        "dense_cycles": dense, "break_even": min(1.0, whole.weights * dense / cycles),
        "memory": {
            "weight_words": image.entries.shape[1], "pointer_blocks": image.pointers.shape[1],
            "output_words": image.table.shape[1], "act_lines": image.frame,
        },
    }  # fmt: skip


_COUNTERS = ("entries", "padding", "starved", "blocked", "skipped")


def total(rows: Iterable[dict[str, Any]], pes: int) -> dict[str, Any]:
    """Layers together, each as often as it occurs, and those of which a part was computed as the whole.

    ``hidden`` : utilization if the exposed write-back of a layer is hidden behind the next one, as in a network.
    """
    useful = cycles = exposed = dense = seconds = 0.0
    for row in rows:
        often = row["times"] * row["of_rows"] / row["rows"]
        useful += often * row["useful"]
        cycles += often * row["cycles"]
        exposed += often * row["exposed"]
        dense += often * row["dense_cycles"]
        seconds += row["seconds"]
    return {
        "useful": round(useful), "cycles": round(cycles), "dense_cycles": round(dense),
        "seconds": round(seconds, 2),
        "utilization": useful / (pes * cycles), "hidden": useful / (pes * (cycles - exposed)),
    }  # fmt: skip
