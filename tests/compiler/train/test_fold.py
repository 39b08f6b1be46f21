"""Folding batch normalization leaves the function as it is, and shared values whole."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compiler.errors import InputError, ModelError, RecipeError
from compiler.frontend.torch_export import from_torch
from compiler.lower.pipeline import lower
from compiler.source import rewrite
from compiler.train import dead, fold, models, prune, quantize, recipe, structure
from compiler.train.layers import make_plain, weights
from compiler.train.run import load_run, train_recipe
from compiler.train.zoo import NETWORKS
from hw.params import Params
from tests.compiler.train.test_run import assert_same_bits, check_resumed_equals_unbroken

SHAPE = (1, 8, 8)
SPECS = {
    "resnet": models.ModelSpec("resnet", {"widths": (4, 6), "blocks": 2, "stride": 1}),
    "ds-cnn": models.ModelSpec("ds-cnn", {"width": 6, "blocks": 2, "stride": 1}),
}


def shaken(module: nn.Module, seed: int) -> nn.Module:
    """With statistics, scales and shifts in its normalizations, as training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    for norm in (layer for layer in module.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)):
        if norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.copy_(torch.rand(norm.num_features, generator=generator) - 0.5)
            norm.running_var.copy_(torch.rand(norm.num_features, generator=generator) + 0.2)
        for parameter in norm.parameters():
            parameter.data.copy_(torch.rand(norm.num_features, generator=generator) + 0.1)
    return module.eval()


def made(name: str, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in SPECS:
            return shaken(models.build(SPECS[name], SHAPE, 10), seed)
        if name == "mlp-bn":
            return shaken(NETWORKS[name].make(), seed)
        return shaken(nn.Sequential(nn.Linear(64, 6), nn.BatchNorm1d(6, affine=False), nn.ReLU()), seed)


def inputs_for(name: str, seed: int, count: int = 16) -> Tensor:
    features = 1024 if name == "mlp-bn" else 64
    return torch.rand(count, features, generator=torch.Generator().manual_seed(seed))


def check_function(name: str, seed: int) -> nn.Module:
    module = made(name, seed)
    inputs, others = inputs_for(name, seed), inputs_for(name, seed + 1, 50)
    before = module(others)
    norms = sum(isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) for layer in module.modules())
    assert len(fold.fold(module, inputs)) == norms > 0
    assert not any(isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) for layer in module.modules())
    torch.testing.assert_close(module(others), before, rtol=1e-4, atol=1e-5)
    return module


@pytest.mark.verifies("batch-normalization-folded-before-sharing")
@pytest.mark.parametrize("name", [*SPECS, "mlp-bn", "without scale"])
def test_the_function_stays(name: str, seed: int) -> None:
    check_function(name, seed)


def forget_mean(module: nn.Module, path: str, norm: str) -> None:
    module.get_submodule(norm).running_mean.zero_()  # type: ignore[union-attr, operator]
    fold_as_it_is(module, path, norm)


def forget_eps(module: nn.Module, path: str, norm: str) -> None:
    module.get_submodule(norm).eps = -0.05  # type: ignore[assignment]
    fold_as_it_is(module, path, norm)


fold_as_it_is = fold._fold


@pytest.mark.verifies("planted-faults-fold-without-mean")
@pytest.mark.parametrize("fault", [forget_mean, forget_eps])
def test_planted_fault_another_fold_is_caught(
    fault: Callable[..., None], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold, "_fold", fault)
    with pytest.raises(ModelError, match="changes what"):  # by fold itself, which compares outputs
        check_function("resnet", seed)
    monkeypatch.setattr(fold, "_TOLERANCE", 1e9)
    with pytest.raises(AssertionError):
        check_function("resnet", seed)


@pytest.mark.verifies("batch-normalization-folded-before-sharing")
def test_masks_stay_and_zeros_with_them(seed: int) -> None:
    module = made("resnet", seed)
    prune.prune(module, 0.4, only="block*")
    before, inputs = module(inputs_for("resnet", seed)), inputs_for("resnet", seed)
    masks = {site.key: site.value != 0 for site in weights(module)}
    fold.fold(module, inputs)
    assert all(torch.equal(site.value != 0, masks[site.key]) for site in weights(module))
    assert [prune.find(layer) is not None for layer in (module.conv, module.block1.conv1)] == [False, True]
    torch.testing.assert_close(module(inputs), before, rtol=1e-4, atol=1e-5)


def test_biases_that_are_there_are_folded_into(seed: int) -> None:
    module = shaken(nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)), seed)
    inputs = torch.rand(3, 2, 5, 5)
    before, bias = module(inputs), module[0].bias
    fold.fold(module, inputs)
    assert module[0].bias is bias
    torch.testing.assert_close(module(inputs), before, rtol=1e-4, atol=1e-5)


@pytest.mark.verifies("batch-normalization-folded-before-sharing")
@pytest.mark.parametrize("masked", [False, True])
def test_an_optimizer_from_before_trains_weights_and_new_biases(masked: bool, seed: int) -> None:
    module = made("ds-cnn", seed)
    if masked:
        prune.prune(module, 0.5)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    inputs = inputs_for("ds-cnn", seed)
    fold.fold(module, inputs)
    conv: Any = module.stem.conv
    before = conv.weight.detach().clone(), conv.bias.detach().clone()
    for _ in range(2):  # what came joins before the first step
        optimizer.zero_grad()
        module(inputs).square().sum().backward()
        optimizer.step()
    assert not torch.equal(conv.weight, before[0])
    assert not torch.equal(conv.bias, before[1])


