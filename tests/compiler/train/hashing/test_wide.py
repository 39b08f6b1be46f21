"""A wide output: steps of hashing and of its rivals against slow references, and planted faults."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.train.hashing import wide as wide_file
from compiler.train.hashing.kernels import FORWARD
from compiler.train.hashing.softmax import SoftmaxNetwork, full_loss
from compiler.train.hashing.wide import EPSILON, WideNetwork, WideSettings

WORDS, CONTEXT, HIDDEN = 60, 2, 8
SHAPE = WORDS, CONTEXT, HIDDEN
SETTINGS = WideSettings(want=WORDS - 2, drawn=6, bits=3, tables=2, probes=2, density=0.5, period=5)
RATE = 0.1
NAMES = ("embeddings", "hidden_biases", "weights", "biases")

Samples = tuple[NDArray[np.int32], NDArray[np.int64]]
Weights = dict[str, NDArray[np.float64]]


def samples(rng: np.random.Generator, count: int) -> Samples:
    contexts = rng.integers(0, WORDS, (count, CONTEXT)) + np.arange(CONTEXT) * WORDS
    return contexts.astype(np.int32), rng.integers(0, WORDS, count)


def weights_of(network: WideNetwork | SoftmaxNetwork) -> Weights:
    return {name: np.asarray(getattr(network, name)).astype(np.float64) for name in NAMES}


def draws(seed: int, interval: int) -> Any:
    """Numbers of xorshift*, by integers of Python."""
    x = int((np.random.SeedSequence([seed, interval]).generate_state(1, np.uint64) | np.uint64(1))[0])
    while True:
        x ^= x >> 12
        x = (x ^ (x << 25)) % (1 << 64)
        x ^= x >> 27
        yield (x * 2685821657736338717) % (1 << 64)


def named(network: WideNetwork, hidden: NDArray[np.float64]) -> set[int]:
    """Words in any bucket that is looked into; the tables are asked for more words than that."""
    settings, one = network.settings, network.projections
    sums = np.zeros(settings.bits * settings.tables)
    for index in range(HIDDEN):
        for entry in range(one.starts[index], one.starts[index + 1]):
            sums[one.which[entry]] += one.sign[entry] * hidden[index]
    found: set[int] = set()
    for table, mine in enumerate(sums.reshape(settings.tables, settings.bits)):
        bits = mine >= 0
        flipped = bits.copy()
        flipped[np.argmin(abs(mine))] ^= True
        for each in (bits, flipped):
            code = sum(int(bit) << place for place, bit in enumerate(each))
            found |= set(np.flatnonzero(network.codes[table] == code).tolist())
    return found


def slow_step(
    network: WideNetwork, context: NDArray[np.int32], target: int, corrected: bool
) -> tuple[Weights, float, int]:
    """Weights after the first step of a network, the loss as it is estimated, and how many words took part.

    corrected : words by chance stand for all that are not named; else, a fault, for themselves alone.
    """
    new = weights_of(network)
    random = draws(network.seed, 1)
    hidden = np.maximum(new["hidden_biases"] + new["embeddings"][context].sum(0), 0)
    exact = named(network, hidden) if network.settings.want else set()
    exact |= {target}
    active = sorted(exact)
    while len(active) < len(exact) + network.settings.drawn:
        word = next(random) % WORDS
        if word not in exact:
            active.append(word)
    factor = (WORDS - len(exact)) / network.settings.drawn if corrected else 1.0
    stands_for = [1.0] * len(exact) + [factor] * network.settings.drawn
    parts = np.exp(new["weights"][active] @ hidden + new["biases"][active]) * stands_for
    square = float(hidden @ hidden + 1) / HIDDEN
    below, sums = np.zeros(HIDDEN), np.zeros(WORDS)
    for place, word in enumerate(active):
        delta = parts[place] / parts.sum() - (place < len(exact) and word == target)
        sums[word] += delta * delta * square
        step = RATE * delta / math.sqrt(sums[word] + EPSILON)
        below += delta * new["weights"][word]
        new["weights"][word] -= step * hidden
        new["biases"][word] -= step
    below[hidden == 0] = 0
    scale = RATE / math.sqrt(below @ below / HIDDEN + EPSILON)
    new["embeddings"][context] -= scale * below
    new["hidden_biases"] -= scale * below
    return new, -math.log(parts[active.index(target)] / parts.sum()), len(active)


def step_errors(
    seed: int, settings: WideSettings, context: NDArray[np.int32], target: int, corrected: bool = True
) -> float:
    """Largest difference of a first step, and of its loss, from the slow one's."""
    network = WideNetwork(*SHAPE, settings, seed)
    wanted, loss, active = slow_step(network, context, target, corrected)
    estimated = network.train(context[None], np.array([target]), np.zeros(1, np.int64), RATE)
    assert network.counts[FORWARD] == (active + 1) * HIDDEN
    mine = weights_of(network)
    return max(abs(estimated - loss), *(float(abs(mine[name] - wanted[name]).max()) for name in NAMES))


