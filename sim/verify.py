"""Regressions: many random cases through hardware and models, sharded over workers, replayable by seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compiler.errors import InputError
from compiler.journal import Journal
from sim.case_file import case_file
from sim.executors import Cluster, Executor, Here, Processes
from sim.suites import SUITES, Suite, suites
from sim.trials import Key, Line, Shard, kit, run_case, run_graph_case, shards

__all__ = ["SUITES", "Mismatch", "Report", "run_case", "run_graph_case", "suites", "verify"]

TURNS = 3
"""How often a case, or a trial of a search, is begun whose worker dies."""


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
    lookups : tables of which the array looks up rows. cpu_seconds : of all cases; all else is the same however they
    were run.
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
    cpu_seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Something was compared and nothing differed."""
        return self.trials > 0 and self.values > 0 and not self.failures

    def add(self, line: Line) -> None:
        """Count a case."""
        self.trials += 1
        for name, value in line.counts.items():
            setattr(self, name, getattr(self, name) + value)
        self.cpu_seconds = round(self.cpu_seconds + line.cpu, 3)
        if line.status != "passed":
            self.failures.append(Mismatch(line.seed, line.message))

    def asdict(self) -> dict[str, Any]:
        """The report as plain data, with the verdict."""
        return {**asdict(self), "passed": self.passed}


def verify(
    suite: str,
    seed: int = 1,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
    trials: int | None = None,
    told: Callable[[str], None] | None = None,
    cluster: str | None = None,
    out: Path | None = None,
    resume: bool = False,
    tensorboard: Path | None = None,
) -> Report:
    """Run a regression.

    Parameters
    ----------
    suite : one of `SUITES`.
    seed : of all its cases; each failure names the seed of its own case.
    jobs : processes.
    progress : called with (cases done, cases).
    trials : instead of the suite's own number.
    told : is told what takes long, in suites with `stages`, and of workers that died.
    cluster : address of a Ray cluster that runs the cases; "local" for one of `jobs` workers on this machine.
    out : folder for a line of JSON for each case, as soon as it is through, and the summary. resume : cases that have a
        line there are not run again. ``progress.jsonl`` there says how many cases there are (`compiler.journal`).
    tensorboard : folder for event files: cases that are through, failures, and sums of what was compared.

    Raises
    ------
    InputError
        Unknown suite, or numbers that make no sense; the folder or the cluster is not what was expected; a worker has
        another kit.
    ToolError
        A tool is missing.
    WorkerError
        The cluster is gone.
    """
    if suite not in SUITES:
        raise InputError(f"unknown suite {suite!r}; expected one of {', '.join(SUITES)}")
    if seed < 0 or jobs < 1 or (trials is not None and trials < 1):
        raise InputError(f"seed {seed}, jobs {jobs}, trials {trials}: expected seed ≥ 0, jobs ≥ 1, trials ≥ 1")
    kit()  # of the sources as they are now, whatever becomes of them during the run
    plan = SUITES[suite]
    if plan.stages and cluster:
        raise InputError(f"the suite {suite} runs in one simulator on this machine; leave out the cluster")
    if resume and out is None:
        raise InputError("to resume, name the folder of the regression")
    told = told or (lambda text: None)
    executor: Executor = Here(told)
    if cluster:
        executor = Cluster(cluster, jobs)
    elif jobs > 1 and not plan.stages:
        executor = Processes(jobs)
    trials = trials or plan.trials
    if out is None:
        with Journal(None, tensorboard) as journal:
            return _run(suite, seed, trials, executor, progress, told, journal)
    with case_file(out, suite, resume) as file, Journal(out, tensorboard) as journal:
        report = _run(suite, seed, trials, executor, progress, told, journal, file.kept, file.add)
        file.summarize(report.asdict())
        journal.note("end", status="finished" if report.passed else "failed",
                     message=f"{len(report.failures):,} cases differ")  # fmt: skip
        return report


def _run(
    suite: str, seed: int, trials: int, executor: Executor, progress: Callable[[int, int], None] | None,
    told: Callable[[str], None], journal: Journal, kept: Mapping[Key, Line] | None = None,
    keep: Callable[[Line], None] | None = None,
) -> Report:  # fmt: skip
    kept = kept or {}
    wanted = [key for shard in shards(suite, seed, trials) for key in shard.keys()]
    report = Report(suite, seed)
    for key in wanted:
        if key in kept:
            report.add(kept[key])
    journal.note("begin", kind="regression", name=suite, seed=seed, total=len(wanted), done=len(kept))
    left = shards(suite, seed, trials, kept)
    if executor.local:
        _build(SUITES[suite], left)
    for line in _lines(left, executor, told):
        if keep:
            keep(line)
        report.add(line)
        sums = {"cases": report.trials, "failures": len(report.failures), "values": report.values}
        journal.curve({f"{suite}/{name}": value for name, value in sums.items()}, report.trials)
        if progress:
            progress(report.trials, len(wanted))
    report.failures.sort(key=lambda failure: (failure.seed, failure.what))
    return report


def _build(plan: Suite, left: Sequence[Shard]) -> None:
    """Build what the shards need, before they race to build the same."""
    if plan.engine != "rtl":
        return
    from sim.rtl.build import build

    for number in dict.fromkeys(shard.number for shard in left):
        if (params := plan.arrays[number]) is not None:
            build(params)


def _lines(left: Sequence[Shard], executor: Executor, told: Callable[[str], None]) -> Iterator[Line]:
    """Lines of all cases, each once. Shards whose worker died are run again, case by case."""
    for turn in range(TURNS):
        lost: list[Shard] = []
        for shard, lines in executor.run(left, careful=turn > 0):
            if lines is None:
                told(f"a worker died with {len(shard.seeds)} cases from seed {shard.seeds[0]} on; they run again")
                lost += shard.single()
                continue
            for line in lines:
                if line.kit != kit():
                    raise InputError(
                        f"{line.where} ran kit {line.kit}; this run began with {kit()}: the sources were changed since "
                        "(then begin again), or a machine of the cluster has other ones (install the same everywhere)"
                    )
            yield from lines
        if not (left := lost):
            return
    for shard in left:
        message = f"its worker died each of {TURNS} times"
        yield Line(shard.suite, shard.stage, shard.number, shard.seeds[0], "", kit(), "lost", message, 0.0, 0.0, "")
