"""Bits by layer, and the array that computes them, under limits on cycles, energy and bytes: policies specialize.

On a uniform grid few bits make small weights zero, and the array computes no product with zero: so bits are cycles and
energy here. (Shared values beside zero stay values: their bits are bytes alone.)

Source: HAQ: Hardware-Aware Automated Quantization with Mixed Precision (Wang et al., CVPR 2019), section 3 and tables 3
to 5: linear quantization, limits on latency, energy and size, each policy on each hardware.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean
from typing import Any, ClassVar

import numpy as np

from compiler.errors import InputError, RecipeError
from compiler.experiments.base import Summary, SummaryTable
from compiler.experiments.haq import Haq, layer_bytes
from compiler.experiments.policy.comparison import Known
from compiler.experiments.policy.network import Variants, example, features
from compiler.experiments.policy.problem import Policy, Problem
from compiler.experiments.subject import Subject
from compiler.train.layers import weights
from compiler.train.table import Table
from hw.params import Params
from sim.search.measured import Measured
from sim.search.placed import MEASURES, Placed, Search
from sim.search.policies import groups_of
from sim.search.ran import in_words

__all__ = ["ArrayHaq"]


@dataclass(frozen=True, kw_only=True)
class ArrayHaq(Haq):
    """Every agent in every search; each policy is measured on the arrays of all searches.

    Attributes
    ----------
    searches : what is searched for. samples : on which cycles and energy are measured.
    rtl : the search whose policy, of the last agent, runs in Verilog with each seed; "": none.
    """

    kind: ClassVar[str] = "haq-array"
    searches: tuple[Search, ...]
    samples: int
    rtl: str

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Searches, and what `Haq` has."""
        searches = tuple(map(Search.parse, table.tables("searches")))
        if not searches or len({each.name for each in searches}) < len(searches):
            raise RecipeError(f"{table.source}: searches are missing, or two have one name")
        return {
            **cls.widths(table), "quantizers": tuple(sorted({each.quantizer for each in searches})),
            "searches": searches, "samples": table.integer("samples", 1, 256, default=1),
            "rtl": table.choice("rtl", [each.name for each in searches]) if table.has("rtl") else "",
        }  # fmt: skip

    def settings(self) -> list[Mapping[str, Any]]:
        """Each search."""
        return [{"search": each.name} for each in self.searches]

    def search(self, options: Mapping[str, Any]) -> Search:
        """The one that belongs to one of `settings`."""
        return next(each for each in self.searches if each.name == options["search"])

    def quantizer(self, options: Mapping[str, Any]) -> str:
        """That of the search."""
        return self.search(options).quantizer

    @property
    def code_bits(self) -> int:
        """Of the arrays: all widths fit."""
        return max(self.high, self.ends)

    def measured(self, subject: Subject, array: Params) -> Measured:
        """Costs on an array."""
        return Measured(subject, array, self.samples)

    def problem(self, subject: Subject, options: Mapping[str, Any]) -> Known:
        """The array in front, then bits of each block; the greatest share of a limit is what a policy costs.

        Raises
        ------
        InputError
            No array keeps to the limits, not even with the fewest bits.
        """
        search = self.search(options)
        arrays = search.arrays(self.code_bits)
        blocks = groups_of(self.measured(subject, arrays[0]))
        inside = {n for group in blocks.values() for n in group}
        alone = [(n,) for n in range(len(list(weights(subject.module)))) if n not in inside]
        groups = [*blocks.values(), *alone]
        variants = self.variants(subject, options, groups)
        tables = [self._tables(self.measured(subject, array), search, list(blocks), variants) for array in arrays]
        uniform = self._uniform(variants)
        limits = {name: share * _total(tables[0][name], uniform) for name, share in search.limits.items()}

        def cost(policy: Policy, table: Mapping[str, Sequence[Sequence[float]]]) -> float:
            return max(_total(table[name], policy) / limit for name, limit in limits.items())

        whole = self._whole(subject, search, arrays[0], variants, uniform)
        placed = Placed(variants, arrays, {name: share * whole[name] for name, share in search.limits.items()})
        least = (0,) * len(groups)
        sure: dict[int, Policy] = {}
        for n, table in enumerate(tables):  # fewer bits may take more cycles where layers wait for one another
            for policy in (least, uniform):
                if max(self._shares(subject, search, placed, (n, *policy)).values()) <= 1 >= cost(policy, table):
                    sure.setdefault(n, policy)
        able = list(sure)
        if not able:
            raise InputError(
                f"search {search.name}: with {self.low} bits everywhere no array keeps to the limits "
                f"{dict(search.limits)}; raise them"
            )
        ends = [(number, *policy) for number, policy in enumerate(sure.values())]
        placed = replace(placed, arrays=[arrays[n] for n in able], sure=ends)
        first = next(iter(limits))
        costs = [[0.0] * len(able), *([each / limits[first] for each in row] for row in tables[0][first])]
        rows = features(subject.module, example(subject.lesson))
        described = np.stack([np.zeros(rows.shape[1]), *(rows[group[0]] for group in groups)])

        def coupled(policy: Policy) -> float:
            return cost(policy[1:], tables[able[policy[0]]])

        problem = Problem(costs, 1.0, placed.score, described, coupled=coupled, heads=1)
        return Known(problem, placed, options)

    def settled(self, subject: Subject, problem: Problem, known: Known) -> Policy:
        """The best policy that was tried whose whole network keeps to all limits: layers overlap, a table adds up.

        Where none does, bits of the best one fall until it does.
        """
        assert problem.best is not None
        placed, search = _placed(known), self.search(known.options)
        for policy in sorted(problem.tried, key=lambda each: -problem.tried[each]):
            if max(self._shares(subject, search, placed, policy).values()) <= 1:
                return policy
        policy, sure = problem.best, placed.sure[problem.best[0]]
        least = problem.cost((problem.best[0], *(0,) * (len(problem) - 1)))
        while (share := max(self._shares(subject, search, placed, policy).values())) > 1:
            wanted = max(least, problem.cost(policy) * min(1 / share, 0.995))
            smaller = problem.reduced(policy, wanted)
            policy = smaller if smaller != policy else sure
        return policy

    def costs(self, subject: Subject, known: Known, policy: Policy, found: Any, trained: Any) -> dict[str, float]:
        """The array, shares of the limits, and what the network takes there, and on the reference of each search."""
        placed = _placed(known)
        array, search = placed.array(policy), self.search(known.options)
        own = self._whole(subject, search, array, placed.variants, policy[1:])
        others = {
            f"cycles {each.name}": self.measured(subject, each.arrays(self.code_bits)[0]).cycles(found)
            for each in self.searches
        }
        return {
            "PEs": array.pes, "queue": array.queue_depth, **own,
            **{f"{name}, % of its limit": 100 * (own[name] / limit) for name, limit in placed.limits.items()}, **others,
            "cycles trained on": self.measured(subject, array).cycles(trained),
        }  # fmt: skip

    def more(self, subject: Subject, known: Known, agent: str, policy: Policy, found: Any) -> dict[str, Any]:
        """Of one policy, what its network does in Verilog."""
        if agent != self.agents[-1] or known.options["search"] != self.rtl:
            return {}
        return {"verilog": self.measured(subject, _placed(known).array(policy)).in_hardware(found)}

    def within(self, row: Mapping[str, Any]) -> bool:
        """Every limit, by the whole network."""
        shares = [share for name, share in row["costs"].items() if name.endswith("% of its limit")]
        return bool(row["cost"] <= row["budget"] and max(shares) <= 100)

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """As of `Comparison`, each policy on each array, and what the hardware says."""
        made = super().summarize(results)
        ran = in_words(row for result in results.values() for row in result["rows"])
        return replace(made, tables=[*made.tables, self._matrix(results)], findings=[*made.findings, ran])

    def _matrix(self, results: Mapping[str, dict[str, Any]]) -> SummaryTable:
        """Each policy's test error, and its cycles on each array, as a share of those of uniform bits there."""
        lines: list[list[str | int | float | None]] = []
        for search, agent in product(self.searches, [name for name in self.agents if name != "uniform"]):
            errors, shares = [], []
            for result in results.values():
                own = _row(result, search.name, agent)
                errors.append(own["trained"]["test"])
                shares.append([
                    100 * own["costs"][f"cycles {each.name}"]
                    / _row(result, each.name, "uniform")["costs"][f"cycles {each.name}"]
                    for each in self.searches
                ])  # fmt: skip
            means = (round(fmean(each), 1) for each in zip(*shares, strict=True))
            lines.append([search.name, agent, round(fmean(errors), 3), *means])
        return SummaryTable(
            "Each policy on the first array of each search, cycles as a share of those of uniform bits there",
            ["policy for", "agent", "test error trained on, %", *(f"{each.name}, %" for each in self.searches)], lines,
        )  # fmt: skip

    def _uniform(self, variants: Variants) -> Policy:
        """Of the levels behind the array."""
        level = self.uniform - self.low
        return tuple(min(level, len(variants.levels[group[0]]) - 1) for group in variants.groups)

    def _tables(
        self, measured: Measured, search: Search, blocks: Sequence[str], variants: Variants
    ) -> dict[str, list[list[float]]]:
        """Measure → of each group, of each of its levels, what it costs by itself; none costs less than one below.

        The first groups are the blocks of the array, in their order; the host computes the others.
        """
        counts = [len(variants.levels[group[0]]) for group in variants.groups]
        found: dict[str, list[list[float]]] = {name: [[] for _ in counts] for name in MEASURES}
        for level in range(max(counts)):
            costs = measured.parts(variants.put(tuple(min(level, count - 1) for count in counts)))
            for n, group in enumerate(variants.groups):
                if level < counts[n]:
                    own = costs[blocks[n]] if n < len(blocks) else None
                    found["cycles"][n].append(float(own.cycles) if own else 0.0)
                    found["energy"][n].append(float(own.energy) if own else 0.0)
                    found["bytes"][n].append(_bytes(variants, group, level, search.quantizer))
        return {name: [np.maximum.accumulate(row).tolist() for row in rows] for name, rows in found.items()}

    def _whole(
        self, subject: Subject, search: Search, array: Params, variants: Variants, policy: Policy
    ) -> dict[str, float]:
        """What the network of a policy takes on an array; infinite where it does not fit."""
        found = self.measured(subject, array).whole(variants.put(policy))
        groups = zip(variants.groups, policy, strict=True)
        stored = sum(_bytes(variants, group, level, search.quantizer) for group, level in groups)
        if found is None:
            return {"cycles": float("inf"), "energy": float("inf"), "bytes": stored}
        return {"cycles": float(found.cycles), "energy": float(found.energy), "bytes": stored}

    def _shares(self, subject: Subject, search: Search, placed: Placed, policy: Policy) -> dict[str, float]:
        """What a policy takes of each limit."""
        own = self._whole(subject, search, placed.array(policy), placed.variants, policy[1:])
        return {name: own[name] / limit for name, limit in placed.limits.items()}


def _placed(known: Known) -> Placed:
    assert isinstance(known.variants, Placed)
    return known.variants


def _total(table: Sequence[Sequence[float]], policy: Sequence[int]) -> float:
    return float(sum(row[level] for row, level in zip(table, policy, strict=True)))


def _bytes(variants: Variants, group: Sequence[int], level: int, quantizer: str) -> float:
    """Of the codes of a block."""
    return sum(layer_bytes(variants.sites[n].value.numel(), int(variants.levels[n][level]), quantizer) for n in group)


def _row(result: Mapping[str, Any], search: str, agent: str) -> Mapping[str, Any]:
    return next(row for row in result["rows"] if row["search"] == search and row["agent"] == agent)
