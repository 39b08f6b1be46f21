"""What each layer keeps, weights or channels, under a limit on cycles, on several arrays: policies specialize.

Source: AMC: AutoML for Model Compression and Acceleration on Mobile Devices (He et al., ECCV 2018), fine-grained and
channel pruning. The limit is in cycles of the exact model: a table for each array of what each block costs at each
share, from real activations, and in the end the whole network, which must not take more cycles than the one with
uniform shares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from compiler.errors import RecipeError
from compiler.experiments.base import Summary
from compiler.experiments.policy.agents import same
from compiler.experiments.policy.channel_variants import ChannelVariants
from compiler.experiments.policy.comparison import Comparison, Known
from compiler.experiments.policy.network import Variants
from compiler.experiments.policy.problem import Policy, Problem
from compiler.experiments.subject import Subject
from compiler.train.stages import Prune
from compiler.train.table import Table
from hw.params import PRESETS
from sim.search.measured import Measured
from sim.search.policies import by_channels, by_weights
from sim.search.ran import in_words

__all__ = ["Amc"]

AGENTS = ("uniform", "random", "greedy", "tpe", "cmaes", "amc")
REMOVED: dict[str, Callable[..., tuple[Problem, Variants | ChannelVariants]]] = {
    "weights": by_weights,
    "channels": by_channels,
}
"""What is removed, as recipes write it → the problem of it."""


@dataclass(frozen=True, kw_only=True)
class Amc(Comparison):
    """Every agent on every array, for weights or channels or both, at the cycles of one share for all layers.

    Attributes
    ----------
    arrays : presets; policies are found for each and measured on all.
    shares : that a layer may keep, ascending, 0 … 1.
    uniform : what is removed, one of `REMOVED` → the share whose cycles are the limit.
    samples : on which cycles are measured.
    rtl : the array on which the policy of the last agent runs in Verilog with each seed; "": none.
    """

    kind: ClassVar[str] = "amc"
    arrays: tuple[str, ...]
    shares: tuple[float, ...]
    uniform: Mapping[str, float]
    samples: int
    rtl: str

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Arrays, what is removed, shares, the limit, and what all comparisons have."""
        arrays = table.texts("arrays")
        if not arrays or any(name not in PRESETS for name in arrays):
            raise RecipeError(f"{table.source}: arrays is {list(arrays)}; expected some of {', '.join(PRESETS)}")
        shares = tuple(sorted(set(table.numbers("shares", 0, 1))))
        inner = table.table("uniform")
        chosen = {name: inner.number(name, 0, 1) for name in REMOVED if inner.has(name)}
        inner.finish()
        if not chosen or not set(chosen.values()) <= set(shares) or len(shares) < 2:
            raise RecipeError(
                f"{table.source}: uniform is {chosen}; expected {' or '.join(REMOVED)}, each with one of two or more "
                f"shares {list(shares)}"
            )
        return {
            "arrays": arrays, "shares": shares, "uniform": chosen,
            "samples": table.integer("samples", 1, 256, default=2),
            "rtl": table.choice("rtl", arrays) if table.has("rtl") else "", **cls.common(table, AGENTS),
        }  # fmt: skip

    def settings(self) -> list[Mapping[str, Any]]:
        """What is removed, on every array."""
        return [{"removed": removed, "array": name} for removed in self.uniform for name in self.arrays]

    def problem(self, subject: Subject, options: Mapping[str, Any]) -> Known:
        """Cycles of each block at each share on the array, and the networks that have them."""
        measured = Measured.on(options["array"], subject, self.samples)
        split = subject.dataset.validation.take(slice(self.judged))
        level = self.shares.index(self.uniform[options["removed"]])
        problem, variants = REMOVED[options["removed"]](measured, self.shares, level, split)
        return Known(problem, variants, options, measured.cycles(variants.found(same(problem))))

    def settled(self, subject: Subject, problem: Problem, known: Known) -> Policy:
        """The whole network takes no more cycles than with uniform shares: layers overlap, a table adds up."""
        assert problem.best is not None
        measured = Measured.on(known.options["array"], subject, self.samples)
        policy, fewest = problem.best, (0,) * len(problem)
        while any(policy) and (taken := measured.cycles(known.variants.found(policy))) > known.limit:
            wanted = max(problem.cost(fewest), problem.cost(policy) * min(known.limit / taken, 0.995))
            smaller = problem.reduced(policy, wanted)
            policy = smaller if smaller != policy else fewest  # levels may cost as little as the lowest ones
        return policy

    def costs(self, subject: Subject, known: Known, policy: Policy, found: Any, trained: Any) -> dict[str, float]:
        """Cycles of the whole network on every array, before the training, and on its own after it."""
        own = known.options["array"]
        costs = {f"cycles {name}": Measured.on(name, subject, self.samples).cycles(found) for name in self.arrays}
        return {
            "cycles": costs[f"cycles {own}"], "limit": known.limit, **costs,
            "cycles trained on": Measured.on(own, subject, self.samples).cycles(trained),
        }  # fmt: skip

    def trained(self, subject: Subject, known: Known, policy: Policy) -> Any:
        """Masks stay, or the smaller network, which is one already, is trained on."""
        if known.options["removed"] == "weights":
            return super().trained(subject, known, policy)
        module = known.variants.found(policy)
        subject.train(module, self.finetune, 1)
        return module.eval()

    def more(self, subject: Subject, known: Known, agent: str, policy: Policy, found: Any) -> dict[str, Any]:
        """Of one policy, what its network does in Verilog."""
        if agent != self.agents[-1] or known.options["array"] != self.rtl:
            return {}
        return {"verilog": Measured.on(self.rtl, subject, self.samples).in_hardware(found)}

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """As of `Comparison`, and what the hardware says."""
        made = super().summarize(results)
        ran = in_words(row for result in results.values() for row in result["rows"])
        return replace(made, findings=[*made.findings, ran])

    def stage(self, levels: Mapping[str, float], options: Mapping[str, Any]) -> Prune:
        """Masks stay, weights are trained on."""
        return Prune(
            kind="prune", name="prune", schedule=self.finetune, scope="layer", method="oneshot", ramp=0.0, rounds=1,
            density=dict(levels),
        )  # fmt: skip
