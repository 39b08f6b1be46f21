"""The cases of a regression: which there are, in shards; each one gives a line of what was compared."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import time
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import EieError, InputError, ToolError
from compiler.image.image import Image
from compiler.image.rings import off_chip
from hw.layouts import identity
from hw.params import Params
from sim import run as engines
from sim.cases import Case
from sim.compare import compare, compare_networks
from sim.coverage.bins import traits_of
from sim.fields import wrong_fields
from sim.graph_cases import GraphCase
from sim.network import NetworkResult, run_network
from sim.rtl import collect
from sim.sources import sources_hash
from sim.suites import SUITES, Suite

__all__ = ["COUNTS", "Key", "Line", "Shard", "images_of", "kit", "run_case", "run_graph_case", "run_shard", "shards"]

SHARD = 2
"""Cases of a shard: few, as a shard whose worker dies is run again as a whole."""
PROOF = "proof"
STATUSES = ("passed", "differs", "error", "lost")
COUNTS = (
    "values", "cycles", "records", "full_queues", "starved", "refill_waits", "saturated", "windows", "maxima", "tiled",
    "chained", "segments", "streamed", "rings", "shared", "operations", "lookups",
)  # fmt: skip
"""What a line may count: fields of `sim.verify.Report`."""

Key = tuple[str, int, int]
"""What tells the cases of a suite apart: stage, number of the array, seed."""


@dataclass(frozen=True)
class Shard:
    """Cases of a suite that one worker runs, all on one array, or on one stage of a board's design."""

    suite: str
    stage: str
    number: int
    seeds: tuple[int, ...]

    def keys(self) -> list[Key]:
        """Of its cases."""
        return [(self.stage, self.number, seed) for seed in self.seeds]

    def single(self) -> list[Shard]:
        """A shard for each case."""
        return [Shard(self.suite, self.stage, self.number, (seed,)) for seed in self.seeds]