class Twice(nn.Module):
    """What the convolution gives is normalized, and added as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv(x)
        return made + self.norm(made)


def without_statistics() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, track_running_stats=False))


def tied() -> nn.Module:
    module = nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 3))
    module[2].weight = module[0].weight
    return module


def shared() -> nn.Module:
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    quantize.share(module, 2)
    return module


def weight_normed() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 3, 3)), nn.BatchNorm2d(3))


@pytest.mark.verifies("cannot-folded-named-left")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Twice, "norm changes what Twice computes.*conv is read elsewhere"),
        (without_statistics, "1 keeps no running mean"),
        (tied, "0 is tied"),
        (shared, "weights of 0 are shared.*before"),
        (weight_normed, "weights of 0 are parametrized"),
        (
            lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.BatchNorm2d(3)),
            "no batch normalization right behind",
        ),
        (lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(3)), "changes what"),
    ],
)
def test_what_cannot_be_folded_is_named_and_left(make: Callable[[], nn.Module], message: str, seed: int) -> None:
    module = shaken(make(), seed)
    state = copy.deepcopy(module.state_dict())
    with pytest.raises(ModelError, match=message):
        fold.fold(module, torch.rand(2, 1, 7, 7))
    assert state.keys() == module.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_a_folded_network_is_rebuilt_and_shrunk(seed: int) -> None:
    module, inputs = made("resnet", seed), inputs_for("resnet", seed)
    fold.fold(module, inputs)
    with torch.no_grad():
        module.block1.conv1.weight[2] = 0
        module.block1.conv1.bias[2] = 0
    dead.remove(module, inputs)
    assert module.block1.conv1.out_channels == 3
    prune.prune(module, 0.5)
    fresh = models.build(SPECS["resnet"], SHAPE, 10)
    structure.rebuild(fresh, structure.describe(module), module.state_dict(), "the state")
    assert torch.equal(fresh.eval()(inputs), module(inputs))


@pytest.mark.verifies("cannot-folded-named-left")
@pytest.mark.parametrize(
    "described", [{"norm": {"kind": "folded"}}, {"norm": {"kind": "folded", "layer": "relu"}},
                  {"conv": {"kind": "folded", "layer": "conv"}}, {"no": {"kind": "folded", "layer": "conv"}}],
)  # fmt: skip
def test_a_description_that_does_not_fit_is_refused(described: dict[str, Any], seed: int) -> None:
    module = made("resnet", seed)
    with pytest.raises(InputError, match="the state describes"):
        structure.rebuild(module, described, module.state_dict(), "the state")


FOLDING = recipe.parse(
    {
        "name": "folding",
        "seed": 5,
        "data": {"name": "digits", "validation": 0.2, "samples": 300},
        "model": {"name": "resnet", "widths": [8, 8], "stride": 1},  # torch 2.13 corrupts memory on some AMD for 4, 6
        "stages": [
            {"kind": "dense", "epochs": 2, "learning_rate": 0.01},
            {"kind": "prune", "epochs": 2, "learning_rate": 0.01, "density": 0.5, "scope": "global"},
            {"kind": "fold"},
            {"kind": "finetune", "epochs": 1, "learning_rate": 0.001},
            {"kind": "share", "epochs": 2, "learning_rate": 0.001, "labels": "free"},
        ],
    },
    "folding",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "folding"
    train_recipe(FOLDING, folder)
    return folder


@pytest.mark.verifies("batch-normalization-folded-before-sharing")
def test_a_run_that_folds_is_resumed_to_the_same_bits(run: Path, tmp_path: Path) -> None:
    kills = [("fold", 0), ("finetune", 0), ("share", 1)]
    check_resumed_equals_unbroken(run, tmp_path / "resumed", kills, FOLDING)
    assert_same_bits(run, tmp_path / "resumed")


def clustered(module: nn.Module) -> list[bool]:
    """For every layer with weights: whether the compiler had to share its weights anew, for 15 values."""
    calibration = np.random.default_rng(0).uniform(size=(32, 64)).astype(np.float32)
    graph = rewrite(from_torch(module, (torch.zeros(1, 64),)))
    _, reports = lower(graph, Params(pes=4, code_bits=4), [calibration])
    return [report.clustered for report in reports if report.op in ("Conv", "Linear")]


@pytest.mark.verifies("batch-normalization-folded-before-sharing")
def test_the_compiler_takes_the_values_of_a_folded_network_as_they_are(run: Path) -> None:
    found = clustered(load_run(run).module)
    assert found == [False] * 4  # of seven layers with weights, those that are added are one


@pytest.mark.verifies("planted-faults-fold-without-mean")
def test_planted_fault_normalization_left_for_the_compiler_is_caught(seed: int) -> None:
    module = made("resnet", seed)
    quantize.share(module, 4)
    make_plain(module)
    assert any(clustered(module))


@pytest.mark.verifies("cannot-folded-named-left")
def test_a_fold_after_sharing_is_refused() -> None:
    stages = [stage.asdict() for stage in FOLDING.stages]
    with pytest.raises(RecipeError, match=r"stages\[4\] is of kind fold.*before kind share"):
        recipe.parse({**FOLDING.asdict(), "stages": [*stages[:2], stages[3], stages[4], stages[2]]}, "late")
