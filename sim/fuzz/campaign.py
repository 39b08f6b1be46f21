"""Many cases of many targets, in processes that are watched; kept as lines, so that a campaign goes on where it was."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from compiler.claim import claimed
from compiler.errors import InputError, ToolError
from compiler.files import append_line, write_file
from compiler.journal import Journal
from sim.case_file import cut, json_lines
from sim.fields import wrong_fields
from sim.fuzz.arrays import Batches, Layers
from sim.fuzz.networks import Networks
from sim.fuzz.onnx_models import Models
from sim.fuzz.packed import Nets, Packed
from sim.fuzz.recipes import Recipes
from sim.fuzz.target import Target, random_of
from sim.fuzz.tensors import Runs, Tensors
from sim.fuzz.traffic import Traffic
from sim.fuzz.worker import MEMORY, SECONDS, Chunk, Failure, Runner, serve
from sim.trials import kit

__all__ = ["Report", "Totals", "campaign", "replay", "shares", "targets"]

CHUNK = 50
"""Cases that a process is given at once."""

PATIENCE = 120.0
"""Seconds by the clock after which a process is ended whose case has not: it waits, or cannot be interrupted."""


def targets(recipes: Path) -> dict[str, Target]:
    """All targets by name; `recipes` is the folder of the kit's recipes."""
    made: tuple[Target, ...] = (
        Networks(), Packed(), Nets(), Layers(), Batches(), Tensors(), Models(), Recipes(recipes), Runs(),
        Traffic(),
    )  # fmt: skip
    return {target.name: target for target in made}


@dataclass
class Totals:
    """What came of the cases of one target."""

    cases: int = 0
    refused: int = 0
    accepted: int = 0
    failed: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    largest: int = 0


@dataclass
class Report:
    """A campaign: its totals by target, and all that failed. `before`: cases that an earlier process had run."""

    seed: int
    totals: dict[str, Totals] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    before: int = 0

    @property
    def cases(self) -> int:
        """Cases that were run."""
        return sum(each.cases for each in self.totals.values())

    @property
    def passed(self) -> bool:
        """Something was run, and nothing failed."""
        return self.cases > 0 and not self.failures

    def asdict(self) -> dict[str, Any]:
        """As plain data, with the verdict."""
        return {**asdict(self), "cases": self.cases, "passed": self.passed,
                "limits": {"seconds": SECONDS, "bytes": MEMORY}}  # fmt: skip


