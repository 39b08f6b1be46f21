"""All RTL suites on a few small covered arrays: what `eie verify all` runs.

The arrays differ in every parameter that puts other lines of the source into the hardware, and have memories so small
that all of their address bits can be reached. Cases are drawn by seed; of many drawn, those run that have something in
their program that none before had, and a few besides.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from compiler.errors import EieError
from compiler.image.image import Image
from hw.params import Params
from sim.benches import BENCHES, judged
from sim.cases import Case
from sim.coverage.bins import traits_of
from sim.coverage.disturbed import disturbed, flip_case, flips_told, lengths_told
from sim.coverage.made import MADE
from sim.graph_cases import GraphCase
from sim.rtl.build import build
from sim.rtl.collect import collect_into, collecting
from sim.suites import SUITES
from sim.trials import images_of, run_case, run_graph_case

__all__ = ["ARRAYS", "PLAN", "Campaign", "run_campaign"]

ARRAYS: dict[str, Params] = {
    "whole": Params(
        pes=4, rows=64, queue_depth=8, weight_words=128, pointer_blocks=128, act_lines=256, output_words=512,
        codebooks=16, descriptors=64, parity=True,
    ),
    "groups": Params(
        pes=16, hops=1, queue_depth=9, index_bits=4, code_bits=3, act_lines=128, rows=32, weight_words=64,
        pointer_blocks=128, output_words=256, codebooks=4, descriptors=64, acc_bits=36, tables=3,
    ),
    "least": Params(
        pes=1, rows=16, queue_depth=6, index_bits=4, code_bits=2, weight_words=128, pointer_blocks=64, act_lines=128,
        output_words=128, codebooks=2, descriptors=32, acc_bits=33, tables=0, elementwise=False, streams=False,
        refill=False, slim=True, parity=True,
    ),
    "tiles": Params(
        pes=2, rows=32, queue_depth=7, index_bits=5, code_bits=4, weight_words=16, pointer_blocks=12, act_lines=512,
        output_words=256, codebooks=4, descriptors=64, acc_bits=34, tables=0, elementwise=False, streams=False,
    ),
}  # fmt: skip
"""Name and parameters of each array. `sim.coverage.bins.DEPTHS` are their queues."""


LONG = 4095
"""How far extents go: a covered array is slow. `make mutation` has them of 65,535 on an array that is not."""

ALONE = (*BENCHES, "paused", "flips", "lengths")
"""Kinds that are no cases of a suite: benches, and cases under disturbance (`sim.coverage.disturbed`)."""


@dataclass(frozen=True)
class Part:
    """Cases of one kind on one array: `least` that run in any case, and those of `drawn` that bring something new."""

    array: str
    kind: str
    least: int
    drawn: int = 0


PLAN: tuple[Part, ...] = (  # what takes longest comes first
    Part("whole", "corners", 1), Part("whole", "extents", 1), Part("least", "extents", 1), Part("whole", "edges", 1),
    Part("least", "edges", 1), Part("tiles", "edges", 1), Part("groups", "edges", 1),
    Part("tiles", "overlap", 1), Part("whole", "flips", 1), Part("least", "flips", 1),
    Part("whole", "networks", 3, 30), Part("whole", "streams", 2, 8), Part("whole", "ends", 2, 8),
    Part("whole", "paused", 2), Part("whole", "recurrent", 2, 21), Part("whole", "functions", 2, 12),
    Part("whole", "rtl", 3, 12), Part("whole", "bus", 1), Part("whole", "shifts", 1), Part("whole", "shared", 1),
    Part("whole", "wraps", 1), Part("whole", "barriers", 1), Part("whole", "rows", 1), Part("whole", "lengths", 1),
    Part("groups", "networks", 1, 4), Part("groups", "ends", 1, 4), Part("groups", "rtl", 2, 4),
    Part("groups", "streams", 1), Part("groups", "bus", 1), Part("groups", "held", 1), Part("groups", "shared", 1),
    Part("groups", "apart", 2),
    Part("tiles", "rtl", 3, 24), Part("tiles", "held", 1), Part("least", "rtl", 12), Part("least", "bus", 1),
    Part("least", "held", 1), Part("least", "lengths", 1),
)  # fmt: skip


@dataclass
class Campaign:
    """What ran: cases by array and kind, what was compared, and failures as (array, kind, seed, what)."""

    seed: int
    cases: Counter[str] = field(default_factory=Counter)
    values: int = 0
    cycles: int = 0
    failures: list[tuple[str, str, int, str]] = field(default_factory=list)


def _draw(kind: str, seed: int, params: Params) -> tuple[Case | GraphCase, tuple[Image, ...]]:
    if kind in MADE:
        made = MADE[kind](seed, params)
        return made, (made.image,)
    suite = SUITES[kind]
    if suite.graphs:
        drawn = suite.graphs(seed, params)
        return drawn, drawn.network.images
    case = suite.layers(seed, params, suite.batch)
    return case, (case.image,)


def _run(kind: str, seed: int, params: Params) -> tuple[str | None, dict[str, int]]:
    """One case: the first difference, and what was compared."""
    try:
        if kind in BENCHES:
            with tempfile.TemporaryDirectory(prefix="eie-") as name:
                return judged(kind, build(params), params, seed, Path(name), most=LONG), {}
        if kind == "paused":
            images = images_of("ends", seed, params)
            return next(filter(None, (disturbed(image, x, seed) for image, x in images)), None), {}
        if kind == "flips":
            return flips_told(flip_case(seed, params)), {}
        if kind == "lengths":
            return lengths_told(seed, params), {}
        case, _ = _draw(kind, seed, params)
        return run_graph_case(case, "rtl") if isinstance(case, GraphCase) else run_case(case, "rtl", kind == "bus")
    except EieError as error:
        return str(error), {}


def _chosen(part: Part, seed: int, known: set[str]) -> Iterator[int]:
    """Seeds of the part's cases; `known` takes the traits that they bring."""
    params = ARRAYS[part.array]
    for n in range(max(part.least, part.drawn)):
        own = seed * 1_000_003 + n
        if part.kind in ALONE:
            yield own
            continue
        try:
            images = _draw(part.kind, own, params)[1]
        except EieError:  # nothing of this seed fits
            continue
        new = {name for image in images for name, count in traits_of(image).items() if count} - known
        if n < part.least or new:
            known |= new
            yield own


