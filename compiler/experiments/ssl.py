"""Structured sparsity: what a group lasso removes at no loss, against L1 and magnitude pruning, and the time it saves.

Each trial trains one network, then from the same dense network:

- SSL at several strengths, dead structure removed, the rest trained on. The one used is chosen on the validation
  samples: the fewest multiplications at no more than the dense network's error and one standard error of it, for the
  samples do not tell closer than that.
- as many weights left by magnitude pruning, and by L1, trained as long: the same sparsity without structure.
- the dense network trained as long, and the small network of SSL trained from fresh weights as long as all of it.

Source: Learning Structured Sparsity in Deep Neural Networks (Wen et al., NIPS 2016).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compiler.errors import RecipeError
from compiler.experiments.base import Env, Summary, Trial
from compiler.experiments.sparse_run import FORMS, run_as
from compiler.experiments.ssl_report import summarize
from compiler.experiments.ssl_ways import DENSE, DIRECT, L1, LONGER, MAGNITUDE, SSL
from compiler.experiments.stopwatch import interleaved
from compiler.experiments.subject import NetworkSpec, OverNetworks, Subject, networks_of, schedule_of
from compiler.train import prune, removal
from compiler.train.channels import LAYERS
from compiler.train.costs import layer_costs, totals
from compiler.train.group_lasso import NORMS
from compiler.train.layers import make_plain, weights
from compiler.train.loop import seed_of
from compiler.train.schedule import Schedule
from compiler.train.stages import GroupLasso, Prune
from compiler.train.structured import Groups
from compiler.train.table import Table

__all__ = ["Method", "StructuredSparsity"]

_TRACED = 16  # samples that a network is traced and compared with


@dataclass(frozen=True)
class Method:
    """How one network is made sparse.

    Attributes
    ----------
    network : its name.
    strengths : each is tried; every group's own strength is multiplied by it.
    groups : of the group lasso.
    lasso, tune : trainings under the penalty, and after the removal.
    l1 : strength of the L1 norm; None leaves out the comparisons without structure.
    """

    network: str
    strengths: tuple[float, ...]
    groups: tuple[Groups, ...]
    lasso: Schedule
    tune: Schedule
    l1: float | None

    @classmethod
    def parse(cls, table: Table) -> Method:
        """From its table."""
        made = cls(
            network=table.text("network"),
            strengths=table.numbers("strengths", 0, 1e3),
            groups=tuple(Groups.parse(each) for each in table.tables("groups")),
            lasso=schedule_of(table, "lasso"),
            tune=schedule_of(table, "tune"),
            l1=table.number("l1", 0, 1e3) if table.has("l1") else None,
        )
        table.finish()
        if not made.strengths or not made.groups:
            raise RecipeError(f"{table.source}: {table.where} has no strengths or no groups")
        return made


@dataclass(frozen=True, kw_only=True)
class StructuredSparsity(OverNetworks):
    """See the module.

    Attributes
    ----------
    methods : one for each network.
    batches : batch sizes that are timed; repeats: rounds of the timing.
    densities : of unstructured sparsity, at which it is timed alone.
    """

    kind: ClassVar[str] = "ssl"
    methods: tuple[Method, ...]
    batches: tuple[int, ...]
    repeats: int
    densities: tuple[float, ...]

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Networks, methods, and what is timed."""
        networks = networks_of(table)
        methods = tuple(Method.parse(each) for each in table.tables("methods"))
        if [method.network for method in methods] != [network.name for network in networks]:
            raise RecipeError(f"{table.source}: methods must name every network once, in the same order")
        return {
            "networks": networks,
            "methods": methods,
            "batches": table.integers("batches", 1, 1 << 16),
            "repeats": table.integer("repeats", 1, 1000),
            "densities": table.numbers("densities", 0, 1),
        }

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Errors, costs and times of every way."""
        number = [network.name for network in self.networks].index(trial.options["network"])
        return _Run(self, self.networks[number], self.methods[number], trial.options["seed"], env).all()

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """See `ssl_report`."""
        return summarize(self.networks, self.seeds, results)


class _Run:
    """One trial."""

    def __init__(self, settings: StructuredSparsity, spec: NetworkSpec, method: Method, seed: int, env: Env) -> None:
        self.settings, self.spec, self.method, self.env = settings, spec, method, env
        self.subject = Subject.make(spec, seed, env)
        self.example = self.subject.example(_TRACED)
        self.points: dict[str, dict[str, Any]] = {}
        self.modules: dict[str, nn.Module] = {}

    def all(self) -> dict[str, Any]:
        """Every way, then the times."""
        dense = self.subject.module
        self.env.note(DENSE)
        self.subject.train(dense, self.spec.dense, 0)
        self._point(DENSE, dense)
        longer = copy.deepcopy(dense)
        self._train_on(LONGER, longer, [self.method.lasso, self.method.tune], 1)
        tried = [self._ssl(dense, strength, number) for number, strength in enumerate(self.method.strengths)]
        best = min(self.points[way]["errors"]["validation"] for way in (DENSE, LONGER)) / 100
        limit = 100 * (best + math.sqrt(best * (1 - best) / len(self.subject.dataset.validation)))
        good = [point for point in tried if point["errors"]["validation"] <= limit]
        chosen = (
            min(good, key=lambda point: point["costs"]["multiplies"])
            if good
            else min(tried, key=lambda point: (point["errors"]["validation"], point["costs"]["multiplies"]))
        )
        name = f"{SSL} {chosen['strength']:g}"
        self.points[SSL], self.modules[SSL] = {**chosen, "no_loss": bool(good)}, self.modules[name]
        direct = _fresh(self.modules[SSL], self.subject.seed)
        self._train_on(DIRECT, direct, [self.spec.dense, self.method.lasso, self.method.tune], 2)
        if self.method.l1 is not None:
            left = chosen["costs"]["nonzeros"]
            self._magnitude(dense, left)
            self._l1(dense, left, self.method.l1)
        self.env.note("times")
        return {"points": self.points, "times": self._times(dense), "by_density": self._times_by_density(dense)}

    def _train_on(self, way: str, module: nn.Module, schedules: list[Schedule], number: int) -> None:
        self.env.note(way)
        for step, schedule in enumerate(schedules):
            self.subject.train(module, schedule, 10 * number + step)
        self._point(way, module)

    def _ssl(self, dense: nn.Module, strength: float, number: int) -> dict[str, Any]:
        way = f"{SSL} {strength:g}"
        self.env.note(way)
        module = copy.deepcopy(dense)
        groups = tuple(replace(each, strength=each.strength * strength) for each in self.method.groups)
        record = self._lasso(module, groups, 100 + 10 * number)
        before = self.subject.errors(module)
        removed = removal.remove(module, self.example)
        self.subject.train(module, self.method.tune, 101 + 10 * number)
        make_plain(module)
        return self._point(
            way, module, strength=strength, dead=dict(record["dead"]), before_removal=before,
            removed={"channels": removed.channels, "blocks": list(removed.blocks), "kept": removed.kept},
        )  # fmt: skip

    def _magnitude(self, dense: nn.Module, left: int) -> None:
        """As many weights as SSL left, those of the greatest magnitude, of all layers together."""
        self.env.note(MAGNITUDE)
        module = copy.deepcopy(dense)
        density = left / sum(site.value.numel() for site in weights(module))
        stage = Prune(
            kind="prune", name="prune", schedule=self.method.lasso, density=density, scope="global", method="gradual",
            ramp=0.6, rounds=1,
        )  # fmt: skip
        self.subject.apply(stage, module, 30)
        self.subject.train(module, self.method.tune, 31)
        self._unstructured(MAGNITUDE, module)

    def _l1(self, dense: nn.Module, left: int, strength: float) -> None:
        """L1 in place of the group lasso, then as many weights as SSL left."""
        self.env.note(L1)
        module = copy.deepcopy(dense)
        keys = tuple(site.key for site in weights(module))
        self._lasso(module, (Groups(by="element", strength=strength, layers=keys),), 40)
        sites = list(weights(module))
        by_itself = sum(int((site.value != 0).sum()) for site in sites)
        prune.prune_sites(sites, min(1.0, left / sum(site.value.numel() for site in sites)))
        self.subject.train(module, self.method.tune, 41)
        self._unstructured(L1, module, nonzeros_by_itself=by_itself)

    def _lasso(self, module: nn.Module, groups: tuple[Groups, ...], number: int) -> Mapping[str, Any]:
        stage = GroupLasso(
            kind="group_lasso", name="group_lasso", schedule=self.method.lasso, groups=groups, threshold=1e-4
        )
        return self.subject.apply(stage, module, number)

    def _unstructured(self, way: str, module: nn.Module, **said: Any) -> None:
        """Also what structure it lost by itself."""
        make_plain(module)
        smaller = copy.deepcopy(module)
        removed = removal.remove(smaller, self.example)
        self._point(way, module, after_removal=self._costs(smaller), removed={"channels": removed.channels}, **said)

    def _point(self, way: str, module: nn.Module, **said: Any) -> dict[str, Any]:
        errors = {name: round(error, 4) for name, error in self.subject.errors(module).items()}
        costs = layer_costs(module, self.example[:1])
        shapes = {cost.name: [cost.outputs, cost.inputs] for cost in costs}
        self.points[way] = {"errors": errors, "costs": totals(costs), "shapes": shapes, **said}
        self.modules[way] = module
        return self.points[way]

    def _costs(self, module: nn.Module) -> dict[str, int]:
        return totals(layer_costs(module, self.example[:1]))

    def _inputs(self, batch: int) -> Tensor:
        split = self.subject.dataset.train
        return self.subject.lesson.arrange(torch.from_numpy(split.inputs[:batch]))

    def _times(self, dense: nn.Module) -> dict[str, dict[str, float]]:
        """Batch → way → median CPU seconds of a batch."""
        runs = {DENSE: dense, SSL: self.modules[SSL], f"{DENSE} lowered": run_as(dense, "lowered")}
        runs[f"{SSL} lowered"] = run_as(self.modules[SSL], "lowered")
        for way in (MAGNITUDE, L1):
            if way in self.modules:
                runs |= {f"{way} {form}": run_as(self.modules[way], form) for form in FORMS[1:]}
        return {str(batch): self._timed(runs, batch) for batch in self.settings.batches}

    def _times_by_density(self, dense: nn.Module) -> list[dict[str, Any]]:
        """The dense network's greatest weights of each layer, untrained: time does not depend on how good they are."""
        found: list[dict[str, Any]] = []
        for density in self.settings.densities if self.method.l1 is not None else ():
            module = copy.deepcopy(dense)
            prune.prune_sites(list(weights(module)), {site.key: density for site in weights(module)})
            make_plain(module)
            runs = {DENSE: dense, **{form: run_as(module, form) for form in FORMS[1:]}}
            times = {str(batch): self._timed(runs, batch) for batch in self.settings.batches}
            found.append({"density": density, "times": times})
        return found

    def _timed(self, runs: Mapping[str, nn.Module], batch: int) -> dict[str, float]:
        inputs = self._inputs(batch)

        def call(module: nn.Module) -> None:
            with torch.inference_mode():
                module(inputs)

        calls = {way: partial(call, module.eval()) for way, module in runs.items()}
        return interleaved(calls, self.settings.repeats)


def _fresh(module: nn.Module, seed: int) -> nn.Module:
    """The same network with first weights anew."""
    twin = copy.deepcopy(module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, 7) % (1 << 32))
        for layer in twin.modules():
            if isinstance(layer, (*LAYERS, *NORMS)):
                layer.reset_parameters()
    return twin
