"""Regressions: many random cases through hardware and models, sharded over processes, replayable by seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from typing import Any

import numpy as np

from compiler.errors import EieError, InputError
from compiler.image.image import Image
from compiler.image.rings import off_chip
from hw.params import Params
from sim import run as engines
from sim.cases import Case, random_case, random_params
from sim.compare import compare, compare_networks
from sim.coverage.bins import traits_of
from sim.graph_cases import GraphCase, random_graph_case
from sim.network import NetworkResult, run_network
from sim.recurrent_cases import random_recurrent_case
from sim.rtl import collect
from sim.stream_cases import random_ends_case, random_stream_case

__all__ = ["SUITES", "Mismatch", "Report", "suites", "verify"]


@dataclass(frozen=True)
class Suite:
    """A regression: what it shows, its engine, and its trials in the full and the sample size.

    together : trials in turn on one array; a run with few trials then needs few arrays, others for each seed.
    graphs : what makes networks from the graph on; if there is none, layers are made by `sim.cases`.
    stages : of a board's design, on each of which all trials run through its pins (`sim.fpga.regression`), in one
        process. proof : one PE is proven equal to its netlist as well.
    """

    text: str
    engine: str
    trials: int
    sample: int
    arrays: tuple[Params | None, ...] = (None,)
    bus: bool = False
    together: int = 1
    graphs: Callable[[int, Params], GraphCase] | None = None
    stages: tuple[str, ...] = ()
    proof: bool = False


_SMALL = Params(
    pes=4, rows=64, queue_depth=8, weight_words=1024, pointer_blocks=1024, act_lines=1024, output_words=1024,
    codebooks=4, descriptors=256,
)  # fmt: skip

# Arrays for Verilog: each is one build, so they are few and chosen to differ in every field that matters.
# Some have memories so small that most networks are computed in tiles, or few accumulators for the rows of a layer.
_ARRAYS = (
    _SMALL.replace(pes=1, queue_depth=6, index_bits=4, code_bits=2, refill=False),
    _SMALL.replace(pes=2, queue_depth=7, index_bits=8, code_bits=8, acc_bits=33, rows=16, weight_words=40),
    _SMALL.replace(pes=4, queue_depth=64, index_bits=5, code_bits=3, acc_bits=48),
    _SMALL.replace(pes=8, queue_depth=6, weight_words=16, pointer_blocks=10),
    _SMALL.replace(pes=16, index_bits=4, refill=False, hops=1),
    _SMALL.replace(pes=32, queue_depth=10, hops=2),
    _SMALL.replace(pes=64, queue_depth=6, rows=16, weight_words=24, pointer_blocks=24),
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
    "amaranth": Suite("random arrays and networks in Amaranth's simulator", "amaranth", 400, 12),
    "rtl": Suite("random networks on seven arrays of 1 to 64 PEs, Verilog in Verilator", "rtl", 700, 14, _ARRAYS),
    "bus": Suite("the same through the host port, word by word", "rtl", 60, 4, _ARRAYS[:4], bus=True),
    "arrays": Suite("random networks on 48 arrays, Verilog in Verilator", "rtl", 2016, 0, _many_arrays()),
    "scale": Suite(
        "random networks on 128 and 256 PEs, Verilog in Verilator", "rtl", 40, 0,
        tuple(_SMALL.replace(pes=pes, queue_depth=8, rows=16, pointer_blocks=256) for pes in (128, 256)),
    ),
    "networks": Suite(
        "random networks of all operators on 40 arrays, from the graph on, Verilog in Verilator", "rtl", 2000, 8,
        _graph_arrays(), together=50, graphs=random_graph_case,
    ),
    "streams": Suite(
        "random networks whose maps stream in and out by rows, Verilog in Verilator", "rtl", 200, 4, _STREAM_ARRAYS,
        together=50, graphs=random_stream_case,
    ),
    "ends": Suite(
        "random networks whose inputs and outputs stream, Verilog in Verilator", "rtl", 200, 4, _STREAM_ARRAYS,
        together=50, graphs=random_ends_case,
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


@dataclass(frozen=True)
class Mismatch:
    """The first difference of a case, or why it could not run, with the seed that replays it."""

    seed: int
    what: str


@dataclass
class Report:
    """Result of a regression: what was compared, and every case that failed.

    values, cycles, records : compared with the models. full_queues, starved, refill_waits : records of layers in which
    a vector waited for credit, a PE for an entry, the scan for a tile of weights. windows, maxima, tiled, chained :
    layers that scan more than one position, that take maxima, of several tiles, with the layer before as input.
    segments, streamed : descriptors of layers with several, and those whose weights are streamed in. rings : layers
    whose maps stream in or out. shared : segments whose positions share their weights. operations : elementwise ones.
    lookups : tables of which the array looks up rows.
    """

    suite: str
    seed: int
    trials: int = 0
    values: int = 0
    cycles: int = 0
    records: int = 0
    full_queues: int = 0
    starved: int = 0
    windows: int = 0
    maxima: int = 0
    tiled: int = 0
    segments: int = 0
    streamed: int = 0
    rings: int = 0
    shared: int = 0
    operations: int = 0
    lookups: int = 0
    refill_waits: int = 0
    chained: int = 0
    saturated: int = 0
    failures: list[Mismatch] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Something was compared and nothing differed."""
        return self.trials > 0 and self.values > 0 and not self.failures

    def asdict(self) -> dict[str, Any]:
        """The report as plain data, with the verdict."""
        return {**asdict(self), "passed": self.passed}


