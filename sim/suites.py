"""Which regressions there are: for each its cases, its arrays, and how many of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hw.params import Params
from sim.cases import Case, random_case, random_params
from sim.function_cases import random_function_case
from sim.graph_cases import GraphCase, random_graph_case
from sim.recurrent_cases import random_recurrent_case
from sim.stream_cases import random_ends_case, random_stream_case

__all__ = ["SUITES", "Suite", "suites"]


@dataclass(frozen=True)
class Suite:
    """A regression: what it shows, its engine, and its trials in the full and the sample size.

    batch : samples of a case at most.
    together : trials in turn on one array; a run with few trials then needs few arrays, others for each seed.
    graphs : what makes networks from the graph on; if there is none, layers are made by `layers`, of a seed, an array
        and a number of samples at most.
    stages : of a board's design, on each of which all trials run through its pins (`sim.fpga.regression`), in one
        process. proof : one PE is proven equal to its netlist as well.
    night : cases of a night (`sim.nights`); 0 if the suite takes no part.
    """

    text: str
    engine: str
    trials: int
    sample: int
    arrays: tuple[Params | None, ...] = (None,)
    bus: bool = False
    batch: int = 4
    together: int = 1
    graphs: Callable[[int, Params], GraphCase] | None = None
    layers: Callable[[int, Params | None, int], Case] = random_case
    stages: tuple[str, ...] = ()
    proof: bool = False
    night: int = 0


_SMALL = Params(
    pes=4, rows=64, queue_depth=8, weight_words=1024, pointer_blocks=1024, act_lines=1024, output_words=1024,
    codebooks=4, descriptors=256,
)  # fmt: skip

# Arrays for Verilog: each is one build, so they are few and chosen to differ in every field that matters.
# Some have memories so small that most networks are computed in tiles, or few accumulators for the rows of a layer.
_ARRAYS = (
    _SMALL.replace(pes=1, queue_depth=6, index_bits=4, code_bits=2, refill=False, parity=True),
    _SMALL.replace(pes=2, queue_depth=7, index_bits=8, code_bits=8, acc_bits=33, rows=16, weight_words=40),
    _SMALL.replace(pes=4, queue_depth=64, index_bits=5, code_bits=3, acc_bits=48),
    _SMALL.replace(pes=8, queue_depth=6, weight_words=16, pointer_blocks=10),
    _SMALL.replace(pes=16, index_bits=4, refill=False, hops=1),
    _SMALL.replace(pes=32, queue_depth=10, hops=2),
    _SMALL.replace(pes=64, queue_depth=6, rows=16, weight_words=24, pointer_blocks=24),
    _SMALL.replace(pes=2, queue_depth=7, rows=32, elementwise=False, streams=False, refill=False, slim=True),
)


def _many_arrays() -> tuple[Params, ...]:
    """Forty-eight arrays of up to 64 PEs with everything else at random, the same every time."""
    rng = np.random.default_rng(2016)
    arrays = [random_params(rng).replace(descriptors=256) for _ in range(40)]
    arrays += [random_params(rng).replace(pes=pes, descriptors=256) for pes in (32, 64) for _ in range(4)]
    return tuple(
        params.replace(weight_words=int(rng.choice([32, 64])), pointer_blocks=6 * params.groups + 4)
        if params.refill and rng.integers(0, 2)
        else params
        for params in arrays
    )


def _graph_arrays() -> tuple[Params, ...]:
    """Forty arrays with memories for a small network, some for its smallest tiles only."""
    rng = np.random.default_rng(2017)
    arrays = [random_params(rng) for _ in range(40)]
    return tuple(
        params.replace(
            rows=max(16, params.rows), act_lines=8192, pointer_blocks=4096, output_words=4096, codebooks=16,
            weight_words=int(rng.choice([256, 4096])),
        )
        for params in arrays
    )  # fmt: skip


# Arrays with activation memories for a few rows of a small network's maps.
_STREAM_ARRAYS = tuple(
    Params(
        pes=pes, act_lines=lines, rows=64, queue_depth=depth, weight_words=2048, pointer_blocks=2048, output_words=2048,
        codebooks=16, descriptors=256,
    )
    for pes, lines, depth in ((4, 200, 8), (1, 400, 6), (8, 150, 32), (16, 100, 7))
)  # fmt: skip

# An array for networks of a few units.
_LOOPS = Params(
    pes=4, rows=128, queue_depth=8, weight_words=1024, pointer_blocks=512, act_lines=1024, output_words=1024,
    descriptors=64, codebooks=16,
)  # fmt: skip

SUITES: dict[str, Suite] = {
    "amaranth": Suite("random arrays and networks in Amaranth's simulator", "amaranth", 400, 12, night=100),
    "rtl": Suite("random networks on eight arrays of 1 to 64 PEs, Verilog in Verilator", "rtl", 700, 5, _ARRAYS,
                 night=700),
    "bus": Suite("the same through the host port, word by word", "rtl", 60, 4, (*_ARRAYS[:4], _ARRAYS[-1]), bus=True,
                 night=60),
    "batches": Suite("the same with up to 400 samples a case", "rtl", 350, 0, _ARRAYS, batch=400, night=3500),
    "arrays": Suite("random networks on 48 arrays, Verilog in Verilator", "rtl", 2016, 0, _many_arrays(),
                    night=480),
    "scale": Suite(
        "random networks on 128 and 256 PEs, Verilog in Verilator", "rtl", 40, 0,
        tuple(_SMALL.replace(pes=pes, queue_depth=8, rows=16, pointer_blocks=256) for pes in (128, 256)), night=40,
    ),
    "functions": Suite(
        "random layers with functions, and elementwise operations, of any shifts and tables, Verilog in Verilator",
        "rtl", 200, 1, (_ARRAYS[1], _ARRAYS[3]), layers=random_function_case,
    ),
    "networks": Suite(
        "random networks of all operators on 40 arrays, from the graph on, Verilog in Verilator", "rtl", 2000, 8,
        _graph_arrays(), together=50, graphs=random_graph_case, night=2000,
    ),
    "streams": Suite(
        "random networks whose maps stream in and out by rows, Verilog in Verilator", "rtl", 200, 4, _STREAM_ARRAYS,
        together=50, graphs=random_stream_case, night=400,
    ),
    "ends": Suite(
        "random networks whose inputs and outputs stream, Verilog in Verilator", "rtl", 200, 4, _STREAM_ARRAYS,
        together=50, graphs=random_ends_case, night=400,
    ),
    "recurrent": Suite(
        "random recurrent networks, Verilog in Verilator", "rtl", 200, 0, (_LOOPS, _LOOPS.replace(pes=16, hops=1)),
        together=50, graphs=random_recurrent_case,
    ),
    "port": Suite("random layers through the serial pins of a board's design, over a terminal", "board", 12, 0,
                  stages=("rtl",)),
    "netlist": Suite("the same on its synthesized and its placed netlist; one PE proven equal to its netlist", "board",
                     4, 0, stages=("synthesized", "placed"), proof=True),
}  # fmt: skip


def suites() -> dict[str, str]:
    """Name and purpose of every suite."""
    return {name: f"{suite.text} ({suite.trials} trials)" for name, suite in SUITES.items()}
