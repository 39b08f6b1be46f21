"""What a language model learns from a text: truncated backpropagation through time, with the state carried on.

The text is cut into as many streams as a batch has; a step takes the next `length` words of every stream, beginning
in the state in which the step before left it, and gradients end at the beginning of the step.

Modules take words and a state, a list of tensors (…, stream, width) of three dimensions or None for its start, and
give a logit for every word of the vocabulary and the state after them, as `language.LanguageModel` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compiler.errors import InputError
from compiler.train.images import autocast

__all__ = ["WordBatch", "Words", "perplexity"]

_MEASURED_STREAMS = 20


@dataclass(frozen=True, eq=False)
class Words:
    """A `loop.Lesson` of a text.

    Attributes
    ----------
    numbers : of the words, int64 (n,).
    length : words that a gradient goes back.
    batch_first : whether the module takes (stream, time), or (time, stream).
    precision : one of `images.PRECISIONS`.
    """

    numbers: NDArray[np.int64]
    length: int = 35
    batch_first: bool = True
    precision: str = "float32"

    def steps(self, size: int) -> int:
        """Batches of `size` streams an epoch, the last one perhaps shorter."""
        return -(-(self._columns(size).shape[1] - 1) // self.length)

    def batches(self, epoch: int, size: int, generator: torch.Generator) -> Iterator[WordBatch]:
        """The text in its order. An epoch begins in the start state of the module."""
        columns = self._columns(size)
        carried = _Carried(size)
        for begin in range(0, columns.shape[1] - 1, self.length):
            part = columns[:, begin : begin + self.length + 1]
            yield WordBatch(self, part[:, :-1], part[:, 1:], carried, 0)
            carried.turn()

    def autocast(self) -> torch.autocast:
        """Products in `precision` as long as the block runs."""
        return autocast(self.precision)

    def _columns(self, streams: int) -> Tensor:
        """The text cut into streams, (streams, n); what does not fill them at the end is left out."""
        each = len(self.numbers) // streams
        if each < 2:
            raise InputError(f"a text of {len(self.numbers)} words for {streams} streams; expected two each")
        return torch.from_numpy(self.numbers[: each * streams]).view(streams, each)


@dataclass(eq=False)
class _Carried:
    """States between steps. Shares of a batch read and write their own streams, in any order."""

    streams: int
    now: list[Tensor] | None = None
    following: list[Tensor] | None = None

    def read(self, first: int, count: int) -> list[Tensor] | None:
        return None if self.now is None else [part[:, first : first + count] for part in self.now]

    def write(self, first: int, state: list[Tensor]) -> None:
        if self.following is None:
            self.following = [part.new_zeros(len(part), self.streams, part.shape[2]) for part in state]
        for whole, part in zip(self.following, state, strict=True):
            whole[:, first : first + part.shape[1]] = part.detach()

    def turn(self) -> None:
        self.now, self.following = self.following, None


@dataclass(frozen=True, eq=False)
class WordBatch:
    """The words of one step.

    Attributes
    ----------
    lesson : that they are from.
    inputs, targets : int64 (streams, time); a target is the word that follows.
    carried : states of all streams of the epoch; first: the number of this batch's first one.
    """

    lesson: Words
    inputs: Tensor
    targets: Tensor
    carried: _Carried = field(repr=False)
    first: int

    def __len__(self) -> int:
        return self.targets.numel()

    def split(self, parts: int) -> list[WordBatch]:
        """Shares of near equal size: whole streams, which stay with their worker as long as `parts` stays the same."""
        bounds = [len(self.inputs) * number // parts for number in range(parts + 1)]
        return [
            WordBatch(self.lesson, self.inputs[a:b], self.targets[a:b], self.carried, self.first + a)
            for a, b in pairwise(bounds)
        ]

    def loss(self, module: nn.Module) -> Tensor:
        """Mean cross entropy of the words that follow; the state after them is carried to the next step."""
        state = self.carried.read(self.first, len(self.inputs))
        with self.lesson.autocast():
            logits, after = module(_arranged(self.inputs, self.lesson), state)
        self.carried.write(self.first, after)
        targets = _arranged(self.targets, self.lesson)
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def perplexity(module: nn.Module, lesson: Words, numbers: NDArray[np.int64] | None = None) -> float:
    """Exponential of the mean cross entropy of all words but the first of a stream, in float32 and evaluation mode.

    The text is read in `_MEASURED_STREAMS` streams with the state carried on, so up to as many words at its end are
    left out.

    Parameters
    ----------
    numbers : another text than the lesson's.
    """
    text = Words(lesson.numbers if numbers is None else numbers, lesson.length, lesson.batch_first)
    module.eval()
    total, words = 0.0, 0
    with torch.no_grad():
        for batch in text.batches(0, min(_MEASURED_STREAMS, len(text.numbers) // 2), torch.Generator()):
            total += float(batch.loss(module)) * len(batch)
            words += len(batch)
    return math.exp(total / words)


def _arranged(words: Tensor, lesson: Words) -> Tensor:
    return words if lesson.batch_first else words.t()
