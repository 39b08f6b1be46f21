"""The training loop: what is clipped, and what is added after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from compiler.train import group_lasso
from compiler.train.iss import ISS
from compiler.train.l1 import L1
from compiler.train.layers import weights
from compiler.train.loop import Hook, fit
from compiler.train.schedule import Schedule


class Steep:
    """A loss whose gradient is (30, 40): of norm 50."""

    def __len__(self) -> int:
        return 1

    def loss(self, module: nn.Module) -> Tensor:
        return module.weight @ torch.tensor([30.0, 40.0])  # type: ignore[no-any-return, operator]

    def split(self, parts: int) -> list[Steep]:
        return [self] * parts

    def steps(self, size: int) -> int:
        return 1

    def batches(self, epoch: int, size: int, generator: torch.Generator) -> Iterator[Steep]:
        yield self


class Pull(Hook):
    """A penalty whose gradient is (0, 1); notes the gradients that it sees."""

    def __init__(self, weight: Tensor, clipped: bool) -> None:
        self.weight, self.clipped = weight, clipped
        self.seen: list[float] = []

    def penalty(self) -> Tensor:
        return self.weight[0, 1]

    def after_backward(self, step: int, total: int) -> None:
        assert self.weight.grad is not None
        self.seen = self.weight.grad[0].tolist()


@pytest.mark.verifies("penalty-group-lasso-added-after")
@pytest.mark.parametrize("clipped", [False, True])
def test_a_penalty_is_clipped_with_the_loss_or_added_after_it(clipped: bool) -> None:
    module = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        module.weight.zero_()
    hook = Pull(module.weight, clipped)
    schedule = Schedule(1, 1, 1.0, optimizer="sgd", momentum=0.0, clip=1.0, shape="constant")
    fit(module, Steep(), schedule, (1,), hooks=[hook])
    assert hook.seen == [30, 41 if clipped else 40]
    long = (30**2 + 41**2) ** 0.5
    expected = [-30 / long, -41 / long] if clipped else [-0.6, -1.8]
    assert module.weight[0].tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.verifies("penalty-group-lasso-added-after")
def test_group_lasso_adds_its_penalty_after_clipping_and_others_before() -> None:
    module = nn.Linear(2, 1)
    terms = group_lasso.terms(module, "filter", 0.1)
    assert not group_lasso.Regularizer(terms).clipped
    assert [site.key for site in weights(module)] == [terms[0].name]
    assert ISS([], [], 0.1).clipped
    assert L1([], 0.1, 0.0).clipped
