"""Removing dead channels and blocks leaves the function of any network as it is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from compiler.errors import InputError, ModelError
from compiler.train import bypass, dead, group_lasso, prune, removal, structure
from compiler.train.costs import layer_costs, totals
from compiler.train.layers import weights
from compiler.train.models import lenet_5, resnet


def seeded(seed: int, make: object) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()  # type: ignore[operator]


def residual(seed: int) -> nn.Module:
    """A residual network with statistics in its normalizations, one block dead, and one channel of the first width."""
    module = seeded(seed, lambda: resnet((1, 16, 16), 10, (5, 7), 3))
    module.train()
    module(random_inputs(seed, 64))
    module.eval()
    with torch.no_grad():
        for norm in (layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)):
            norm.bias.uniform_(-0.5, 0.5)
        module.block2.conv1.weight.zero_()
        module.block2.conv2.weight.zero_()
        for conv, norm in (
            (module.conv, module.norm),
            (module.block1.conv2, module.block1.norm2),
            (module.block3.conv2, module.block3.norm2),
        ):
            conv.weight[3] = 0
            group_lasso.switch_off(conv, norm)
        module.block5.conv2.weight[:, [1, 2]] = 0
    group_lasso.switch_off(module.block2.conv1, module.block2.norm1)
    group_lasso.switch_off(module.block2.conv2, module.block2.norm2)
    return module


def random_inputs(seed: int, count: int) -> Tensor:
    return torch.rand(count, 256, generator=torch.Generator().manual_seed(seed))


@pytest.mark.verifies("removal-blocks-channels-across-shortcuts")
def test_blocks_and_channels_across_shortcuts_go_and_outputs_stay(seed: int) -> None:
    module = residual(seed)
    inputs, others = random_inputs(seed, 8), random_inputs(seed + 1, 50)
    before = module(others)
    removed = removal.remove(module, inputs)
    assert removed.blocks == ("block2",)
    assert removed.channels == 1 + 2
    assert removed.kept == 0
    torch.testing.assert_close(module(others), before, rtol=1e-4, atol=1e-5)
    assert module.conv.weight.shape == (4, 1, 3, 3)
    assert module.block3.conv2.weight.shape == (4, 5, 3, 3)
    assert module.block4.shortcut.conv.weight.shape == (7, 4, 1, 1)
    assert module.block5.conv1.weight.shape == (5, 7, 3, 3)
    assert module.norm.num_features == len(module.norm.running_mean) == 4
    again = removal.remove(module, inputs)
    assert (again.channels, again.blocks) == (0, ())


def test_a_channel_that_one_layer_of_several_still_makes_stays(seed: int) -> None:
    module = residual(seed)
    with torch.no_grad():
        module.block1.conv2.parametrizations.weight[0].mask.fill_(True) if hasattr(
            module.block1.conv2, "parametrizations"
        ) else None
        module.block1.conv2.weight[3] = 0.1
    before = module(random_inputs(seed, 20))
    assert removal.remove(module, random_inputs(seed, 8)).channels == 2
    assert len(module.conv.weight) == 5
    torch.testing.assert_close(module(random_inputs(seed, 20)), before, rtol=1e-4, atol=1e-5)


def test_what_is_left_becomes_the_same_network_again_from_its_state(seed: int) -> None:
    module = residual(seed)
    removal.remove(module, random_inputs(seed, 8))
    described = structure.describe(module)
    assert described["block2"] == {"kind": "bypassed"}
    fresh = seeded(seed + 1, lambda: resnet((1, 16, 16), 10, (5, 7), 3))
    structure.rebuild(fresh, described, module.state_dict(), "the state")
    inputs = random_inputs(seed, 5)
    assert torch.equal(fresh.eval()(inputs), module(inputs))
    with pytest.raises(InputError, match="no residual block"):
        structure.rebuild(fresh, {"conv": {"kind": "bypassed"}}, module.state_dict(), "the state")


def test_a_chain_loses_what_the_removal_of_neurons_takes(seed: int) -> None:
    module = seeded(seed, lambda: lenet_5((1, 16, 16), 10, (6, 8), 30))
    prune.prune_sites(list(weights(module)), 0.03)
    twin = seeded(seed, lambda: lenet_5((1, 16, 16), 10, (6, 8), 30))
    prune.prune_sites(list(weights(twin)), 0.03)
    inputs = random_inputs(seed, 20)
    before = module(inputs)
    assert removal.remove(module, inputs).channels == dead.remove(twin) > 0
    torch.testing.assert_close(module(inputs), before, rtol=1e-4, atol=1e-5)
    assert [tuple(site.value.shape) for site in weights(module)] == [tuple(s.value.shape) for s in weights(twin)]
    assert prune.find(module.fc1) is not None


def constant(padding: int, seed: int) -> nn.Module:
    """A network whose channel 1 is the constant 0.7."""
    made = seeded(
        seed,
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=padding),
            nn.Flatten(), nn.Linear(3 * (4 + 2 * padding) ** 2, 2),
        ),
    )  # fmt: skip
    with torch.no_grad():
        made[1].weight[1] = 0
        made[1].bias[1] = 0.7
    return made


@pytest.mark.verifies("removal-constant-moves-bias-stays")
def test_a_constant_moves_into_the_bias_or_stays_where_that_is_not_exact(seed: int) -> None:
    inputs = torch.rand(8, 64, generator=torch.Generator().manual_seed(seed))
    for padding, gone, kept in ((0, 1, 0), (1, 0, 1)):
        module = constant(padding, seed)
        before = module(inputs)
        removed = removal.remove(module, inputs)
        assert (removed.channels, removed.kept) == (gone, kept)
        torch.testing.assert_close(module(inputs), before, rtol=1e-4, atol=1e-5)


@pytest.mark.verifies("planted-fault-constant-lost-maker")
def test_planted_fault_a_constant_that_is_lost_is_caught(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = constant(0, seed)
    state = copy.deepcopy(module.state_dict())
    monkeypatch.setattr(removal, "_fold", lambda *arguments: None)
    inputs = torch.rand(8, 64, generator=torch.Generator().manual_seed(seed))
    with pytest.raises(ModelError, match="would change the outputs"):
        removal.remove(module, inputs)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


@pytest.mark.verifies("planted-fault-constant-lost-maker")
def test_planted_fault_a_maker_that_is_forgotten_is_caught(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = residual(seed)
    with torch.no_grad():
        module.block1.conv1.weight[2] = 0  # makes a constant that a padded convolution takes: it must stay
        module.block1.norm1.bias[2] = 1.0
    monkeypatch.setattr(removal, "_foldable", lambda layer, constant: torch.ones_like(constant, dtype=torch.bool))
    monkeypatch.setattr(removal, "_fold", lambda *arguments: None)
    with pytest.raises(ModelError, match="would change the outputs"):
        removal.remove(module, random_inputs(seed, 8))


@pytest.mark.verifies("removal-network-mixes-channels-left")
def test_a_network_that_mixes_channels_is_left_as_it_was(seed: int) -> None:
    module = seeded(seed, lambda: nn.Sequential(nn.Linear(6, 5), nn.Softmax(1), nn.Linear(5, 4)))
    with torch.no_grad():
        module[2].weight[:, 1] = 0  # not taken, but the softmax needs it
    inputs = torch.rand(8, 6, generator=torch.Generator().manual_seed(seed))
    before = module(inputs)
    with pytest.raises(ModelError, match="mixes channels"):
        removal.remove(module, inputs)
    assert torch.equal(module(inputs), before)


def test_outputs_of_the_network_stay_even_when_dead(seed: int) -> None:
    module = seeded(seed, lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)))
    with torch.no_grad():
        module[2].weight[2] = 0
    assert removal.remove(module, torch.rand(4, 6)).channels == 0
    assert module[2].weight.shape == (4, 5)


def test_a_block_whose_branch_gives_a_constant_that_is_not_zero_stays() -> None:
    module = resnet((1, 16, 16), 10, (4,), 2).eval()
    with torch.no_grad():
        module.block2.conv2.weight.zero_()
        module.block2.norm2.bias.fill_(0.5)
    assert bypass.bypass(module, torch.rand(4, 256)) == []
    with torch.no_grad():
        module.block2.norm2.bias.zero_()
    assert bypass.bypass(module, torch.rand(4, 256)) == ["block2"]


def test_costs_of_lenet_5_are_those_counted_by_hand() -> None:
    module = lenet_5((1, 28, 28), 10)
    costs = layer_costs(module, torch.zeros(3, 784))
    assert [cost.multiplies for cost in costs] == [24 * 24 * 20 * 25, 8 * 8 * 50 * 500, 800 * 500, 5000]
    with torch.no_grad():
        module.conv1.weight[:5] = 0
    (first, *_) = layer_costs(module, torch.zeros(1, 784))
    assert (first.filters, first.nonzero_multiplies) == (15, 24 * 24 * 15 * 25)
    assert totals(costs)["weights"] == 430_500
