"""Hidden units that language models can do without: ISS against the dense model, direct training and L1.

Source: Learning Intrinsic Sparse Structures within Long Short-Term Memory (Wen et al., ICLR 2018), table 1: two layers
of 1,500 units become 373 and 315 at equal perplexity of Penn Treebank. Here the same is done at a size that trains in
minutes; strengths are chosen on the validation part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import torch

from compiler.errors import RecipeError
from compiler.experiments import iss_report
from compiler.experiments.base import Env, Experiment, Summary, Trial
from compiler.experiments.iss_network import Network
from compiler.experiments.iss_speed import model_speed, product_speed
from compiler.experiments.subject import schedule_of
from compiler.train.images import PRECISIONS
from compiler.train.iss import ISS, Units, dead, hidden_units
from compiler.train.iss_shrink import shrink_model
from compiler.train.l1 import L1, Frozen
from compiler.train.language import LanguageModel
from compiler.train.loop import Epoch, Hook, fit, seed_of
from compiler.train.rhn import RHN
from compiler.train.schedule import Schedule
from compiler.train.table import Table
from compiler.train.text import TEXTS, Corpus, load
from compiler.train.words import Words, perplexity

__all__ = ["Structures"]


@dataclass(frozen=True, kw_only=True)
class Structures(Experiment):
    """Every network dense, with ISS of several strengths, directly at the sizes those left, and with L1.

    Attributes
    ----------
    text, fallback, vocabulary, share : see `text.load`.
    length : words that a gradient goes back.
    precision : of products while training.
    dense : training of the dense model and of the directly trained small one.
    sparse, finetune : training with a penalty, and after what it left was cut out (ISS) or frozen (L1), without one.
    tolerance : by how much the validation perplexity may exceed the dense model's and still count as equal.
    batches : of which the speed is measured; repeats : rounds of that.
    """

    kind: ClassVar[str] = "iss"
    text: str
    fallback: str | None
    vocabulary: int
    share: float
    length: int
    precision: str
    dense: Schedule
    sparse: Schedule
    finetune: Schedule
    tolerance: float
    batches: tuple[int, ...]
    repeats: int
    networks: tuple[Network, ...]

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Text, networks and schedules."""
        networks = tuple(Network.parse(one) for one in table.tables("networks"))
        names = [network.name for network in networks]
        if not names or len(set(names)) < len(names):
            raise RecipeError(f"{table.source}: networks are missing, or two have one name")
        return {
            "networks": networks,
            "text": table.choice("text", TEXTS),
            "fallback": table.choice("fallback", TEXTS) if table.has("fallback") else None,
            "vocabulary": table.integer("vocabulary", 3, 1 << 20),
            "share": table.number("share", 0, 1, default=1.0, high_included=True),
            "length": table.integer("length", 1, 1000, default=35),
            "precision": table.choice("precision", PRECISIONS, default="float32"),
            "dense": schedule_of(table, "dense"),
            "sparse": schedule_of(table, "sparse"),
            "finetune": schedule_of(table, "finetune"),
            "tolerance": table.number("tolerance", 0, 1, default=0.01, low_included=True),
            "batches": table.integers("batches", 1, 4096, default=[1, 20]),
            "repeats": table.integer("repeats", 1, 1000, default=9),
        }

    def trials(self) -> list[Trial]:
        """Dense models first, so that what is unfit is seen early; then what takes one training, then ISS."""
        found = []
        for seed, network in product(self.seeds, self.networks):
            ways = [("dense", 0.0), *(("iss", s) for s in network.strengths), *(("l1", s) for s in network.l1)]
            for way, strength in ways:
                key = iss_report.key_of(network.name, way, strength, seed)
                found.append(Trial(key, {"network": network.name, "way": way, "strength": strength, "seed": seed}))
        return sorted(found, key=lambda trial: ("dense", "l1", "iss").index(trial.options["way"]))

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Perplexities, sizes and times of one way; ISS with the directly trained model of its sizes."""
        network = next(each for each in self.networks if each.name == trial.options["network"])
        corpus = load(self.text, self.vocabulary, share=self.share, folder=env.data_dir, fallback=self.fallback)
        work = _Work(self, network, corpus, trial.options["seed"], env)
        strength = trial.options["strength"]
        found = {"dense": work.dense, "iss": work.iss, "l1": work.l1}[trial.options["way"]](strength)
        data = {"text": corpus.name, "sha256": corpus.sha256, "words": len(corpus.words), "train": len(corpus.train),
                "validation": len(corpus.validation), "test": len(corpus.test)}  # fmt: skip
        return {**found, "data": data}

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Sizes at equal perplexity, and what they are worth."""
        return iss_report.summarize(self.networks, self.seeds, self.tolerance, self.batches, results)


