"""Proves claims: each for its block, against each planted fault, and with its covers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from sim.formal.claim import INDUCTION, Claim
from sim.formal.sheet import Design
from sim.formal.tools import FormalError, Outcome, run, stop, tools

__all__ = ["Report", "Result", "check"]

_ELABORATING = Lock()  # Amaranth is not made for threads


@dataclass
class Result:
    """What became of one claim. An outcome is missing where there was an error, which `errors` then names."""

    claim: Claim
    proof: Outcome | None = None
    covers: Outcome | None = None
    bugs: dict[str, Outcome] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def found(self) -> int:
        """Planted faults that were found."""
        return sum(not outcome.passed for outcome in self.bugs.values())

    @property
    def seconds(self) -> float:
        """Of all its tasks."""
        return sum(outcome.seconds for outcome in (self.proof, self.covers, *self.bugs.values()) if outcome)

    @property
    def cpu(self) -> float:
        """Processor seconds of all its tasks."""
        return sum(outcome.cpu for outcome in (self.proof, self.covers, *self.bugs.values()) if outcome)

    @property
    def passed(self) -> bool:
        """Proved, every cover reached, every planted fault found."""
        return bool(
            not self.errors and self.proof and self.proof.passed and self.covers and self.covers.passed
            and self.claim.bugs and self.found == len(self.claim.bugs)
        )  # fmt: skip

    @property
    def problems(self) -> list[str]:
        """Why it did not pass, a line each."""
        found = list(self.errors)
        if self.proof and not self.proof.passed:
            where = f" (trace in {self.proof.folder})" if self.proof.folder else ""
            found += [f"does not hold: {text}{where}" for text in self.proof.failed or ("unknown assertion",)]
        if self.covers and not self.covers.passed:
            found += [f"never happens: {text}" for text in self.covers.failed or ("unknown cover",)]
        found += [f"planted fault not found: {text}" for text, outcome in self.bugs.items() if outcome.passed]
        return found if self.claim.bugs else [*found, "no fault is planted: nothing shows that it could fail"]

    def asdict(self) -> dict[str, Any]:
        """As plain data."""
        claim = self.claim
        return {
            "name": claim.name, "block": claim.block, "claim": claim.text, "engine": claim.engine,
            "bound": claim.bound or None, "passed": self.passed, "seconds": round(self.seconds, 2),
            "cpu": round(self.cpu, 2),
            "proved": bool(self.proof and self.proof.passed), "failed": list(self.proof.failed) if self.proof else [],
            "proof_seconds": round(self.proof.seconds, 2) if self.proof else None,
            "trace": self.proof.folder if self.proof else None,
            "covers_missed": list(self.covers.failed) if self.covers else None,
            "bugs": {
                text: {"found": not out.passed, "by": list(out.failed), "seconds": round(out.seconds, 2)}
                for text, out in self.bugs.items()
            },
            "errors": self.errors,
        }  # fmt: skip


@dataclass
class Report:
    """What became of all claims."""

    results: list[Result]

    @property
    def passed(self) -> bool:
        """All claims passed, and there is one."""
        return bool(self.results) and all(result.passed for result in self.results)

    def asdict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "passed": self.passed,
            "proved": sum(bool(result.proof and result.proof.passed) for result in self.results),
            "bugs": sum(len(result.claim.bugs) for result in self.results),
            "bugs_found": sum(result.found for result in self.results),
            "claims": [result.asdict() for result in self.results],
        }


def check(
    claims: Sequence[Claim],
    jobs: int = 1,
    timeout: float = 600.0,
    keep: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    done: Callable[[Result], None] | None = None,
) -> Report:
    """Prove claims.

    Parameters
    ----------
    jobs : engines that run at a time.
    timeout : seconds for one task.
    keep : folder for log and trace of what fails and should not.
    progress : called with (tasks done, tasks).
    done : called with each claim that is through.

    Raises
    ------
    FormalError
        A tool is missing.
    """
    tools()
    results = [Result(claim) for claim in claims]
    # Long ones first would be best, but nobody knows them before; the order of the table is what a reader expects.
    tasks = [(result, what) for result in results for what in ("proof", "covers", *result.claim.bugs)]
    left = {id(result): 2 + len(result.claim.bugs) for result in results}
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = {pool.submit(_task, result.claim, what, timeout, keep): (result, what) for result, what in tasks}
        for number, future in enumerate(as_completed(futures), 1):
            result, what = futures[future]
            try:
                outcome = future.result()
            except FormalError as error:
                result.errors.append(f"{what}: {error}")
            else:
                if what in ("proof", "covers"):
                    setattr(result, what, outcome)
                else:
                    result.bugs[what] = outcome
            left[id(result)] -= 1
            if progress:
                progress(number, len(tasks))
            if done and not left[id(result)]:
                done(result)
    except BaseException:  # an error, or Ctrl-C: nothing more begins, and what runs is stopped
        pool.shutdown(wait=False, cancel_futures=True)
        stop()
        raise
    pool.shutdown()
    return Report(results)


def _task(claim: Claim, what: str, timeout: float, keep: Path | None) -> Outcome:
    design = _design(claim, what)
    if what == "covers":
        return run(design, "cover", INDUCTION, claim.cover_depth, timeout, keep and keep / f"{claim.name}-covers")
    if what == "proof":
        mode, depth = ("bmc", claim.bound) if claim.bound else ("prove", claim.depth)
        return run(design, mode, claim.engine, depth, timeout, keep and keep / claim.name)
    return run(design, "bmc", INDUCTION, claim.bug_depth, timeout)


def _design(claim: Claim, what: str) -> Design:
    with _ELABORATING:
        return claim.design(claim.bugs[what]() if what in claim.bugs else None)
