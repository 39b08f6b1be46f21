"""A step of several workers in one process: what is shared, what stays float, what a wrapper does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compiler.errors import RecipeError
from compiler.train.data import Split
from compiler.train.images import Images
from compiler.train.loop import fit, reproducible
from compiler.train.models import mlp
from compiler.train.schedule import Schedule
from compiler.train.table import Table
from compiler.train.terngrad.averaging import Clock
from compiler.train.terngrad.channel import Local
from compiler.train.terngrad.exchange import Exchange
from compiler.train.terngrad.optimizer import ternarized
from compiler.train.terngrad.settings import Settings, plan_for
from compiler.train.terngrad.ternarize import scaler
from compiler.train.terngrad.virtual import VirtualWorkers

WORKERS = 3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other make small trainings many times slower on a busy machine."""
    with reproducible(threads=1):
        yield


def network() -> nn.Sequential:
    return mlp(20, (30, 16), 4)  # 600, 480 and 64 weights


def gradients_of(rng: np.random.Generator, module: nn.Module, workers: int = WORKERS) -> list[list[Tensor]]:
    """Each worker's gradients are larger than those of the one before."""
    return [
        [torch.from_numpy((k + 1) * rng.standard_normal(p.shape).astype(np.float32)) for p in module.parameters()]
        for k in range(workers)
    ]


def averages(exchange: Exchange, gradients: list[list[Tensor]]) -> list[Tensor]:
    return exchange.average(gradients, range(len(gradients[0])))


@pytest.mark.verifies("last-layer-small-tensors-float")
def test_plan_leaves_the_last_layer_and_small_tensors_alone() -> None:
    assert [name for name, yes in plan_for(network(), Settings()).ternary.items() if yes] == [
        "fc1.weight",
        "fc2.weight",
    ]
    everything = plan_for(network(), Settings(smallest=0, last=True))
    assert all(everything.ternary.values())
    assert [name for name, yes in plan_for(network(), Settings(smallest=500)).ternary.items() if yes] == ["fc1.weight"]
    with pytest.raises(RecipeError, match="no tensor would be ternary"):
        plan_for(network(), Settings(smallest=601))


def test_settings_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="clip is -1"):
        Settings(clip=-1)
    with pytest.raises(ValueError, match="scheme is 'best'; expected one of auto"):
        Settings(scheme="best")
    with pytest.raises(RecipeError, match=r"terngrad\.smallest is 'all'"):
        Settings.parse(Table({"smallest": "all"}, "r.toml", "terngrad"), 1)
    assert Settings.parse(Table(Settings(clip=0, last=True).asdict(), "r.toml", "terngrad"), 1) == Settings(
        0, last=True
    )


def wrong_multiples(exchange: Exchange, gradients: list[list[Tensor]]) -> int:
    """Elements of ternary averages that are no multiple -N … N of (largest scaler over the workers) / N."""
    wrong = 0
    for number, mean in enumerate(averages(exchange, gradients)):
        if not list(exchange.plan.ternary.values())[number]:
            continue
        unit = max(float(scaler(mine[number], exchange.settings.clip)) for mine in gradients) / len(gradients)
        multiple = mean.double() / unit
        wrong += int(
            ((multiple - multiple.round()).abs() > 1e-4).sum() + (multiple.abs() > len(gradients) + 1e-4).sum()
        )
    return wrong


@pytest.mark.verifies("averages-multiples-largest-scaler-over")
def test_averages_are_multiples_of_the_largest_scaler(rng: np.random.Generator, seed: int) -> None:
    module = network()
    exchange = Exchange(module, Settings(seed=seed), Local(WORKERS))
    assert wrong_multiples(exchange, gradients_of(rng, module)) == 0


@pytest.mark.verifies("planted-fault-scaler-shared")
def test_fault_a_scaler_that_is_not_shared_is_caught(rng: np.random.Generator, seed: int) -> None:
    class Unshared(Local):
        def largest(self, scales: Sequence[Tensor]) -> Tensor:
            return scales[0].clone()

    module = network()
    exchange = Exchange(module, Settings(seed=seed), Unshared(WORKERS))
    assert wrong_multiples(exchange, gradients_of(rng, module)) > 100


