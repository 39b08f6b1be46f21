"""Agents on the same networks with at most as many evaluations each: what HAQ and AMC have in common."""

from __future__ import annotations

import copy
import dataclasses
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from compiler.errors import RecipeError
from compiler.experiments.base import Env, Summary, SummaryTable, Trial
from compiler.experiments.paired import Family, Paired
from compiler.experiments.policy.agents import AGENTS
from compiler.experiments.policy.problem import Policy, Problem
from compiler.experiments.subject import NetworkSpec, OverNetworks, Subject, networks_of, schedule_of
from compiler.train.layers import make_plain, weights
from compiler.train.schedule import Schedule
from compiler.train.stages import Stage
from compiler.train.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Comparison", "Known", "Networks"]

_WHEN = {"as found": "found", "trained on": "trained"}
"""When a policy is tested, in words → where its errors are in a row."""


class Networks(Protocol):
    """The networks of policies."""

    def named(self, policy: Policy) -> list[float]:
        """What the levels of a policy are, layer by layer."""

    def found(self, policy: Policy) -> nn.Module:
        """The network of a policy, which nothing changes any more."""


@dataclass(frozen=True)
class Known:
    """What is to be solved on a trained network.

    Attributes
    ----------
    problem : that no agent has seen. variants : the networks of its policies.
    options : one of `Comparison.settings`. limit : in cycles of the whole network, 0 where there is none.
    """

    problem: Problem
    variants: Networks
    options: Mapping[str, Any]
    limit: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Comparison(OverNetworks):
    """Every agent finds a policy for every network and seed; each policy is trained on alike, and tested.

    Attributes
    ----------
    agents : names of `agents.AGENTS`, uniform among them. evaluations : of each, but for uniform and greedy.
    judged : validation samples that a policy is judged by; the rest of them is not seen by any search.
    finetune : the training of a policy that was found.
    goal : points that a search is to gain over uniform.
    """

    agents: tuple[str, ...]
    evaluations: int
    judged: int
    finetune: Schedule
    goal: float

    @classmethod
    def common(cls, table: Table, agents: Sequence[str]) -> dict[str, Any]:
        """The fields of both kinds. Raises `RecipeError`."""
        chosen = table.texts("agents", default=list(agents))
        if unknown := [name for name in chosen if name not in AGENTS]:
            raise RecipeError(
                f"{table.source}: agents names {', '.join(unknown)}; expected some of {', '.join(AGENTS)}"
            )
        if "uniform" not in chosen or len(set(chosen)) < len(chosen):
            raise RecipeError(f"{table.source}: agents is {list(chosen)}; expected each once, and uniform among them")
        return {
            "networks": networks_of(table),
            "agents": chosen,
            "evaluations": table.integer("evaluations", 2, 100_000),
            "judged": table.integer("judged", 10, 1 << 20),
            "finetune": schedule_of(table, "finetune", 0),
            "goal": table.number("goal", 0, 100, default=0.5, low_included=True),
        }

    @abstractmethod
    def problem(self, subject: Subject, options: Mapping[str, Any]) -> Known:
        """What is to be solved on a trained network."""

    @abstractmethod
    def costs(
        self, subject: Subject, known: Known, policy: Policy, found: nn.Module, trained: nn.Module
    ) -> dict[str, float]:
        """The network of a policy in all measures, as found and trained on: measured, not taken from the search."""

    def more(self, subject: Subject, known: Known, agent: str, policy: Policy, found: nn.Module) -> dict[str, Any]:
        """What a row says beside all that others say."""
        return {}

    def within(self, row: Mapping[str, Any]) -> bool:
        """Whether what was found, a row of `run`, keeps to its limit."""
        costs = row["costs"]
        return bool(row["cost"] <= row["budget"] and costs.get("cycles", 0) <= costs.get("limit", 0))

    @abstractmethod
    def stage(self, levels: Mapping[str, float], options: Mapping[str, Any]) -> Stage:
        """That trains a network on at the level of each of its weights, as the stage of a recipe."""

    def trained(self, subject: Subject, known: Known, policy: Policy) -> nn.Module:
        """The network of a policy, trained on; the training's number, and so the order of samples, is that of all."""
        module = copy.deepcopy(subject.module)
        keys = [site.key for site in weights(module)]
        levels = dict(zip(keys, known.variants.named(policy), strict=True))
        subject.apply(self.stage(levels, known.options), module, 1)
        make_plain(module)
        return module

    def settled(self, subject: Subject, problem: Problem, known: Known) -> Policy:
        """The best policy of a search, made smaller where the sum of its costs is only near to what it costs."""
        assert problem.best is not None
        return problem.best

    def settings(self) -> list[Mapping[str, Any]]:
        """What each network is searched for; more than one gives a matrix of each policy at each."""
        return [{}]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Every agent on one network and seed."""
        spec, subject = self.subject(trial, env)
        env.note("dense")
        subject.train(subject.module, spec.dense, 0)
        dense = subject.errors(subject.module)
        rows = []
        for options in self.settings():
            env.note(f"levels {json.dumps(options) if options else ''}")
            known = self.problem(subject, options)
            whole = known.problem.score(known.problem.top)
            for number, name in enumerate(self.agents):
                env.note(name)
                own = dataclasses.replace(known.problem)
                AGENTS[name](own, self.evaluations, subject.seed * 1000 + number, whole)
                policy = self.settled(subject, own, known)
                levels = known.variants.named(policy)
                found = known.variants.found(policy)
                trained = self.trained(subject, known, policy)
                rows.append({
                    "agent": name, **options, "policy": list(policy), "levels": levels,
                    "cost": own.cost(policy), "budget": own.budget, "evaluations": own.evaluations,
                    "judged": own.score(policy), "found": subject.errors(found),
                    "trained": subject.errors(trained),
                    "costs": self.costs(subject, known, policy, found, trained),
                    "history": [round(best, 3) if isfinite(best) else None for best in own.history],
                    **self.more(subject, known, name, policy, found),
                })  # fmt: skip
        return {"dense": dense, "rows": rows}

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Means over the seeds, differences from uniform pair by pair, and whether the limit held in every run."""
        tables, findings, plots = [], [], {}
        compared: dict[str, tuple[list[float], list[float]]] = {}
        broken = [
            f"{key} {row['agent']}" for key, result in results.items() for row in result["rows"] if not self.within(row)
        ]  # fmt: skip
        count = sum(len(result["rows"]) for result in results.values())
        findings.append(
            f"The limit held in all {count} searches."
            if not broken
            else f"The limit was broken by {', '.join(broken)}."
        )
        for network in self.networks:
            for options in self.settings():
                runs = [results[f"{network.name}.{seed}"] for seed in self.seeds]
                rows = {
                    name: [
                        next(row for row in run["rows"]
                             if row["agent"] == name and all(row[k] == v for k, v in options.items()))
                        for run in runs
                    ]
                    for name in self.agents
                }  # fmt: skip
                title = ", ".join([network.name, *(str(value) for value in options.values())])
                tables.append(self._table(network, title, rows, fmean([run["dense"]["test"] for run in runs])))
                for when, key in _WHEN.items():
                    errors = {name: [row[key]["test"] for row in found] for name, found in rows.items()}
                    compared |= {f"{title}, {when}: uniform - {name}": (errors["uniform"], errors[name])
                                 for name in self.agents if name != "uniform"}  # fmt: skip
                plots["search-" + title.replace(", ", "-")] = _plot(title, rows)
        family = Family.of(compared)
        findings += [self._verdict(name, pair, p) for (name, pair), p in
                     zip(family.pairs.items(), family.corrected.values(), strict=True)]  # fmt: skip
        findings.append(family.finding())
        return Summary(family.asdict(), [*tables, *family.tables("points of test error")], findings, plots)

    def _table(
        self, network: NetworkSpec, title: str, rows: Mapping[str, list[dict[str, Any]]], dense: float
    ) -> SummaryTable:
        """A row an agent, with the points that it gains over uniform, as found and trained on."""
        lines: list[list[str | int | float | None]] = []
        measures = list(rows["uniform"][0]["costs"])
        for name, found in rows.items():
            gains = [
                None if name == "uniform" else round(_gain(rows["uniform"], found, key), 3) for key in _WHEN.values()
            ]
            lines.append([
                name, round(fmean([row["evaluations"] for row in found])),
                round(fmean([100 - row["judged"] for row in found]), 3),
                round(fmean([row["found"]["test"] for row in found]), 3), gains[0],
                round(fmean([row["trained"]["test"] for row in found]), 3), gains[1],
                round(100 * fmean([row["cost"] / row["budget"] for row in found]), 2),
                *(round(fmean([row["costs"][key] for row in found]), 1) for key in measures),
            ])  # fmt: skip
        columns = [
            "agent", "evaluations", "error judged by, %", "test error as found, %", "gain, points",
            "test error trained on, %", "gain, points", "% of the limit", *measures,
        ]  # fmt: skip
        return SummaryTable(f"{title}: mean of {len(self.seeds)} seeds; dense {dense:.2f} %", columns, lines)

    def _verdict(self, name: str, pair: Paired, p: float) -> str:
        """One sentence for a comparison, whichever way it came out; `p` is corrected for all of them."""
        where, _, agent = name.partition(": uniform - ")
        words = "missed" if pair.mean < self.goal else "met" if p < 0.05 else "met, but within the noise"
        return f"{where}: {agent} gains {pair.words()} over uniform; {self.goal:g} points: {words} (p, Holm: {p:.2g})."


def _gain(uniform: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]], key: str) -> float:
    """Points of test error that an agent saves on average."""
    return fmean(a[key]["test"] - b[key]["test"] for a, b in zip(uniform, found, strict=True))


def _plot(title: str, rows: Mapping[str, list[dict[str, Any]]]) -> Figure:
    """The best of a search so far, on the samples it is judged by; mean over the seeds."""
    from compiler.train.plots import canvas

    figure, axes = canvas(title)
    for name, found in rows.items():
        if name == "uniform":
            axes.axhline(fmean([100 - row["judged"] for row in found]), color="gray", linestyle=":", label=name)
            continue
        best = zip(*(row["history"] for row in found), strict=False)
        shown = [(n, 100 - fmean(each)) for n, each in enumerate(best, start=1)
                 if all(one is not None and isfinite(one) for one in each)]  # fmt: skip
        if shown:
            axes.plot(*zip(*shown, strict=True), label=name, marker="o" if len(shown) == 1 else None)
    axes.set(xlabel="evaluations", ylabel="error on the samples it is judged by, %")
    axes.legend()
    return figure
