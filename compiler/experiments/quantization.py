"""Trained quantization compared: non-uniform against uniform levels, labels that stay (-c) against free ones (-c+1).

Source: S. Han, Efficient Methods and Hardware for Deep Learning (thesis, 2017), section 4, table 4.2 and figure 4.2:
non-uniform quantization keeps more accuracy than uniform at the same number of bits, the more so the fewer bits.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from compiler.experiments.base import Env, Summary, SummaryTable, Trial
from compiler.experiments.paired import Family, Paired
from compiler.experiments.subject import OverNetworks, networks_of, schedule_of
from compiler.train.schedule import Schedule
from compiler.train.stages import Share
from compiler.train.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Quantization"]

GRIDS = {"non-uniform": "free", "uniform": "uniform"}
UPDATES = {"-c": "fixed", "-c+1": "free"}
WAYS = tuple(product(GRIDS, UPDATES))

Errors = Mapping[tuple[str, int, str, str], list[float]]
"""(network, bits, grid, update) → test error of each seed, percent."""


@dataclass(frozen=True, kw_only=True)
class Quantization(OverNetworks):
    """Every network is trained, then quantized to every number of bits in four ways, and trained on.

    Attributes
    ----------
    bits : widths of a code, 1 … 8.
    finetune : training of the shared values.
    """

    kind: ClassVar[str] = "quantization"
    bits: tuple[int, ...]
    finetune: Schedule

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Networks, bits and the training of the shared values."""
        return {
            "networks": networks_of(table),
            "bits": table.integers("bits", 1, 8, default=[2, 3, 4, 6, 8]),
            "finetune": schedule_of(table, "finetune"),
        }

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Errors in percent, of the dense network and of each way; and of each way before its training."""
        spec, subject = self.subject(trial, env)
        env.note("dense")
        subject.train(subject.module, spec.dense, 0)
        ways = {}
        for number, (bits, (grid, update)) in enumerate(product(self.bits, WAYS), start=1):
            env.note(f"{bits} bits {grid} {update}")
            module = copy.deepcopy(subject.module)  # plain: copies would share the class of a parametrized one
            stage = Share(
                kind="share", name="share", schedule=self.finetune, code_bits=bits, bias_bits=None,
                start="exact", grid=GRIDS[grid], labels=UPDATES[update],
            )  # fmt: skip
            record = subject.apply(stage, module, number)
            untrained = 100 * (1 - record["validation_before_training"])
            ways[_key(bits, grid, update)] = {"validation_before": untrained, **subject.errors(module)}
        return {"dense": subject.errors(subject.module), "ways": ways}

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Mean test errors, paired differences, and whether the ordering of the thesis holds."""
        errors = {
            (network.name, bits, grid, update): [
                results[f"{network.name}.{seed}"]["ways"][_key(bits, grid, update)]["test"] for seed in self.seeds
            ]
            for network, bits, (grid, update) in product(self.networks, self.bits, WAYS)
        }
        dense = {
            network.name: [results[f"{network.name}.{seed}"]["dense"]["test"] for seed in self.seeds]
            for network in self.networks
        }
        grids = {
            f"{bits} {update}": self._difference(errors, bits, ("uniform", update), ("non-uniform", update))
            for bits, update in product(self.bits, UPDATES)
        }
        updates = {
            f"{bits} {grid}": self._difference(errors, bits, (grid, "-c"), (grid, "-c+1"))
            for bits, grid in product(self.bits, GRIDS)
        }
        family = Family({**grids, **updates})
        corrected, compared = family.corrected, family.asdict()
        figures = {
            "test_error": {
                f"{name} {_key(bits, grid, update)}": values for (name, bits, grid, update), values in errors.items()
            },
            "dense_test_error": dense,
            "uniform_minus_non_uniform": {key: compared[key] for key in grids},
            "c_minus_c1": {key: compared[key] for key in updates},
        }
        return Summary(
            figures,
            [*self._tables(errors, dense), _differences(grids, updates, corrected)],
            [*_ordering(grids, corrected, "uniform", "non-uniform",
                        "The thesis' ordering of levels (non-uniform better)"),
             *_ordering(updates, corrected, "-c", "-c+1", "That free labels (-c+1) are better than fixed ones (-c)")],
            {"errors": self._plot(errors, dense)},
        )  # fmt: skip

    def _difference(self, errors: Errors, bits: int, first: tuple[str, str], second: tuple[str, str]) -> Paired:
        """One way, (grid, update), minus another, over all networks and seeds."""
        one, other = (
            [error for network in self.networks for error in errors[network.name, bits, *way]]
            for way in (first, second)
        )
        return Paired.of(one, other)

    def _tables(self, errors: Errors, dense: Mapping[str, list[float]]) -> list[SummaryTable]:
        return [
            SummaryTable(
                f"{network.name}: mean test error, %; dense {fmean(dense[network.name]):.2f}",
                ["bits", *(f"{grid} {update}" for grid, update in WAYS)],
                [
                    [bits, *(round(fmean(errors[network.name, bits, grid, update]), 3) for grid, update in WAYS)]
                    for bits in self.bits
                ],
            )
            for network in self.networks
        ]

    def _plot(self, errors: Errors, dense: Mapping[str, list[float]]) -> Figure:
        from matplotlib.figure import Figure

        columns = min(2, len(self.networks))
        rows = -(-len(self.networks) // columns)
        figure = Figure(figsize=(5.5 * columns, 3.6 * rows), layout="constrained")
        grid_of_axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, network in zip(grid_of_axes, self.networks, strict=False):
            for grid, update in WAYS:
                means = [fmean(errors[network.name, bits, grid, update]) for bits in self.bits]
                style = {"linestyle": "-" if grid == "non-uniform" else "--", "marker": "o" if update == "-c" else "s"}
                axes.plot(self.bits, means, label=f"{grid} {update}", markersize=4, **style)
            axes.axhline(fmean(dense[network.name]), color="gray", linestyle=":", label="dense")
            axes.set(title=network.name, xlabel="bits a code", ylabel="test error, %", xticks=self.bits, yscale="log")
            axes.grid(visible=True, alpha=0.3)
        grid_of_axes[0].legend(fontsize=8)
        for axes in grid_of_axes[len(self.networks) :]:
            axes.set_visible(False)
        return figure


def _key(bits: int, grid: str, update: str) -> str:
    return f"{bits} {grid} {update}"


def _differences(
    grids: Mapping[str, Paired], updates: Mapping[str, Paired], corrected: Mapping[str, float]
) -> SummaryTable:
    named = [(f"uniform - non-uniform, {key}", key, paired) for key, paired in grids.items()]
    named += [(f"-c - -c+1, {key}", key, paired) for key, paired in updates.items()]
    return SummaryTable(
        "Differences of test error over all networks and seeds, points",
        ["what, bits", "mean", "95 % low", "95 % high", "p", "p, Holm"],
        [
            [
                name, *(round(value, 3) for value in (p.mean, p.low, p.high)),
                float(f"{p.p:.2g}"), float(f"{corrected[key]:.2g}"),
            ]
            for name, key, p in named
        ],
    )  # fmt: skip


def _ordering(
    pairs: Mapping[str, Paired], corrected: Mapping[str, float], one: str, other: str, claim: str
) -> list[str]:
    """Sentences on where `other` is better than `one`, and where not."""
    better = [key for key, paired in pairs.items() if corrected[key] < 0.05 and paired.mean > 0]
    worse = [key for key, paired in pairs.items() if corrected[key] < 0.05 and paired.mean < 0]
    rest = [key for key in pairs if key not in better and key not in worse]
    verdict = (
        "holds"
        if not worse and not rest
        else "holds in part"
        if better
        else "does not hold"
        if worse
        else "does not show"
    )
    how = f"paired t-tests over all networks, p < 0.05 after Holm's correction for {len(corrected)} tests"
    parts = [f"{claim} {verdict} here ({how})."]
    for words, keys in ((f"{other} is better", better), (f"{one} is better", worse), ("no difference shows", rest)):
        if keys:
            listed = ", ".join(f"{key} ({pairs[key].mean:+.2f} points)" for key in keys)
            parts.append(f"{words[0].upper()}{words[1:]} at {listed}.")
    return [" ".join(parts)]
