"""Dense-sparse-dense training against plain training of the same length, with the same drops of the learning rate.

Source: DSD: Dense-Sparse-Dense Training for Deep Neural Networks (Han et al., ICLR 2017): convolutional and recurrent
networks of many sizes get better by a few points at most. Whether that shows here is asked of pairs: one seed's two
networks start from the same trained network and see the same samples in the same order.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from compiler.experiments.base import Env, Experiment, Summary, SummaryTable, Trial
from compiler.experiments.paired import Family, Paired
from compiler.experiments.subject import NetworkSpec, Subject, networks_of
from compiler.train import dsd
from compiler.train.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DenseSparseDense"]


@dataclass(frozen=True, kw_only=True)
class DenseSparseDense(Experiment):
    """Every network is trained, then goes two ways: through sparse and dense phases, and through them without masks.

    Attributes
    ----------
    networks : with their first, dense training, whose learning rate is that of the sparse phases as well.
    epochs : of each phase.
    sparsity, drop, rounds : see `dsd.dense_sparse_dense`.
    contrasts : pairs of networks: what DSD does to the first is compared, by seed, with what it does to the second.
    """

    kind: ClassVar[str] = "dsd"
    listed: ClassVar[tuple[str, ...]] = ("seeds", "contrasts")
    networks: tuple[NetworkSpec, ...]
    epochs: int
    sparsity: float
    drop: float
    rounds: int
    contrasts: tuple[tuple[str, str], ...] = ()

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Networks, what the phases are, and which networks are compared."""
        networks = networks_of(table)
        names = [network.name for network in networks]
        contrasts = []
        for one in table.tables("contrasts") if table.has("contrasts") else []:
            contrasts.append((one.choice("first", names), one.choice("second", names)))
            one.finish()
        return {
            "networks": networks,
            "contrasts": tuple(contrasts),
            "epochs": table.integer("epochs", 1, 10_000),
            "sparsity": table.number("sparsity", 0, 1, default=dsd.SPARSITY),
            "drop": table.number("drop", 1, 1e6, default=dsd.DROP, low_included=True),
            "rounds": table.integer("rounds", 1, 100, default=1),
        }

    def trials(self) -> list[Trial]:
        """One for each network and seed."""
        return [
            Trial(f"{number}.{seed}", {"network": network.name, "seed": seed})
            for (number, network), seed in product(enumerate(self.networks), self.seeds)
        ]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Errors in percent: of the first training, of both ways, and at the end of the first sparse phase."""
        spec = next(network for network in self.networks if network.name == trial.options["network"])
        subject = Subject.make(spec, trial.options["seed"], env)
        env.note("dense")
        subject.train(subject.module, spec.dense, 0)
        found: dict[str, Any] = {"initial": subject.errors(subject.module)}
        for way in ("dsd", "plain"):
            module = copy.deepcopy(subject.module)
            ends: list[dict[str, float]] = []

            def train(
                factor: float, module: nn.Module = module, way: str = way, ends: list[dict[str, float]] = ends
            ) -> None:
                env.note(f"{way}, phase {len(ends) + 1}")
                rate = spec.dense.learning_rate * factor
                phase = dataclasses.replace(spec.dense, epochs=self.epochs, learning_rate=rate)
                subject.train(module, phase, len(ends) + 1)
                ends.append(subject.errors(module))

            if way == "dsd":
                dsd.dense_sparse_dense(module, train, sparsity=self.sparsity, drop=self.drop, rounds=self.rounds)
            else:
                for factor in dsd.factors(self.drop, self.rounds):
                    train(factor)
            found[way] = ends[-1]
            found[f"{way}_first_phase"] = ends[0]
        return found

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Mean test errors, and paired differences with their intervals and p-values."""
        errors = {
            network.name: {
                way: [results[f"{number}.{seed}"][way]["test"] for seed in self.seeds]
                for way in ("initial", "plain_first_phase", "dsd_first_phase", "plain", "dsd")
            }
            for number, network in enumerate(self.networks)
        }
        pairs = {name: Paired.of(ways["dsd"], ways["plain"]) for name, ways in errors.items()}
        differences = {name: _differences(ways) for name, ways in errors.items()}
        between = {
            f"{first} - {second}": Paired.of(differences[first], differences[second])
            for first, second in self.contrasts
        }
        family = Family({**pairs, **between})
        adjusted, corrected = family.corrected, family.asdict()
        figures = {
            "test_error": errors,
            "dsd_minus_plain": {name: corrected[name] for name in pairs},
            "contrasts": {name: corrected[name] for name in between},
        }
        rows = [
            [
                name,
                *(round(sum(values) / len(values), 3) for values in errors[name].values()),
                *(round(value, 3) for value in (pair.mean, pair.low, pair.high)),
                *(float(f"{p:.2g}") for p in (pair.p, adjusted[name])),
            ]
            for name, pair in pairs.items()
        ]
        after = f"after {self.epochs} more epochs"
        table = SummaryTable(
            f"Mean test error over {len(self.seeds)} seeds, %; DSD minus plain, points (below zero: DSD is better)",
            ["network", "dense", f"plain {after}", f"sparse {after}", "plain, end", "DSD, end", "DSD - plain",
             "95 % low", "95 % high", "p", "p, Holm"],
            rows,
        )  # fmt: skip
        tables = [table]
        if between:
            tables.append(_contrast_table(between, adjusted))
        findings = self._findings(pairs, between, family)
        return Summary(figures, tables, findings, {"differences": _plot(differences, pairs)})

    def _findings(self, pairs: Mapping[str, Paired], between: Mapping[str, Paired], family: Family) -> list[str]:
        each = [
            f"{name}: test error of DSD minus that of plain training {pair.words()}: {_verdict(pair)}."
            for name, pair in pairs.items()
        ]
        adjusted = family.corrected
        each += [
            f"{name}: (DSD minus plain) of the first minus that of the second {pair.words()}, p corrected "
            f"{adjusted[name]:.2g}: "
            f"{'what DSD does differs' if adjusted[name] < 0.05 else 'that what DSD does differs is not shown'}."
            for name, pair in between.items()
        ]
        better, worse = ([name for name in names if name in pairs] for names in family.split())
        parts = [f"{len(better)} better ({', '.join(better)})" if better else "none better"]
        parts.append(f"{len(worse)} worse ({', '.join(worse)})" if worse else "none worse")
        rest = len(pairs) - len(better) - len(worse)
        tests = f"that of all {len(family.pairs)} tests" if between else "their number"
        whole = (
            f"Of {len(pairs)} comparisons at sparsity {self.sparsity:.0%}, with p corrected for {tests} "
            f"(Holm), DSD comes out {' and '.join(parts)} than plain training; {rest} show no difference."
        )
        return [whole, *each]


