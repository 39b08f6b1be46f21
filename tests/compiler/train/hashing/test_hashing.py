"""Training by hash tables: active sets, gradients, counts and tables against slow references, and planted faults."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.train.hashing import network as network_file
from compiler.train.hashing import probe as probe_file
from compiler.train.hashing.conflicts import Conflicts, overlap
from compiler.train.hashing.kernels import BACKWARD, FORWARD, QUERY, REHASH, UPDATE, smallest
from compiler.train.hashing.network import HashedNetwork, HashSettings
from compiler.train.hashing.tables import rehash

SIZES = [12, 40, 30, 5]
SETTINGS = HashSettings(share=0.5, bits=3, tables=4, probes=2, density=0.5, period=7, centred=False)


def make(seed: int = 1, settings: HashSettings = SETTINGS) -> HashedNetwork:
    return HashedNetwork(SIZES, settings, seed)


def samples(rng: np.random.Generator, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    inputs = rng.normal(size=(count, SIZES[0])).astype(np.float32)
    inputs[rng.random(inputs.shape) < 0.4] = 0
    return inputs, rng.integers(0, SIZES[-1], count)


def matrix(network: HashedNetwork, layer: int) -> NDArray[np.float32]:
    rows, columns = SIZES[layer + 1], SIZES[layer]
    return network.weights[network.weight_at[layer] :][: rows * columns].reshape(columns, rows).T


def projections(network: HashedNetwork, layer: int) -> NDArray[np.float64]:
    """The dense matrix (inputs, bits) of what lies by coordinate."""
    bits = network.settings.bits * network.settings.tables
    dense = np.zeros((SIZES[layer], bits))
    for index in range(SIZES[layer]):
        for entry in range(network.starts[layer, index], network.starts[layer, index + 1]):
            dense[index, network.which[layer, entry]] += network.sign[layer, entry]
    return dense


def named(network: HashedNetwork, layer: int, values: NDArray[np.float64]) -> Counter[int]:
    """Neurons that share buckets with an input, and how many, by brute force over all neurons."""
    settings = network.settings
    sums = values @ projections(network, layer)
    hits: Counter[int] = Counter()
    for probe in range(settings.probes):
        for table in range(settings.tables):
            mine = sums[table * settings.bits :][: settings.bits]
            bits = mine >= 0
            if probe:
                bits[np.argsort(abs(mine), kind="stable")[probe - 1]] ^= True
            code = sum(int(bit) << place for place, bit in enumerate(bits))
            hits.update(np.flatnonzero(network.codes[layer, table, : SIZES[layer + 1]] == code).tolist())
        if len(hits) >= network.candidates[layer]:
            break
    return hits


def slow_products(network: HashedNetwork, sample: NDArray[np.float32]) -> dict[int, int]:
    """Multiplications of one step, one by one, of the network's own active sets."""
    done: Counter[int] = Counter()
    active = network.active(sample)
    values = {0: sample.astype(np.float64)}
    for layer in range(len(SIZES) - 1):
        last = layer == len(SIZES) - 2
        computed = range(SIZES[-1]) if last else named(network, layer, values[layer])
        if not last:
            for index in active[layer]:
                done[QUERY] += np.count_nonzero(projections(network, layer)[index])
        values[layer + 1] = np.zeros(SIZES[layer + 1])
        for neuron in computed:
            total = float(network.biases[network.bias_at[layer] + neuron])
            for index in active[layer]:
                total += matrix(network, layer)[neuron, index] * values[layer][index]
                done[FORWARD] += 1
            values[layer + 1][neuron] = total if last else max(total, 0)
    for layer in range(len(SIZES) - 2, -1, -1):
        for _ in active[layer + 1]:
            done[UPDATE] += 1  # rate times the neuron's error
            for _ in active[layer]:
                done[UPDATE] += 1
                done[BACKWARD] += layer > 0
    return dict(done)