def suites() -> dict[str, str]:
    """Name and purpose of every suite."""
    return {name: f"{suite.text} ({suite.trials} trials)" for name, suite in SUITES.items()}


def run_case(case: Case, engine: str, bus: bool = False) -> tuple[str | None, dict[str, int]]:
    """Run one case on hardware and models; returns the first difference and what was compared."""
    _note_coverage(case.seed, (case.image,))
    model = engines.run(case.image, case.x, engine="cycles")  # with golden's outputs
    try:
        result = engines.run(case.image, case.x, engine=engine, seed=case.seed, bus=bus)
    except EieError as error:
        return str(error), {}
    counted = {**_compared(result, result.records), **_features(case.image)}
    return next(iter(compare(result, model).explain()), None), counted


def _note_coverage(seed: int, images: Sequence[Image]) -> None:
    """Write down which functional bins the programs of a case are in, while coverage is collected."""
    if collect.covered():
        total = sum((Counter(traits_of(image)) for image in images), Counter())
        collect.note_case({"seed": seed, "params": images[0].params.asdict() if images else {}, "bins": dict(total)})


def _compared(result: engines.Result | NetworkResult, records: Sequence[Sequence[dict[str, int]]]) -> dict[str, int]:
    """How much a run gave to compare, and what its records say of waiting and saturation."""
    flat = [record for vector in records for record in vector]
    return {
        "values": sum(raw.size for raw in result.values.values()),
        "cycles": result.cycles or 0,
        "records": len(flat),
        "full_queues": sum(record["blocked"] > 0 for record in flat),
        "starved": sum(record["starved"] > 0 for record in flat),
        "refill_waits": sum(record["refill"] > 0 for record in flat),
        "saturated": sum(record["saturated"] for record in flat),
    }


def _features(image: Image) -> dict[str, int]:
    """What a network makes use of, for the report."""
    layers = image.steps
    return {
        "windows": sum(any(step.positions > 1 for step in steps) for steps in layers),
        "maxima": sum(bool(step.maximum) for steps in layers for step in steps[:1]),
        "tiled": sum(step.tiles > 1 for steps in layers for step in steps[:1]),
        "chained": sum(any(step.chained for step in steps) for steps in layers),
        "segments": sum(len(steps) for steps in layers if len(steps) > 1),
        "streamed": sum(step.refill for steps in layers for step in steps),
        "rings": len(off_chip(image)),
        "shared": sum(step.uniform for steps in layers for step in steps),
        "operations": len(image.operations),
    }


