"""A parameter server on Ray whose processes are killed or stopped: how soon it goes on, and that nothing is lost.

Real processes of this machine, real seconds.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import torch

from compiler import clusters
from compiler.errors import ToolError, WorkerError
from compiler.experiments.base import Env, Summary, SummaryTable, Trial
from compiler.experiments.subject import NetworkSpec, OverNetworks, Subject, network_of
from compiler.train import checkpoint
from compiler.train.consistency.cluster import Driver, Settings, train
from compiler.train.consistency.core import bound_words
from compiler.train.consistency.delays import Delays
from compiler.train.consistency.learner import Learner
from compiler.train.table import Table

__all__ = ["FAULTS", "ConsistencyFaults"]

FAULTS = ("none", "killed", "hung", "restarted", "late")
"""Nothing; a worker is killed (SIGKILL), or stopped (SIGSTOP); a server is killed; servers admit a clock too many."""
_GOES_ON = FAULTS[1:4]


@dataclass(frozen=True, kw_only=True)
class ConsistencyFaults(OverNetworks):
    """Every network with every bound and fault.

    Attributes
    ----------
    workers, servers : processes.
    bounds : on staleness.
    step : seconds of a step at least; a tenth of them takes four times as long.
    timeout : seconds until a silent worker counts as hung.
    after : updates of worker 0 after which the fault comes.
    """

    kind: ClassVar[str] = "consistency-faults"
    workers: int
    servers: int
    bounds: tuple[int, ...]
    step: float
    timeout: float
    after: int

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Networks, processes, bounds."""
        return {
            "networks": (network_of(table),),
            "workers": table.integer("workers", 2, 64, default=2),
            "servers": table.integer("servers", 1, 64, default=2),
            "bounds": table.integers("bounds", 0, 1 << 20),
            "step": table.number("step", 0, 60, default=0.1),
            "timeout": table.number("timeout", 0, 3600, default=20.0),
            "after": table.integer("after", 1, 1 << 20, default=10),
        }

    def trials(self) -> list[Trial]:
        """One for each bound, fault and seed."""
        return [
            Trial(
                f"{fault}.{bound}.{seed}",
                {"network": self.networks[0].name, "fault": fault, "bound": bound, "seed": seed},
            )
            for seed, bound, fault in product(self.seeds, self.bounds, FAULTS)
        ]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Train, and do harm once."""
        spec, seed = self.networks[0], trial.options["seed"]
        settings = Settings(
            self.workers, self.servers, trial.options["bound"], every=5, timeout=self.timeout, seed=seed
        )  # fmt: skip
        harm = _Harm(trial.options["fault"], self.after)
        if trial.options["fault"] == "late":
            return self._late(trial, settings, env)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            try:
                trained = train(
                    partial(_learner, spec, seed, env.data_dir, self.workers), settings, folder,
                    delays=Delays("random", step=self.step), told=harm,
                )  # fmt: skip
            except ToolError as error:
                return {"skipped": str(error)}
            applied = [
                checkpoint.load(folder / f"shard-{number}.safetensors")[1]["applied"]
                for number in range(self.servers)
            ]  # fmt: skip
        total = _learner(spec, seed, env.data_dir, self.workers).total
        return {
            "seconds": trained.seconds,
            "reads": trained.reads,
            "worst_lag": max(trained.lags),
            "lost": sum(total - count for each in applied for count in each),
            "goes_on": harm.seconds,
            "replaced": [fault["kind"] for fault in trained.faults],
        }

    def _late(self, trial: Trial, settings: Settings, env: Env) -> dict[str, Any]:
        """What a training says whose servers let a read pass one clock too stale."""
        try:
            ray = clusters.load()
        except ToolError as error:
            return {"skipped": str(error)}
        make = partial(_learner, self.networks[0], trial.options["seed"], env.data_dir, self.workers)
        with tempfile.TemporaryDirectory() as scratch:
            driver = _Late(ray, make, settings, Path(scratch), Delays("fixed", step=self.step))
            try:
                clusters.connect(ray, clusters.LOCAL, self.workers)
                driver.run()
            except WorkerError as error:
                return {"caught": str(error)}
            finally:
                driver.end()
                ray.shutdown()
        return {"caught": None}

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Seconds until the worker, or the server, has more updates than before."""
        skipped = next((result["skipped"] for result in results.values() if "skipped" in result), None)
        if skipped is not None:
            return Summary({}, [], [f"SKIPPED, nothing was run: {skipped}"])
        rows: list[list[str | int | float | None]] = []
        late = [results[f"late.{bound}.{seed}"]["caught"] for bound, seed in product(self.bounds, self.seeds)]
        results = {key: result for key, result in results.items() if "caught" not in result}
        for bound, fault, seed in product(self.bounds, FAULTS[:4], self.seeds):
            one = results[f"{fault}.{bound}.{seed}"]
            rows.append([
                fault, bound_words(bound), seed, one["seconds"], one["goes_on"], one["reads"], one["worst_lag"],
                one["lost"], ", ".join(one["replaced"]) or "none",
            ])  # fmt: skip
        lost = sum(result["lost"] for result in results.values())
        findings = [
            f"{len(results)} trainings by {self.workers} workers and {self.servers} servers, "
            f"{sum(result['reads'] for result in results.values()):,} reads, each checked: the bound holds in every "
            "one. " + (f"{lost} updates are LOST." if lost else "No update is lost.")
        ]
        for fault in _GOES_ON:
            times = [results[f"{fault}.{bound}.{seed}"]["goes_on"] for bound, seed in product(self.bounds, self.seeds)]
            known = [seconds for seconds in times if seconds is not None]
            words = "a server that was killed" if fault == "restarted" else f"a worker that was {fault}"
            limit = f" (silent for {self.timeout:g} s before that is noticed)" if fault == "hung" else ""
            findings.append(
                f"After {words} it goes on in {max(known):.1f} s at most{limit}."
                if len(known) == len(times)
                else f"After {words} it does NOT go on in {len(times) - len(known)} of {len(times)} trainings."
            )
        caught = [words for words in late if words is not None and "the bound on staleness does not hold" in words]
        findings.append(
            f"Servers that let a read pass one clock too stale are caught in {len(caught)} of {len(late)} trainings"
            + (f": {caught[0]}." if caught else ".")
        )
        columns = ["fault", "bound", "seed", "seconds", "goes on after s", "reads", "worst lag", "lost", "replaced"]
        return Summary({"rows": rows}, [SummaryTable("Real processes", columns, rows)], findings)