def _verdict(pair: Paired) -> str:
    if not pair.significant:
        return "no difference shows by itself"
    return "DSD is better by itself" if pair.mean < 0 else "DSD is worse by itself"


def _differences(ways: Mapping[str, list[float]]) -> list[float]:
    """DSD minus plain training, by seed."""
    return [d - p for d, p in zip(ways["dsd"], ways["plain"], strict=True)]


def _contrast_table(between: Mapping[str, Paired], adjusted: Mapping[str, float]) -> SummaryTable:
    """What DSD does to one network against what it does to another."""
    return SummaryTable(
        "(DSD minus plain) of the first minus (DSD minus plain) of the second, points, paired by seed",
        ["first - second", "mean", "95 % low", "95 % high", "p", "p, Holm", "seeds"],
        [
            [
                name, *(round(value, 3) for value in (pair.mean, pair.low, pair.high)),
                *(float(f"{p:.2g}") for p in (pair.p, adjusted[name])), pair.pairs,
            ]
            for name, pair in between.items()
        ],
    )  # fmt: skip


def _plot(differences: Mapping[str, list[float]], pairs: Mapping[str, Paired]) -> Figure:
    """Difference of every seed, their mean and its interval, for each network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.2 + 0.6 * len(pairs)), layout="constrained")
    axes = figure.subplots()
    for row, (name, pair) in enumerate(pairs.items()):
        axes.plot(differences[name], [row] * len(differences[name]), "o", color="tab:blue", markersize=4, alpha=0.5)
        spread = [[pair.mean - pair.low], [pair.high - pair.mean]]
        axes.errorbar([pair.mean], [row], xerr=spread, fmt="D", color="tab:red", capsize=4)
    axes.axvline(0, color="gray", linewidth=0.8)
    axes.set(
        yticks=range(len(pairs)), yticklabels=list(pairs), ylim=(len(pairs) - 0.5, -0.5),
        xlabel="test error of DSD minus that of plain training, points\n"
        "(left: DSD is better; red: mean and 95 % interval)",
    )  # fmt: skip
    axes.grid(visible=True, axis="x", alpha=0.3)
    return figure
