"""Run a search: trials in processes or on a cluster, each outcome kept, the best checked in hardware, a report."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from compiler.claim import claimed
from compiler.errors import InputError, WorkerError
from compiler.experiments.runner import TRIALS, Told
from compiler.files import write_file
from compiler.journal import Journal
from sim.executors import Cluster, Executor, Here, Processes
from sim.search.hardware import check
from sim.search.report import write_report
from sim.search.spec import Search
from sim.search.study import DATABASE, Proposal, Study, front
from sim.search.trial import Outcome, Task, key_of, run_task
from sim.verify import TURNS

__all__ = ["ends", "folder_of", "run_search"]


def run_search(
    search: Search,
    out: Path,
    *,
    jobs: int = 1,
    cluster: str | None = None,
    resume: bool = False,
    rtl: int = 1,
    progress: Told | None = None,
    data_dir: Path | None = None,
    tensorboard: Path | None = None,
) -> dict[str, Any]:
    """Run what is not known yet; returns the report that ``out/report.json`` and ``report.md`` also hold.

    The same search gives the same trials, whatever `jobs` is and however often it was killed. ``out/search.db`` is an
    SQLite file of Optuna with every trial; ``out/trials`` holds the trainings that no other trial beats.

    Parameters
    ----------
    jobs : processes; at most `search.ahead` trials are under way at once. cluster : address of a Ray cluster instead.
    resume : go on with the same search, which may have more trials now.
    rtl : of the best (of several objectives: of the ends of the front), how many are run as Verilog, and compared.
    data_dir : folder with the files of the data set, if not from the cache.
    tensorboard : folder for event files: what is searched for, by number of the trial.

    Raises
    ------
    InputError
        `out` holds a search already and `resume` is not set, or another one, or another process is at work there; no
        trial came to an end; or hardware and cost differ.
    ToolError, WorkerError
        Optuna is missing, or Verilator; the cluster is gone.
    """
    tell: Told = progress or (lambda stage, done, total, text: None)
    with claimed(out):
        if (out / DATABASE).exists() and not resume:
            raise InputError(f"{out} holds a search already; continue it with --resume or choose another folder")
        executor: Executor = Here(work=run_task)
        if cluster:
            executor = Cluster(cluster, jobs, work=run_task)
        elif jobs > 1:
            executor = Processes(min(jobs, search.ahead), work=run_task)
        with closing(Study(search, out)) as study, Journal(out, tensorboard) as journal:
            best = _Run(search, out, study, executor, tell, journal, data_dir).all()
            if not best:
                last = next((each.message for each in reversed(study.outcomes.values()) if each.message), "")
                raise InputError(f"none of {len(study.outcomes)} trials came to an end; the last one: {last}")
            checked = []
            for number, outcome in enumerate(ends(search, best)[:rtl]):
                tell("hardware", number, rtl, f"trial {outcome.number}")
                checked.append(check(search, outcome, folder_of(out, outcome.number)))
            report = write_report(search, study.outcomes, checked, out)
            journal.note("end", status="finished")
    return report


def ends(search: Search, best: list[Outcome]) -> list[Outcome]:
    """The best of each objective, without repetition."""
    found = [min(best, key=lambda each: (each.objectives[n], each.number)) for n in range(len(search.objectives))]
    return list({each.number: each for each in found}.values())


def folder_of(out: Path, number: int) -> Path:
    """The training of a trial."""
    return out / TRIALS / key_of(number)


class _Run:
    """Trials on their way."""

    def __init__(
        self, search: Search, out: Path, study: Study, executor: Executor, tell: Told, journal: Journal,
        data_dir: Path | None,
    ) -> None:  # fmt: skip
        self.search, self.out, self.study, self.executor = search, out, study, executor
        self.tell, self.journal, self.data_dir = tell, journal, data_dir
        self.waiting: deque[Task] = deque()
        self.early: dict[int, Outcome] = {}  # through before one of a lower number
        self.turns: dict[int, int] = {}
        self.best: list[Outcome] = []  # of those that are known

    def all(self) -> list[Outcome]:
        """Until every trial is known; the front."""
        self._begin()
        self.journal.note(
            "begin", kind="search", name=self.search.name, total=self.search.trials,
            done=[key_of(number) for number in self.study.outcomes], objectives=list(self.search.objectives),
        )  # fmt: skip
        self._clean(self.study.outcomes.values())
        self._say()
        self._in_order()
        while self.waiting:
            for task, outcomes in self.executor.run(self.waiting):
                if outcomes is None:
                    self._again(task)
                for outcome in outcomes or ():
                    self.early[outcome.number] = outcome
                self._in_order()
        return self.best

    def _begin(self) -> None:
        """Hand what can be begun to the executor."""
        for proposal in self.study.proposals():
            task = self._task(proposal)
            if isinstance(task, Outcome):
                self.early[task.number] = task
            else:
                self.waiting.append(task)

    def _in_order(self) -> None:
        """Tell what is through, by the numbers of the trials, and begin what can be begun then."""
        while len(self.study.outcomes) in self.early:
            self._keep(self.early.pop(len(self.study.outcomes)))
            self._begin()

    def _task(self, proposal: Proposal) -> Task | Outcome:
        try:
            recipe, params, options = self.search.at(proposal.values)
        except (InputError, ValueError) as error:
            return Outcome(proposal.number, proposal.values, "failed", message=f"{type(error).__name__}: {error}"[:500])
        return Task(
            proposal.number, proposal.values, recipe, params, options,
            self.search.objectives, self.search.samples,
            folder_of(self.out, proposal.number).resolve() if self.executor.local else None,
            (self.search.reduction, self.search.epochs) if self.search.prune else None, proposal.rungs,
            self.data_dir,
        )  # fmt: skip

    def _again(self, task: Task) -> None:
        """A worker died, and perhaps others with it; the training goes on after its last epoch."""
        turns = self.turns[task.number] = self.turns.get(task.number, 0) + 1
        if turns >= TURNS:
            raise WorkerError(
                f"the process of trial {task.number} died each of {TURNS} times, as it does without memory; the "
                "search goes on with --resume"
            )
        self.waiting.append(task)

    def _keep(self, outcome: Outcome) -> None:
        for name, content in outcome.files.items():
            path = folder_of(self.out, outcome.number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, content)
        self.study.tell(outcome)
        self.journal.note(
            "trial", key=key_of(outcome.number), seconds=outcome.seconds, state=outcome.state,
            values=dict(outcome.values), objectives=list(outcome.objectives), message=outcome.message,
        )  # fmt: skip
        self.journal.curve(dict(zip(self.search.objectives, outcome.objectives, strict=False)), outcome.number)
        self._clean([*self.best, outcome])
        self._say()

    def _clean(self, outcomes: Iterable[Outcome]) -> None:
        """The front is that of these; remove the trainings of those among them that are beaten."""
        beaten = {each.number: each for each in outcomes}
        self.best = front(beaten.values())
        for each in self.best:
            del beaten[each.number]
        for number in beaten:
            if (folder := folder_of(self.out, number)).exists():
                shutil.rmtree(folder, ignore_errors=True)

    def _say(self) -> None:
        text = ""
        if self.best:
            shown = self.best[0]
            numbers = zip(self.search.objectives, shown.objectives, strict=True)
            text = f"best: trial {shown.number}, " + ", ".join(f"{name} {value:,.6g}" for name, value in numbers)
            if len(self.best) > 1:
                text += f"; {len(self.best)} on the front"
        self.tell(self.search.name, len(self.study.outcomes), self.search.trials, text)
