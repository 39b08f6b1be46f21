"""Equalizing channels leaves the function as it is, and weights that share few values better."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from compiler.errors import ModelError
from compiler.train import equalize, fold, prune, quantize
from tests.compiler.train.test_fold import inputs_for, made


def folded(name: str, seed: int) -> tuple[nn.Module, Tensor]:
    module, inputs = made(name, seed), inputs_for(name, seed)
    fold.fold(module, inputs)
    return module, inputs


def sizes(module: nn.Module, maker: str, taker: str) -> tuple[Tensor, Tensor]:
    """Root mean square of the weights that make each channel, and of those that read it."""
    first, second = (cast(Any, module.get_submodule(path)) for path in (maker, taker))
    read = second.weight if getattr(second, "groups", 1) > 1 else second.weight.transpose(0, 1)
    made, taken = (w.reshape(len(first.weight), -1).square().mean(1).sqrt() for w in (first.weight, read))
    return made, taken


@pytest.mark.verifies("channels-equalized-before-sharing")
def test_the_function_stays_and_channels_become_alike(seed: int) -> None:
    module, inputs = folded("ds-cnn", seed)
    others = inputs_for("ds-cnn", seed + 1, 50)
    before = module(others)
    pairs = equalize.equalize(module, inputs)
    assert pairs == {
        "stem.conv": "block1.depthwise.conv",
        "block1.depthwise.conv": "block1.pointwise.conv",
        "block1.pointwise.conv": "block2.depthwise.conv",
        "block2.depthwise.conv": "block2.pointwise.conv",
        "block2.pointwise.conv": "fc",
    }
    torch.testing.assert_close(module(others), before, rtol=1e-4, atol=1e-5)
    for maker, taker in pairs.items():
        first, second = sizes(module, maker, taker)
        torch.testing.assert_close(first, second, rtol=1e-2, atol=0)


class Shortcut(nn.Module):
    """What the first layer gives is read by the second, and added to what that one gives."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.relu, self.last = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (samples, 4)."""
        inner = self.relu(self.first(x))
        return cast(Tensor, self.third(self.last(self.second(inner))) + inner[:, :4])


@pytest.mark.verifies("channels-equalized-before-sharing")
def test_channels_that_are_read_elsewhere_stay(seed: int) -> None:
    module, inputs = Shortcut().eval(), torch.rand(16, 6, generator=torch.Generator().manual_seed(seed))
    before, first = module(inputs), module.first.weight.clone()
    assert equalize.equalize(module, inputs) == {"second": "third"}
    assert torch.equal(module.first.weight, first)
    torch.testing.assert_close(module(inputs), before, rtol=1e-4, atol=1e-5)


class ByName(nn.Module):
    """Calls a layer by keyword, and may limit in place what another one gave."""

    def __init__(self, most: float | None) -> None:
        super().__init__()
        self.first, self.second, self.relu, self.most = nn.Linear(6, 6), nn.Linear(6, 4), nn.ReLU(), most

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (samples, 4)."""
        inner = self.first(x)
        if self.most is not None:
            inner.clamp_(max=self.most)
        return cast(Tensor, self.second(input=self.relu(inner)))


@pytest.mark.verifies("channels-equalized-before-sharing")
def test_a_layer_called_by_name_is_seen_and_a_change_in_place_ends_a_pair() -> None:
    inputs = torch.rand(16, 6, generator=torch.Generator().manual_seed(1))
    assert equalize.equalize(ByName(None).eval(), inputs) == {"first": "second"}
    with pytest.raises(ModelError, match="no layer whose outputs go to one other layer"):
        equalize.equalize(ByName(1e6).eval(), inputs)  # no sample reaches the limit, others may


@pytest.mark.verifies("channels-equalized-before-sharing")
def test_relu_in_place_is_no_end(seed: int) -> None:
    module = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 4)).eval()
    inputs = torch.rand(16, 6, generator=torch.Generator().manual_seed(seed))
    assert equalize.equalize(module, inputs) == {"0": "2"}


@pytest.mark.verifies("channels-equalized-before-sharing")
def test_masks_stay_and_a_channel_without_weights_is_left(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5)).eval()
    mask = torch.rand(4, 1, 3, 3, generator=generator) < 0.6
    mask[1] = False
    prune.attach(module[0]).mask.copy_(mask)
    inputs = torch.rand(16, 1, 8, 8, generator=generator)
    before = module(inputs)
    assert equalize.equalize(module, inputs) == {"0": "4"}
    assert torch.equal(cast(Tensor, module[0].weight) != 0, mask)
    torch.testing.assert_close(module(inputs), before, rtol=1e-4, atol=1e-5)


@pytest.mark.verifies("channels-equalized-before-sharing")
def test_three_shared_values_leave_more_of_the_outputs(seed: int) -> None:
    def distance(module: nn.Module, inputs: Tensor) -> float:
        before = module(inputs)
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                quantize.attach(layer, 2, start="exact", free=True, seed=seed)
        return float((module(inputs) - before).detach().square().sum() / before.detach().square().sum())

    plain, inputs = folded("ds-cnn", seed)
    scaled, _ = folded("ds-cnn", seed)
    for module in (plain, scaled):  # channels of very different sizes, as a folded normalization leaves them
        factor = 2.0 ** torch.arange(-3.0, 3.0)
        with torch.no_grad():
            layer, after = (
                cast(Any, module.get_submodule(f"block1.{part}.conv")) for part in ("depthwise", "pointwise")
            )
            layer.weight.mul_(factor.view(-1, 1, 1, 1))
            layer.bias.mul_(factor)
            after.weight.div_(factor.view(1, -1, 1, 1))
    equalize.equalize(scaled, inputs)
    assert distance(scaled, inputs) < distance(plain, inputs)


@pytest.mark.verifies("channels-equalized-before-sharing")
@pytest.mark.parametrize("between", [nn.Sigmoid(), nn.ReLU6(), nn.LeakyReLU(0.1)])
def test_what_is_not_known_to_be_homogeneous_is_refused(between: nn.Module) -> None:
    module = nn.Sequential(nn.Linear(4, 4), between, nn.Linear(4, 2)).eval()
    with pytest.raises(ModelError, match="no layer whose outputs go to one other layer"):
        equalize.equalize(module, torch.rand(8, 4))


@pytest.mark.verifies("channels-equalized-before-sharing")
def test_planted_fault_a_bias_that_is_not_scaled_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no pair passes the check of the function."""
    scale = equalize._scale

    def forget(maker: nn.Module, taker: nn.Module, factor: Tensor) -> None:
        bias = cast(Tensor, maker.bias).clone()
        scale(maker, taker, factor)
        cast(Tensor, maker.bias).copy_(bias)

    module, inputs = folded("ds-cnn", 1)
    monkeypatch.setattr(equalize, "_scale", forget)
    with pytest.raises(ModelError, match="expected at least one pair"):
        equalize.equalize(module, inputs)
