"""Networks found by gradient against one made by hand and random ones, at equal cycles of each array, over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from compiler.errors import RecipeError
from compiler.experiments.base import Env, Experiment, Summary, Trial
from compiler.experiments.subject import schedule_of
from compiler.train.data import DATASETS, load
from compiler.train.images import Images
from compiler.train.nas.latency import FORMS
from compiler.train.nas.mixed import Supernet
from compiler.train.nas.search import WAYS, Rule
from compiler.train.nas.space import Op, Space, operations
from compiler.train.schedule import Schedule
from compiler.train.table import Table
from hw.params import PRESETS, preset
from sim.nas.arms import Array, Bench, Trained, same_in_hardware
from sim.nas.report import summary
from sim.nas.table import Timer, designs, errors, measure

__all__ = ["Nas"]

_WEIGHTS = 0
"""Seed of the weights that tables are made with: training moves cycles little, so one table serves all seeds."""


@dataclass(frozen=True, kw_only=True)
class Nas(Experiment):
    """With each seed, for each array: a network by hand, whose cycles are the target; found ones; a random one.

    Attributes
    ----------
    data : name, samples and validation share. space : widths, strides, kernels, expansions, see `Space.make`.
    arrays : presets; networks are found for each and measured on all. hand : operation of all blocks of that network.
    warmup, search : of the supernet. train : of every network, from its first weights. rule : how logits learn.
    ways : that are tried. candidates : random networks. samples : on which cycles are measured.
    rounds : times that the table times each operation. checked : whole networks that the table is compared with.
    rtl : the array whose first found network runs in Verilog; "": none.
    """

    kind: ClassVar[str] = "nas"
    data: dict[str, Any]
    space: dict[str, Any]
    arrays: tuple[str, ...]
    hand: tuple[int, ...]
    warmup: Schedule
    search: Schedule
    train: Schedule
    rule: Rule
    ways: tuple[str, ...]
    candidates: int
    samples: int
    rounds: int
    checked: int
    rtl: str

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """All fields."""
        arrays, ways = table.texts("arrays"), table.texts("ways", default=["two"])
        for key, given, legal in (("arrays", arrays, tuple(PRESETS)), ("ways", ways, WAYS)):
            if not given or any(name not in legal for name in given):
                raise RecipeError(f"{table.source}: {key} is {list(given)}; expected some of {', '.join(legal)}")
        data, space, rule = table.table("data"), table.table("space"), table.table("rule")
        found: dict[str, Any] = {
            "data": {
                "name": data.choice("name", DATASETS), "samples": data.integer("samples", 24, 1 << 30),
                "validation": data.number("validation", 0, 1, default=0.25),
            },
            "space": {
                "widths": space.integers("widths", 1, 1 << 12), "strides": space.integers("strides", 1, 8),
                "kernels": space.integers("kernels", 1, 15), "expansions": space.integers("expansions", 1, 16),
            },
            "rule": Rule(
                learning_rate=rule.number("learning_rate", 0, 10), every=rule.integer("every", 1, 1000, default=2),
                batch=rule.integer("batch", 1, 1 << 16, default=64), form=rule.choice("form", FORMS, default=FORMS[0]),
                strength=rule.number("strength", 0, 100), draws=rule.integer("draws", 1, 1000, default=4),
            ),
            "arrays": arrays, "ways": ways, "hand": table.integers("hand", 1, 16),
            "candidates": table.integer("candidates", 1, 1000), "samples": table.integer("samples", 1, 64, default=1),
            "rounds": table.integer("rounds", 1, 100, default=1), "checked": table.integer("checked", 1, 100),
            "rtl": table.choice("rtl", arrays) if table.has("rtl") else "",
            **{key: schedule_of(table, key) for key in ("warmup", "search", "train")},
        }  # fmt: skip
        for inner in (data, space, rule):
            inner.finish()
        kernels, expansions = found["space"]["kernels"], found["space"]["expansions"]
        hand = found["hand"]
        if len(hand) != 2 or hand[0] not in kernels or hand[1] not in expansions:
            raise RecipeError(
                f"{table.source}: hand is {list(hand)}; expected [kernel, expansion] of {list(kernels)}, "
                f"{list(expansions)}"
            )
        source = DATASETS[found["data"]["name"]]
        Space.make(source.shape, source.classes, **found["space"])
        return found

    def trials(self) -> list[Trial]:
        """One a seed: all arms share data, first weights and warm-up."""
        return [Trial(str(seed), {"seed": seed}) for seed in self.seeds]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Every arm of one seed, on every array."""
        seed = trial.options["seed"]
        dataset = load(self.data["name"], self.data["validation"], env.data_dir, self.data["samples"])
        space = Space.make(dataset.shape, dataset.classes, **self.space)
        lesson = Images(dataset.train, dataset.shape)
        timers = {name: Timer(lesson, preset(name), self.samples) for name in self.arrays}
        bench = Bench(space, dataset, seed, self.train, timers)
        env.note("by hand")
        hand = bench.trained(space.same(Op(*self.hand)))
        rows = [_row("", "hand", space, hand)]
        env.note("warm-up")
        warm = bench.warmed(self.warmup)
        warmed = self.warmup.epochs * lesson.steps(self.warmup.batch)
        tables: dict[str, Any] = {}
        verilog: dict[str, Any] = {}
        for name, timer in timers.items():
            env.note(f"{name}: table")
            array, tables[name] = self._array(name, timer, space, hand)
            spent = 0
            for way in self.ways:
                env.note(f"{name}: {way}")
                found, passes = bench.found(warm, self.search, array, replace(self.rule, way=way))
                spent = max(spent, warmed + passes)
                rows.append(_row(name, way, space, found, warmed + passes))
                if name == self.rtl and not verilog:
                    env.note(f"{name}: Verilog")
                    verilog = same_in_hardware(found, timer)
            env.note(f"{name}: random")
            drawn = bench.drawn(array, self.candidates, spent)
            rows.append(_row(name, "random", space, drawn, drawn.passes))
        return {"rows": rows, "tables": tables, "verilog": verilog}

    def _array(self, name: str, timer: Timer, space: Space, hand: Trained) -> tuple[Array, dict[str, Any]]:
        """An array with its table, and what is said of the table."""
        supernet = Supernet.make(space, _WEIGHTS)
        table = measure(supernet, timer, self.rounds)
        others = designs(space, -(-self.checked // max(space.counts)), 1)[: self.checked]
        whole = {choices: float(timer.cost(timer.settled(supernet, choices)).cycles) for choices in others}
        target = hand.cycles[name]
        array = Array(name, timer, table, target, table.of(hand.choices) / target)
        said = {"base": table.base, "rows": table.rows, "errors": errors(table, whole), "target": target}
        return array, said

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """See `report.summary`."""
        ops = operations(self.space["kernels"], self.space["expansions"])
        return summary(self.name, self.arrays, self.ways, ops, results)


def _row(array: str, arm: str, space: Space, found: Trained, passes: int = 0) -> dict[str, Any]:
    return {
        "array": array, "arm": arm, "ops": space.named(found.choices), "errors": dict(found.errors),
        "cycles": dict(found.cycles), "turns": found.turns, "passes": passes, **found.more,
    }  # fmt: skip
