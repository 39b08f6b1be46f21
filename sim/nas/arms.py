"""The networks that an experiment compares: found by gradient, drawn at random, and made by hand."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.experiments.policy.network import graph_of
from compiler.train.data import Dataset
from compiler.train.images import Images, accuracy
from compiler.train.loop import fit
from compiler.train.nas.derive import nearest
from compiler.train.nas.latency import LatencyTable
from compiler.train.nas.mixed import Supernet
from compiler.train.nas.search import Paths, Rule, Search
from compiler.train.nas.space import Choices, Space, plain
from compiler.train.schedule import Schedule
from sim.nas.report import TOLERANCE
from sim.nas.table import CALIBRATED, Timer
from sim.search.ran import ran

__all__ = ["Array", "Bench", "Trained", "same_in_hardware"]

_INSIDE = 0.75  # of the tolerance, by the table: the rest is for what the table does not know
_TURNS = 3


@dataclass(frozen=True, eq=False)
class Trained:
    """A network that was trained from its first weights, and measured.

    Attributes
    ----------
    choices : its operations. module : trained. errors : percent of the validation and test samples.
    cycles : exact, by array. turns : networks that were trained until one met the target. passes : batches that went
        through networks before it was chosen. more : figures of its own.
    """

    choices: Choices
    module: Any
    errors: Mapping[str, float]
    cycles: Mapping[str, float]
    turns: int = 1
    passes: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Array:
    """An array, its table, and the cycles that are wanted: those that a network made by hand takes.

    Attributes
    ----------
    scale : cycles of that network by the table, over what it takes.
    """

    name: str
    timer: Timer
    table: LatencyTable
    target: float
    scale: float


@dataclass(frozen=True, eq=False)
class Bench:
    """What all networks of a trial have in common.

    Attributes
    ----------
    train : schedule of the training from the first weights. timers : by array.
    """

    space: Space
    dataset: Dataset
    seed: int
    train: Schedule
    timers: Mapping[str, Timer]

    @property
    def lesson(self) -> Images:
        """What weights learn from."""
        return Images(self.dataset.train, self.dataset.shape)

    @property
    def held(self) -> Images:
        """What choices are made by."""
        return Images(self.dataset.validation, self.dataset.shape)

    def module(self, choices: Choices, schedule: Schedule, number: int) -> Any:
        """A network trained from its first weights; `number` names the training."""
        module = plain(self.space, choices, self.seed)
        fit(module, self.lesson, schedule, (self.seed, number))
        return module

    def trained(self, choices: Choices) -> Trained:
        """Trained in full, and measured on all arrays."""
        module = self.module(choices, self.train, 1)
        parts = {"validation": self.dataset.validation, "test": self.dataset.test}
        wrong = {name: 100 * (1 - accuracy(module, self.lesson, part)) for name, part in parts.items()}
        cycles = {name: float(timer.cost(module).cycles) for name, timer in self.timers.items()}
        return Trained(choices, module, wrong, cycles)

    def met(self, scores: Sequence[NDArray[np.float64]], array: Array) -> Trained:
        """The network of the greatest scores at the target of an array, by exact cycles of the trained network.

        The table is near, and the network counts: where it misses the target, the table is corrected by as much and
        another network is chosen, three times at most; then the nearest one is taken.
        """
        scale, tried = array.scale, []
        for turn in range(1, _TURNS + 1):
            choices = nearest(scores, array.table, array.target * scale, _INSIDE * TOLERANCE)
            found = replace(self.trained(choices), turns=turn)
            taken = found.cycles[array.name]
            tried.append((abs(taken / array.target - 1), turn, found))
            if tried[-1][0] <= TOLERANCE:
                break
            scale = array.table.of(choices) / taken
        return replace(min(tried, key=lambda each: each[:2])[2], turns=turn)

    def warmed(self, schedule: Schedule) -> Supernet:
        """A supernet whose weights have learned, with the same probability for all operations."""
        supernet = Supernet.make(self.space, self.seed)
        fit(supernet, self.lesson, schedule, (self.seed, 2), hooks=[Paths(supernet, self.seed)])
        return supernet

    def found(self, warm: Supernet, schedule: Schedule, array: Array, rule: Rule) -> tuple[Trained, int]:
        """By gradient, from a supernet that is warmed up; and the batches that the search took, without warm-up."""
        supernet, began = copy.deepcopy(warm), time.process_time()
        search = Search(supernet, self.held, array.table, array.target * array.scale, rule, self.seed)
        fit(supernet, self.lesson, schedule, (self.seed, 3), hooks=[search])
        seconds = time.process_time() - began
        shares = [block.probabilities.numpy().astype(np.float64) for block in supernet.mixed]
        passes = schedule.epochs * self.lesson.steps(schedule.batch) + search.steps * rule.passes(self.space)
        made = self.met([block.alpha.numpy() for block in supernet.mixed], array)  # logarithms, but for a constant
        more = {
            "probabilities": [[round(float(value), 4) for value in each] for each in shares],
            "expected": float(array.table.of(supernet.likeliest())) / array.scale,
            "cpu_seconds": round(seconds, 2),
        }
        return replace(made, more=more), passes

    def drawn(self, array: Array, candidates: int, passes: int) -> Trained:
        """Of networks drawn at random at the target, each trained for an equal share of the batches, the best one."""
        rng, began = np.random.default_rng([self.seed, len(array.name)]), time.process_time()
        steps = self.lesson.steps(self.train.batch)
        short = replace(self.train, epochs=max(1, round(passes / candidates / steps)))
        seen: dict[Choices, float] = {}
        for number in range(candidates):
            choices = nearest(_random(rng, self.space), array.table, array.target * array.scale, _INSIDE * TOLERANCE)
            if choices not in seen:
                module = self.module(choices, short, 4 + number)
                seen[choices] = accuracy(module, self.held)
        seconds = time.process_time() - began
        best = max(seen, key=lambda choices: seen[choices])
        scores = [
            np.where(np.arange(count) == choice, 0.0, -1.0)
            for count, choice in zip(self.space.counts, best, strict=True)
        ]
        made = self.met(scores, array)
        more = {"candidates": len(seen), "epochs": short.epochs, "cpu_seconds": round(seconds, 2)}
        return replace(made, passes=len(seen) * short.epochs * steps, more=more)


def same_in_hardware(found: Trained, timer: Timer, engine: str = "rtl") -> dict[str, Any]:
    """Whether the compiled network gives the values of the golden model in hardware, in the cycles that were counted.

    Parameters
    ----------
    engine : that simulates the hardware, one of `sim.run.ENGINES`.
    """
    inputs = timer.lesson.split.inputs[:CALIBRATED]
    graph, cycles = graph_of(found.module, timer.lesson), float(timer.cost(found.module).cycles)
    return ran(graph, timer.params, inputs, inputs[: timer.samples], cycles, engine)


def _random(rng: np.random.Generator, space: Space) -> list[NDArray[np.float64]]:
    """Scores by which any network may be the best."""
    return [rng.gumbel(size=count) for count in space.counts]