@pytest.mark.verifies("hashing-wide-step")
def test_a_step_equals_a_slow_one(rng: np.random.Generator) -> None:
    for seed, (context, target) in enumerate(zip(*samples(rng, 8), strict=True)):
        for settings in (SETTINGS, WideSettings(0, 9)):
            assert step_errors(seed, settings, context, int(target)) < 1e-4


@pytest.mark.verifies("hashing-wide-step-fault")
def test_planted_faults_in_a_wide_step_are_caught(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    context, target = (one[0] for one in samples(rng, 1))
    assert step_errors(1, SETTINGS, context, int(target), corrected=False) > 1e-4
    real = wide_file.train_words

    def loses(*given: Any) -> float:
        weights = given[6]
        before = weights[target].copy()
        losses = real(*given)
        weights[target] = before
        return float(losses)

    monkeypatch.setattr(wide_file, "train_words", loses)
    assert step_errors(1, SETTINGS, context, int(target)) > 1e-4


@pytest.mark.verifies("hashing-wide-tables")
@pytest.mark.parametrize("faulty", [False, True])
def test_tables_of_words_are_up_to_date_after_training(
    faulty: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = wide_file.rehash

    def forgets(*given: Any) -> int:
        given[8][::2] = 0  # every other word's mark is lost
        return int(real(*given))

    network = WideNetwork(*SHAPE, SETTINGS, 1)
    if faulty:
        monkeypatch.setattr(wide_file, "rehash", forgets)
    network.train(*samples(rng, 23), np.arange(23), RATE)
    monkeypatch.undo()
    codes, members = network.codes.copy(), network.members.copy()
    network.touched[:] = 1
    network.hash_again()
    assert ((codes != network.codes).any() or (members != network.members).any()) == faulty


def test_tables_that_could_name_all_words_are_refused() -> None:
    with pytest.raises(InputError, match="at least two fewer"):
        WideNetwork(*SHAPE, WideSettings(want=WORDS - 1), 1)
    with pytest.raises(InputError, match="drawn and period from 1"):
        WideSettings(drawn=0)


def batch_errors(network: SoftmaxNetwork, contexts: NDArray[np.int32], targets: NDArray[np.int64]) -> float:
    """Largest difference of a first step over all words from one by autograd's gradients."""
    given = {name: torch.from_numpy(one).requires_grad_() for name, one in weights_of(network).items()}
    hidden = (given["embeddings"][torch.from_numpy(contexts).long()].sum(1) + given["hidden_biases"]).relu()
    logits = hidden @ given["weights"].t() + given["biases"]
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets), reduction="sum").backward()
    gradients = {name: one.grad.numpy() for name, one in given.items() if one.grad is not None}
    before = weights_of(network)
    network.train(contexts, targets, np.arange(len(targets)), RATE)
    rows = ((gradients["weights"] ** 2).sum(1) + gradients["biases"] ** 2) / HIDDEN
    sums = {
        "weights": rows[:, None], "biases": rows, "embeddings": (gradients["embeddings"] ** 2).mean(1)[:, None],
        "hidden_biases": (gradients["hidden_biases"] ** 2).mean(),
    }  # fmt: skip
    mine = weights_of(network)
    return max(
        float(abs(mine[name] - (before[name] - RATE * gradients[name] / np.sqrt(sums[name] + EPSILON))).max())
        for name in NAMES
    )