def wide_open(seed: int = 1) -> HashedNetwork:
    """No limit on active neurons: they are all that the tables name."""
    return make(seed, HashSettings(1.0, bits=3, tables=4, probes=2, density=0.5, period=7, centred=False))


def check_active(network: HashedNetwork, sample: NDArray[np.float32]) -> None:
    active = network.active(sample)
    assert active[0].tolist() == np.flatnonzero(sample).tolist()
    values = sample.astype(np.float64)
    for layer in range(len(SIZES) - 2):
        hits = named(network, layer, values)
        results = (
            matrix(network, layer).astype(np.float64) @ values
            + network.biases[network.bias_at[layer] :][: SIZES[layer + 1]]
        )
        positive = {neuron for neuron in hits if results[neuron] > 0}
        mine = set(active[layer + 1].tolist())
        if len(hits) <= network.candidates[layer]:
            assert mine == positive
        else:  # of equally many hits any may be taken, but none before one that has more
            assert mine <= positive
            chosen = sorted(hits.values(), reverse=True)[: network.candidates[layer]]
            assert {neuron for neuron in positive if hits[neuron] > chosen[-1]} <= mine
            assert all(hits[neuron] >= chosen[-1] for neuron in mine)
        values = np.zeros(SIZES[layer + 1])
        values[active[layer + 1]] = results[active[layer + 1]]


@pytest.mark.verifies("hashing-active-sets")
@pytest.mark.parametrize("limited", [False, True])
def test_active_sets_equal_brute_force(limited: bool, rng: np.random.Generator) -> None:
    network = make() if limited else wide_open()
    for sample in samples(rng, 20)[0]:
        check_active(network, sample)


def step_errors(network: HashedNetwork, sample: NDArray[np.float32], label: int, rate: float) -> float:
    """Largest difference of what a step changed from autograd's gradients of the network masked to its active sets."""
    active = network.active(sample)
    masked = network.module()
    for parameter in masked.parameters():
        parameter.data = parameter.detach().clone()
    value = torch.from_numpy(sample)
    linear = [layer for layer in masked if isinstance(layer, torch.nn.Linear)]
    for layer, one in enumerate(linear):
        value = one(value)
        if layer < len(linear) - 1:
            mask = torch.zeros(len(value))
            mask[active[layer + 1]] = 1
            value = torch.relu(value) * mask
    torch.nn.functional.cross_entropy(value, torch.tensor(label)).backward()
    network.train(sample[None], np.array([label]), np.zeros(1, np.int64), rate)
    return max(
        float((mine - (theirs - rate * theirs.grad)).detach().abs().max())
        for mine, theirs in zip(network.module().parameters(), masked.parameters(), strict=True)
        if theirs.grad is not None
    )


@pytest.mark.verifies("hashing-gradient")
def test_steps_equal_autograd_of_the_masked_network(rng: np.random.Generator) -> None:
    network = wide_open()
    inputs, labels = samples(rng, 10)
    for sample, label in zip(inputs, labels, strict=True):
        assert step_errors(network, sample, int(label), 0.1) < 1e-5


