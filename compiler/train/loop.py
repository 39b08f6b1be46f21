"""One training loop, reproducible bit for bit: own batches from a seeded generator, fixed threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compiler.train.data import Split

__all__ = ["Schedule", "accuracy", "fit", "reproducible"]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: Adam, its learning rate falling to zero along half a cosine."""

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float


def fit(
    module: nn.Module,
    split: Split,
    schedule: Schedule,
    generator: torch.Generator,
    before_step: Callable[[int, int], None] | None = None,
    after_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Train `module` on `split` in place.

    Parameters
    ----------
    generator : gives the order of the samples.
    before_step : called with (step, steps in all) before each step.
    after_epoch : called with (epochs done, mean loss of the epoch).
    """
    inputs, labels = torch.from_numpy(split.inputs), torch.from_numpy(split.labels)
    steps = -(-len(split) // schedule.batch)
    total = steps * schedule.epochs
    optimizer = torch.optim.AdamW(module.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    module.train()
    for epoch in range(schedule.epochs):
        order = torch.randperm(len(split), generator=generator)
        losses = 0.0
        for number in range(steps):
            index = order[number * schedule.batch : (number + 1) * schedule.batch]
            step = epoch * steps + number
            if before_step is not None:
                before_step(step, total)
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * step / total))
            optimizer.zero_grad()
            loss: Tensor = nn.functional.cross_entropy(module(inputs[index]), labels[index])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses += loss.item() * len(index)
        if after_epoch is not None:
            after_epoch(epoch + 1, losses / len(split))
    module.eval()


def accuracy(module: nn.Module, split: Split) -> float:
    """Share of the samples whose largest output is at their label, 0 … 1."""
    module.eval()
    with torch.no_grad():
        outputs: Tensor = module(torch.from_numpy(split.inputs))
    return float((outputs.argmax(1) == torch.from_numpy(split.labels)).double().mean())


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Deterministic algorithms on a fixed number of threads; the caller's settings come back afterwards.

    The number of threads decides how sums are split, so other numbers give other last bits.
    """
    before, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(before)
