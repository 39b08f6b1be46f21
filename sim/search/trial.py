"""One trial of a search: what is trained is what ``eie train`` trains, and what it costs is what ``eie cost`` says."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from compiler.errors import EieError, ToolError
from compiler.graph.ir import Graph
from compiler.options import Options
from compiler.optuna_quiet import optuna_quiet
from compiler.source import load
from compiler.train.recipe import Recipe
from compiler.train.run import train_recipe
from compiler.train.runfolder import CALIBRATION, COMPRESSED, MODEL, REPORT
from hw.params import Params
from sim.cost import cost

__all__ = ["KEPT", "Outcome", "Task", "Values", "graph_of", "key_of", "run_task"]

KEPT = (MODEL, COMPRESSED, CALIBRATION, REPORT)
"""Files of a training that come back from another machine."""

Values = Mapping[str, int | float | str | bool]
"""Path of a variable → its value."""


@dataclass(frozen=True)
class Task:
    """What a worker needs to know.

    Attributes
    ----------
    number : of the trial. values : of the variables, for messages.
    recipe, params, options : as `spec.Search.at` gives them. objectives, samples : see there.
    folder : of the training; None where the worker is another machine, which sends the files back.
    ladder : reduction and first rung in epochs of ASHA, or None. rungs : what the trials that this one is measured by
        had on each rung: name → error.
    """

    number: int
    values: Values
    recipe: Recipe
    params: Params
    options: Options
    objectives: tuple[str, ...]
    samples: int
    folder: Path | None
    ladder: tuple[int, int] | None = None
    rungs: tuple[Mapping[str, float], ...] = ()
    data_dir: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    state : complete, pruned, failed. objectives : numbers that are made small, empty unless complete.
    figures : all that is known. curve : validation error in percent after each epoch of all stages.
    rungs : name → error, of those that it reached. files : of the training, from another machine.
    """

    number: int
    values: Values
    state: str
    objectives: tuple[float, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[float, ...] = ()
    rungs: Mapping[str, float] = field(default_factory=dict)
    message: str = ""
    seconds: float = 0.0
    cpu: float = 0.0
    files: Mapping[str, bytes] = field(default_factory=dict)


def key_of(number: int) -> str:
    """What folders, the journal and reports call a trial."""
    return f"{number:05d}"


class Pruned(Exception):  # it is no error
    """The training goes worse than others."""

    def __str__(self) -> str:
        return "others did better after as many epochs"


def run_task(task: Task, told: Any = None) -> Iterator[Outcome]:
    """Train, measure; one outcome. What the recipe or the array cannot be makes a failed one. Raises `ToolError`."""
    began = time.monotonic(), time.process_time()
    ladder = None if task.ladder is None else _Ladder(*task.ladder, task.rungs)

    def outcome(state: str, **more: Any) -> Outcome:
        now = time.monotonic() - began[0], time.process_time() - began[1]
        told_of = {} if ladder is None else {"curve": tuple(ladder.curve), "rungs": dict(ladder.reached)}
        return Outcome(
            task.number, task.values, state, seconds=round(now[0], 3), cpu=round(now[1], 3), **{**told_of, **more}
        )

    with ExitStack() as stack:
        folder = task.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            report = train_recipe(
                task.recipe, folder, resume=True, data_dir=task.data_dir,
                watch=None if ladder is None else ladder.climb, plots=False,
            )  # fmt: skip
            lines = [line for stage in report["stages"] for line in stage["history"]]
            if ladder is not None:
                ladder.climb(lines)
            figures = _figures(report)
            if not {*task.objectives} <= figures.keys():
                figures |= _costs(task, folder)
            numbers = tuple(float(figures[name]) for name in task.objectives)
            curve = tuple(_error(line["validation"]) for line in lines)
            files = {} if task.folder else {name: (folder / name).read_bytes() for name in KEPT}
            yield outcome("complete", objectives=numbers, figures=figures, curve=curve, files=files)
        except Pruned as error:
            yield outcome("pruned", message=str(error))
        except ToolError:
            raise
        except (EieError, ValueError) as error:  # hw.params' own are ValueErrors
            yield outcome("failed", message=f"{type(error).__name__}: {error}"[:500])


def _error(accuracy: float) -> float:
    return round(100 * (1 - accuracy), 6)


def _figures(report: Mapping[str, Any]) -> dict[str, float]:
    """What the training says. The test error is for the reader: no choice is made on it."""
    accuracy = report["stages"][-1]["accuracy"]
    return {
        "error": _error(accuracy["validation"]), "test_error": _error(accuracy["test"]),
        "file": report["size"]["file_bytes"],
    }  # fmt: skip


def _costs(task: Task, folder: Path) -> dict[str, float]:
    graph, calibration = graph_of(folder)
    inputs = tuple(data[: task.samples] for data in calibration)
    found = cost(graph, task.params, calibration, inputs, options=task.options)
    return {"cycles": float(found.cycles), "energy": float(found.energy), "bytes": float(found.stored)}


def graph_of(folder: Path) -> tuple[Graph, tuple[NDArray[Any], ...]]:
    """The network of a training, and the inputs that came with it."""
    source = load(str(folder))
    assert source.calibration is not None
    return source.graph, source.calibration


class _Ladder:
    """Optuna's asynchronous successive halving, on the epochs of one training.

    Source: A System for Massively Parallel Hyperparameter Tuning (Li et al., MLSys 2020), algorithm 2.
    """

    def __init__(self, reduction: int, first: int, rivals: tuple[Mapping[str, float], ...]) -> None:
        with optuna_quiet() as optuna:
            study = optuna.create_study(pruner=optuna.pruners.SuccessiveHalvingPruner(first, reduction))
            for rungs in rivals:
                study.add_trial(optuna.trial.create_trial(value=0.0, system_attrs=dict(rungs)))
            self.study, self.trial = study, study.ask()
        self.curve: list[float] = []

    def climb(self, lines: list[dict[str, Any]]) -> None:
        """Note epochs that are new. Raises `Pruned`.

        All lines so far are given, so that a training that was taken up again stops where it would have stopped.
        """
        for line in lines[len(self.curve) :]:
            error = _error(line["validation"])
            self.curve.append(error)
            self.trial.report(error if math.isfinite(error) else 100.0, len(self.curve))
            if self.trial.should_prune():
                raise Pruned

    @property
    def reached(self) -> dict[str, float]:
        """Error at each rung."""
        attributes = self.study.get_trials(deepcopy=False)[-1].system_attrs
        return {name: value for name, value in attributes.items() if name.startswith("completed_rung")}
