"""What a network learns from labelled images: batches, augmentation, distillation, and how well it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compiler.train.augment import Copies, Warp
from compiler.train.data import Split
from compiler.train.distill import Teacher

__all__ = ["PRECISIONS", "ImageBatch", "Images", "accuracy", "autocast", "mean_loss"]

PRECISIONS = ("float32", "bfloat16", "float16")
"""What products are computed in while training; weights, sums of gradients and all measurements are float32.
float16 has a short range of exponents, so `loop.fit` scales the loss."""

Samples = TypeVar("Samples", Tensor, NDArray[Any])

_MEASURED_AT_ONCE = 1000  # samples; bounds the memory of convolutions


@dataclass(frozen=True, eq=False)
class Images:
    """A `loop.Lesson` of labelled images.

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

    def steps(self, size: int) -> int:
        """Batches of `size` samples an epoch, the last one perhaps smaller."""
        return -(-len(self.split) // size)

    def batches(self, epoch: int, size: int, generator: torch.Generator) -> Iterator[ImageBatch]:
        """The samples in a random order, warped if that is wanted."""
        labels = torch.from_numpy(self.split.labels)
        inputs, answers = self.samples(epoch)
        for index in torch.split(torch.randperm(len(labels), generator=generator), size):
            known = None if answers is None else answers[index]
            yield ImageBatch(self, self._warped(inputs[index], generator), labels[index], known)

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
        with self.autocast():
            return inputs, self.teacher.recall(key, inputs, self.arrange)

    def _warped(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        inputs = inputs.float()
        if self.augment is not None and self.copies is None:
            inputs = self.augment(inputs, self.shape, generator)
        return self.arrange(inputs)

    def arrange(self, inputs: Samples) -> Samples:
        """Flat samples in the form that the module takes."""
        return inputs if self.flat else inputs.reshape(len(inputs), *self.shape)

    def autocast(self) -> torch.autocast:
        """Products in `precision` as long as the block runs."""
        return autocast(self.precision)


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """The samples of one step.

    Attributes
    ----------
    lesson : that they are from.
    inputs : in the form that the module takes; labels: int64 (n,).
    known : the teacher's outputs, or None.
    """

    lesson: Images
    inputs: Tensor
    labels: Tensor
    known: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, parts: int) -> list[ImageBatch]:
        """Shares of near equal size, as workers take them."""
        shares = [torch.arange(number, len(self), parts) for number in range(parts)]
        return [
            ImageBatch(
                self.lesson, self.inputs[share], self.labels[share], None if self.known is None else self.known[share]
            )
            for share in shares
        ]

    def loss(self, module: nn.Module) -> Tensor:
        """Mean cross entropy, mixed with the distance from the teacher if there is one."""
        teacher, answers = self.lesson.teacher, self.known
        with self.lesson.autocast():
            outputs = module(self.inputs)
            if teacher is not None and answers is None:
                answers = teacher.answers(self.inputs)
        loss = nn.functional.cross_entropy(outputs.float(), self.labels)
        return loss if teacher is None or answers is None else teacher.blend(loss, outputs.float(), answers.float())


def autocast(precision: str) -> torch.autocast:
    """Products in one of `PRECISIONS` as long as the block runs."""
    dtype = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast("cpu", dtype=dtype, enabled=precision != "float32")


def accuracy(module: nn.Module, lesson: Images, split: Split | None = None) -> float:
    """Share of the samples whose largest output is at their label, 0 … 1, in float32 and without augmentation.

    Parameters
    ----------
    split : other samples than the lesson's.
    """
    samples = lesson.split if split is None else split
    right = sum(int((outputs.argmax(1) == labels).sum()) for outputs, labels in _answers(module, lesson, samples))
    return right / len(samples)


def mean_loss(module: nn.Module, lesson: Images, split: Split) -> float:
    """Mean cross entropy on samples, in nats, in float32 and without augmentation."""
    parts = [
        float(nn.functional.cross_entropy(outputs, labels, reduction="sum"))
        for outputs, labels in _answers(module, lesson, split)
    ]
    return sum(parts) / len(split)


def _answers(module: nn.Module, lesson: Images, samples: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs and labels, part by part; the module is in evaluation mode from then on."""
    module.eval()
    for begin in range(0, len(samples), _MEASURED_AT_ONCE):
        part = samples.take(slice(begin, begin + _MEASURED_AT_ONCE))
        with torch.no_grad():
            outputs: Tensor = module(lesson.arrange(torch.from_numpy(part.inputs)))
        yield outputs, torch.from_numpy(part.labels)
