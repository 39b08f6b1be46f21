"""How fast the kit's own tools are on this machine: ``python -m sim.bench.speed [--json F] [--quick]``.

Every row is a ratio or a rate measured within one run, on a random sparse layer; nothing here is a test.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from compiler.encode import encode
from compiler.ir import QuantizedGraph, QuantizedLayer
from compiler.pack import pack
from hw.export import verilog_text
from hw.params import Params, preset
from sim import run as engines
from sim.rtl.build import build

__all__ = ["measure"]


def _layer(rng: np.random.Generator, params: Params, outputs: int, inputs: int, density: float) -> QuantizedGraph:
    codes = rng.integers(1, 1 << params.code_bits, (outputs, inputs), np.uint8)
    codes[rng.random(codes.shape, np.float32) >= density] = 0
    codebook = rng.integers(-1000, 1000, 1 << params.code_bits).astype(np.int16)
    codebook[0] = 0
    layer = QuantizedLayer(
        "layer", codes, codebook, 0, np.zeros(outputs, np.int64), 14, "relu", 0, 14, True
    )  # fmt: skip
    return QuantizedGraph((layer,), params)


def _best(action: Callable[[], Any], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return min(times)


def measure(quick: bool = False, seed: int = 1) -> list[dict[str, Any]]:
    """Rows {what, value, unit}; `quick` takes a layer a sixteenth of the size and an array of 4 PEs."""
    rng = np.random.default_rng(seed)
    params = preset("BALANCED_4" if quick else "BALANCED_64")
    inputs, outputs = (3136, 512) if quick else (25088, 4096)
    graph = _layer(rng, params, outputs, inputs, 0.04)
    codes = graph.layers[0].codes
    rows: list[dict[str, Any]] = []

    def row(what: str, value: float, unit: str) -> None:
        rows.append({"what": what, "value": value, "unit": unit})

    image = pack(graph, encode(graph))
    csc = _best(lambda: scipy.sparse.csc_array(codes))
    row("encode and pack", _best(lambda: pack(graph, encode(graph))) / csc, "times scipy.sparse.csc_array")
    x = (rng.integers(1, 1000, (1, inputs)) * (rng.random((1, inputs)) < 0.18)).astype(np.int16)
    dense, vector = codes.astype(np.float32), x[0].astype(np.float32)
    golden = _best(lambda: engines.run(image, x, engine="golden"))
    row(
        "golden model, with decoding",
        golden / _best(lambda: dense @ vector),
        "times dense float matvec",
    )
    engines.run(image, x, engine="cycles")  # compiles the recurrence
    begun = time.perf_counter()
    modelled = engines.run(image, x, engine="cycles")
    row(
        "cycle model, with decoding and golden",
        (modelled.cycles or 0) / (time.perf_counter() - begun) / 1e6,
        "M cycles/s",
    )
    row("Verilog generation", _best(lambda: verilog_text(params), 1), "s")
    begun = time.perf_counter()
    built = build(params)
    row("simulator build" + (" (cached)" if built.cached else ""), time.perf_counter() - begun, "s")
    begun = time.perf_counter()
    ran = engines.run(image, x, engine="rtl")
    row(
        "RTL simulation, with preload and read-back",
        (ran.cycles or 0) / (time.perf_counter() - begun) / 1e3,
        "k cycles/s",
    )
    assert np.array_equal(ran.raw, modelled.raw)
    assert ran.cycles == modelled.cycles
    row("peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB")
    return rows


def main() -> None:
    """Print the table, or write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="F", help="write the rows to F as JSON")
    parser.add_argument("--quick", action="store_true", help="small layer and array")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rows = measure(given.quick, given.seed)
    for entry in rows:
        print(f"{entry['what']:<42} {entry['value']:10.2f} {entry['unit']}")
    if given.json:
        given.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