@pytest.mark.verifies("hashing-gradient-fault")
def test_planted_fault_a_lost_update_is_caught(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    real = network_file.train_samples

    def loses(*given: Any) -> None:
        weights, before = given[4], given[4].copy()
        real(*given)
        moved = np.flatnonzero(weights != before)
        if len(moved):
            weights[moved[len(moved) // 2]] = before[moved[len(moved) // 2]]

    monkeypatch.setattr(network_file, "train_samples", loses)
    inputs, labels = samples(rng, 5)
    network = wide_open()
    assert max(step_errors(network, x, int(y), 0.5) for x, y in zip(inputs, labels, strict=True)) > 1e-5


@pytest.mark.verifies("hashing-counts")
def test_counts_equal_a_slow_instrumented_network(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    network = wide_open()
    inputs, labels = samples(rng, 6)

    def differences() -> int:
        wrong = 0
        for sample, label in zip(inputs, labels, strict=True):
            wanted, before = slow_products(network, sample), network.counts.copy()
            network.train(sample[None], label[None], np.zeros(1, np.int64), 0.05)
            wrong += any(network.counts[kind] - before[kind] != count for kind, count in wanted.items())
        return wrong

    assert differences() == 0
    real = network_file.train_samples

    def misses(*given: Any) -> None:
        real(*given)
        given[-4][FORWARD] -= 1

    monkeypatch.setattr(network_file, "train_samples", misses)  # the fault: a multiplication that is not counted
    assert differences() == len(labels)


def stale(network: HashedNetwork) -> int:
    """Entries of the tables that differ from those of a network which hashes every neuron anew."""
    codes, members, starts = network.codes.copy(), network.members.copy(), network.bucket_starts.copy()
    network.weights_changed()
    return sum(
        int((mine != theirs).sum())
        for mine, theirs in ((codes, network.codes), (members, network.members), (starts, network.bucket_starts))
    )


@pytest.mark.verifies("hashing-rehash")
def test_incremental_hashing_equals_a_full_one(rng: np.random.Generator) -> None:
    network = make()
    inputs, labels = samples(rng, 40)
    before = network.codes.copy()
    network.train(inputs, labels, np.arange(40), 0.3)
    assert (network.codes != before).any()
    assert stale(network) == 0
    for layer in range(2):  # every neuron is in the bucket of its code, once in each table
        for table, row in enumerate(network.members[layer, :, : SIZES[layer + 1]]):
            assert sorted(row.tolist()) == list(range(SIZES[layer + 1]))
            codes = network.codes[layer, table, row]
            assert codes.tolist() == sorted(codes.tolist())


@pytest.mark.verifies("hashing-rehash-fault")
def test_planted_fault_a_stale_bucket_is_caught(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    real = network_file.rehash_columns

    def forgets(*given: Any) -> int:
        given[10][::2] = 0  # every other neuron's mark is lost
        return int(real(*given))

    network = make()
    monkeypatch.setattr(network_file, "rehash_columns", forgets)
    inputs, labels = samples(rng, 40)
    network.train(inputs, labels, np.arange(40), 0.3)
    monkeypatch.undo()
    assert stale(network) > 0


@pytest.mark.verifies("hashing-tables-layouts")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_weights_by_input_have_the_codes_of_weights_by_neuron(threads: int, rng: np.random.Generator) -> None:
    """More neurons than are summed at a time, some untouched, shared by threads."""
    inputs, neurons, bits = 9, 700, SETTINGS.bits * SETTINGS.tables
    network = HashedNetwork([inputs, neurons, 3], SETTINGS, 1)
    mark = rng.random(neurons) < 0.8
    mark[-1] = True
    network.weights[: inputs * neurons] = rng.normal(size=inputs * neurons)
    before, counted = network.codes[0].copy(), network.counts[REHASH]
    network.touched[0] = mark
    network.hash_again(threads)
    codes, touched = before.copy(), mark.astype(np.uint8)
    rows = np.ascontiguousarray(network.weights[: inputs * neurons].reshape(inputs, neurons).T).reshape(-1)
    done = rehash(
        rows, 0, inputs, neurons, network.starts[0], network.which[0], network.sign[0], SETTINGS.bits, touched, codes,
        np.zeros(bits, np.float32),
    )  # fmt: skip
    assert (codes != before).any()
    assert (network.codes[0] == codes).all()
    assert network.counts[REHASH] - counted == done == mark.sum() * network.starts[0, inputs]
    assert not network.touched.any()


@pytest.mark.verifies("hashing-first-weights")
@pytest.mark.parametrize(("way", "share"), [("top", 0.05), ("top", 0.2), ("top", 1.0), ("random", 0.2)])
def test_first_weights_keep_the_size_of_what_is_passed_on(way: str, share: float, rng: np.random.Generator) -> None:
    """The results' squares, over all neurons, are as many in the last hidden layer as in the first."""
    network = HashedNetwork([100, 400, 400, 400, 10], HashSettings(share, way=way), 1)
    ratios = []
    for sample in rng.normal(size=(20, 100)).astype(np.float32):
        value, squares, mask = sample, [], np.ones(100)
        for layer in range(3):
            rows = network.weights[network.weight_at[layer] :][: len(value) * 400].reshape(len(value), 400)
            result = (value * mask) @ rows
            squares.append(float((result**2).mean()))
            if way == "random":
                mask = (rng.permutation(400) < share * 400).astype(np.float64)
            else:
                mask = (result >= np.sort(result)[-max(1, int(share * 400))]).astype(np.float64)
            value = np.maximum(result, 0)
        ratios.append(squares[2] / squares[0])
    assert 0.6 < np.median(ratios) < 1.6


@pytest.mark.parametrize("way", ["hash", "random", "adaptive", "top"])
def test_every_way_learns_what_is_easy(way: str, rng: np.random.Generator) -> None:
    inputs = rng.normal(size=(400, SIZES[0])).astype(np.float32)
    labels = inputs[:, : SIZES[-1]].argmax(1)
    network = make(1, HashSettings(0.6, pool=1.5, bits=3, tables=6, probes=4, period=100, way=way))
    before = network.counts.tolist()
    first = network.evaluate(inputs, labels)
    assert network.counts.tolist() == before
    for _ in range(8):
        network.train(inputs, labels, rng.permutation(400), 0.02)
    assert network.evaluate(inputs, labels) < first - 15


def test_top_is_the_greatest(rng: np.random.Generator) -> None:
    network = make(1, HashSettings(0.2, way="top"))
    for sample in samples(rng, 5)[0]:
        results = matrix(network, 0) @ sample
        wanted = [neuron for neuron in np.argsort(-results)[: network.want[0]] if results[neuron] > 0]
        assert sorted(network.active(sample)[1].tolist()) == sorted(wanted)


def test_the_smallest_are_those_of_a_sort(rng: np.random.Generator) -> None:
    for count in (1, 2, 3, 10, 50):
        for most in (2, 1000):  # with equals, and nearly without
            values = rng.integers(0, most, count + 3).astype(np.float32)
            before = values.copy()
            found = [smallest(values, count, place) for place in range(count)]
            assert found == sorted(values[:count].tolist())
            assert (values == before).all()


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"bits": 17}, {"probes": 9}, {"way": "best"}, {"pool": 0.5}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} = "):
        HashSettings(**{"share": 0.1, **wrong})


@pytest.mark.verifies("hashing-conflicts")
def test_the_model_of_conflicts_gives_back_what_it_was_fitted_to() -> None:
    active = [[{0, 1}, {2, 3}], [{1, 4}, {3}], [{9}, {8}]]
    assert overlap(active) == pytest.approx(1 / 6)
    model = Conflicts.fit(serial=0.05, overlap=0.2, writing=0.3, two=1.8)
    assert model.speedup(2) == pytest.approx(1.8)
    assert model.speedup(1) == pytest.approx(1)
    assert 1.8 < model.speedup(4) < 4


@pytest.mark.verifies("hashing-conflicts")
def test_more_threads_are_predicted_from_two_and_from_what_is_written() -> None:
    found = probe_file.conflicts(one=1.0, two=0.6, samples=20)
    assert 0 < found["serial"] < 0.2
    assert 0 < found["overlap"] < 1
    assert 0.05 < found["writing"] < 0.5
    speedup = found["speedup"]
    assert speedup[2] == pytest.approx(1 / 0.6, abs=0.01)
    assert 2 * speedup[2] > speedup[4] > speedup[2]  # conflicts grow with the threads
    # Without conflicts only what one thread does alone is left (Amdahl).
    free = Conflicts(found["serial"], 0.0, found["writing"], found["cost"])
    assert free.speedup(16) == pytest.approx(1 / (found["serial"] + (1 - found["serial"]) / 16))
    assert speedup[16] < free.speedup(16)
