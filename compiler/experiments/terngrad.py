"""Ternary gradients against float ones: unbiasedness, and training with virtual workers on the same schedule.

Source: TernGrad (Wen et al., NIPS 2017), section 4.1: no or little accuracy is lost, with up to 8 workers on MNIST.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from compiler.experiments.base import Env, Experiment, Summary, SummaryTable, Trial
from compiler.experiments.paired import Family, holm
from compiler.experiments.subject import NetworkSpec, Subject, networks_of
from compiler.train.images import accuracy
from compiler.train.loop import Epoch, fit, seed_of
from compiler.train.table import Table
from compiler.train.terngrad.averaging import Clock
from compiler.train.terngrad.settings import Settings
from compiler.train.terngrad.ternarize import generator_of, scaler, ternarize
from compiler.train.terngrad.virtual import VirtualWorkers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TernGrad"]

_LEAST = 30
"""Expected draws of either outcome, so that a mean of draws is near enough to normal to be tested as that."""

WORST, MEAN = 1.0, 0.3
"""Points of accuracy that may be lost: by one training, and on average over the seeds."""


@dataclass(frozen=True, kw_only=True)
class TernGrad(Experiment):
    """Every network is trained with float gradients, and with ternary ones of every number of virtual workers.

    Attributes
    ----------
    workers : numbers of workers; they share the batch, so the schedule is the same for all.
    draws : ternarizations of one gradient, for the test of unbiasedness.
    clip, smallest, last : see `terngrad.settings.Settings`.
    """

    kind: ClassVar[str] = "terngrad"
    networks: tuple[NetworkSpec, ...]
    workers: tuple[int, ...]
    draws: int
    clip: float
    smallest: int
    last: bool

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Networks, numbers of workers, and what is turned ternary."""
        return {
            "networks": networks_of(table),
            "workers": table.integers("workers", 1, 64),
            "draws": table.integer("draws", 100, 1 << 20, default=1000),
            "clip": table.number("clip", 0, 100, default=2.5, low_included=True),
            "smallest": table.integer("smallest", 0, 1 << 30, default=256),
            "last": table.flag("last", default=False),
        }

    def trials(self) -> list[Trial]:
        """One for each network, seed and number of workers (0: float), and one test of unbiasedness for each."""
        kinds = [(0, "float"), *((workers, str(workers)) for workers in self.workers), (-1, "unbiased")]
        return [
            Trial(f"{network.name}.{name}.{seed}", {"network": network.name, "workers": workers, "seed": seed})
            for seed, network, (workers, name) in product(self.seeds, self.networks, kinds)
        ]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Train, or draw."""
        spec = next(network for network in self.networks if network.name == trial.options["network"])
        subject = Subject.make(spec, trial.options["seed"], env)
        workers = trial.options["workers"]
        settings = Settings(self.clip, self.smallest, self.last, seed=subject.seed)
        if workers < 0:
            return _unbiased(subject, spec.dense.batch, settings, self.draws)
        history: list[dict[str, float]] = []

        def after_epoch(epoch: Epoch) -> None:
            share = accuracy(subject.module, subject.lesson, subject.dataset.validation)
            history.append({"epoch": epoch.done, "loss": epoch.loss, "validation": 100 * (1 - share)})
            env.note(f"epoch {epoch.done} of {spec.dense.epochs}")

        seed = (subject.seed, 0)
        if workers == 0:
            fit(subject.module, subject.lesson, spec.dense, seed, after_epoch=after_epoch)
        else:
            virtual = VirtualWorkers(subject.module, settings, workers)
            clock = Clock(virtual.exchange, subject.lesson.steps(spec.dense.batch))
            fit(
                subject.module, subject.lesson, spec.dense, seed, hooks=[clock], after_epoch=after_epoch,
                backward=virtual,
            )  # fmt: skip
        return {"history": history, **subject.errors(subject.module)}

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Accuracy lost against float gradients, by network and number of workers, over the seeds."""
        figures: dict[str, Any] = {}
        rows: list[list[str | int | float | None]] = []
        findings, plots = [], {}
        compared: dict[str, tuple[list[float], list[float]]] = {}
        for network in self.networks:
            runs = {
                workers: [results[f"{network.name}.{workers or 'float'}.{seed}"] for seed in self.seeds]
                for workers in (0, *self.workers)
            }
            errors = {workers: [run["test"] for run in each] for workers, each in runs.items()}
            lost = {w: [e - f for e, f in zip(errors[w], errors[0], strict=True)] for w in self.workers}
            compared |= {f"{network.name}, {w} workers - float": (errors[w], errors[0]) for w in self.workers}
            figures[network.name] = {"test_errors": errors, "lost": lost}
            rows.append([network.name, "float", float(np.mean(errors[0])), None, None])
            for workers, values in lost.items():
                mean, worst = float(np.mean(values)), max(values)
                rows.append([network.name, str(workers), float(np.mean(errors[workers])), mean, worst])
            worst = max(max(values) for values in lost.values())
            mean = max(float(np.mean(values)) for values in lost.values())
            findings.append(
                f"{network.name}: ternary gradients lose at worst {worst:+.2f} points of test accuracy against float "
                f"ones of the same seed ({'within' if worst <= WORST else 'more than'} {WORST}), on average over "
                f"{len(self.seeds)} seeds at most {mean:+.2f} ({'within' if mean <= MEAN else 'more than'} {MEAN})."
            )
            plots[f"convergence-{network.name}"] = _plot(network.name, runs)
        tests = [
            [network.name, seed, *(results[f"{network.name}.unbiased.{seed}"][key] for key in _TESTED)]
            for network, seed in product(self.networks, self.seeds)
        ]
        figures["unbiased"] = [dict(zip(("network", "seed", *_TESTED), test, strict=True)) for test in tests]
        least = min(holm([float(p) for test in tests for p in (test[3], test[5])]))
        clear = least > 0.01
        findings.append(
            f"Unbiasedness of {len(tests)} real gradients: the smallest of {2 * len(tests)} p-values, corrected for "
            f"their number (Holm), is {least:.2g}, "
            + (
                "no sign of a bias at 1 % for all tests together."
                if clear
                else "which at 1 % for all tests together is a sign of a bias."
            )
        )
        tables = [
            SummaryTable(
                f"Test error after training, mean of {len(self.seeds)} seeds, and points lost against float",
                ["network", "workers", "test error %", "lost, mean", "lost, worst"],
                rows,
            ),
            SummaryTable(
                f"Means of {self.draws} ternarizations against the clipped gradient, in standard deviations",
                ["network", "seed", "elements", "p of mean square", "largest", "p of largest"],
                tests,
            ),
        ]
        family = Family.of(compared)
        figures["test_error_differences"] = family.asdict()
        tables += family.tables("points of test error")
        findings.append(family.finding())
        return Summary(figures, tables, findings, plots)


