"""A wide output trained through hash tables, against the softmax over all words and over a sample of them.

Compared is the CPU time of one thread until the validation loss, under the softmax over all words, is that with which
training over all words ends. Measuring the loss takes no part of it.

Source: SLIDE: In Defense of Smart Algorithms over Hardware Acceleration (Chen et al., MLSys 2020).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compiler.errors import RecipeError
from compiler.experiments.base import Env, Experiment, Summary, SummaryTable, Trial
from compiler.experiments.hashing import lookups
from compiler.experiments.paired import Family, seeds_in_words
from compiler.train import text
from compiler.train.hashing.kernels import COUNTS
from compiler.train.hashing.softmax import SoftmaxNetwork, full_loss
from compiler.train.hashing.wide import WideNetwork, WideSettings
from compiler.train.loop import seed_of
from compiler.train.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["WAYS", "HashingWide", "seconds_to", "windows"]

WAYS = ("full", "sampled", "hashing", "uniform")
"""All words; a log-uniform sample; what tables name and a uniform sample of the rest; a uniform sample alone."""

_FASTER = 3.0


@dataclass(frozen=True, kw_only=True)
class HashingWide(Experiment):
    """The same network from the same first weights, on the same samples in the same order.

    Attributes
    ----------
    corpus, vocabulary : see `text.load`.
    context, hidden : words before the one that is to be said; width.
    samples, rates : by way: how many it is trained on, and its constant learning rate.
    points : how often the loss is measured.
    measured : words of the validation text that it is measured on.
    batch, sampled : of the ways with torch: samples of a step, words of a sample.
    settings : of hashing; the uniform sample has as many words as are active there.
    """

    kind: ClassVar[str] = "hashing-wide"
    corpus: str
    vocabulary: int
    context: int
    hidden: int
    samples: Mapping[str, int]
    rates: Mapping[str, float]
    points: int
    measured: int
    batch: int
    sampled: int
    settings: WideSettings

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Text, network, budgets and rates."""
        defaults = WideSettings()
        found: dict[str, Any] = {
            "corpus": table.choice("corpus", text.TEXTS),
            "vocabulary": table.integer("vocabulary", 3, 1 << 24),
            "context": table.integer("context", 1, 100),
            "hidden": table.integer("hidden", 1, 1 << 16),
            "points": table.integer("points", 1, 1000, default=8),
            "measured": table.integer("measured", 1, 1 << 30, default=2000),
            "batch": table.integer("batch", 1, 1 << 16, default=128),
            "sampled": table.integer("sampled", 1, 1 << 24, default=1000),
        }
        for key in ("samples", "rates"):
            one = table.table(key)
            found[key] = {
                way: one.integer(way, 1, 1 << 40) if key == "samples" else one.number(way, 0, 100) for way in WAYS
            }
            one.finish()
        one = table.table("tables")
        settings = WideSettings(
            want=one.integer("want", 1, 1 << 24, default=defaults.want),
            drawn=one.integer("drawn", 1, 1 << 24, default=defaults.drawn),
            **lookups(one, defaults),
        )
        one.finish()
        sampled, vocabulary = found["sampled"], found["vocabulary"]
        if sampled > vocabulary or settings.want + 1 >= vocabulary:
            raise RecipeError(
                f"{table.source}: the vocabulary has {vocabulary} words; expected at least the {sampled} of a sample, "
                f"and more than the {settings.want} of the tables and the right one"
            )
        return {**found, "settings": settings}

    def trials(self) -> list[Trial]:
        """One for each seed and way."""
        return [Trial(f"{way}.{seed}", {"way": way, "seed": seed}) for seed, way in product(self.seeds, WAYS)]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Loss by CPU seconds."""
        way, seed = trial.options["way"], trial.options["seed"]
        corpus = text.load(self.corpus, self.vocabulary, folder=env.data_dir)
        words = len(corpus.words)
        contexts, targets = windows(corpus.train, self.context, words)
        held = windows(corpus.validation[: self.measured + self.context], self.context, words)
        shape = words, self.context, self.hidden
        network: WideNetwork | SoftmaxNetwork
        if way in ("full", "sampled"):
            network = SoftmaxNetwork(*shape, seed, self.sampled if way == "sampled" else 0, self.batch)
        else:
            mine = self.settings
            if way == "uniform":
                mine = WideSettings(0, mine.want + mine.drawn, period=mine.period)
            WideNetwork(*shape, mine, seed).train(contexts, targets, np.arange(2), 0.01)  # compiles
            began = time.process_time()
            network = WideNetwork(*shape, mine, seed)
        seconds = time.process_time() - began if isinstance(network, WideNetwork) else 0.0  # tables are built in it
        random = np.random.default_rng(seed_of(seed, 1))
        count = self.samples[way]
        order = np.concatenate(
            [random.permutation(len(targets)) for _ in range(math.ceil(count / len(targets)))]
        )[:count]  # fmt: skip
        curve = []
        for part in np.array_split(order, self.points):
            began = time.process_time()
            network.train(contexts, targets, part, self.rates[way])
            seconds += time.process_time() - began
            curve.append([seconds, full_loss(network, *held)])
            env.note(f"{seconds:.0f} CPU s, loss {curve[-1][1]:.3f}")
        found: dict[str, Any] = {"curve": curve, "words": words, "samples": count, "loss": curve[-1][1]}
        if isinstance(network, WideNetwork):
            found["counts"] = {name: float(n / count) for name, n in zip(COUNTS, network.counts, strict=True)}
            found["products"] = float(network.counts.sum() / count)
        else:
            found["products"] = network.products / count
        return found

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Seconds to the loss of the full softmax, and how many times fewer they are."""
        targets = {seed: results[f"full.{seed}"]["loss"] for seed in self.seeds}
        seconds = {
            way: [seconds_to(results[f"{way}.{seed}"]["curve"], targets[seed]) for seed in self.seeds] for way in WAYS
        }
        # Of the ways that get there with every seed; the softmax over all words always does.
        reached = {way: [s for s in each if s is not None] for way, each in seconds.items() if None not in each}
        rows: list[list[Any]] = []
        for way in WAYS:
            each = [results[f"{way}.{seed}"] for seed in self.seeds]
            rows.append(
                [way, fmean([one["products"] for one in each]),
                 1e6 * fmean([one["curve"][-1][0] / one["samples"] for one in each]),
                 fmean([one["loss"] for one in each])]
            )  # fmt: skip
            if way in reached:
                ratios = [whole / mine for mine, whole in zip(reached[way], reached["full"], strict=True)]
                rows[-1] += [fmean(reached[way]), min(ratios), fmean(ratios)]
            else:
                rows[-1] += [None, None, None]
        both = [*((way, "full") for way in WAYS[1:]), ("hashing", "sampled")]
        logs = {
            f"{a} / {b}": [math.log(mine / other) for mine, other in zip(reached[a], reached[b], strict=True)]
            for a, b in both
            if a in reached and b in reached
        }
        family = Family.of({name: (each, [0.0] * len(each)) for name, each in logs.items()})
        adjusted = family.corrected
        words = results[f"full.{self.seeds[0]}"]["words"]
        tables = [
            SummaryTable(
                f"{words:,} words, {self.hidden} hidden units, one thread ({seeds_in_words(len(self.seeds))})",
                ["way", "multiplications a sample", "CPU µs a sample", "loss in the end",
                 "CPU s to the loss of full", "times fewer, least of the seeds", "times fewer, mean"],
                rows,
            )
        ]  # fmt: skip
        if family.pairs:  # one seed has no intervals
            tables.append(
                SummaryTable(
                    "CPU seconds to the loss of full, as a part of the other's (geometric mean)",
                    ["ways", "part", "95 % low", "95 % high", "p", "p, Holm"],
                    [
                        [name, *(math.exp(x) for x in (pair.mean, pair.low, pair.high)), pair.p, adjusted[name]]
                        for name, pair in family.pairs.items()
                    ],
                )
            )
        worst = next(row[5] for row in rows if row[0] == "hashing")
        scope = "with the one seed that ran" if len(self.seeds) == 1 else f"at worst of {len(self.seeds)} seeds"
        findings = [
            "Hashing does not reach the loss of the full softmax within its samples."
            if worst is None
            else f"Hashing is at the loss of the full softmax in {worst:.1f} times fewer CPU seconds, {scope}: "
            f"{'at least' if worst >= _FASTER else 'less than'} the {_FASTER:.0f} times that were asked for."
        ]
        for name, pair in family.pairs.items():
            findings.append(
                f"{name}: {math.exp(pair.mean):.2f} of the seconds (95 % {math.exp(pair.low):.2f} to "
                f"{math.exp(pair.high):.2f}), p = {adjusted[name]:.2g} by Holm."
            )
        figures = {
            "rows": rows, "seconds": seconds, "targets": list(targets.values()), "pairs": family.asdict(),
        }  # fmt: skip
        curves = {way: [results[f"{way}.{seed}"]["curve"] for seed in self.seeds] for way in WAYS}
        return Summary(figures, tables, findings, {"loss": _plot(curves)})


