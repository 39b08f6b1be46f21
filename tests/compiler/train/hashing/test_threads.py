"""One thread replays bit for bit; of two threads no sample's update is lost, doubled or made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from compiler.train.hashing import network as network_file
from compiler.train.hashing.network import HashedNetwork, HashSettings

INPUTS, PERIOD = 400, 100


def trained(seed: int, settings: HashSettings, threads: int, rate: float, inputs: NDArray[np.float32]) -> HashedNetwork:
    """Half of the samples once each, one after the other."""
    network = HashedNetwork([INPUTS, 40, 30, 5], settings, seed)
    network.train(inputs, np.arange(INPUTS) % 5, np.arange(0, INPUTS, 2), rate, threads)
    return network


@pytest.mark.verifies("hashing-replay")
@pytest.mark.parametrize("way", ["hash", "random", "adaptive"])
def test_one_thread_replays_a_seed_bit_for_bit(way: str, rng: np.random.Generator) -> None:
    inputs = rng.normal(size=(INPUTS, INPUTS)).astype(np.float32)
    settings = HashSettings(share=0.3, pool=2, bits=3, tables=4, probes=2, density=0.5, period=PERIOD, way=way)
    first, again, other = (trained(seed, settings, 1, 0.01, inputs) for seed in (3, 3, 4))
    for name in ("weights", "biases", "counts", "codes", "centres", "offsets"):
        assert getattr(first, name).tobytes() == getattr(again, name).tobytes()
    assert (first.weights != other.weights).any()  # the fault: another seed


def lost(threads: int) -> float:
    """Largest relative difference from one thread of the update that a sample makes to the weights that are its own.

    Each sample has one input that is not zero and no other sample has: what leaves that input is changed by it alone,
    and no other thread writes there. Threads see what other threads have changed above it sooner or later, which moves
    the update by the order of the rate.
    """
    inputs = np.eye(INPUTS, dtype=np.float32) * 20  # as long as an input of 400 numbers around 1
    settings, columns = HashSettings(1.0, way="top", period=PERIOD), []
    for count in (1, threads):
        network = trained(1, settings, count, 1e-5, inputs)
        before = HashedNetwork(network.sizes.tolist(), settings, 1)
        moved = (network.weights - before.weights)[: 40 * INPUTS].reshape(INPUTS, 40).T
        assert not moved[:, 1::2].any()  # samples that were not given
        columns.append(moved[:, ::2])
    one, mine = columns
    return float((np.linalg.norm(mine - one, axis=0) / np.linalg.norm(one, axis=0)).max())


@pytest.mark.verifies("hashing-threads")
def test_the_update_of_every_sample_arrives_once_with_two_threads() -> None:
    assert lost(1) == 0
    assert lost(2) < 0.5  # a neuron that is active for the one and not for the other is about 0.2


@pytest.mark.verifies("hashing-threads-fault")
@pytest.mark.parametrize("fault", ["lost", "twice"])
def test_planted_fault_an_update_that_is_lost_or_doubled_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = network_file.train_samples

    def wrong(*given: Any) -> None:
        order = given[2]
        shared = len(order) < PERIOD  # of two threads
        changed = order[:-1] if fault == "lost" else np.concatenate([order, order[-1:]])
        real(*given[:2], changed if shared else order, *given[3:])

    monkeypatch.setattr(network_file, "train_samples", wrong)
    assert lost(2) > 0.9


@pytest.mark.verifies("hashing-threads-counts")
def test_two_threads_take_as_many_multiplications_as_one(rng: np.random.Generator) -> None:
    """With a rate of zero nothing depends on timing: what is active is decided by the tables alone."""
    inputs = rng.normal(size=(INPUTS, INPUTS)).astype(np.float32)
    settings = HashSettings(share=1.0, bits=3, tables=4, probes=2, density=0.5, period=PERIOD, centred=False)
    one, two = (trained(1, settings, threads, 0.0, inputs) for threads in (1, 2))
    assert one.counts.tolist() == two.counts.tolist()
    assert one.counts.all()
