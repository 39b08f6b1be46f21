"""How fast the kit's own tools are on this machine, each beside an anchor measured in the same run.

Single-threaded work; the best of a few repetitions, the tool's and its anchor's taken in turn.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.errors import EieError
from compiler.lower.build import build as build_image
from compiler.lower.partition import partition
from compiler.lower.pipeline import compile_graph
from compiler.lower.quantize import quantize_graph
from hw.export import verilog_text
from hw.params import Params, preset
from sim import run as engines
from sim.benchmarks.anchors import csc, matvec
from sim.benchmarks.layers import NINE, Case, choose, make_case
from sim.benchmarks.model import prepared
from sim.benchmarks.peak import peak_memory
from sim.decode import decode
from sim.golden_array import run_layers
from sim.program import frames
from sim.rtl.build import build
from sim.rtl.engine import RtlRun, run_rtl

__all__ = ["Row", "SpeedError", "measure"]

REPEATS = 5
RTL_VECTORS = 8  # enough cycles that preload does not outweigh them


class SpeedError(EieError):
    """Hardware and cycle model disagree, so their speed says nothing."""

    exit_code = 1


@dataclass(frozen=True)
class Row:
    """One figure.

    value, unit : what was measured. anchor, anchor_value : the same work elsewhere, in seconds, if there is such.
    ratio : value over anchor, or None. target : the figure to reach (of the ratio if there is an anchor, else of the
    value); at_least says on which side. peak_mib, before_mib, children_mib : memory, see `sim.benchmarks.peak`.
    """

    what: str
    value: float
    unit: str
    anchor: str | None
    anchor_value: float | None
    ratio: float | None
    target: float | None
    at_least: bool
    peak_mib: float | None
    before_mib: float | None
    children_mib: float | None

    @property
    def reached(self) -> bool | None:
        """Whether the figure is reached; None if there is none to reach."""
        if self.target is None:
            return None
        figure = self.value if self.ratio is None else self.ratio
        return figure >= self.target if self.at_least else figure <= self.target


class _Bench:
    """Collects rows. A quick bench names no targets: its sizes are not theirs."""

    def __init__(self, quick: bool, progress: Callable[[str], None] | None) -> None:
        self.rows: list[Row] = []
        self._quick, self._progress = quick, progress

    def row(
        self,
        what: str,
        action: Callable[[], Any],
        unit: str,
        target: float | None = None,
        *,
        at_least: bool = False,
        anchor: tuple[str, Callable[[], Any]] | None = None,
    ) -> None:
        """Measure; `action` returns the figure. With an anchor both are timed in turn, and the figure is seconds."""
        if self._progress:
            self._progress(what)
        with peak_memory() as peak:
            if anchor is None:
                value, other = action(), None
            else:
                value, other = _in_turn(action, anchor[1])
        self.rows.append(Row(
            what, value, unit, anchor[0] if anchor else None, other, value / other if other else None,
            None if self._quick else target, at_least, peak.own, peak.before, peak.children,
        ))  # fmt: skip


def _seconds(action: Callable[[], Any], repeats: int = REPEATS) -> float:
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return min(times)


def _cpu_seconds(action: Callable[[], Any], repeats: int = REPEATS) -> float:
    """The least CPU time of this process: what others do on the machine counts less than in `_seconds`."""
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        action()
        times.append(time.process_time() - begun)
    return min(times)


def _in_turn(action: Callable[[], Any], anchor: Callable[[], Any]) -> tuple[float, float]:
    """Best times of both, taken in turn, so that a busy machine slows both."""
    pairs = [(_seconds(action, 1), _seconds(anchor, 1)) for _ in range(REPEATS)]
    return min(first for first, _ in pairs), min(second for _, second in pairs)


@contextlib.contextmanager
def _fresh_cache() -> Iterator[None]:
    """An empty cache of simulators for the block."""
    before = os.environ.get("EIE_CACHE")
    with tempfile.TemporaryDirectory(prefix="eie-cache-") as folder:
        os.environ["EIE_CACHE"] = folder
        try:
            yield
        finally:
            del os.environ["EIE_CACHE"]
            if before is not None:
                os.environ["EIE_CACHE"] = before


def measure(
    *, quick: bool = False, seed: int = 1, rtl: bool = True, progress: Callable[[str], None] | None = None
) -> list[Row]:
    """All rows.

    Parameters
    ----------
    quick : layers a sixteenth of the size and an array of 4 PEs: shows that the bench works, reaches no figure.
    seed : of matrices and batches.
    rtl : also build and run the simulator.
    progress : called with what is measured next.

    Raises
    ------
    SpeedError
        Hardware and model disagree.
    ToolError
        `rtl`, and a tool is missing.
    """
    bench = _Bench(quick, progress)
    scale, params = (16, preset("BALANCED_4")) if quick else (1, preset("BALANCED_64"))
    _compiler_and_golden(bench, params, scale, seed)
    _cycle_model(bench, params, scale, seed)
    for pes, seconds in ((4, None),) if quick else ((64, 5.0), (256, 10.0)):
        export = functools.partial(verilog_text, params.replace(pes=pes))
        bench.row(f"Verilog of {pes} PEs", functools.partial(_seconds, export, 1), "s", seconds)
    if rtl:
        with _fresh_cache():
            _rtl(bench, params, make_case(choose(["Alex-7"])[0], seed, scale=scale, batch=RTL_VECTORS))
    return bench.rows


def _compiler_and_golden(bench: _Bench, params: Params, scale: int, seed: int) -> None:
    case = make_case(choose(["VGG-6"])[0], seed, scale=scale, batch=1)
    shape = f"{case.weight.shape[1]}×{case.weight.shape[0]} at {100 * case.shape.weights:.0f} %"
    whole = functools.partial(_cpu_seconds, lambda: compile_graph(case.graph, params, case.x))
    bench.row(f"compile {shape}, from floats to an image", whole, "CPU s")
    (program,) = partition(quantize_graph(case.graph, params, [case.x]).graph, params).programs
    bench.row(
        f"encode and pack {shape}", lambda: build_image(program, params), "s", 3.0,
        anchor=("scipy.sparse.csc_array of the dense float32 matrix", csc(case.weight)),
    )  # fmt: skip
    image = build_image(program, params)
    layers = decode(image)
    memory = frames(image, engines.check_input(image, case.x)[0])
    bench.row(
        f"golden {shape}, one vector", lambda: list(run_layers(layers, memory, params.acc_bits)), "s", 3.0,
        anchor=matvec(case.weight, case.x[0].astype(np.float32)),
    )  # fmt: skip


def _cycle_model(bench: _Bench, params: Params, scale: int, seed: int) -> None:
    """A row a layer, and Σ cycles / Σ time. Matrices are made one after the other, to keep memory small."""
    cycles, seconds = 0, 0.0
    for shape in NINE:
        case = make_case(shape, seed, scale=scale)
        run = prepared(compile_graph(case.graph, params, case.x).only, case.x)

        def rate(run: Callable[[], int] = run) -> float:
            nonlocal cycles, seconds
            modelled = run()  # compiles the recurrence, the first time
            taken = _seconds(run)
            cycles, seconds = cycles + modelled, seconds + taken
            return modelled / taken / 1e6

        bench.row(f"cycle model {shape.name}", rate, "M cycles/s", 10.0 if shape.name == "Alex-6" else None,
                  at_least=True)  # fmt: skip
    bench.row("cycle model, nine layers, Σ cycles / Σ time", lambda: cycles / seconds / 1e6, "M cycles/s", 10.0,
              at_least=True)  # fmt: skip


def _rtl(bench: _Bench, params: Params, case: Case) -> None:
    """Build, build from the cache, and the rate of a run, in itself and with everything around it."""
    image = compile_graph(case.graph, params, case.x).only
    bench.row(f"simulator build, {params.pes} PEs", lambda: _seconds(lambda: build(params), 1), "s", 60.0)
    bench.row("simulator build, cached", lambda: _seconds(lambda: build(params), 1), "s")
    name = f"RTL {params.pes} PEs, {case.shape.name}"
    modelled = engines.run(image, case.x, engine="cycles")
    inputs, layers = engines.check_input(image, case.x)[0], decode(image)
    name_of = image.maps[image.outputs[0]].name
    ran: RtlRun | None = None

    def whole() -> float:
        nonlocal ran
        begun = time.perf_counter()
        ran = run_rtl(image, inputs, layers)
        taken = time.perf_counter() - begun
        cycles, _, _ = engines.summarize(image, ran.records)
        if ran.records != modelled.records or not np.array_equal(
            ran.values[name_of].reshape(modelled.raw.shape), modelled.raw
        ):
            raise SpeedError(f"{name}: hardware and models differ, so their speed says nothing; run `eie bench eie`")
        return cycles / taken / 1e3

    def inside() -> float:
        return (modelled.cycles or 0) / (ran.seconds if ran else math.nan) / 1e3

    bench.row(f"{name}, with preload and read-back", whole, "k cycles/s")
    bench.row(f"{name}, from start to interrupt", inside, "k cycles/s", 50.0, at_least=True)
