"""Masks: the right weights, for ever, in every form a module can take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrize

from compiler.frontend.torch_export import from_torch
from compiler.train import prune
from compiler.train.data import Split
from compiler.train.images import Images
from compiler.train.loop import fit
from compiler.train.schedule import Schedule


def network(seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3))


def samples(seed: int) -> Split:
    rng = np.random.default_rng(seed)
    return Split(rng.normal(size=(64, 12)).astype(np.float32), rng.integers(0, 3, 64))


def retrain(module: nn.Module, seed: int) -> None:
    fit(module, Images(samples(seed), (1, 3, 4)), Schedule(3, 16, 1e-2, 1e-2), (seed,))


def check_survives(seed: int, folder: Path) -> None:
    """Prune, train, save, reload, train, export: what was pruned is zero everywhere, the rest has moved."""
    module = network(seed)
    prune.prune(module[0], 0.3)
    pruned = module[0].weight.detach().numpy() == 0
    assert pruned.sum() == 84
    before = module[0].weight.detach().numpy().copy()
    retrain(module, seed)
    assert (module[0].weight.detach().numpy()[pruned] == 0).all()
    assert (module[0].weight.detach().numpy()[~pruned] != before[~pruned]).all()

    save_file(module.state_dict(), folder / "state.safetensors")
    again = network(seed + 1)
    prune.attach(again[0])
    again.load_state_dict(load_file(folder / "state.safetensors"))
    torch.testing.assert_close(again[0].weight, module[0].weight, rtol=0, atol=0)
    retrain(again, seed + 1)
    assert not torch.equal(again[0].weight, module[0].weight)
    assert (again[0].weight.detach().numpy()[pruned] == 0).all()

    exported = next(n for n in from_torch(again, torch.ones(1, 12)) if n.op == "Linear").tensors["weight"]
    assert (exported[pruned] == 0).all()
    assert np.count_nonzero(exported) == 36


def test_mask_survives_training_saving_loading_and_export(seed: int, tmp_path: Path) -> None:
    check_survives(seed, tmp_path)


def test_planted_fault_mask_not_applied_is_caught(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pruning writes zeros as well, so only training shows that the mask does nothing.
    monkeypatch.setattr(prune.Mask, "forward", lambda self, weight: weight * 1)
    with pytest.raises(AssertionError):
        check_survives(seed, tmp_path)


def test_the_largest_magnitudes_are_kept() -> None:
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.1, -0.9, 0.3, 0.0], [0.8, -0.2, 0.7, -0.6]]))
    prune.prune(layer, 0.5)
    expected = torch.tensor([[0.0, -0.9, 0.0, 0.0], [0.8, 0.0, 0.7, -0.6]])
    assert torch.equal(layer.weight, expected)


def test_equal_magnitudes_are_kept_in_order() -> None:
    layer = nn.Linear(4, 1)
    with torch.no_grad():
        layer.weight.fill_(-0.5)
    prune.prune(layer, 0.5)
    assert layer.weight.tolist() == [[-0.5, -0.5, 0.0, 0.0]]


def test_pruned_weights_never_return() -> None:
    layer = network(0)[0]
    prune.prune(layer, 0.2)
    kept = layer.weight != 0
    prune.prune(layer, 0.9)
    assert torch.equal(layer.weight != 0, kept)
    assert len(layer.parametrizations.weight) == 1
    with torch.no_grad():
        layer.parametrizations.weight.original.fill_(7.0)
    prune.prune(layer, 0.1)
    assert (layer.weight != 0).sum() == 12
    assert not (layer.weight != 0)[~kept].any()


@pytest.mark.parametrize("density", [0.0, -0.1, 1.01])
def test_illegal_density(density: float) -> None:
    with pytest.raises(ValueError, match="density is"):
        prune.prune(nn.Linear(2, 2), density)


def test_at_least_one_weight_is_kept() -> None:
    layer = nn.Linear(3, 3)
    prune.prune(layer, 1e-6)
    assert (layer.weight != 0).sum() == 1


def test_other_parameters_and_modules() -> None:
    for module, name in [
        (nn.Conv2d(2, 3, 3), "weight"),
        (nn.LSTM(4, 5), "weight_hh_l0"),
        (nn.Embedding(6, 4), "weight"),
    ]:
        size = getattr(module, name).numel()
        prune.prune(module, 0.5, name)
        assert parametrize.is_parametrized(module, name)
        assert (getattr(module, name) != 0).sum() == round(0.5 * size)