def _prepare(part: Part, seed: int) -> list[tuple[str, str, int]]:
    return [(part.array, part.kind, own) for own in _chosen(part, seed, set())]


def run_campaign(
    raw: Path, seed: int = 1, jobs: int = 1, progress: Callable[[int, int], None] | None = None,
    told: Callable[[str], None] = lambda text: None, parts: tuple[Part, ...] = PLAN,
) -> Campaign:  # fmt: skip
    """Build the arrays, draw and run all cases.

    Parameters
    ----------
    raw : existing folder, for `sim.rtl.collect`.
    progress : called with (cases done, cases).
    told : is told what takes long.
    """
    campaign = Campaign(seed)
    with collecting(raw):
        for name in dict.fromkeys(part.array for part in parts):
            told(f"coverage: simulator of the array {name} …")
            build(ARRAYS[name])
        with ProcessPoolExecutor(jobs, get_context("spawn"), collect_into, (raw,)) as pool:
            told("coverage: drawing cases …")
            drawn = [pool.submit(_prepare, part, seed) for part in parts]
            waiting: dict[Future[tuple[str | None, dict[str, int]]], tuple[str, str, int]] = {}
            for prepared in as_completed(drawn):
                for array, kind, own in prepared.result():
                    waiting[pool.submit(_run, kind, own, ARRAYS[array])] = array, kind, own
            for done, future in enumerate(as_completed(waiting), 1):
                array, kind, own = waiting[future]
                what, counted = future.result()
                campaign.cases[f"{array} {kind}"] += 1
                campaign.values += counted.get("values", 0)
                campaign.cycles += counted.get("cycles", 0)
                if what is not None:
                    campaign.failures.append((array, kind, own, what))
                if progress:
                    progress(done, len(waiting))
    campaign.failures.sort()
    return campaign
