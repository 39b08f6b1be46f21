"""One training loop for every algorithm, reproducible bit for bit: seeded batches, fixed threads, hooks.

What an algorithm adds to plain training is a `Hook`: something before a step, a penalty in the loss, something after
the gradients, a step or an epoch. All that it changes lies in the module, so that module and optimizer are the whole
state. What is learned from is a `Lesson`: images with labels (`images`), or any other that gives batches with a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from compiler.errors import RecipeError
from compiler.train.schedule import Schedule

__all__ = ["Backward", "Batch", "Epoch", "Hook", "Lesson", "accumulated", "fit", "reproducible", "seed_of"]


class Batch(Protocol):
    """What a module learns in one step."""

    def __len__(self) -> int:
        """Samples."""

    def loss(self, module: nn.Module) -> Tensor:
        """Mean loss of the module on the samples; a scalar."""

    def split(self, parts: int) -> Sequence[Batch]:
        """Shares for as many workers."""


class Lesson(Protocol):
    """What a module is trained on."""

    def steps(self, size: int) -> int:
        """Batches an epoch."""

    def batches(self, epoch: int, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Batches of `size` samples; `epoch`, from 0, and `generator` alone decide which and in what order."""


Backward = Callable[[nn.Module, Batch], float]
"""Leaves the gradients of a step in the parameters, which have none before; returns the loss."""


class Hook:
    """What an algorithm does while a network trains; the methods here do nothing.

    Attributes
    ----------
    clipped : whether the gradient of the penalty is clipped together with that of the loss, or added after it.
    backward : how the gradients of a step come about, instead of by `fit`'s own way.
    """

    clipped: bool = True
    backward: Backward | None = None

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """Before the first step of a training, or of what is left of it; the optimizer has its state."""

    def before_step(self, step: int, total: int) -> None:
        """Before the forward pass of one of `total` steps."""

    def penalty(self) -> Tensor | None:
        """A term that is added to the loss of a step."""
        return None

    def after_backward(self, step: int, total: int) -> None:
        """When the gradients are there, those of `clipped` penalties included, before they are clipped."""

    def after_step(self, step: int, total: int) -> None:
        """After the optimizer's step."""

    def after_epoch(self, epoch: int) -> None:
        """After an epoch, before it is measured; `epoch` counts from 1."""


@dataclass(frozen=True, eq=False)
class Epoch:
    """What is known after an epoch.

    done : epochs so far.
    loss : mean over the epoch, without penalties.
    optimizer : its state, parameter name → key → tensor; with the module's state all that is needed to go on.
    """

    done: int
    loss: float
    optimizer: dict[str, dict[str, Tensor]]


def backward(module: nn.Module, batch: Batch) -> float:
    """The gradients of one module on the whole batch: a `Backward`."""
    loss = batch.loss(module)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def accumulated(parts: int) -> Backward:
    """The same gradients, up to rounding, by as many smaller batches one after the other."""

    def backward(module: nn.Module, batch: Batch) -> float:
        total = 0.0
        for part in batch.split(parts):
            if not len(part):
                continue
            loss = part.loss(module) * (len(part) / len(batch))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total

    return backward


_plain = backward  # which is the name of a parameter below


def fit(
    module: nn.Module,
    lesson: Lesson,
    schedule: Schedule,
    seed: Sequence[int],
    *,
    hooks: Sequence[Hook] = (),
    after_epoch: Callable[[Epoch], None] | None = None,
    done: int = 0,
    optimizer_state: Mapping[str, Mapping[str, Tensor]] | None = None,
    backward: Backward = backward,
    channels_last: bool = True,
) -> None:
    """Train `module` in place.

    Parameters
    ----------
    seed : numbers that name this training; with the number of the epoch they decide all that is random in it.
    hooks : what an algorithm adds, in the order in which they are called.
    after_epoch : called after each epoch, with the module in evaluation mode.
    done : epochs that a training which was interrupted had done; `optimizer_state` is what it gave last.
    backward : how the gradients of a step come about; by default on the whole batch at once.
    channels_last : lay images and filters out so, which is twice as fast; not where parameters are parts of others.
    """
    if channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # other shapes stay as they are
    own = next((hook.backward for hook in hooks if hook.backward is not None), backward)
    if schedule.accumulate > 1:
        if own is not _plain:
            raise RecipeError(
                f"accumulate is {schedule.accumulate}, and the batch of a step is shared by workers here; expected 1: "
                "leave it out, or train in one process without workers"
            )
        own = accumulated(schedule.accumulate)
    steps = lesson.steps(schedule.batch)
    total = steps * schedule.epochs
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    optimizer = schedule.make_optimizer(named.values())
    if optimizer_state is not None:
        for name, values in optimizer_state.items():
            optimizer.state[named[name]] = {key: _placed(value, named[name]) for key, value in values.items()}
    for hook in hooks:
        hook.begin(optimizer)
    for epoch in range(done, schedule.epochs):
        module.train()
        losses, samples = 0.0, 0
        generator = torch.Generator().manual_seed(seed_of(*seed, epoch))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(*seed, epoch, 1))  # for what the module itself draws, as dropout does
            for step, batch in enumerate(lesson.batches(epoch, schedule.batch, generator), start=epoch * steps):
                for hook in hooks:
                    hook.before_step(step, total)
                for group in optimizer.param_groups:
                    group["lr"] = schedule.rate(step, total)
                optimizer.zero_grad()
                losses += own(module, batch) * len(batch)
                samples += len(batch)
                _penalize(hook for hook in hooks if hook.clipped)
                for hook in hooks:
                    hook.after_backward(step, total)
                if schedule.clip:
                    nn.utils.clip_grad_norm_(named.values(), schedule.clip)
                _penalize(hook for hook in hooks if not hook.clipped)
                optimizer.step()
                for hook in hooks:
                    hook.after_step(step, total)
        module.eval()
        for hook in hooks:
            hook.after_epoch(epoch + 1)
        if after_epoch is not None:
            state = {name: dict(optimizer.state.get(parameter, {})) for name, parameter in named.items()}
            after_epoch(Epoch(epoch + 1, losses / samples, state))
    module.eval()


def _penalize(hooks: Iterable[Hook]) -> None:
    """Add the gradients of penalties."""
    for penalty in (hook.penalty() for hook in hooks):
        if penalty is not None:
            penalty.backward()  # type: ignore[no-untyped-call]


def _placed(value: Tensor, parameter: Tensor) -> Tensor:
    """State from a file in the memory layout of its parameter, on which the order of sums may depend."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value.clone()


def seed_of(*numbers: int) -> int:
    """One well mixed seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


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