@pytest.mark.verifies("last-layer-small-tensors-float")
def test_float_tensors_are_the_plain_mean(rng: np.random.Generator, seed: int) -> None:
    module = network()
    gradients = gradients_of(rng, module)
    exchange = Exchange(module, Settings(seed=seed, float_every=2), Local(WORKERS))
    plain = [torch.stack(tensors).double().mean(0) for tensors in zip(*gradients, strict=True)]

    def float_tensors() -> list[bool]:
        return [
            torch.allclose(mean.double(), right, atol=1e-6)
            for mean, right in zip(averages(exchange, gradients), plain, strict=True)
        ]

    assert float_tensors() == [not yes for yes in exchange.plan.ternary.values()]
    exchange.set_epoch(1)  # the second epoch
    assert all(float_tensors())
    exchange.set_epoch(2)
    assert not all(float_tensors())


def test_a_gradient_that_is_not_finite_reaches_every_worker(rng: np.random.Generator, seed: int) -> None:
    module = network()
    gradients = gradients_of(rng, module)
    gradients[1][0][0, 0] = float("nan")
    means = averages(Exchange(module, Settings(seed=seed), Local(WORKERS)), gradients)
    assert not means[0].isfinite().any()
    assert means[2].isfinite().all()


def lesson_of(rng: np.random.Generator, samples: int = 96) -> Images:
    inputs = rng.random((samples, 20)).astype(np.float32)
    return Images(Split(inputs, (inputs[:, :4].argmax(1)).astype(np.int64)), (20,))


def trained(lesson: Images, seed: int, workers: int | None, epochs: int = 3, **settings: object) -> nn.Module:
    torch.manual_seed(seed)
    module = network()
    schedule = Schedule(epochs=epochs, batch=24, learning_rate=0.2, optimizer="sgd")
    if workers is None:
        fit(module, lesson, schedule, (seed,))
        return module
    virtual = VirtualWorkers(module, Settings(seed=seed, **settings), workers)  # type: ignore[arg-type]
    clock = Clock(virtual.exchange, lesson.steps(schedule.batch))
    fit(module, lesson, schedule, (seed,), hooks=[clock], backward=virtual)
    return module


def same(first: nn.Module, second: nn.Module, tolerance: float = 0.0) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.allclose(a, b, rtol=0, atol=tolerance) for a, b in pairs)


def test_virtual_workers_with_float_gradients_train_as_one_does(rng: np.random.Generator, seed: int) -> None:
    lesson = lesson_of(rng)
    plain = trained(lesson, seed, None)
    assert same(plain, trained(lesson, seed, 4, float_every=1), tolerance=1e-5)
    assert not same(plain, trained(lesson, seed, 4), tolerance=1e-3)


def test_virtual_training_follows_from_the_seed(rng: np.random.Generator, seed: int) -> None:
    lesson = lesson_of(rng)
    assert same(trained(lesson, seed, 4), trained(lesson, seed, 4))


@pytest.mark.verifies("optimizer-wrapper-virtual-worker")
def test_optimizer_wrapper_trains_as_one_virtual_worker(rng: np.random.Generator, seed: int) -> None:
    lesson = lesson_of(rng)
    torch.manual_seed(seed)
    module = network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.2, momentum=0.9, fused=True)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1000)  # takes it for an optimizer, which it is
    exchange, handle = ternarized(optimizer, module, Settings(seed=seed))
    torch.manual_seed(seed)
    twin = network()
    virtual = VirtualWorkers(twin, Settings(seed=seed), 1)
    other = torch.optim.SGD(twin.parameters(), lr=0.2, momentum=0.9, fused=True)
    batches = list(lesson.batches(0, 24, torch.Generator().manual_seed(seed)))
    for step, batch in enumerate(batches):
        optimizer.zero_grad()
        batch.loss(module).backward()
        optimizer.step()
        schedule.step()
        other.zero_grad()
        virtual.exchange.step = step
        virtual(twin, batch)
        other.step()
    assert exchange.step == len(batches)
    assert same(module, twin)
    handle.remove()
    optimizer.step()
    assert exchange.step == len(batches)


def test_a_worker_without_samples_is_an_error(rng: np.random.Generator, seed: int) -> None:
    lesson = lesson_of(rng, 25)  # leaves one in the second batch
    with pytest.raises(ValueError, match="leaves worker 1 of 2 nothing"):
        trained(lesson, seed, 2)