@pytest.mark.verifies("hashing-softmax-step")
def test_a_step_over_all_words_equals_autograd(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts, targets = samples(rng, 7)
    network = SoftmaxNetwork(*SHAPE, 1)
    assert batch_errors(network, contexts, targets) < 1e-4
    used = len(np.unique(contexts))
    assert network.products == 3 * HIDDEN * (7 * WORDS + WORDS + used)
    monkeypatch.setattr(torch.Tensor, "relu_", lambda tensor: tensor)  # the fault: hidden results below zero go on
    assert batch_errors(SoftmaxNetwork(*SHAPE, 1), contexts, targets) > 1e-4


@pytest.mark.verifies("hashing-softmax-sample")
def test_words_are_in_a_sample_as_often_as_it_is_corrected_for(rng: np.random.Generator) -> None:
    network = SoftmaxNetwork(*SHAPE, 1, sampled=20)
    targets, counts, expected, rounds = torch.tensor([50, 3]), np.zeros(WORDS), np.zeros(WORDS), 1000
    for _ in range(rounds):
        rows, place, shift = network._sample(targets)
        assert rows[place].tolist() == [50, 3]
        assert len(rows.unique()) == len(rows)
        counts[rows.numpy()] += 1
        expected[rows.numpy()] = np.exp(shift.numpy())
    other = np.delete(np.arange(WORDS), [50, 3])
    off = (counts - rounds * expected)[other] / np.sqrt(rounds * expected * (1 - expected) + 1)[other]
    assert abs(off).max() < 4.5
    uniform = 1 - (1 - 1 / WORDS) ** 20  # the fault: correcting as for a uniform sample
    assert abs(counts[other] - rounds * uniform).max() / math.sqrt(rounds * uniform) > 10


@pytest.mark.verifies("hashing-wide-learns")
def test_every_way_comes_near_the_loss_of_all_words(rng: np.random.Generator) -> None:
    contexts = samples(rng, 1500)[0]
    targets = (contexts[:, 0] * 7 % 10).astype(np.int64)  # the first word of two says which
    order = rng.permutation(1500)
    uniform, tables = WideSettings(0, 12), WideSettings(12, 6, bits=3, tables=4, period=500)
    networks: dict[str, WideNetwork | SoftmaxNetwork] = {
        "full": SoftmaxNetwork(*SHAPE, 1, batch=16), "sampled": SoftmaxNetwork(*SHAPE, 1, sampled=20, batch=16),
        "hashing": WideNetwork(*SHAPE, tables, 1), "uniform": WideNetwork(*SHAPE, uniform, 1),
    }  # fmt: skip
    losses = {}
    for way, network in networks.items():
        first = full_loss(network, contexts, targets)
        network.train(contexts, targets, order, 0.1)
        losses[way] = full_loss(network, contexts, targets) / first
    assert max(losses.values()) < 0.6, losses


def test_the_full_loss_is_that_over_all_words(rng: np.random.Generator) -> None:
    contexts, targets = samples(rng, 300)  # more than one part
    network = WideNetwork(*SHAPE, SETTINGS, 1)
    given = weights_of(network)
    hidden = np.maximum(given["embeddings"][contexts].sum(1) + given["hidden_biases"], 0)
    logits = hidden @ given["weights"].T + given["biases"]
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(300), targets]
    assert full_loss(network, contexts, targets) == pytest.approx(losses.mean(), rel=1e-5)
