"""Learn weights and the probabilities of operations in turn: a hook of the one training loop.

Before each step of the weights a network is drawn, and only that one is trained. Every few steps the logits take a step
of their own, on samples that the weights do not see.

Source: ProxylessNAS (Cai et al., ICLR 2019): section 3.2 (gates of two paths), section 3.3 (latency in the loss,
REINFORCE).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from compiler.train.images import ImageBatch, Images
from compiler.train.loop import Hook, seed_of
from compiler.train.nas.latency import LatencyTable, weighed
from compiler.train.nas.mixed import Mixed, Supernet
from compiler.train.nas.space import Space

__all__ = ["WAYS", "Paths", "Rule", "Search", "settled"]

WAYS = ("two", "all", "reinforce")
"""How logits learn: gates of two operations of each block, gates of all, or rewards of networks that are drawn."""

_BETAS = (0.0, 0.999)  # of Adam, as published: without momentum what has no gradient stays where it is
_BASELINE = 0.99  # how far the baseline of rewards goes to the mean of the last ones, as in the authors' program


@dataclass(frozen=True)
class Rule:
    """How the logits learn.

    Attributes
    ----------
    way : one of `WAYS`. learning_rate : of Adam.
    every : steps of the weights for each step of the logits. batch : samples of such a step.
    form, strength : of the latency in the loss, see `latency.weighed`; a reward is accuracy · (target / cycles) **
        strength.
    draws : networks whose rewards make a step of "reinforce".
    """

    way: str = "two"
    learning_rate: float = 1e-2
    every: int = 2
    batch: int = 64
    form: str = "multiply"
    strength: float = 0.6
    draws: int = 4

    def passes(self, space: Space) -> int:
        """Networks at most that are computed on a batch in a step of the logits."""
        return {"two": 2, "all": max(space.counts), "reinforce": self.draws}[self.way]


class Paths(Hook):
    """Every step trains a network that is drawn by the probabilities, which stay as they are: the warm-up."""

    def __init__(self, supernet: Supernet, seed: int) -> None:
        self.supernet = supernet
        self.generator = torch.Generator().manual_seed(seed_of(seed, 0x9A7))

    def before_step(self, step: int, total: int) -> None:
        """Draw the network of this step."""
        self.supernet.sample(self.generator)


class Search(Paths):
    """Weights and logits in turn.

    Attributes
    ----------
    held : samples that logits learn from. table : cycles of the array. target : cycles that are wanted.
    rule : how logits learn. steps : of the logits so far.
    """

    def __init__(
        self, supernet: Supernet, held: Images, table: LatencyTable, target: float, rule: Rule, seed: int
    ) -> None:
        super().__init__(supernet, seed)
        self.held, self.table, self.target, self.rule = held, table, target, rule
        self.steps = 0
        self.baseline: float | None = None
        self.optimizer = torch.optim.Adam([block.alpha for block in supernet.mixed], rule.learning_rate, betas=_BETAS)
        self._samples = self._batches()

    def after_step(self, step: int, total: int) -> None:
        """Let the logits take a step, if it is time."""
        if (step + 1) % self.rule.every == 0:
            self.update(next(self._samples))

    def update(self, batch: ImageBatch) -> None:
        """One step of the logits."""
        self.steps += 1
        if self.rule.way == "reinforce":
            self._rewards(batch)
            self.optimizer.step()
            return
        blocks = self.supernet.mixed
        before = [block.alpha.detach().clone() for block in blocks]
        self._gates(batch)
        self.optimizer.step()
        if self.rule.way == "two":
            for block, old in zip(blocks, before, strict=True):
                keep_others(block, old)
        for block in blocks:
            block.gates = ()

    def _gates(self, batch: ImageBatch) -> None:
        """Gradients of the logits by the gates, and by what is expected of the array."""
        blocks, through = self.supernet.mixed, []
        for block in blocks:
            self._open(block)
            logits = block.alpha.detach().clone().requires_grad_()
            through.append((logits, _probabilities(logits, block.gates)))
        cycles = self.table.expected([probabilities for _, probabilities in through])
        loss = weighed(batch.loss(self.supernet), cycles, self.target, self.rule.form, self.rule.strength)
        loss.backward()  # type: ignore[no-untyped-call]
        for block, (logits, _) in zip(blocks, through, strict=True):
            assert logits.grad is not None
            block.alpha.grad = block.gate_gradient() + logits.grad

    def _open(self, block: Mixed) -> None:
        """Draw the operation that is computed, and those whose gates learn."""
        if self.rule.way == "all" or len(block.ops) == 1:
            block.active = int(torch.multinomial(block.probabilities, 1, generator=self.generator))
            block.gates = tuple(range(len(block.ops)))
            return
        pair = torch.multinomial(block.probabilities, 2, generator=self.generator)
        among = torch.softmax(block.alpha.detach()[pair], 0)
        block.gates = tuple(int(each) for each in pair)
        block.active = block.gates[int(torch.multinomial(among, 1, generator=self.generator))]

    def _rewards(self, batch: ImageBatch) -> None:
        """Gradients of the logits by the rewards of networks that are drawn."""
        drawn, rewards = [], []
        for _ in range(self.rule.draws):
            choices = self.supernet.sample(self.generator)
            with torch.no_grad():
                right = (self.supernet(batch.inputs).argmax(1) == batch.labels).float().mean()
            drawn.append(choices)
            rewards.append(float(right) * (self.target / self.table.of(choices)) ** self.rule.strength)
        mean = sum(rewards) / len(rewards)
        baseline = mean if self.baseline is None else self.baseline
        self.baseline = baseline + _BASELINE * (mean - baseline)
        for number, block in enumerate(self.supernet.mixed):
            gradient = torch.zeros_like(block.alpha)
            for choices, reward in zip(drawn, rewards, strict=True):
                chosen = torch.zeros_like(gradient)
                chosen[choices[number]] = 1
                gradient -= (reward - baseline) * (chosen - block.probabilities) / self.rule.draws
            block.alpha.grad = gradient

    def _batches(self) -> Iterator[ImageBatch]:
        epoch = 0
        while True:
            yield from self.held.batches(epoch, self.rule.batch, self.generator)
            epoch += 1


def _probabilities(logits: Tensor, gates: tuple[int, ...]) -> Tensor:
    """Of the operations, through which gradients go to the logits of the gates, and leave the others' sum alone."""
    probabilities = torch.softmax(logits.detach(), 0)
    numbers = torch.tensor(gates, dtype=torch.long)
    own = torch.softmax(logits[numbers], 0) * probabilities[numbers].sum()
    return probabilities.index_put((numbers,), own)


def keep_others(block: Mixed, before: Tensor) -> None:
    """Shift the logits of the two that learned, so that all other probabilities are what they were.

    before : the logits before the step, float32 (ops,).
    """
    numbers = torch.tensor(block.gates, dtype=torch.long)
    with torch.no_grad():
        block.alpha[numbers] -= block.alpha[numbers].logsumexp(0) - before[numbers].logsumexp(0)


def settled(module: nn.Module, inputs: NDArray[np.float32]) -> nn.Module:
    """The module in evaluation mode, its batch normalizations with means and variances of these samples (n, features).

    In a supernet they are those of many networks.
    """
    update_bn([torch.from_numpy(inputs)], module)
    return module.eval()
