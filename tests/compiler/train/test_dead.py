"""Removing dead neurons leaves the function of a network as it is."""

from __future__ import annotations

import pytest
import torch

from compiler.errors import ModelError
from compiler.train import dead, prune
from compiler.train.layers import weights
from compiler.train.models import lenet_5, mlp, resnet


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_outputs_before_and_after_agree(kind: str, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = mlp(256, (40, 30), 10) if kind == "mlp" else lenet_5((1, 16, 16), 10, (6, 8), 30)
        inputs = torch.rand(50, 256)
    prune.prune_sites(list(weights(module)), 0.02)
    before = module(inputs)
    count = sum(parameter.numel() for parameter in module.parameters())
    assert dead.remove(module) > 0
    assert sum(parameter.numel() for parameter in module.parameters()) < count
    torch.testing.assert_close(module(inputs), before, rtol=1e-4, atol=1e-5)
    assert dead.remove(module) == 0


def test_what_is_no_chain_is_refused() -> None:
    with pytest.raises(ModelError, match="BatchNorm2d"):
        dead.remove(resnet((1, 16, 16), 10))
