"""Shared weights: the best clustering, the sum of gradients, and zeros that stay zero."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from compiler.frontend.torch_export import from_torch
from compiler.train import prune, quantize
from compiler.train.data import Split
from compiler.train.images import Images
from compiler.train.loop import Hook, fit
from compiler.train.schedule import Schedule


def layer_with(weight: np.ndarray) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
    return layer


def best_error(values: np.ndarray, clusters: int) -> float:
    """Least squared error of any split of the sorted values into runs; an optimal clustering is one of them."""
    values = np.sort(values)
    best = np.inf
    for cuts in combinations(range(1, len(values)), clusters - 1):
        runs = np.split(values, cuts)
        best = min(best, sum(float(((run - run.mean()) ** 2).sum()) for run in runs))
    return best


@pytest.mark.parametrize("code_bits", [2, 3])
def test_clustering_is_the_best_there_is(code_bits: int, rng: np.random.Generator) -> None:
    for _ in range(5):
        weight = rng.normal(size=(3, 5)).astype(np.float32)
        weight[rng.random(weight.shape) < 0.2] = 0
        layer = layer_with(weight)
        quantize.attach(layer, code_bits)
        shared = layer.weight.detach().numpy().astype(np.float64)
        nonzero = weight[weight != 0].astype(np.float64)
        clusters = min(2**code_bits - 1, len(nonzero))
        assert ((shared - weight) ** 2).sum() == pytest.approx(best_error(nonzero, clusters), rel=1e-4, abs=1e-12)


def check_gradient(rng: np.random.Generator) -> None:
    """Against finite differences, and against the gradients of the plain weights summed by hand."""
    weight = rng.normal(size=(6, 9)).astype(np.float32)
    weight[rng.random(weight.shape) < 0.5] = 0
    layer = layer_with(weight).double()
    shared = quantize.attach(layer, 3)
    centroids: Tensor = layer.parametrizations.weight.original
    inputs = torch.from_numpy(rng.normal(size=(4, 9)))
    goal = torch.from_numpy(rng.normal(size=(4, 6)))

    def loss() -> Tensor:
        return ((torch.tanh(layer(inputs)) - goal) ** 2).sum()

    loss().backward()
    assert centroids.grad is not None

    plain = layer.weight.detach().clone().requires_grad_()
    ((torch.tanh(inputs @ plain.t() + layer.bias.detach()) - goal) ** 2).sum().backward()
    assert plain.grad is not None
    for code in range(1, 8):
        expected = plain.grad[shared.codes == code].sum()
        torch.testing.assert_close(centroids.grad[code - 1], expected, rtol=1e-9, atol=1e-12)

    step = 1e-6
    for number in range(7):
        with torch.no_grad():
            centroids[number] += step
            above = loss()
            centroids[number] -= 2 * step
            below = loss()
            centroids[number] += step
        numeric = float((above - below) / (2 * step))
        assert float(centroids.grad[number]) == pytest.approx(numeric, rel=1e-5, abs=1e-7)


def test_gradient_of_a_centroid_is_the_sum_over_its_weights(rng: np.random.Generator) -> None:
    check_gradient(rng)


def test_planted_fault_averaged_gradient_is_caught(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    class Averaged(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, centroids: Tensor, codes: Tensor) -> Tensor:
            ctx.save_for_backward(codes)
            return torch.cat((centroids.new_zeros(1), centroids))[codes.long()]

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
            (codes,) = ctx.saved_tensors
            means = [gradients[0][codes == code].mean().nan_to_num() for code in range(1, 8)]
            return torch.stack(means), None

    monkeypatch.setattr(quantize.SharedWeight, "forward", lambda self, original: Averaged.apply(original, self.codes))
    with pytest.raises(AssertionError):
        check_gradient(rng)


def test_training_moves_centroids_and_never_a_zero_or_a_code(rng: np.random.Generator, tmp_path: Path) -> None:
    layer = nn.Linear(20, 10)
    prune.prune(layer, 0.3)
    layer = layer_with(layer.weight.detach().numpy())
    shared = quantize.attach(layer, 2)
    codes, before = shared.codes.clone(), layer.weight.detach().clone()
    assert torch.equal(codes == 0, before == 0)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(10):
        optimizer.zero_grad()
        layer(torch.from_numpy(rng.normal(size=(8, 20)).astype(np.float32))).square().sum().backward()
        optimizer.step()
    assert torch.equal(shared.codes, codes)
    assert torch.equal(layer.weight == 0, before == 0)
    assert not torch.equal(layer.weight, before)
    assert len(layer.weight[codes > 0].unique()) == 3

    save_file(layer.state_dict(), tmp_path / "state.safetensors")
    again = layer_with(np.zeros((10, 20), np.float32))
    quantize.attach(again, 2)
    again.load_state_dict(load_file(tmp_path / "state.safetensors"))
    assert torch.equal(again.weight, layer.weight)
    exported = next(n for n in from_torch(again, torch.ones(1, 20)) if n.op == "Linear").tensors["weight"]
    np.testing.assert_array_equal(exported, layer.weight.detach().numpy())


def test_few_distinct_values_are_kept_exactly() -> None:
    weight = np.array([[0.0, 0.1, -0.3], [0.1, 0.7, 0.0]], np.float32)
    layer = layer_with(weight)
    quantize.attach(layer, 2)
    np.testing.assert_array_equal(layer.weight.detach().numpy(), weight)


def test_a_layer_without_weights_left() -> None:
    layer = layer_with(np.zeros((3, 3), np.float32))
    quantize.attach(layer, 4)
    assert not layer.weight.any()


def test_a_mask_is_written_out_before_sharing(rng: np.random.Generator) -> None:
    layer = layer_with(rng.normal(size=(6, 8)).astype(np.float32))
    prune.prune(layer, 0.25)
    pruned = layer.weight == 0
    quantize.attach(layer, 2)
    assert torch.equal(layer.weight == 0, pruned)


@pytest.mark.parametrize("start", ["exact", "linear", "density", "random"])
def test_free_labels_never_raise_the_error_and_fixed_ones_never_change(start: str, rng: np.random.Generator) -> None:
    for free in (False, True):
        layer = layer_with(rng.normal(size=(12, 20)).astype(np.float32))
        prune.prune(layer, 0.5)
        shared = quantize.attach(layer, 3, start=start, free=free)
        before = shared.codes.clone()
        with torch.no_grad():
            for parameter in layer.parametrizations.weight.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
        if not free:
            assert quantize.reassign(layer) == 0
            assert torch.equal(shared.codes, before)
            continue
        shadow = layer.parametrizations.weight.original0 * (before != 0)
        error = float(((layer.weight - shadow) ** 2).sum().detach())
        assert quantize.reassign(layer) > 0
        assert float(((layer.weight - shadow) ** 2).sum().detach()) < error
        assert torch.equal(shared.codes == 0, before == 0)


def samples(rng: np.random.Generator) -> Split:
    return Split(rng.normal(size=(120, 20)).astype(np.float32), rng.integers(0, 10, 120))


class Watch(Hook):
    """Re-assigns labels every other step; notes codes and squared errors around it."""

    def __init__(self, layer: nn.Linear, shared: quantize.SharedWeight) -> None:
        self.layer, self.shared = layer, shared
        self.errors: list[tuple[float, float, int]] = []
        self.codes = [shared.codes.clone()]

    def error(self) -> float:
        """Squared distance between the float copy and the shared weight, in double precision."""
        shadow = self.layer.parametrizations.weight.original0
        return float(((self.layer.weight - shadow).detach().double() ** 2)[self.shared.codes != 0].sum())

    def check_nearest(self) -> None:
        """Every weight but the zeros has the value next to its float copy, of those that are used."""
        originals = self.layer.parametrizations.weight
        shadow = originals.original0.detach()
        points = self.shared.table(originals.original1.detach())[1:]
        distances = (shadow[..., None] - points[points != 0]).abs().amin(2)
        found = (self.layer.weight.detach() - shadow).abs()
        assert (found <= distances + 1e-6)[self.shared.codes != 0].all()  # in the middle between two, either will do

    def after_step(self, step: int, total: int) -> None:
        if step % 2:
            before = self.error() if self.shared.free else 0.0
            changed = quantize.reassign(self.layer)
            if self.shared.free:
                self.check_nearest()
            self.errors.append((before, self.error() if self.shared.free else 0.0, changed))
            self.codes.append(self.shared.codes.clone())


def trained_with(rng: np.random.Generator, free: bool, uniform: bool, bits: int) -> Watch:
    """Train a pruned, shared layer for 60 steps under `Watch`."""
    layer = layer_with(rng.normal(size=(10, 20)).astype(np.float32))
    prune.prune(layer, 0.6)
    watch = Watch(layer, quantize.attach(layer, bits, free=free, uniform=uniform))
    schedule = Schedule(5, 10, 2e-2, shape="constant")
    fit(nn.Sequential(layer), Images(samples(rng), (1, 4, 5)), schedule, (1,), hooks=[watch])
    assert len(watch.errors) == 30
    return watch


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("bits", [2, 4])
def test_fixed_labels_never_change_while_training(uniform: bool, bits: int, rng: np.random.Generator) -> None:
    watch = trained_with(rng, free=False, uniform=uniform, bits=bits)
    assert all(torch.equal(codes, watch.codes[0]) for codes in watch.codes)
    assert not any(changed for _, _, changed in watch.errors)


def check_free_labels(rng: np.random.Generator, uniform: bool, bits: int) -> None:
    watch = trained_with(rng, free=True, uniform=uniform, bits=bits)
    assert sum(changed for _, _, changed in watch.errors) > 5
    for before, after, changed in watch.errors:
        assert after <= before
        assert after < before or not changed
    zeros = watch.codes[0] == 0
    assert all(torch.equal(codes == 0, zeros) for codes in watch.codes)


@pytest.mark.verifies("labels-c-never-changes-them")
@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("bits", [2, 4])
def test_free_labels_never_raise_the_error_while_training(uniform: bool, bits: int, rng: np.random.Generator) -> None:
    check_free_labels(rng, uniform, bits)


@pytest.mark.verifies("planted-fault-label-nearest")
def test_planted_fault_labels_of_the_next_value_are_caught(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = quantize.reassign

    def reassign(module: nn.Module, name: str = "weight") -> int:
        changed = real(module, name)
        shared = quantize.find(module, name)
        assert shared is not None
        place = torch.nonzero(shared.codes.flatten())[0]
        shared.codes.view(-1)[place] = shared.codes.view(-1)[place] % 3 + 1
        return changed

    monkeypatch.setattr(quantize, "reassign", reassign)
    with pytest.raises(AssertionError):
        check_free_labels(rng, False, 2)


def best_grid_error(values: np.ndarray, bits: int) -> float:
    """Least squared error of multiples of one step, -m … m+1 without 0 or mirrored, over many steps."""
    half = 1 << (bits - 1)
    levels = np.array([level for level in range(1 - half, half + 1) if level], float)
    best = np.inf
    for signed in (levels, -levels):
        for step in np.geomspace(np.abs(values).max() / 100, 2 * np.abs(values).max(), 3000):
            best = min(best, float((np.abs(values[:, None] - step * signed).min(1) ** 2).sum()))
    return best


@pytest.mark.verifies("uniform-grid-multiples-step-near")
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_a_uniform_grid_is_the_multiples_of_one_step_and_trains_its_reach(bits: int, rng: np.random.Generator) -> None:
    layer = layer_with(rng.normal(size=(10, 20)).astype(np.float32))
    prune.prune(layer, 0.6)
    weight = layer.weight.detach().numpy().astype(np.float64)
    shared = quantize.attach(layer, bits, uniform=True)
    assert shared.levels is not None
    half = 1 << (bits - 1)
    levels = shared.levels.tolist()
    two_complement = [level for level in range(1 - half, half + 1) if level]
    assert levels in (two_complement, sorted(-level for level in two_complement))
    nonzero = weight[weight != 0]
    error = ((layer.weight.detach().numpy() - weight) ** 2).sum()
    assert error <= 1.1 * best_grid_error(nonzero, bits)  # the search goes in steps of 3 %

    reach: Tensor = layer.parametrizations.weight.original
    assert reach.shape == (1,)
    before = reach.item()
    largest = max(abs(level) for level in levels)
    assert before == pytest.approx(largest * float(shared.table(reach.detach())[1]) / levels[0])
    fit(nn.Sequential(layer), Images(samples(rng), (1, 4, 5)), Schedule(3, 10, 1e-2), (1,))
    assert reach.item() != before
    assert shared.levels.tolist() == levels
    values = layer.weight.detach()
    assert torch.equal(values == 0, torch.from_numpy(weight == 0))
    step = reach.detach() / largest
    found = (values / step).round()
    assert torch.equal(values, found * step)
    assert set(found[found != 0].tolist()) <= set(levels)


@pytest.mark.verifies("uniform-grid-multiples-step-near")
def test_gradient_of_a_uniform_reach_is_the_sum_over_its_parts(rng: np.random.Generator) -> None:
    layer = layer_with(rng.normal(size=(6, 9)).astype(np.float32)).double()
    shared = quantize.attach(layer, 3, uniform=True)
    assert shared.levels is not None
    inputs, goal = torch.from_numpy(rng.normal(size=(4, 9))), torch.from_numpy(rng.normal(size=(4, 6)))
    ((torch.tanh(layer(inputs)) - goal) ** 2).sum().backward()
    plain = layer.weight.detach().clone().requires_grad_()
    ((torch.tanh(inputs @ plain.t() + layer.bias.detach()) - goal) ** 2).sum().backward()
    assert plain.grad is not None
    table = torch.cat((torch.zeros(1, dtype=torch.float64), shared.levels / shared.levels.abs().max()))
    expected = (plain.grad * table[shared.codes.long()]).sum()
    torch.testing.assert_close(layer.parametrizations.weight.original.grad[0], expected, rtol=1e-9, atol=1e-12)