_TESTED = ("elements", "p_square", "largest", "p_largest")


def _unbiased(subject: Subject, batch: int, settings: Settings, draws: int) -> dict[str, Any]:
    """Deviations of means of draws of the first batch's gradients from the clipped gradients.

    An element kept with probability p has a mean of draws with variance p (1 - p) s² / draws if p is what it should
    be; elements that are kept, or dropped, too seldom for that to be nearly normal are left out.
    """
    generator = torch.Generator().manual_seed(seed_of(subject.seed, 0))
    first = next(iter(subject.lesson.batches(0, batch, generator)))
    first.loss(subject.module).backward()  # type: ignore[no-untyped-call]
    deviations = []
    for number, parameter in enumerate(subject.module.parameters()):
        if parameter.grad is None or parameter.numel() < settings.smallest:
            continue
        deviations.append(_deviations(parameter.grad, settings, draws, number))
    z = np.concatenate(deviations)
    square = float((z**2).sum())
    largest = float(np.abs(z).max())
    return {
        "elements": len(z),
        "p_square": float(min(1.0, 2 * min(stats.chi2.sf(square, len(z)), stats.chi2.cdf(square, len(z))))),
        "largest": largest,
        "p_largest": float(-np.expm1(len(z) * np.log1p(-2 * stats.norm.sf(largest)))),
    }


def _deviations(gradient: Tensor, settings: Settings, draws: int, number: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    scale = scaler(gradient, settings.clip)
    kept = (gradient.detach().reshape(-1).double().abs() / scale).clamp(max=1)
    tested = (kept * draws >= _LEAST) & ((1 - kept) * draws >= _LEAST)
    total = torch.zeros(gradient.numel(), dtype=torch.float64)
    for draw in range(draws):
        total += ternarize(gradient, scale, generator_of(settings.seed, draw, 0, number))
    expected = kept * gradient.detach().reshape(-1).sign()
    z = (total / draws - expected) / (kept * (1 - kept) / draws).sqrt()
    return np.asarray(z[tested].numpy())


def _plot(name: str, runs: Mapping[int, Sequence[Mapping[str, Any]]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, error = figure.subplots(1, 2)
    for workers, each in runs.items():
        curves = [run["history"] for run in each]
        label = f"{workers} workers" if workers else "float"
        epochs = [point["epoch"] for point in curves[0]]
        style = {"color": "black", "linestyle": "--"} if workers == 0 else {}
        for axes, key in ((loss, "loss"), (error, "validation")):
            axes.plot(epochs, np.mean([[p[key] for p in run] for run in curves], 0), label=label, **style)
    loss.set(xlabel="epoch", ylabel="training loss", yscale="log")
    error.set(xlabel="epoch", ylabel="validation error %", yscale="log")
    loss.legend()
    figure.suptitle(f"{name}: mean of {len(runs[0])} seeds")
    return figure