def windows(numbers: NDArray[np.int64], context: int, words: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Every word but the first few, and the rows of the embeddings of those before it: one block of rows a place."""
    if len(numbers) <= context:
        raise RecipeError(f"the text has {len(numbers)} words; expected more than the {context} of a context")
    view = np.lib.stride_tricks.sliding_window_view(numbers, context + 1)
    return (view[:, :context] + np.arange(context) * words).astype(np.int32), view[:, context].copy()


def seconds_to(curve: Sequence[Sequence[float]], loss: float) -> float | None:
    """Seconds until a curve of (seconds, loss) is first at a loss, in a straight line between points; None if never."""
    before: Sequence[float] | None = None
    for seconds, value in curve:
        if value <= loss:
            if before is None or before[1] == value:
                return seconds
            return before[0] + (seconds - before[0]) * (before[1] - loss) / (before[1] - value)
        before = seconds, value
    return None


def _plot(curves: Mapping[str, Sequence[Sequence[Sequence[float]]]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, (way, each) in enumerate(curves.items()):
        for place, curve in enumerate(each):
            axes.plot(*zip(*curve, strict=True), color=f"C{number}", label=None if place else way, linewidth=1)
    axes.set(xlabel="CPU seconds of one thread", ylabel="validation loss, all words", xscale="log")
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    return figure
