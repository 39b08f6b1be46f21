"""One training loop for every algorithm, reproducible bit for bit: seeded batches, fixed threads, hooks.

What an algorithm adds to plain training is a `Hook`: something before a step, a penalty in the loss, something after
a step or an epoch. All that it changes lies in the module, so that module and optimizer are the whole state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from compiler.train.augment import Copies, Warp
from compiler.train.data import Split
from compiler.train.distill import Teacher

__all__ = ["PRECISIONS", "Epoch", "Hook", "Lesson", "Schedule", "accuracy", "fit", "reproducible", "seed_of"]

PRECISIONS = ("float32", "bfloat16")
"""What products are computed in while training; weights, sums of gradients and all measurements are float32."""

_MEASURED_AT_ONCE = 1000  # samples; bounds the memory of convolutions


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: AdamW, its learning rate falling to zero along half a cosine, `cycles` times over."""

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.0
    cycles: int = 1

    def rate(self, step: int, total: int) -> float:
        """Learning rate of one of `total` steps."""
        position = step / total * self.cycles % 1.0
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * position))


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a module is trained on.

    Attributes
    ----------
    split : samples; inputs flat.
    shape : (channels, height, width) of a sample.
    flat : whether the module takes flat samples, or ones of `shape`.
    augment : warps of the images, or None.
    copies : warped copies that epochs use in turn instead of fresh warps, or None.
    teacher : whose outputs are learned beside the labels, or None.
    precision : one of `PRECISIONS`.
    """

    split: Split
    shape: tuple[int, ...]
    flat: bool = True
    augment: Warp | None = None
    copies: Copies | None = None
    teacher: Teacher | None = None
    precision: str = "float32"

    def arrange(self, inputs: Tensor) -> Tensor:
        """Flat samples in the form that the module takes."""
        return inputs if self.flat else inputs.view(len(inputs), *self.shape)

    def samples(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        """All inputs as an epoch takes them, and the teacher's answers where those do not change from step to step."""
        inputs, key = torch.from_numpy(self.split.inputs), -1
        if self.copies is not None:
            key = epoch % len(self.copies)
            inputs = self.copies[key]
        elif self.augment is not None:
            return inputs, None
        if self.teacher is None:
            return inputs, None
        with autocast(self.precision):
            return inputs, self.teacher.recall(key, inputs, self.arrange)

    def batch(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Inputs of one step in the form that the module takes, warped if warps are fresh."""
        inputs = inputs.float()
        if self.augment is not None and self.copies is None:
            inputs = self.augment(inputs, self.shape, generator)
        return self.arrange(inputs)


class Hook:
    """What an algorithm does while a network trains; the methods here do nothing."""

    def before_step(self, step: int, total: int) -> None:
        """Before the forward pass of one of `total` steps."""

    def penalty(self) -> Tensor | None:
        """A term that is added to the loss of a step."""
        return None

    def after_step(self, step: int, total: int) -> None:
        """After the optimizer's step."""

    def after_epoch(self, epoch: int) -> None:
        """After an epoch, before it is measured; `epoch` counts from 1."""


@dataclass(frozen=True, eq=False)
class Epoch:
    """What is known after an epoch.

    done : epochs so far.
    loss : mean over the epoch.
    optimizer : its state, parameter name → key → tensor; with the module's state all that is needed to go on.
    """

    done: int
    loss: float
    optimizer: dict[str, dict[str, Tensor]]


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
) -> None:
    """Train `module` in place.

    Parameters
    ----------
    seed : numbers that name this training; with the number of the epoch they decide all that is random in it.
    hooks : what an algorithm adds, in the order in which they are called.
    after_epoch : called after each epoch, with the module in evaluation mode.
    done : epochs that a training which was interrupted had done; `optimizer_state` is what it gave last.
    """
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast as channels first; other shapes stay as they are
    labels = torch.from_numpy(lesson.split.labels)
    steps = -(-len(labels) // schedule.batch)
    total = steps * schedule.epochs
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    # One kernel for all parameters of a step: three times as fast as one operation after the other.
    optimizer = torch.optim.AdamW(
        named.values(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
    )
    if optimizer_state is not None:
        for name, values in optimizer_state.items():
            optimizer.state[named[name]] = {key: _placed(value, named[name]) for key, value in values.items()}
    for epoch in range(done, schedule.epochs):
        module.train()
        losses = 0.0
        inputs, answers = lesson.samples(epoch)
        generator = torch.Generator().manual_seed(seed_of(*seed, epoch))
        order = torch.randperm(len(labels), generator=generator)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(*seed, epoch, 1))  # for what the module itself draws, as dropout does
            for number in range(steps):
                index = order[number * schedule.batch : (number + 1) * schedule.batch]
                step = epoch * steps + number
                for hook in hooks:
                    hook.before_step(step, total)
                for group in optimizer.param_groups:
                    group["lr"] = schedule.rate(step, total)
                known = None if answers is None else answers[index]
                loss = _loss(module, lesson, lesson.batch(inputs[index], generator), labels[index], known)
                for penalty in (hook.penalty() for hook in hooks):
                    loss = loss if penalty is None else loss + penalty
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                for hook in hooks:
                    hook.after_step(step, total)
                losses += loss.item() * len(index)
        module.eval()
        for hook in hooks:
            hook.after_epoch(epoch + 1)
        if after_epoch is not None:
            state = {name: dict(optimizer.state.get(parameter, {})) for name, parameter in named.items()}
            after_epoch(Epoch(epoch + 1, losses / len(labels), state))
    module.eval()


def _placed(value: Tensor, parameter: Tensor) -> Tensor:
    """State from a file in the memory layout of its parameter, on which the order of sums may depend."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value.clone()


def autocast(precision: str) -> torch.autocast:
    """Products in `precision`, one of `PRECISIONS`, as long as the block runs."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")


def _loss(module: nn.Module, lesson: Lesson, inputs: Tensor, labels: Tensor, known: Tensor | None) -> Tensor:
    teacher, answers = lesson.teacher, known
    with autocast(lesson.precision):
        outputs = module(inputs)
        if teacher is not None and answers is None:
            answers = teacher.answers(inputs)
    loss = nn.functional.cross_entropy(outputs.float(), labels)
    return loss if teacher is None or answers is None else teacher.blend(loss, outputs.float(), answers.float())


def accuracy(module: nn.Module, lesson: Lesson, split: Split | None = None) -> float:
    """Share of the samples whose largest output is at their label, 0 … 1, in float32 and without augmentation.

    Parameters
    ----------
    split : other samples than the lesson's.
    """
    samples = lesson.split if split is None else split
    module.eval()
    right = 0
    with torch.no_grad():
        for begin in range(0, len(samples), _MEASURED_AT_ONCE):
            part = samples.take(slice(begin, begin + _MEASURED_AT_ONCE))
            outputs: Tensor = module(lesson.arrange(torch.from_numpy(part.inputs)))
            right += int((outputs.argmax(1) == torch.from_numpy(part.labels)).sum())
    return right / len(samples)


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
