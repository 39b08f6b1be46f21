"""Share of the weights that each layer keeps, under a limit on its cycles, on several arrays: policies specialize.

Source: AMC: AutoML for Model Compression and Acceleration on Mobile Devices (He et al., ECCV 2018), unstructured. The
limit is in cycles of the exact model: a table for each array of what each layer costs at each share, from real
activations, and in the end the whole network, which must not take more cycles than the one with uniform shares.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from compiler.errors import RecipeError
from compiler.experiments.policy.agents import same
from compiler.experiments.policy.comparison import Comparison, Known
from compiler.experiments.policy.network import Variants, example, features, pruned
from compiler.experiments.policy.problem import Policy, Problem
from compiler.experiments.subject import Subject
from compiler.graph.ir import Graph
from compiler.source import from_module
from compiler.train.layers import weights
from compiler.train.stages import Prune
from compiler.train.table import Table
from hw.params import PRESETS, preset
from sim.cost import block_costs, cost

__all__ = ["Amc"]

AGENTS = ("uniform", "random", "greedy", "tpe", "cmaes", "amc")


@dataclass(frozen=True, kw_only=True)
class Amc(Comparison):
    """Every agent on every array, at the cycles of one share for all layers.

    Attributes
    ----------
    arrays : presets; policies are found for each and measured on all.
    shares : that a layer may keep, ascending. uniform : the one whose cycles are the limit.
    samples : on which cycles are measured.
    """

    kind: ClassVar[str] = "amc"
    arrays: tuple[str, ...]
    shares: tuple[float, ...]
    uniform: float
    samples: int

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Arrays, shares, the limit, and what all comparisons have."""
        arrays = table.texts("arrays")
        if not arrays or any(name not in PRESETS for name in arrays):
            raise RecipeError(f"{table.source}: arrays is {list(arrays)}; expected some of {', '.join(PRESETS)}")
        shares = tuple(sorted(set(table.numbers("shares", 0, 1))))
        chosen = table.number("uniform", 0, 1)
        if chosen not in shares or len(shares) < 2:
            raise RecipeError(f"{table.source}: uniform is {chosen}; expected one of two or more shares {list(shares)}")
        return {
            "arrays": arrays, "shares": shares, "uniform": chosen,
            "samples": table.integer("samples", 1, 256, default=2), **cls.common(table, AGENTS),
        }  # fmt: skip

    def settings(self) -> list[Mapping[str, Any]]:
        """The arrays."""
        return [{"array": name} for name in self.arrays]

    def problem(self, subject: Subject, options: Mapping[str, Any]) -> Known:
        """Cycles of each layer at each share on the array, and the network that has them."""
        keys = [site.key for site in weights(subject.module)]
        levels = [self.shares for _ in keys]
        split = subject.dataset.validation.take(slice(self.judged))
        variants = Variants.make(subject.module, levels, pruned, subject.lesson, split)
        costs = self._layer_cycles(subject, variants, options["array"])
        at = self.shares.index(self.uniform)
        problem = Problem(costs, sum(each[at] for each in costs), variants.score,
                          features(subject.module, example(subject.lesson)), "ahead")  # fmt: skip
        limit = self._cycles(subject, variants.put(same(problem)), options["array"])
        return Known(problem, variants, options, limit)

    def settled(self, subject: Subject, problem: Problem, known: Known) -> Policy:
        """The whole network takes no more cycles than with uniform shares: layers overlap, a table adds up."""
        assert problem.best is not None
        policy, least = problem.best, sum(each[0] for each in problem.costs)
        while (taken := self._cycles(subject, known.variants.put(policy), known.options["array"])) > known.limit:
            policy = problem.reduced(policy, max(least, problem.cost(policy) * min(known.limit / taken, 0.995)))
            if not any(policy):
                break
        return policy

    def costs(self, subject: Subject, known: Known, module: Any, levels: Sequence[float]) -> dict[str, float]:
        """Cycles of the whole network on every array."""
        costs = {f"cycles {name}": self._cycles(subject, module, name) for name in self.arrays}
        return {"cycles": costs[f"cycles {known.options['array']}"], "limit": known.limit, **costs}

    def stage(self, levels: Mapping[str, float]) -> Prune:
        """Masks stay, weights are trained on."""
        return Prune(
            kind="prune", name="prune", schedule=self.finetune, scope="layer", method="oneshot", ramp=0.0, rounds=1,
            density=dict(levels),
        )  # fmt: skip

    def _graph(self, subject: Subject, module: Any) -> tuple[Graph, list[NDArray[Any]]]:
        source = from_module(copy.deepcopy(module).eval(), (example(subject.lesson),))
        inputs = subject.dataset.train.inputs[: max(64, self.samples)]
        return source.graph, [inputs]

    def _layer_cycles(self, subject: Subject, variants: Variants, array: str) -> list[list[float]]:
        """Of each layer its cycles at each share, made to ascend; all layers at one share are measured together."""
        keys = [site.key for site in variants.sites]
        columns: list[Sequence[float]] = []
        for level in range(len(self.shares)):
            graph, data = self._graph(subject, variants.put((level,) * len(keys)))
            blocks = block_costs(graph, preset(array), data, count=self.samples).blocks
            if missing := [key for key in keys if key not in blocks]:
                raise RecipeError(f"{', '.join(missing)}: no block of the network; there are {', '.join(blocks)}")
            columns.append([float(blocks[key].cycles) for key in keys])
        return [np.maximum.accumulate(each).tolist() for each in np.asarray(columns).T]

    def _cycles(self, subject: Subject, module: Any, array: str) -> float:
        """Of the whole network."""
        graph, data = self._graph(subject, module)
        return float(cost(graph, preset(array), data, [data[0][: self.samples]]).cycles)