def shares(known: dict[str, Target], names: Sequence[str], cases: int) -> dict[str, int]:
    """How many of `cases` each target gets: those of which a case is cheap have more; none has fewer than one."""
    whole = sum(known[name].share for name in names)
    return {name: max(1, cases * known[name].share // whole) for name in names}


def _pieces(counts: dict[str, int], done: dict[str, set[int]]) -> list[tuple[str, int, int]]:
    """(target, first, count) of all that is left to do, in shares: whenever it is stopped, each had its part."""
    order = [(at / count, name, at) for name, count in counts.items() for at in range(0, count, CHUNK)]
    found: list[tuple[str, int, int]] = []
    for _, name, at in sorted(order):
        left = [case for case in range(at, min(at + CHUNK, counts[name])) if case not in done[name]]
        for case in left:
            if found and found[-1][0] == name and sum(found[-1][1:]) == case and case != at:
                found[-1] = (name, found[-1][1], found[-1][2] + 1)
            else:
                found.append((name, case, 1))
    return found


class _Process:
    """A process that runs chunks."""

    def __init__(self, known: dict[str, Target]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.at = context.Array("d", [-1.0, 0.0], lock=False)
        self.process = context.Process(target=serve, args=(theirs, self.at, known), daemon=True)
        self.process.start()
        theirs.close()
        self.work: tuple[str, int, int] | None = None

    def give(self, piece: tuple[str, int, int], seed: int) -> None:
        """Begin a piece of work."""
        self.work = piece
        name, first, count = piece
        self.connection.send((name, seed, first, count))

    def late(self) -> bool:
        """Whether a case has not ended in its time."""
        since = self.at[1]
        return bool(self.at[0] >= 0 and since > 0 and time.monotonic() - since > PATIENCE)

    def end(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def campaign(
    known: dict[str, Target], names: Sequence[str], cases: int, seed: int, jobs: int, folder: Path,
    progress: Callable[[int, int], None] | None = None, told: Callable[[Failure], None] | None = None,
) -> Report:  # fmt: skip
    """Run cases; what an earlier campaign of the same seed left in `folder` is not run again.

    The folder holds ``cases.jsonl``, a line for each chunk of cases; ``failures.jsonl``, one for each case that
    failed; and its files. Each line has a hash of the sources: what other ones said is not believed. ``progress.jsonl``
    says how many cases there are (`compiler.journal`).

    Raises
    ------
    InputError
        The folder holds a campaign of another seed or of other sources, or damaged lines; another process is at work
        in it.
    ToolError
        A target needs a tool or a package that is not there.
    """
    with claimed(folder):
        return _campaign(known, names, cases, seed, jobs, folder, progress, told)


def _campaign(
    known: dict[str, Target], names: Sequence[str], cases: int, seed: int, jobs: int, folder: Path,
    progress: Callable[[int, int], None] | None, told: Callable[[Failure], None] | None,
) -> Report:  # fmt: skip
    counts = shares(known, names, cases)
    report = Report(seed, {name: Totals() for name in names})
    done: dict[str, set[int]] = {name: set() for name in names}
    lines, failed = folder / "cases.jsonl", folder / "failures.jsonl"
    earlier, size = json_lines(lines)
    _, size_of_failed = json_lines(failed)
    for number, line in enumerate(earlier, 1):
        _check(line, f"{lines}, line {number}", seed)
        run = set(range(line["first"], line["first"] + line["count"]))
        known_of = done.get(line["target"])
        if known_of is not None and not run & known_of and max(run) < counts[line["target"]]:
            known_of |= run
            _count(report, line)
    cut(lines, size)
    cut(failed, size_of_failed)
    report.before = report.cases
    work = _pieces(counts, done)
    total = report.cases + sum(count for _, _, count in work)
    keeper = Runner(known)

    def finished(answer: dict[str, Any]) -> None:
        if "tool" in answer:
            raise ToolError(answer["tool"])
        if "broken" in answer:
            raise RuntimeError(answer["broken"])
        for found in answer["failures"]:
            failure = Failure(**found)
            name = f"{failure.target}-{failure.seed}-{failure.case}{known[failure.target].suffix}"
            write_file(folder / name, keeper.content(failure.target, seed, failure.case))
            append_line(failed, json.dumps({**found, "kit": kit(), "file": name}))
            if told:
                told(failure)
        append_line(lines, json.dumps({**answer, "kit": kit()}))
        _count(report, answer)
        if progress:
            progress(report.cases, total)

    try:
        with Journal(folder) as journal:
            journal.note("begin", kind="fuzz", name=f"seed {seed}", seed=seed, total=total, done=report.cases)
            if progress:
                progress(report.cases, total)
            _run(known, work, seed, jobs, finished)
            report.failures.sort(key=lambda failure: (failure.target, failure.case))
            journal.note("end", status="finished" if report.passed else "failed",
                         message=f"{len(report.failures):,} cases failed")  # fmt: skip
    finally:
        keeper.close()
    return report


def _run(
    known: dict[str, Target], work: Sequence[tuple[str, int, int]], seed: int, jobs: int,
    finished: Callable[[dict[str, Any]], None],
) -> None:  # fmt: skip
    """Give the pieces of work to processes; what each answers goes to `finished`."""
    processes = [_Process(known) for _ in range(min(jobs, max(1, len(work))))]
    try:
        waiting = list(reversed(work))
        while waiting or any(each.work for each in processes):
            for number, each in enumerate(processes):
                if each.work is None and waiting:
                    each.give(waiting.pop(), seed)
                if each.work and each.late():
                    processes[number] = _lost(each, known, seed, waiting, finished)
            ready = wait([each.connection for each in processes if each.work], timeout=0.5)
            for number, each in enumerate(processes):
                if each.work and each.connection in ready:
                    try:
                        answer = json.loads(each.connection.recv_bytes())
                    except (EOFError, OSError):  # it has ended
                        each.process.join(10)
                        processes[number] = _lost(each, known, seed, waiting, finished)
                        continue
                    each.work = None
                    finished(answer)
    finally:
        for each in processes:
            each.end()


def _lost(
    lost: _Process, known: dict[str, Target], seed: int, waiting: list[tuple[str, int, int]],
    finished: Callable[[dict[str, Any]], None],
) -> _Process:  # fmt: skip
    """A process that does not answer: its case has failed; the others of its chunk are run by a new one."""
    assert lost.work is not None
    name, first, count = lost.work
    case, late, code = int(lost.at[0]), lost.late(), lost.process.exitcode
    lost.end()
    if case < 0:
        raise ToolError(f"the process of the target {name} ends before its first case (exit code {code})")
    kind, what = (
        ("slow", f"not done after {PATIENCE:g} s, by the clock")
        if late
        else ("died", f"the process ended with exit code {code}")
    )
    answer = Chunk(name, seed, case, 1, failures=[Failure(name, seed, case, kind, what)]).asdict()
    finished(answer)
    waiting += [(name, begin, end - begin) for begin, end in ((case + 1, first + count), (first, case)) if end > begin]
    return _Process(known)


def _count(report: Report, line: dict[str, Any]) -> None:
    totals = report.totals[line["target"]]
    totals.cases += line["count"]
    totals.refused += line["refused"]
    totals.accepted += line["accepted"]
    totals.failed += len(line["failures"])
    totals.seconds = round(totals.seconds + line["seconds"], 3)
    totals.slowest = round(max(totals.slowest, line["slowest"]), 3)
    totals.largest = max(totals.largest, line["largest"])
    report.failures += [Failure(**found) for found in line["failures"]]


def _check(line: dict[str, Any], place: str, seed: int) -> None:
    """Refuse a line of an earlier process that is not of this campaign."""
    wrong = wrong_fields(line, _FIELDS)
    if not wrong and not all(isinstance(each, dict) and each.keys() == _FAILURE for each in line["failures"]):
        wrong = f"its failures should each have {', '.join(sorted(_FAILURE))}"
    if not wrong and line["count"] < 1:
        wrong = "count should be 1 or more"
    if wrong:
        raise InputError(f"{place} is none of a campaign: {wrong}; choose another folder (-o)")
    if line["seed"] != seed:
        raise InputError(f"{place} is of seed {line['seed']}; expected {seed}: choose that one, or another folder (-o)")
    if line.get("kit") != kit():
        raise InputError(
            f"{place} is of kit {line.get('kit', 'unknown')}; this is {kit()}, whose readers may do "
            "otherwise: choose another folder (-o)"
        )


_FIELDS: dict[str, type] = {
    "target": str, "seed": int, "first": int, "count": int, "refused": int, "accepted": int, "seconds": float,
    "slowest": float, "largest": int, "failures": list,
}  # fmt: skip
_FAILURE = {each.name for each in fields(Failure)}


def replay(
    known: dict[str, Target], name: str, seed: int, case: int, file: Path | None = None
) -> tuple[bytes, Failure | None, str]:
    """One case in this process: its content, why it failed, and why it was refused.

    file : content to judge instead of the case's own.
    """
    runner = Runner(known)
    try:
        target = runner.target(name)
        random = random_of(name, seed, case)
        content = target.make(random)
        if file is not None:
            content = file.read_bytes()
        failure, reason = runner.judge(target, content, random, seed, case)
    finally:
        runner.close()
    return content, failure, reason
