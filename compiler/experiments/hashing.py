"""Training by hash tables against dense training, dropout, exact top-k, and a small network of as many multiplications.

The claim is that of Scalable and Sustainable Deep Learning via Randomized Hashing (Spring & Shrivastava, KDD 2017):
with 5 % of the multiplications the accuracy is within a point of that of dense training, on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from compiler.errors import RecipeError
from compiler.experiments.base import Env, Experiment, Summary, SummaryTable, Trial
from compiler.experiments.hashing_rival import all_active, dense_products, equal_width
from compiler.experiments.paired import Paired, holm, seeds_in_words
from compiler.experiments.subject import NetworkSpec, Subject, networks_of
from compiler.train.data import Dataset
from compiler.train.hashing.kernels import COUNTS, WAYS
from compiler.train.hashing.network import HashedNetwork, HashSettings
from compiler.train.hashing.wide import WideSettings
from compiler.train.loop import seed_of
from compiler.train.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Arm", "Hashing", "lookups"]

_DENSE = "dense"
_CLAIM_POINTS, _CLAIM_SHARE = 1.0, 0.05


@dataclass(frozen=True)
class Arm:
    """A way to find active neurons, and its learning rate.

    Attributes
    ----------
    rate : at the start; it falls to zero in a line.
    rival_rate : that of the small dense network of as many multiplications, which only hashing has beside it.
    """

    name: str
    settings: HashSettings
    rate: float
    rival_rate: float


@dataclass(frozen=True, kw_only=True)
class Hashing(Experiment):
    """Every network is trained densely, and by every arm, with every seed.

    Attributes
    ----------
    networks : multilayer perceptrons, with their dense training.
    arms : see there.
    epochs : of the arms and of the small networks.
    """

    kind: ClassVar[str] = "hashing"
    networks: tuple[NetworkSpec, ...]
    arms: tuple[Arm, ...]
    epochs: int

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Networks, arms, epochs."""
        networks = networks_of(table)
        for network in networks:
            if network.model.name != "mlp":
                raise RecipeError(f"{table.source}: {network.name} is of model {network.model.name}; expected mlp")
        arms = []
        for one in table.tables("arms"):
            defaults = HashSettings(1.0)
            settings = HashSettings(
                share=one.number("share", 0, 1, high_included=True),
                way=one.choice("way", WAYS, default="hash"),
                pool=one.number("pool", 1, 1000, default=defaults.pool, low_included=True),
                centred=one.flag("centred", default=defaults.centred),
                **lookups(one, defaults),
            )
            rate = one.number("rate", 0, 10)
            arms.append(Arm(one.text("name"), settings, rate, one.number("rival_rate", 0, 10, default=rate)))
            one.finish()
        if not arms or len({arm.name for arm in arms} | {_DENSE}) <= len(arms):
            raise RecipeError(f"{table.source}: arms are missing, two have one name, or one is called {_DENSE}")
        return {"networks": networks, "arms": tuple(arms), "epochs": table.integer("epochs", 1, 10_000)}

    def trials(self) -> list[Trial]:
        """One for each seed, network and arm."""
        return [
            Trial(f"{network}.{arm}.{seed}", {"network": network, "arm": arm, "seed": seed})
            for seed, network, arm in product(
                self.seeds, range(len(self.networks)), range(-1, len(self.arms))
            )
        ]  # fmt: skip

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Errors in percent, and multiplications of a sample."""
        spec, seed = self.networks[trial.options["network"]], trial.options["seed"]
        subject = Subject.make(spec, seed, env)
        data = subject.dataset
        sizes = _sizes(subject)
        if trial.options["arm"] < 0:
            env.note(_DENSE)
            subject.train(subject.module, spec.dense, 0)
            return {"errors": subject.errors(subject.module), "products": dense_products(sizes)}
        arm = self.arms[trial.options["arm"]]
        env.note(arm.name)
        network = HashedNetwork(sizes, arm.settings, seed)
        found: dict[str, Any] = self._train(network, data, arm.rate, seed)
        found["all_active"] = subject.errors(network.module())
        if arm.settings.way == "hash":
            width = equal_width(sizes, data, found["products"], seed)
            env.note(f"{arm.name}, {width} wide")
            small = all_active([sizes[0], *[width] * (len(sizes) - 2), sizes[-1]], seed)
            found["small"] = {"width": width, **self._train(small, data, arm.rival_rate, seed)}
        return found

    def _train(self, network: HashedNetwork, data: Dataset, rate: float, seed: int) -> dict[str, Any]:
        curve = []
        for epoch in range(self.epochs):
            order = np.random.default_rng(seed_of(seed, epoch)).permutation(len(data.train))
            # The rate falls within epochs too: every tenth of one is a call.
            parts = np.array_split(order, max(1, min(10, len(order) // network.settings.period)))
            for place, part in enumerate(parts):
                done = (epoch + place / len(parts)) / self.epochs
                network.train(data.train.inputs, data.train.labels, part, rate * (1 - done))
            curve.append(network.evaluate(data.validation.inputs, data.validation.labels))
        samples = self.epochs * len(data.train)
        return {
            "errors": {
                "validation": curve[-1],
                "test": network.evaluate(data.test.inputs, data.test.labels),
            },
            "curve": curve,
            "products": float(network.counts.sum() / samples),
            "counts": {name: float(count / samples) for name, count in zip(COUNTS, network.counts, strict=True)},
        }

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """A row for every arm, differences to dense training, and to the small network, corrected together."""
        rows: list[list[Any]] = []
        pairs: list[tuple[str, str, str, Paired, float]] = []
        for number, network in enumerate(self.networks):
            dense = [results[f"{number}.-1.{seed}"] for seed in self.seeds]
            whole, base = dense[0]["products"], [one["errors"]["test"] for one in dense]
            rows.append([network.name, _DENSE, None, 100.0, fmean(base), fmean(base), None, None])
            for place, arm in enumerate(self.arms):
                each = [results[f"{number}.{place}.{seed}"] for seed in self.seeds]
                errors = [one["errors"]["test"] for one in each]
                share = fmean([one["products"] for one in each]) / whole
                small = [one["small"] for one in each if "small" in one]
                rows.append(
                    [network.name, arm.name, arm.settings.share, 100 * share, fmean(errors),
                     fmean([one["all_active"]["test"] for one in each]),
                     fmean([one["width"] for one in small]) if small else None,
                     fmean([one["errors"]["test"] for one in small]) if small else None]
                )  # fmt: skip
                if len(self.seeds) > 1:
                    pairs.append((network.name, arm.name, _DENSE, Paired.of(errors, base), share))
                    if small:
                        rival = [one["errors"]["test"] for one in small]
                        pairs.append((network.name, arm.name, "small dense", Paired.of(errors, rival), share))
        adjusted = holm([pair.p for _, _, _, pair, _ in pairs])
        tests = [(*one, p) for one, p in zip(pairs, adjusted, strict=True)]
        compared = SummaryTable(
            f"Test error minus that of the other, points, {len(self.seeds)} seeds (below zero: the arm is better)",
            ["network", "arm", "minus", "points", "95 % low", "95 % high", "p", "p, Holm"],
            [[name, arm, other, pair.mean, pair.low, pair.high, pair.p, p] for name, arm, other, pair, _, p in tests],
        )
        table = SummaryTable(
            f"Test error, %, mean ({seeds_in_words(len(self.seeds))}), and multiplications, % of dense training's",
            ["network", "arm", "active, most", "multiplications %", "error", "error, all neurons active",
             "width of the small network", "its error"],
            rows,
        )  # fmt: skip
        figures = {
            "rows": rows,
            "tests": [
                {"network": name, "arm": arm, "minus": other, "share": share, **pair.asdict(), "p_holm": p}
                for name, arm, other, pair, share, p in tests
            ],
        }
        findings = [*self._budget(), *self._findings(rows, tests)]
        tables = [table, compared] if tests else [table]  # one seed has no intervals
        return Summary(figures, tables, findings, {"errors": _plot(rows)})

    def _budget(self) -> list[str]:
        """What stands behind all other findings."""
        return [
            f"{network.name}: {seeds_in_words(len(self.seeds))}; "
            f"{'all' if network.samples is None else f'{network.samples:,}'} training samples, "
            f"{network.validation:.1%} of which validate; {self.epochs} epochs."
            for network in self.networks
        ]

    def _findings(
        self, rows: Sequence[Sequence[Any]], tests: Sequence[tuple[str, str, str, Paired, float, float]]
    ) -> list[str]:
        found = []
        hashing = {arm.name for arm in self.arms if arm.settings.way == "hash"}
        if len(self.seeds) == 1:
            return [self._one_seed(network.name, rows) for network in self.networks]
        for network in self.networks:
            mine = [
                (arm, other, pair, share, p)
                for name, arm, other, pair, share, p in tests
                if name == network.name and arm in hashing
            ]
            cheap = [one for one in mine if one[1] == _DENSE and one[3] <= _CLAIM_SHARE]
            if cheap:
                arm, _, pair, share, _ = min(cheap, key=lambda one: one[2].mean)
                if pair.mean <= _CLAIM_POINTS:
                    verdict = "holds" + (
                        "" if pair.high <= _CLAIM_POINTS else " on average, its interval reaches further"
                    )
                else:
                    verdict = "does not hold" + (
                        "" if pair.low > _CLAIM_POINTS else " on average, its interval reaches below"
                    )
                found.append(
                    f"{network.name}: with at most 5 % of dense training's multiplications the best of hashing is "
                    f"{arm} at {share:.1%}: {pair.words()} against dense. Within one point: {verdict}."
                )
            for arm, other, pair, share, p in mine:
                if other != _DENSE:
                    better = "worse" if pair.mean > 0 else "better"
                    sure = (
                        f"{better} (p = {p:.2g} by Holm)" if p < 0.05 else f"no sure difference (p = {p:.2g} by Holm)"
                    )
                    found.append(
                        f"{network.name}, {arm} ({share:.1%}): {pair.words()} against a small dense network of as many "
                        f"multiplications: {sure}."
                    )
        return found

    def _one_seed(self, network: str, rows: Sequence[Sequence[Any]]) -> str:
        """Differences without a test, and no verdict on a claim that is about an average."""
        mine = [row for row in rows if row[0] == network]
        base = mine[0][4]
        cheap = [row for row in mine if row[7] is not None and row[3] <= 100 * _CLAIM_SHARE]
        if not cheap:
            return f"{network}: no hashing with at most 5 % of dense training's multiplications."
        _, arm, _, share, error, _, _, rival = min(cheap, key=lambda row: row[4] - base)
        return (
            f"{network}: with at most 5 % of dense training's multiplications the best of hashing is {arm} at "
            f"{share:.1f}%: {error - base:+.2f} points against dense, {error - rival:+.2f} against a small dense "
            "network of as many multiplications, with one seed: that is no verdict."
        )


def lookups(table: Table, defaults: HashSettings | WideSettings) -> dict[str, Any]:
    """Settings of the hash tables, which are the same for hidden layers and for a wide output."""
    return {
        "bits": table.integer("bits", 1, 16, default=defaults.bits),
        "tables": table.integer("tables", 1, 1024, default=defaults.tables),
        "probes": table.integer("probes", 1, 17, default=defaults.probes),
        "density": table.number("density", 0, 1, default=defaults.density, high_included=True),
        "period": table.integer("period", 1, 1 << 30, default=defaults.period),
    }


def _sizes(subject: Subject) -> list[int]:
    linear = [layer for layer in subject.module.modules() if isinstance(layer, torch.nn.Linear)]
    return [linear[0].in_features, *(layer.out_features for layer in linear)]


def _plot(rows: Sequence[Sequence[Any]]) -> Figure:
    """Error against multiplications, a panel for each network; small dense networks beside hashing."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row[0] for row in rows))
    figure = Figure(figsize=(1 + 4.5 * len(names), 3.6), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for one, name in zip(axes, names, strict=True):
        mine = [row for row in rows if row[0] == name]
        hashed = sorted((row for row in mine if row[7] is not None), key=lambda row: row[3])
        one.plot([row[3] for row in hashed], [row[4] for row in hashed], "o-", label="hashing")
        one.plot([row[3] for row in hashed], [row[7] for row in hashed], "s--", label="small dense")
        for row in mine:
            if row[7] is None:
                one.plot([row[3]], [row[4]], "x")
                one.annotate(row[1], (row[3], row[4]), fontsize=7)
        one.set(title=name, xlabel="multiplications, % of dense", xscale="log", yscale="log")
        one.minorticks_off()
        one.grid(visible=True, alpha=0.3)
        one.legend(fontsize=7)
    axes[0].set_ylabel("test error, %")
    return figure