@dataclass(frozen=True)
class Line:
    """What became of a case.

    number : of the array in the suite; array : its parameters and layouts, as a hash. kit : version and sources, as a
    hash. status : passed, differs, error (it could not run), lost (its worker died, each time). message : the first
    difference, or why it could not run. counts : what was compared, see `COUNTS`.
    seconds, cpu : of the case, the simulator's among it. where : host and process.
    """

    suite: str
    stage: str
    number: int
    seed: int
    array: str
    kit: str
    status: str
    message: str
    seconds: float
    cpu: float
    where: str
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Which case it is."""
        return self.stage, self.number, self.seed

    def asdict(self) -> dict[str, Any]:
        """As plain data, on one level."""
        return {**{name: value for name, value in vars(self).items() if name != "counts"}, **self.counts}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Line:
        """From plain data.

        Raises
        ------
        InputError
            It is no line of a regression.
        """
        counts = {name: value for name, value in plain.items() if name not in _FIELDS}
        wrong = wrong_fields(plain, {**_FIELDS, **dict.fromkeys(counts, int)})
        if unknown := [name for name in counts if name not in COUNTS]:
            wrong = f"nothing is counted as {', '.join(unknown)}"
        if not wrong and plain["status"] not in STATUSES:
            wrong = f"status {plain['status']}; expected one of {', '.join(STATUSES)}"
        if wrong:
            raise InputError(f"no line of a regression: {wrong}")
        return cls(**{name: plain[name] for name in _FIELDS}, counts=counts)


_FIELDS: dict[str, type] = {
    "suite": str, "stage": str, "number": int, "seed": int, "array": str, "kit": str, "status": str, "message": str,
    "seconds": float, "cpu": float, "where": str,
}  # fmt: skip
"""Of a line, but for its counts."""


@cache
def kit() -> str:
    """Version and a hash of all sources of hardware, compiler and simulation: other ones may give other cases."""
    try:
        version = importlib.metadata.version("eie-kit")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    sources = sources_hash(("hw", "compiler", "sim"))
    return f"{version}+{sources[:12]}"


def shards(suite: str, seed: int, trials: int, done: Container[Key] = ()) -> list[Shard]:
    """The cases of a run that are not `done`, in the order in which they begin."""
    plan = SUITES[suite]
    if plan.stages:
        seeds = tuple(case_seed for case_seed, _ in _trials(plan, seed, trials))
        whole = [Shard(suite, stage, 0, seeds) for stage in plan.stages]
        if plan.proof:
            whole.append(Shard(suite, PROOF, 0, (0,)))
    else:
        arrays: dict[int, list[int]] = {}
        for case_seed, number in _trials(plan, seed, trials):
            arrays.setdefault(number, []).append(case_seed)
        whole = [
            Shard(suite, "", number, tuple(seeds[at : at + SHARD]))
            for number, seeds in arrays.items()
            for at in range(0, len(seeds), SHARD)
        ]
        whole.sort(key=lambda shard: shard.seeds)
    left = [
        Shard(shard.suite, shard.stage, shard.number, tuple(key[2] for key in shard.keys() if key not in done))
        for shard in whole
    ]
    return [shard for shard in left if shard.seeds]


def _trials(suite: Suite, seed: int, trials: int) -> Iterator[tuple[int, int]]:
    """Seed and number of the array of each case."""
    first = seed * -(-trials // suite.together) if suite.together > 1 else 0
    for n in range(trials):
        yield seed * 1_000_003 + n, (first + n // suite.together) % len(suite.arrays)


def run_shard(shard: Shard, told: Any = None) -> Iterator[Line]:
    """Run the cases of a shard.

    Raises
    ------
    ToolError
        A tool is missing, so that no case can run.
    """
    if shard.stage:
        found = _on_board(shard, told or (lambda text: None))
    else:
        found = ((seed, *_trial(shard, seed)) for seed in shard.seeds)
    clocks = _clocks()
    for seed, what, counts, array in found:
        now = _clocks()
        status = "passed" if what is None else "differs" if counts else "error"
        yield Line(
            shard.suite, shard.stage, shard.number, seed, array, kit(), status, what or "",
            round(now[0] - clocks[0], 3), round(now[1] - clocks[1], 3), f"{socket.gethostname()}:{os.getpid()}", counts,
        )  # fmt: skip
        clocks = _clocks()


def _clocks() -> tuple[float, float]:
    """Seconds on the wall, and of the processor: this process and those that it has waited for."""
    times = os.times()
    return time.monotonic(), times.user + times.system + times.children_user + times.children_system


def _trial(shard: Shard, seed: int) -> tuple[str | None, dict[str, int], str]:
    plan = SUITES[shard.suite]
    params: Params | None = plan.arrays[shard.number]
    try:
        if plan.graphs:
            assert params is not None
            return *run_graph_case(plan.graphs(seed, params), plan.engine), identity(params)
        case = plan.layers(seed, params, plan.batch)
        return *run_case(case, plan.engine, plan.bus), identity(case.image.params)
    except ToolError:
        raise
    except (EieError, ValueError, IndexError) as error:
        return f"{type(error).__name__}: {error}", {}, identity(params) if params else ""


def images_of(suite: str, seed: int, params: Params) -> list[tuple[Image, Mapping[str, NDArray[np.int16]]]]:
    """Images of a case of a suite on an array, each with its inputs."""
    plan = SUITES[suite]
    if plan.graphs is None:
        case = plan.layers(seed, params, plan.batch)
        return [(case.image, case.x)]
    network = plan.graphs(seed, params)
    found: list[tuple[Image, Mapping[str, NDArray[np.int16]]]] = []
    run_network(network.network, network.x, engine="golden", watch=lambda image, maps: found.append((image, maps)))
    return found


def run_case(case: Case, engine: str, bus: bool = False) -> tuple[str | None, dict[str, int]]:
    """Run one case on hardware and models; returns the first difference and what was compared."""
    _note_coverage(case.seed, (case.image,))
    model = engines.run(case.image, case.x, engine="cycles")  # with golden's outputs
    try:
        result = engines.run(case.image, case.x, engine=engine, seed=case.seed, bus=bus)
    except ToolError:
        raise
    except EieError as error:
        return str(error), {}
    counted = {**_compared(result, result.records), **_features(case.image)}
    return next(iter(compare(result, model).explain()), None), counted


def run_graph_case(case: GraphCase, engine: str) -> tuple[str | None, dict[str, int]]:
    """Run a network on hardware and models, and compare both with its graph; as `run_case`."""
    _note_coverage(case.seed, case.network.images)
    try:
        model = run_network(case.network, case.x, engine="cycles")
        result = run_network(case.network, case.x, engine=engine, seed=case.seed)
    except ToolError:
        raise
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


def _on_board(shard: Shard, told: Any) -> Iterator[tuple[int, str | None, dict[str, int], str]]:
    """Every case on a stage of a board's design, in one simulator; or the proof."""
    from sim.fpga.regression import pe_proof, stage_cases

    if shard.stage == PROOF:
        yield 0, pe_proof(told), {}, ""
        return
    for seed, what, result, image in stage_cases(shard.stage, shard.seeds, told):
        counts = {**_compared(result, result.records), **_features(image)} if result else {}
        yield seed, what, counts, identity(image.params)


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
        "cycles": int(result.cycles or 0),
        "records": len(flat),
        "full_queues": sum(record["blocked"] > 0 for record in flat),
        "starved": sum(record["starved"] > 0 for record in flat),
        "refill_waits": sum(record["refill"] > 0 for record in flat),
        "saturated": int(sum(record["saturated"] for record in flat)),
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
