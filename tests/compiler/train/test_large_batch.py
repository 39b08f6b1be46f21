"""LARS and LAMB by their formulae, linear scaling and warm-up, gradients that add up, and runs that resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compiler.errors import RecipeError
from compiler.train import large_batch, recipe
from compiler.train.data import Split
from compiler.train.images import Images
from compiler.train.loop import Hook, accumulated, fit
from compiler.train.models import lenet_5, resnet
from compiler.train.run import train_recipe
from compiler.train.schedule import Schedule


def lars(w: list[float], steps: list[list[float]], rate: float, momentum: float, decay: float, trust: float) -> Any:
    """The published update of one matrix, in plain numbers."""
    velocity = [0.0] * len(w)
    for g in steps:
        long, steep = math.sqrt(sum(x * x for x in w)), math.sqrt(sum(x * x for x in g))
        local = trust * long / (steep + decay * long) if long and steep else 1.0
        velocity = [momentum * v + rate * local * (d + decay * x) for v, d, x in zip(velocity, g, w, strict=True)]
        w = [x - v for x, v in zip(w, velocity, strict=True)]
    return w


def lamb(w: list[float], steps: list[list[float]], rate: float, decay: float) -> Any:
    """The same of LAMB."""
    (one, two), eps = (0.9, 0.999), 1e-6
    mean, square = [0.0] * len(w), [0.0] * len(w)
    for count, g in enumerate(steps, start=1):
        mean = [one * m + (1 - one) * d for m, d in zip(mean, g, strict=True)]
        square = [two * s + (1 - two) * d * d for s, d in zip(square, g, strict=True)]
        r = [
            m / (1 - one**count) / (math.sqrt(s / (1 - two**count)) + eps) + decay * x
            for m, s, x in zip(mean, square, w, strict=True)
        ]
        long, far = math.sqrt(sum(x * x for x in w)), math.sqrt(sum(x * x for x in r))
        ratio = long / far if long and far else 1.0
        w = [x - rate * ratio * u for x, u in zip(w, r, strict=True)]
    return w


def taken(optimizer: str, start: list[float], steps: list[list[float]], shape: tuple[int, ...]) -> list[float]:
    """The weights after some steps with these gradients."""
    weight = nn.Parameter(torch.tensor(start, dtype=torch.float64).view(shape))
    made = Schedule(1, 1, 0.3, weight_decay=0.1, optimizer=optimizer, momentum=0.8).make_optimizer([weight])
    for g in steps:
        weight.grad = torch.tensor(g, dtype=torch.float64).view(shape)
        made.step()
    return [float(x) for x in weight.detach().flatten()]


@pytest.mark.verifies("lars-lamb-formulae")
def test_lars_and_lamb_are_their_formulae(rng: np.random.Generator) -> None:
    start = rng.normal(size=6).tolist()
    steps = rng.normal(size=(4, 6)).tolist()
    for shape in ((2, 3), (3, 2, 1, 1)):
        expected = lars(start, steps, 0.3, 0.8, 0.1, large_batch.TRUST)
        assert taken("lars", start, steps, shape) == pytest.approx(expected, rel=1e-9)
        assert taken("lamb", start, steps, shape) == pytest.approx(lamb(start, steps, 0.3, 0.1), rel=1e-9)
    # A matrix that starts at zero is not scaled in its first step.
    zero = [0.0] * 6
    assert taken("lars", zero, steps[:1], (2, 3)) == pytest.approx([-0.3 * g for g in steps[0]])
    assert taken("lamb", zero, steps[:1], (2, 3)) == pytest.approx(lamb(zero, steps[:1], 0.3, 0.1), rel=1e-9)
    # Vectors are neither scaled nor decayed: SGD with momentum, and Adam.
    velocity, plain = np.zeros(6), np.array(start)
    for g in steps:
        velocity = 0.8 * velocity + 0.3 * np.array(g)
        plain = plain - velocity
    assert taken("lars", start, steps, (6,)) == pytest.approx(plain.tolist(), rel=1e-9)
    adam = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    other = torch.optim.Adam([adam], 0.3, eps=large_batch.EPSILON)
    for g in steps:
        adam.grad = torch.tensor(g, dtype=torch.float64)
        other.step()
    assert taken("lamb", start, steps, (6,)) == pytest.approx(adam.detach().tolist(), rel=1e-9)


@pytest.mark.verifies("lars-lamb-fault")
def test_planted_faults_in_the_scale_are_found(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    right = large_batch._ratio

    def squared(above: Tensor, below: Tensor, factor: float, known: Tensor) -> Tensor:
        return right(above.square(), below.square(), factor, known)

    def always(above: Tensor, below: Tensor, factor: float, known: Tensor) -> Tensor:
        return factor * above / below

    for fault in (squared, always):
        monkeypatch.setattr(large_batch, "_ratio", fault)
        with pytest.raises(AssertionError):
            test_lars_and_lamb_are_their_formulae(rng)


@pytest.mark.verifies("linear-scaling-warm-up")
def test_the_rate_is_in_proportion_to_the_batch_and_rises_first() -> None:
    small = Schedule(1, 32, 0.1, shape="constant", base_batch=32)
    large = Schedule(1, 256, 0.1, shape="constant", base_batch=32, warmup=0.2)
    assert [small.rate(step, 100) for step in range(100)] == pytest.approx([0.1] * 100)
    assert [large.rate(step, 100) for step in (0, 9, 19, 20, 99)] == pytest.approx([0.04, 0.4, 0.8, 0.8, 0.8])
    falling = Schedule(1, 256, 0.1, base_batch=32, warmup=0.2)
    assert falling.rate(9, 100) == pytest.approx(0.4 * 0.5 * (1 + math.cos(math.pi * 0.09)))
    assert falling.rate(60, 100) == pytest.approx(0.8 * 0.5 * (1 + math.cos(math.pi * 0.6)))
    whole = Schedule(1, 64, 0.1, shape="constant", warmup=1.0)
    assert [whole.rate(step, 4) for step in range(4)] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert large.make_optimizer([nn.Parameter(torch.ones(2))]).param_groups[0]["lr"] == pytest.approx(0.8)


def lesson(rng: np.random.Generator, count: int = 23) -> Images:
    """Images of noise."""
    inputs = rng.random((count, 64), np.float32)
    return Images(Split(inputs, rng.integers(0, 4, count)), (1, 8, 8))


class Seen(Hook):
    """The gradients of the first step."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.gradients = module, dict[str, Tensor]()

    def after_backward(self, step: int, total: int) -> None:
        if not self.gradients:
            found = {name: p.grad for name, p in self.module.named_parameters()}
            self.gradients = {name: grad.clone() for name, grad in found.items() if grad is not None}


