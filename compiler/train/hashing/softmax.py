"""The network of `wide`, trained by batches with torch: over all words, or over a sample of them.

Both step by the same rule as hashing, a sum of squares for each row. The sample is the log-uniform one of words in the
order of their frequency, one for the whole batch, corrected by the logarithm of how often a word is expected in it.

Source of the sample: On Using Very Large Target Vocabulary for Neural Machine Translation (Jean et al., ACL 2015).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compiler.train.hashing.wide import EPSILON, WideNetwork, first_weights

__all__ = ["SoftmaxNetwork", "full_loss"]


class SoftmaxNetwork:
    """The weights, and steps on batches.

    Parameters
    ----------
    words, context, hidden, seed : as in `wide.WideNetwork`, which starts from the same weights.
    sampled : words of a sample; 0 for all words.
    batch : samples of a step.
    """

    def __init__(self, words: int, context: int, hidden: int, seed: int, sampled: int = 0, batch: int = 128) -> None:
        tensors = [torch.from_numpy(one) for one in first_weights(words, context, hidden, seed)]
        self.embeddings, self.hidden_biases, self.weights, self.biases = tensors
        self.embedding_sums = torch.zeros(len(self.embeddings))
        self.row_sums, self.hidden_sum = torch.zeros(words), torch.zeros(1)
        self.sampled, self.batch = sampled, batch
        self.random = np.random.Generator(np.random.PCG64([seed, 3]))
        self.products = 0

    def train(
        self, contexts: NDArray[np.int32], targets: NDArray[np.int64], order: NDArray[np.int64], rate: float
    ) -> float:
        """Train on the samples of `order`; returns the mean loss, which is that of the sample where there is one."""
        losses = 0.0
        for first in range(0, len(order), self.batch):
            index = order[first : first + self.batch]
            where = torch.from_numpy(contexts[index]).long()
            losses += self._step(where, torch.from_numpy(targets[index]), rate) * len(index)
        return losses / len(order)

    def _step(self, where: Tensor, targets: Tensor, rate: float) -> float:
        batch, width = len(targets), self.weights.shape[1]
        hidden = (self.embeddings[where].sum(1) + self.hidden_biases).relu_()
        rows: Tensor | slice
        if self.sampled:
            rows, place, shift = self._sample(targets)
            weights, biases = self.weights[rows], self.biases[rows] - shift
        else:
            rows, place, weights, biases = slice(None), targets, self.weights, self.biases
        logits = torch.addmm(biases, hidden, weights.t())
        log_p = torch.log_softmax(logits, 1)
        loss = -float(log_p.gather(1, place[:, None]).mean())
        delta = log_p.exp_()
        delta[torch.arange(batch), place] -= 1
        below = (delta @ weights) * (hidden > 0)
        # Every sample counts fully, as one step for each would; the rows' sums keep steps in bounds.
        gradient, of_biases = delta.t() @ hidden, delta.sum(0)
        square = (gradient.square().sum(1) + of_biases.square()) / width
        self.row_sums[rows] += square
        scale = rate / (self.row_sums[rows] + EPSILON).sqrt()
        if self.sampled:
            self.weights[rows] -= scale[:, None] * gradient
        else:
            self.weights.sub_(gradient.mul_(scale[:, None]))
        self.biases[rows] -= scale * of_biases
        used, inverse = torch.unique(where, return_inverse=True)
        inverse = inverse.reshape(-1)
        summed = torch.zeros(len(used), width).index_add_(0, inverse, below.repeat_interleave(where.shape[1], 0))
        self.embedding_sums[used] += summed.square().mean(1)
        self.embeddings[used] -= rate / (self.embedding_sums[used] + EPSILON).sqrt()[:, None] * summed
        of_hidden = below.sum(0)
        self.hidden_sum += of_hidden.square().mean()
        self.hidden_biases -= rate / (self.hidden_sum + EPSILON).sqrt() * of_hidden
        self.products += 3 * batch * len(weights) * width + 3 * len(weights) * width + 3 * len(used) * width
        return loss

    def _sample(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distinct words, the targets among them; where the targets stand; logarithm of how often each is expected."""
        words = len(self.weights)
        drawn = np.exp(self.random.random(self.sampled) * math.log(words + 1)).astype(np.int64) - 1
        rows = torch.from_numpy(np.unique(np.concatenate([np.minimum(drawn, words - 1), targets.numpy()])))
        numbers = rows.double()
        one = ((numbers + 2).log() - (numbers + 1).log()) / math.log(words + 1)
        expected = 1 - (1 - one).pow(self.sampled)
        return rows, torch.searchsorted(rows, targets), expected.log().float()


def full_loss(network: SoftmaxNetwork | WideNetwork, contexts: NDArray[np.int32], targets: NDArray[np.int64]) -> float:
    """Mean loss under the softmax over all words, of any way."""
    weights = network.embeddings, network.hidden_biases, network.weights, network.biases
    embeddings, hidden_biases, rows, biases = (torch.as_tensor(one) for one in weights)
    total = 0.0
    for first in range(0, len(targets), 256):
        where = torch.from_numpy(contexts[first : first + 256]).long()
        hidden = (embeddings[where].sum(1) + hidden_biases).relu_()
        logits = torch.addmm(biases, hidden, rows.t())
        chosen = torch.from_numpy(targets[first : first + 256])
        total += float(torch.nn.functional.cross_entropy(logits, chosen, reduction="sum"))
    return total / len(targets)
