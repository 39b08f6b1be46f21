"""Masks and shared weights on every kind of layer: through training, saving, reloading, exporting and compressing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compiler.coding.container import compress, decompress
from compiler.compressed import CompressedModel
from compiler.train import checkpoint, prune, quantize, structure
from compiler.train.data import Split
from compiler.train.images import Images
from compiler.train.layers import Site, make_plain, weights
from compiler.train.loop import fit
from compiler.train.schedule import Schedule
from compiler.train.structure import rebuild

DENSITY = 0.4
BITS = 3


class Net(nn.Module):
    """A layer of some kind, then a Linear; takes flat inputs (n, 12) of 0 … 1."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "embedding":
            self.layer: nn.Module = nn.Embedding(8, 6)
        elif kind == "conv1d":
            self.layer = nn.Conv1d(3, 6, 3, padding=1)
        elif kind == "conv2d":
            self.layer = nn.Conv2d(1, 6, (3, 4), padding=(1, 0))
        elif kind == "linear":
            self.layer = nn.Linear(12, 6)
        else:
            cls = nn.LSTM if kind == "lstm" else nn.GRU
            self.layer = cls(3, 3, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "embedding":
            inner = self.layer((x * 7.99).long()).mean(1)
        elif self.kind == "conv1d":
            inner = self.layer(x.view(-1, 3, 4)).amax(2)
        elif self.kind == "conv2d":
            inner = self.layer(x.view(-1, 1, 3, 4)).amax((2, 3))
        elif self.kind == "linear":
            inner = self.layer(x)
        else:
            inner = self.layer(x.view(-1, 4, 3))[0][:, -1]
        return self.head(torch.relu(inner))


KINDS = ("linear", "conv1d", "conv2d", "lstm", "gru", "embedding")
SHARINGS: dict[str, dict[str, Any]] = {
    "fixed": {},
    "free": {"free": True},
    "uniform": {"uniform": True},
    "uniform-free": {"uniform": True, "free": True},
}


def network(kind: str, seed: int) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(kind)


def samples(seed: int) -> Split:
    rng = np.random.default_rng(seed)
    return Split(rng.random((96, 12)).astype(np.float32), rng.integers(0, 3, 96))


def train(module: nn.Module, seed: int) -> None:
    fit(module, Images(samples(seed), (1, 3, 4)), Schedule(3, 16, 2e-2, 1e-2), (seed,))


def values(module: nn.Module) -> dict[str, Tensor]:
    return {site.key: site.value.detach().clone() for site in weights(module)}


def reloaded(module: nn.Module, kind: str, path: Path) -> nn.Module:
    """As a checkpoint gives it back: another fresh network with structure and state of this one."""
    checkpoint.save(path, module.state_dict(), {"structure": structure.describe(module)})
    state, content = checkpoint.load(path)
    again = network(kind, 12345)
    rebuild(again, content["structure"], state, str(path))
    return again


def assert_same(first: nn.Module, second: nn.Module, inputs: Tensor) -> None:
    mine, yours = values(first), values(second)
    assert mine.keys() == yours.keys()
    for key in mine:
        assert torch.equal(mine[key], yours[key]), key
    with torch.no_grad():
        assert torch.equal(first.eval()(inputs), second.eval()(inputs))


def check_survives(
    kind: str, seed: int, folder: Path, attach: Callable[[Site], Any], check: Callable[[nn.Module], None]
) -> None:
    """Train, prune, attach, train, save, reload, train on, export, write out, compress; `check` after each."""
    module = network(kind, seed)
    inputs = torch.from_numpy(samples(seed).inputs)
    train(module, seed)
    sites = list(weights(module))
    prune.prune_sites(sites, dict.fromkeys((site.key for site in sites), DENSITY))
    for site in sites:
        attach(site)
    zeros = {key: value == 0 for key, value in values(module).items()}
    assert all(zero.float().mean() == pytest.approx(1 - DENSITY, abs=0.06) for zero in zeros.values())
    assert len(zeros) == (9 if kind in ("lstm", "gru") else 2)

    def whole(subject: nn.Module) -> None:
        for key, value in values(subject).items():
            assert torch.equal(value == 0, zeros[key]), key
        check(subject)

    before = values(module)
    train(module, seed + 1)
    whole(module)
    assert all(not torch.equal(value, before[key]) for key, value in values(module).items())  # and all moved

    again = reloaded(module, kind, folder / "state.safetensors")
    assert_same(again, module, inputs)
    for subject in (module, again):  # what was reloaded trains on as what was not
        train(subject, seed + 2)
        whole(subject)
    assert_same(again, module, inputs)

    with warnings.catch_warnings():
        # Torch's recurrent layers keep a list of their weights beside them, which parametrized ones make anew.
        warnings.filterwarnings("ignore", "The tensor attributes? self.layer._flat_weights")
        exported = torch.export.export(again.eval(), (inputs,)).module()
    with torch.no_grad():
        expected = module.eval()(inputs)
        torch.testing.assert_close(exported(inputs), expected, rtol=0, atol=1e-6)
        make_plain(module)
        torch.testing.assert_close(module(inputs), expected, rtol=0, atol=1e-6)
    assert not structure.describe(module)
    for key, value in values(module).items():
        assert torch.equal(value == 0, zeros[key]), key
        assert torch.equal(value, values(again)[key]), key
    state = {name: np.ascontiguousarray(value.numpy()) for name, value in module.state_dict().items()}
    model = CompressedModel.from_state(state)
    for coder in ("huffman", "context"):
        assert model.difference(decompress(compress(model, coder)).network) is None


@pytest.mark.verifies("masks-through-training-saving-export")
@pytest.mark.parametrize("kind", KINDS)
def test_masks_survive_training_saving_and_export(kind: str, seed: int, tmp_path: Path) -> None:
    check_survives(kind, seed, tmp_path, lambda site: None, lambda module: None)


@pytest.mark.verifies("shared-weights-through-same-same")
@pytest.mark.parametrize(
    ("kind", "sharing"),
    [
        *((kind, sharing) for kind in KINDS for sharing in ("fixed", "uniform-free")),
        ("gru", "free"),
        ("lstm", "uniform"),
    ],
)
def test_shared_weights_survive_training_saving_and_export(kind: str, sharing: str, seed: int, tmp_path: Path) -> None:
    options = SHARINGS[sharing]
    codes: dict[str, Tensor] = {}

    def attach(site: Site) -> None:
        codes[site.key] = quantize.attach(site.module, BITS, site.name, **options).codes.clone()

    def check(module: nn.Module) -> None:
        for site in weights(module):
            shared = quantize.find(site.module, site.name)
            assert shared is not None
            assert torch.equal(shared.codes, codes[site.key])  # nothing here re-assigns them
            value = site.value.detach()
            assert len(value[value != 0].unique()) <= 2**BITS - 1
            if options.get("uniform"):
                trained = site.module.parametrizations[site.name]
                reach = (trained.original1 if options.get("free") else trained.original).detach()
                assert reach.shape == (1,)
                step = reach / trained[0].levels.abs().max()
                assert torch.equal(value, step * (value / step).round())

    check_survives(kind, seed, tmp_path, attach, check)


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], Any]] = {
    "mask not applied": lambda patch: patch.setattr(prune.Mask, "forward", lambda self, weight: weight * 1),
    "structure forgotten for recurrent layers": lambda patch: patch.setattr(
        structure, "describe",
        lambda module, real=structure.describe: {k: v for k, v in real(module).items() if "_l0" not in k},
    ),
}  # fmt: skip


@pytest.mark.verifies("planted-faults-mask-applied-structure")
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    with pytest.raises(Exception, match=r"weight|assert"):
        check_survives("gru", seed, tmp_path, lambda site: None, lambda module: None)
