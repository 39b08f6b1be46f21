"""Tied layers: one parameter in two places stays one, whatever is done to it, in memory and in files."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from compiler.errors import ModelError
from compiler.train import checkpoint, foreign, prune, quantize, structure
from compiler.train.layers import make_plain, weights
from compiler.train.removal import remove


class Tied(nn.Module):
    """An embedding and an output with one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 6)
        self.inner = nn.Linear(6, 6)
        self.output = nn.Linear(6, 9, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.output(torch.relu(self.inner(self.embedding(words).mean(1))))


@pytest.fixture
def module(seed: int) -> Tied:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Tied()


def train(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    words = torch.arange(18).reshape(6, 3) % 9
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(words), torch.arange(6)).backward()
        optimizer.step()


def check(module: Tied) -> None:
    assert torch.equal(module.embedding.weight, module.output.weight)
    assert [site.key for site in weights(module)] == ["embedding", "inner"]
    assert len({id(value) for value in module.parameters()}) == len(list(module.parameters()))


@pytest.mark.verifies("tied-layers-stay-tied-attached")
@pytest.mark.parametrize("first", ["embedding", "output"])
@pytest.mark.parametrize("what", ["mask", "fixed", "free"])
def test_what_is_attached_to_one_is_attached_to_both(module: Tied, first: str, what: str) -> None:
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    train(module, optimizer)
    layer = module.get_submodule(first)
    if what == "mask":
        prune.prune(layer, 0.5)
    else:
        quantize.attach(layer, 3, free=what == "free")
    check(module)
    before = module.embedding.weight.detach().clone()
    train(module, optimizer)
    check(module)
    assert not torch.equal(before, module.embedding.weight)
    twin = copy.deepcopy(module)
    check(twin)
    expected = module.embedding.weight.detach().clone()
    make_plain(module.get_submodule("output" if first == "embedding" else "embedding"))  # of the other one
    assert module.embedding.weight is module.output.weight
    assert torch.equal(module.embedding.weight, expected)
    check(module)
    train(module, optimizer)
    check(module)
    assert torch.equal(twin.output.weight, expected)  # the copy has its own
    make_plain(twin)
    assert twin.embedding.weight is twin.output.weight


@pytest.mark.verifies("tied-layers-stay-tied-attached")
@pytest.mark.parametrize("what", ["plain", "mask", "fixed", "free"])
def test_files_of_a_run_keep_them_tied(module: Tied, what: str, tmp_path: Path) -> None:
    if what == "mask":
        prune.prune(module, 0.5)
    elif what != "plain":
        quantize.share(module, 3, free=what == "free")
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, module.state_dict(), {"structure": structure.describe(module)})
    state, content = checkpoint.load(path)
    assert state.keys() == module.state_dict().keys()
    again = Tied()
    structure.rebuild(again, content["structure"], state, str(path))
    check(again)
    assert torch.equal(again.output.weight, module.output.weight)
    if what == "plain":  # safetensors' own reader takes the file as one of its own
        load_model(Tied(), path)


@pytest.mark.verifies("tied-layers-stay-tied-attached")
def test_weights_that_safetensors_saved_once_are_found(
    module: Tied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    save_model(module, str(path))
    monkeypatch.setattr(foreign, "call", lambda text: (Tied(), torch.zeros(1, 3, dtype=torch.long)))
    found, _ = foreign.from_function("own:make", path)
    assert torch.equal(found.output.weight, module.output.weight)


@pytest.mark.verifies("frozen-weights-stay-frozen-weights")
def test_a_frozen_weight_stays_frozen(module: Tied) -> None:
    module.inner.weight.requires_grad_(False)
    parameter = module.inner.weight
    for free in (False, True):
        quantize.attach(module.inner, 3, free=free)
        assert not any(value.requires_grad for value in module.inner.parametrizations.parameters())
        make_plain(module)
        assert module.inner.weight is parameter
        assert not parameter.requires_grad
    prune.prune(module, 0.5)
    make_plain(module)
    assert not module.inner.weight.requires_grad
    assert module.inner.bias.requires_grad


@pytest.mark.verifies("tied-layers-stay-tied-attached")
def test_channels_of_tied_layers_stay(seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    module[2].weight = module[0].weight
    with torch.no_grad():
        module[0].weight[1] = 0
        module[0].bias[1] = module[2].bias[1] = 0
    assert remove(module, torch.rand(8, 4)).channels == 0
    assert module[2].weight is module[0].weight


@pytest.mark.verifies("frozen-weights-stay-frozen-weights")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named_and_left(module: Tied, value: float) -> None:
    with torch.no_grad():
        module.inner.weight[2, 1] = value
    for action in (
        lambda: quantize.share(module, 3),
        lambda: prune.prune(module, 0.5),
        lambda: quantize.attach(module.inner, 3, key="inner"),
    ):
        with pytest.raises(ModelError, match="inner of Linear has 1 of 36 values that are not finite"):
            action()
    assert not structure.describe(module)  # nothing was begun


@pytest.mark.verifies("frozen-weights-stay-frozen-weights")
def test_what_others_parametrize_is_refused(module: Tied) -> None:
    nn.utils.parametrizations.weight_norm(module.inner)
    with pytest.raises(ModelError, match="weight of ParametrizedLinear is parametrized by _WeightNorm"):
        prune.prune(module, 0.5)
    assert prune.find(module.embedding) is None  # nothing was begun
    with pytest.raises(ModelError, match=r"inner.weight is parametrized by _WeightNorm"):
        structure.describe(module)
    quantize.attach(module.inner, 3)  # writes it out, as it says
    with pytest.raises(ModelError, match="parametrized by SharedWeight already; write it out first"):
        prune.prune(module, 0.5)


@pytest.mark.verifies("tied-layers-stay-tied-attached")
def test_files_of_tied_layers_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    shared = torch.ones(3, 4)
    tensors = {"a": shared, "b": shared, "c": shared, "d": torch.zeros(2)}
    files = []
    for number in range(20):  # the order in which safetensors writes metadata changes from call to call
        checkpoint.save(tmp_path / f"{number}.safetensors", tensors, {"n": 1})
        files.append((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(set(files)) == 1
    back, content = checkpoint.load(tmp_path / "0.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in back.items()} == {
        "a": (3, 4), "b": (3, 4), "c": (3, 4), "d": (2,),
    }  # fmt: skip
    assert content["n"] == 1