class _Late(Driver):
    """Its servers let a read pass one clock too stale; its workers do not know."""

    def bound(self) -> int | None:
        """One more."""
        return None if self.settings.staleness is None else self.settings.staleness + 1


class _Harm:
    """Does harm once, and sees when what it met has more updates than before."""

    def __init__(self, fault: str, after: int) -> None:
        self.fault, self.after = fault, after
        self.at: float | None = None
        self.had = 0
        self.seconds: float | None = None

    def __call__(self, states: list[dict[str, Any]]) -> None:
        """Look at what the servers say."""
        if self.fault == "none":
            return
        count: Callable[[], int] = (
            (lambda: sum(states[-1]["applied"]))
            if self.fault == "restarted"
            else (lambda: min(state["applied"][0] for state in states))
        )
        if self.at is None:
            if min(state["applied"][0] for state in states) >= self.after:
                process = states[-1]["process"] if self.fault == "restarted" else states[0]["processes"][0]
                self.at, self.had = time.monotonic(), count() + (self.fault == "killed")
                os.kill(process[1], signal.SIGSTOP if self.fault == "hung" else signal.SIGKILL)
        elif self.seconds is None and count() > self.had:
            self.seconds = time.monotonic() - self.at


def _learner(spec: NetworkSpec, seed: int, data_dir: Path | None, workers: int) -> Learner:
    """Alike in every process."""
    torch.set_num_threads(1)
    subject = Subject.make(spec, seed, Env(data_dir, lambda word: None))
    return Learner(subject.module, subject.lesson, spec.dense, seed, workers)
