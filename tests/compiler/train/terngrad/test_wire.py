"""Two and three real processes over gloo: their sums, and their training against that of virtual workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from compiler.train.data import Split
from compiler.train.images import Images
from compiler.train.loop import fit, reproducible
from compiler.train.schedule import Schedule
from compiler.train.terngrad.averaging import Clock
from compiler.train.terngrad.exchange import Exchange
from compiler.train.terngrad.hook import average_bucket
from compiler.train.terngrad.settings import Settings
from compiler.train.terngrad.virtual import VirtualWorkers, share_loss, worker_random
from compiler.train.terngrad.wire import Wire
from tests.compiler.train.terngrad.processes import in_group

SCHEDULE = Schedule(epochs=2, batch=25, learning_rate=0.1, optimizer="sgd")  # no multiple of the workers
SIDE, SAMPLES = 12, 80


class Net(nn.Sequential):
    """All that can differ between real and virtual: channels-last convolutions, dropout, buffers, a last layer."""

    def __init__(self) -> None:
        super().__init__(
            nn.Unflatten(1, (1, SIDE, SIDE)),
            nn.Conv2d(1, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(8 * 4 * 4, 20),
            nn.ReLU(),
            nn.Linear(20, 3),
        )


def prepared(seed: int) -> tuple[Net, Images]:
    torch.manual_seed(seed)
    module = Net()
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rng = np.random.default_rng(seed)
    inputs = rng.random((SAMPLES, SIDE * SIDE)).astype(np.float32)
    return module, Images(Split(inputs, rng.integers(0, 3, SAMPLES)), (1, SIDE, SIDE))


def state_of(module: nn.Module) -> dict[str, Any]:
    return {name: value.numpy() for name, value in module.state_dict().items()}


def real_training(seed: int, bucket_mb: float) -> dict[str, Any]:
    """In one worker's process."""
    module, lesson = prepared(seed)
    ddp = DistributedDataParallel(module, bucket_cap_mb=bucket_mb)
    exchange = Exchange(module, Settings(seed=seed, float_every=2, smallest=40), Wire())
    ddp.register_comm_hook(exchange, average_bucket)

    def backward(_: nn.Module, batch: Any) -> float:
        with worker_random(seed, exchange.step, dist.get_rank()):
            loss = share_loss(ddp, batch, dist.get_world_size(), dist.get_rank())
            loss.backward()
        return loss.item()

    clock = Clock(exchange, lesson.steps(SCHEDULE.batch))
    fit(module, lesson, SCHEDULE, (seed,), hooks=[clock], backward=backward)
    return state_of(module)


def virtual_training(seed: int, workers: int) -> dict[str, Any]:
    module, lesson = prepared(seed)
    virtual = VirtualWorkers(module, Settings(seed=seed, float_every=2, smallest=40), workers)
    clock = Clock(virtual.exchange, lesson.steps(SCHEDULE.batch))
    with reproducible(threads=1):  # as the processes have
        fit(module, lesson, SCHEDULE, (seed,), hooks=[clock], backward=virtual)
    return state_of(module)


def sums_of_all_kinds(seed: int) -> dict[str, Any]:
    """In one worker's process: sums by every scheme, lengths with and without remainders."""
    workers, rank = dist.get_world_size(), dist.get_rank()
    rng = np.random.default_rng(seed)
    wrong, scales = 0, torch.from_numpy(rng.random((workers, 5)).astype(np.float32))
    for length in (1, 7, 8, 24, 25, 1001):
        codes = torch.from_numpy(rng.integers(-1, 2, (workers, length)).astype(np.int8))
        for scheme in ("gather", "sums"):
            wrong += not torch.equal(Wire(scheme=scheme).add_codes([codes[rank]]), codes.sum(0, dtype=torch.int16))
        values = torch.from_numpy(rng.standard_normal((workers, length)).astype(np.float32))
        ordered = values[0].clone()
        for more in values[1:]:
            ordered += more
        wrong += not torch.equal(Wire().add_floats([values[rank]]), ordered)
    wrong += not torch.equal(Wire().largest([scales[rank]]), scales.amax(0))
    return {"wrong": wrong, "scheme": Wire().scheme}


@pytest.mark.verifies("three-processes-over-gloo-exact")
@pytest.mark.parametrize(("workers", "scheme"), [(2, "gather"), (3, "sums")])
def test_sums_over_processes_are_exact(workers: int, scheme: str, seed: int, tmp_path: Path) -> None:
    results = in_group(workers, tmp_path, sums_of_all_kinds, seed)
    assert results == [{"wrong": 0, "scheme": scheme}] * workers


@pytest.mark.verifies("processes-under-distributeddataparallel-train-virtual")
@pytest.mark.parametrize(("workers", "bucket_mb"), [(2, 25.0), (3, 0.002)])
def test_processes_train_as_virtual_workers_bit_for_bit(
    workers: int, bucket_mb: float, seed: int, tmp_path: Path
) -> None:
    expected = virtual_training(seed, workers)
    for rank, result in enumerate(in_group(workers, tmp_path, real_training, seed, bucket_mb)):
        # The first worker's buffers are everyone's from the next step on.
        compared = [name for name in expected if rank == 0 or "running" not in name]
        assert [name for name in compared if not np.array_equal(result[name], expected[name])] == []
