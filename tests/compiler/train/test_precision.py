"""Training in float16: small gradients survive by the scaled loss, and a step that overflows is left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compiler.train import loop
from compiler.train.data import Split
from compiler.train.images import Images
from compiler.train.loop import fit
from compiler.train.schedule import Schedule

SCHEDULE = Schedule(epochs=1, batch=4, learning_rate=1.0, optimizer="sgd", momentum=0.0, shape="constant")


@dataclass
class Product:
    """A loss whose gradient in the outputs is `factors` in turn, with products in float16."""

    factors: list[float]
    precision: str = "float16"
    seen: list[float] = field(default_factory=list)

    def steps(self, size: int) -> int:
        return len(self.factors)

    def batches(self, epoch: int, size: int, generator: torch.Generator) -> Iterator[Product]:
        for factor in self.factors:
            yield Product([factor], self.precision, self.seen)

    def __len__(self) -> int:
        return 1

    def split(self, parts: int) -> list[Product]:
        raise NotImplementedError

    def loss(self, module: nn.Module) -> Tensor:
        weight = next(module.parameters())
        self.seen.append(float(weight.detach().sum()))
        with torch.autocast("cpu", dtype=torch.float16):
            return (module(torch.ones(1, 1)) * self.factors[0]).float().sum()


def trained(factors: list[float]) -> list[float]:
    """The weight before each step, and at the end; each step subtracts its factor from it."""
    module, lesson = nn.Linear(1, 1, bias=False), Product(factors)
    nn.init.zeros_(module.weight)
    fit(module, lesson, SCHEDULE, (1,))
    return [*lesson.seen, float(module.weight.detach())]


@pytest.mark.verifies("float16-loss-scaling")
@pytest.mark.parametrize("scale", [1024.0, 1.0])
def test_a_gradient_below_float16s_smallest_arrives_only_with_a_scaled_loss(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_SCALE", scale)
    small = 2.0**-26  # a quarter of float16's smallest number above zero
    assert trained([small]) == [0.0, -small if scale > 1 else 0.0]


@pytest.mark.verifies("float16-loss-scaling")
def test_a_step_that_overflows_is_left_out_and_the_factor_halved_until_it_fits() -> None:
    # 200 · 1024 and 200 · 512 are beyond float16's 65504; 200 · 256 is not.
    assert trained([1.0, 200.0, 200.0, 200.0]) == [0.0, -1.0, -1.0, -1.0, -201.0]


@pytest.mark.verifies("float16-loss-scaling")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_network_learns_in_every_precision_and_its_losses_are_not_scaled(precision: str) -> None:
    rng = np.random.default_rng(1)
    inputs = rng.uniform(size=(64, 6)).astype(np.float32)
    split = Split(inputs, (inputs[:, 0] > inputs[:, 1]).astype(np.int64))
    losses: dict[str, list[float]] = {}
    for each in ("float32", precision):
        torch.manual_seed(2)
        module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
        history = losses.setdefault(each, [])
        lesson = Images(split, (6,), precision=each)
        fit(
            module, lesson, Schedule(8, 16, 0.3, optimizer="sgd"), (3,),
            after_epoch=lambda epoch, history=history: history.append(epoch.loss),  # type: ignore[misc]
        )  # fmt: skip
    assert losses["float32"] != losses[precision]
    np.testing.assert_allclose(losses[precision], losses["float32"], rtol=0.05)
    assert losses[precision][-1] < 0.7 * losses[precision][0]