def trained(make: Any, parts: int, images: Images) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients of the first step, and the state after two steps."""
    torch.manual_seed(2)
    module = make((1, 8, 8), 4).double()
    seen = Seen(module)
    schedule = Schedule(1, 12, 0.05, optimizer="sgd", accumulate=parts)

    class Double(Images):
        def arrange(self, inputs: Tensor) -> Tensor:
            return inputs.double()

    fit(module, Double(images.split, images.shape), schedule, (3,), hooks=[seen])
    return seen.gradients, module.state_dict()


def plain(shape: tuple[int, ...], classes: int) -> nn.Module:
    return lenet_5(shape, classes, (3, 4), 8, 2)


def normalized(shape: tuple[int, ...], classes: int) -> nn.Module:
    return resnet(shape, classes, (4, 4))


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert list(first) == list(second)
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.verifies("accumulation-is-the-large-batch")
def test_gradients_that_add_up_are_those_of_the_large_batch(rng: np.random.Generator) -> None:
    images = lesson(rng)
    whole = trained(plain, 1, images)
    for parts in (2, 5, 12):  # the second batch of an epoch has 11 samples, so that parts differ in size
        found = trained(plain, parts, images)
        assert distance(found[0], whole[0]) < 1e-6  # outputs are compared in float32
        assert distance(found[1], whole[1]) < 1e-6


@pytest.mark.verifies("accumulation-and-batch-normalization")
def test_batch_normalization_sees_a_part_at_a_time(rng: np.random.Generator) -> None:
    images = lesson(rng)
    whole, parts = trained(normalized, 1, images), trained(normalized, 3, images)
    assert distance(parts[0], whole[0]) > 1e-3
    counted = {name: int(value) for name, value in parts[1].items() if name.endswith("num_batches_tracked")}
    assert set(counted.values()) == {6}


def test_planted_fault_parts_that_are_not_weighted_are_found(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compiler.train import loop

    def summed(parts: int) -> Any:
        def backward(module: nn.Module, batch: Any) -> float:
            shares = batch.split(parts)
            for share in shares:
                (share.loss(module) / len(shares)).backward()
            return 0.0

        return backward

    images = lesson(rng)
    module = plain((1, 8, 8), 4)
    batch = next(iter(images.batches(0, 11, torch.Generator().manual_seed(1))))
    found = []
    for way in (accumulated(5), summed(5), loop.backward):
        module.zero_grad()
        way(module, batch)
        found.append({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})
    assert distance(found[0], found[2]) < 1e-6
    assert distance(found[1], found[2]) > 1e-4


def test_accumulation_under_workers_is_refused(rng: np.random.Generator) -> None:
    class Shared(Hook):
        backward = staticmethod(lambda module, batch: 0.0)

    with pytest.raises(RecipeError, match="accumulate is 2"):
        fit(plain((1, 8, 8), 4), lesson(rng), Schedule(1, 12, 0.1, accumulate=2), (1,), hooks=[Shared()])


@pytest.mark.parametrize("parallel", ["sharded", "tensor", "data-tensor"])
def test_ways_that_split_tensors_refuse_norms_of_whole_ones(
    parallel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compiler.train.terngrad import job, train

    monkeypatch.setattr(train.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(train.dist, "get_world_size", lambda: 2)
    found = job.parse(content(optimizer="lamb"), "large")
    with pytest.raises(RecipeError, match=f"optimizer is lamb.*--parallel {parallel}"):
        train.Trainer(found, tmp_path, None, resume=False, parallel=parallel)


def content(**more: Any) -> dict[str, Any]:
    return {
        "name": "large",
        "data": {"name": "digits", "validation": 0.2, "samples": 300},
        "model": {"name": "mlp", "hidden": [10]},
        "stages": [{"kind": "dense", "epochs": 3, "learning_rate": 0.05, "batch": 60, "weight_decay": 1e-3, **more}],
    }


class Stop(Exception):
    """Ends a run."""


@pytest.mark.verifies("large-batch-resume")
@pytest.mark.parametrize("optimizer", ["lars", "lamb"])
def test_a_recipe_resumes_to_the_same_bytes(optimizer: str, tmp_path: Path) -> None:
    more: dict[str, Any] = {"trust": 0.05} if optimizer == "lars" else {}
    made = recipe.parse(content(optimizer=optimizer, warmup=0.3, base_batch=30, accumulate=4, **more), "large")
    assert recipe.parse(made.asdict(), "again") == made
    train_recipe(made, tmp_path / "one", plots=False)

    def stop(stage: str, done: int, total: int, text: str) -> None:
        if stage == "dense" and done == 2:
            raise Stop

    with pytest.raises(Stop):
        train_recipe(made, tmp_path / "two", progress=stop, plots=False)
    train_recipe(made, tmp_path / "two", resume=True, plots=False)
    one, two = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"optimizer": "larry"}, "adamw, sgd, lars, lamb"),
        ({"warmup": 1.5}, "warmup"),
        ({"base_batch": -1}, "base_batch"),
        ({"accumulate": 61}, "accumulate"),
        ({"trust": 0.1}, "unknown key"),
        ({"optimizer": "lars", "trust": 0}, "trust"),
    ],
)
def test_what_is_not_legal_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        recipe.parse(content(**more), "wrong")


def test_numbers_that_are_not_legal_are_refused_by_the_optimizers() -> None:
    weight = [nn.Parameter(torch.ones(2))]
    for make in (
        lambda: large_batch.LARS(weight, -1.0),
        lambda: large_batch.LARS(weight, 1.0, momentum=1.0),
        lambda: large_batch.LAMB(weight, float("nan")),
        lambda: large_batch.LAMB(weight, 1.0, betas=(0.9, 1.0)),
    ):
        with pytest.raises(ValueError, match="expected a number from 0"):
            make()
