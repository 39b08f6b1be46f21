"""Several workers in one process: what N machines would learn, on one.

Each virtual worker has its share of the batch, its own random numbers and its own gradients; their average is what
the parameters get. The result is that of as many real processes, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compiler.train.loop import Batch, seed_of
from compiler.train.terngrad.averaging import Averaging
from compiler.train.terngrad.channel import Local
from compiler.train.terngrad.exchange import Exchange
from compiler.train.terngrad.onebit import OneBit, OneBitSettings
from compiler.train.terngrad.settings import Settings

__all__ = ["VirtualWorkers", "share_loss", "worker_random"]

_OWN = 1 << 20
"""Beside seed, step and worker: what seeds the numbers that a module draws, as dropout does. No tensor has it."""


def share_loss(module: nn.Module, batch: Batch, workers: int, worker: int) -> Tensor:
    """A worker's loss on its share of the batch, such that the mean over the workers is the mean over the batch.

    Raises
    ------
    ValueError
        The share is empty.
    """
    share = batch.split(workers)[worker]
    if not len(share):
        raise ValueError(f"a batch of {len(batch)} leaves worker {worker} of {workers} nothing; expected {workers} up")
    loss = share.loss(module)
    weight = len(share) * workers / len(batch)
    return loss if weight == 1 else loss * weight


@contextmanager
def worker_random(seed: int, step: int, worker: int) -> Iterator[None]:
    """Torch's own random numbers as one worker draws them in one step; those outside go on as if nothing had been."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, step, worker, _OWN))
        yield


class VirtualWorkers:
    """A `loop.Backward` that takes the part of several workers; to be used with `exchange.Clock`.

    Attributes
    ----------
    exchange : of the workers.
    """

    def __init__(self, module: nn.Module, settings: Settings | OneBitSettings, workers: int) -> None:
        channel = Local(workers)
        self.exchange: Averaging = (
            Exchange(module, settings, channel)
            if isinstance(settings, Settings)
            else OneBit(module, settings, channel)
        )  # fmt: skip

    def __call__(self, module: nn.Module, batch: Batch) -> float:
        """Average gradients into the parameters; the mean loss.

        Buffers, such as the statistics of batch normalization, are every worker's at the start and the first worker's
        at the end, as DistributedDataParallel has it.
        """
        workers = self.exchange.channel.workers
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        before = [buffer.clone() for buffer in module.buffers()]
        after: list[Tensor] = []
        gradients, losses = [], 0.0
        for worker in range(workers):
            _set(module, before)
            with worker_random(self.exchange.seed, self.exchange.step, worker):
                loss = share_loss(module, batch, workers, worker)
                loss.backward()  # type: ignore[no-untyped-call]
            gradients.append([_taken(parameter) for parameter in trained])
            losses += loss.item()
            after = after or [buffer.clone() for buffer in module.buffers()]
        _set(module, after)
        means = self.exchange.average(gradients, self.exchange.numbers(trained))
        for parameter, mean in zip(trained, means, strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(mean)
        return losses / workers


def _set(module: nn.Module, values: list[Tensor]) -> None:
    for buffer, value in zip(module.buffers(), values, strict=True):
        buffer.copy_(value)


def _taken(parameter: nn.Parameter) -> Tensor:
    """The gradient, which the parameter then no longer has; zeros if the worker did not use it."""
    gradient, parameter.grad = parameter.grad, None
    return torch.zeros_like(parameter) if gradient is None else gradient