@dataclass(frozen=True, eq=False)
class _Work:
    """One trial: a network, a text, a seed."""

    plan: Structures
    network: Network
    corpus: Corpus
    seed: int
    env: Env

    def dense(self, strength: float) -> dict[str, Any]:
        """The model as it is."""
        model = self._model(self.network.width, self.network.hidden, self.network.dropout)
        curve = self._train(model, self.plan.dense, 0, [], "dense")
        return {**self._figures(model), "curve": curve}

    def iss(self, strength: float) -> dict[str, Any]:
        """Trained with the penalty, cut, trained on; beside it a fresh model of the sizes that were left."""
        network = self.network
        model = self._model(network.width, network.hidden, network.dropout_sparse)
        units = self._units(model)
        hook = ISS(units, list(model.parameters()), strength, network.least)
        curve = self._train(model, self.plan.sparse, 0, [hook], "iss", units)
        penalized = self._perplexity(model)
        widths = shrink_model(model)
        cut = self._perplexity(model)
        curve += self._train(model, self.plan.finetune, 1, [], "finetune")
        width, *hidden = widths["after"]
        direct = self._model(width, tuple(hidden), network.dropout_sparse)
        self._train(direct, self.plan.dense, 2, [], "direct")
        big = self._model(network.width, network.hidden, 0.0)
        self.env.note("speed")
        speed = {
            str(batch): model_speed({"before": big, "after": model}, self.plan.vocabulary, batch, self.plan.length,
                                    self.plan.repeats)
            for batch in self.plan.batches
        }  # fmt: skip
        return {**self._figures(model), "penalized": penalized, "cut": cut, "curve": curve, "speed": speed,
                "direct": self._figures(direct)}  # fmt: skip

    def l1(self, strength: float) -> dict[str, Any]:
        """Trained with L1 on everything but the embedding, zeros frozen, trained on."""
        network = self.network
        model = self._model(network.width, network.hidden, network.dropout_sparse)
        others = [value for value in model.parameters() if model.tied or value is not model.embedding.weight]
        curve = self._train(model, self.plan.sparse, 0, [L1(others, strength, network.l1_least)], "l1")
        curve += self._train(model, self.plan.finetune, 1, [Frozen(others)], "finetune")
        matrices = [value.detach() for value in model.matrices()]
        self.env.note("speed")
        products = {str(batch): product_speed(matrices, batch, self.plan.repeats) for batch in self.plan.batches}
        nonzeros = sum(int(torch.count_nonzero(matrix)) for matrix in matrices)
        silent = [int(dead(each).sum()) for each in self._units(model)]
        return {**self._figures(model), "nonzeros": nonzeros, "silent": silent, "curve": curve, "products": products}

    def _model(self, width: int, hidden: Sequence[int], dropout: float) -> LanguageModel:
        network = self.network
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, 7))
            return LanguageModel(
                len(self.corpus.words), width, hidden, network.cell, depth=network.depth, dropout=dropout,
                tied=network.tied,
            )  # fmt: skip

    def _units(self, model: LanguageModel) -> list[Units]:
        coupled = model.tied and isinstance(next(iter(model.rnn)), RHN)
        return hidden_units(model.rnn, [model.output], model.embedding if coupled else None)

    def _train(
        self,
        model: LanguageModel,
        schedule: Schedule,
        number: int,
        hooks: Sequence[Hook],
        word: str,
        units: Sequence[Units] = (),
    ) -> list[dict[str, Any]]:
        """Train in place; validation perplexity and, for `units`, how many are left, after every epoch."""
        curve: list[dict[str, Any]] = []

        def told(epoch: Epoch) -> None:
            row = {"way": word, "loss": epoch.loss, "validation": self._perplexity(model)}
            if units:
                row["units"] = [each.size - int(dead(each).sum()) for each in units]
            curve.append(row)
            self.env.note(f"{word} {epoch.done}/{schedule.epochs}: {row['validation']:.1f}")

        lesson = Words(self.corpus.train, self.plan.length, precision=self.plan.precision)
        fit(model, lesson, schedule, (self.seed, number), hooks=hooks, after_epoch=told)
        return curve

    def _perplexity(self, model: LanguageModel) -> float:
        return perplexity(model, Words(self.corpus.validation, self.plan.length))

    def _figures(self, model: LanguageModel) -> dict[str, Any]:
        return {
            "validation": self._perplexity(model),
            "test": perplexity(model, Words(self.corpus.test, self.plan.length)),
            "widths": list(model.widths),
            "parameters": sum(value.numel() for value in model.parameters()),
            "multiplies": model.multiplies(),
        }