def run_graph_case(case: GraphCase, engine: str) -> tuple[str | None, dict[str, int]]:
    """Run a network on hardware and models, and compare both with its graph; as `run_case`."""
    _note_coverage(case.seed, case.network.images)
    try:
        model = run_network(case.network, case.x, engine="cycles")
        result = run_network(case.network, case.x, engine=engine, seed=case.seed)
    except EieError as error:
        return str(error), {}
    counted = _compared(result, [vector for ran in result.runs for vector in ran.records])
    counted["lookups"] = sum(node.op == "Indices" for node in case.network.graph)
    for image in case.network.images:
        for name, count in _features(image).items():
            counted[name] = counted.get(name, 0) + count
    found = next(iter(compare_networks(result, model).explain()), None)
    for name, raw in result.values.items():
        if found is None and name in case.right and not np.array_equal(raw, case.right[name]):
            found = f"{name} is not what the graph makes"
    return found, counted


def _trials(suite: Suite, seed: int, trials: int) -> Iterator[tuple[int, Params | None]]:
    first = seed * -(-trials // suite.together) if suite.together > 1 else 0
    for n in range(trials):
        yield seed * 1_000_003 + n, suite.arrays[(first + n // suite.together) % len(suite.arrays)]


def _trial(seed: int, params: Params | None, suite: str) -> tuple[int, str | None, dict[str, int]]:
    plan = SUITES[suite]
    if plan.graphs:
        assert params is not None
        try:
            what, counted = run_graph_case(plan.graphs(seed, params), plan.engine)
        except (EieError, ValueError, IndexError) as error:
            what, counted = f"{type(error).__name__}: {error}", {}
    else:
        what, counted = run_case(random_case(seed, params), plan.engine, plan.bus)
    return seed, what, counted


def _on_board(
    plan: Suite, seeds: Sequence[int], note: Callable[[tuple[int, str | None, dict[str, int]]], None],
    told: Callable[[str], None],
) -> None:  # fmt: skip
    """Every trial on every stage of a board's design, and the proof."""
    from sim.fpga.regression import pe_proof, stage_cases

    for stage in plan.stages:
        for seed, what, result, image in stage_cases(stage, seeds, told):
            counted = {**_compared(result, result.records), **_features(image)} if result else {}
            note((seed, what, counted))
    if plan.proof:
        note((0, pe_proof(told), {}))


def verify(
    suite: str,
    seed: int = 1,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
    trials: int | None = None,
    told: Callable[[str], None] | None = None,
) -> Report:
    """Run a regression.

    Parameters
    ----------
    suite : one of `SUITES`.
    seed : of all its cases; each failure names the seed of its own case.
    jobs : processes.
    progress : called with (cases done, cases).
    trials : instead of the suite's own number.
    told : is told what takes long, in suites with `stages`.

    Raises
    ------
    InputError
        Unknown suite, or numbers that make no sense.
    """
    if suite not in SUITES:
        raise InputError(f"unknown suite {suite!r}; expected one of {', '.join(SUITES)}")
    if seed < 0 or jobs < 1 or (trials is not None and trials < 1):
        raise InputError(f"seed {seed}, jobs {jobs}, trials {trials}: expected seed ≥ 0, jobs ≥ 1, trials ≥ 1")
    plan = SUITES[suite]
    work = list(_trials(plan, seed, trials or plan.trials))
    if plan.engine == "rtl":
        from sim.rtl.build import build

        for params in dict.fromkeys(params for _, params in work):  # before the shards race to build the same
            if params is not None:
                build(params)
    report = Report(suite, seed)

    def note(result: tuple[int, str | None, dict[str, int]]) -> None:
        case_seed, what, counted = result
        report.trials += 1
        for name, value in counted.items():
            setattr(report, name, getattr(report, name) + value)
        if what is not None:
            report.failures.append(Mismatch(case_seed, what))
        if progress:
            progress(report.trials, len(work) * max(1, len(plan.stages)) + plan.proof)

    if plan.stages:
        _on_board(plan, [case_seed for case_seed, _ in work], note, told or (lambda text: None))
    elif jobs == 1:
        for case_seed, params in work:
            note(_trial(case_seed, params, suite))
    else:
        with ProcessPoolExecutor(jobs, get_context("spawn"), collect.collect_into, (collect.place(),)) as pool:
            futures = [pool.submit(_trial, case_seed, params, suite) for case_seed, params in work]
            for future in as_completed(futures):
                note(future.result())
    report.failures.sort(key=lambda failure: failure.seed)
    return report
