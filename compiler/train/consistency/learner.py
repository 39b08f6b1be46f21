"""What a worker computes: the update of any module on its share of a batch, from the values that it read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from compiler.errors import RecipeError
from compiler.train.consistency.shard import Values
from compiler.train.loop import Batch, Lesson, seed_of
from compiler.train.schedule import Schedule
from compiler.train.terngrad.virtual import share_loss, worker_random

__all__ = ["Learner"]


class Learner:
    """Makes updates; one for each worker, or one for all where they compute by turns.

    An update is what plain SGD adds, divided by the number of workers, so that those of all workers at one clock add up
    to the step on the whole batch. Statistics that a module keeps in float buffers, as batch normalization does, are
    averaged likewise; whole numbers, such as counts of batches, stay as they are.

    Parameters
    ----------
    module : any; its parameters that are trained and its float buffers go through the server.
    lesson, schedule : what is learned and how; `schedule.batch` is that of all workers together.
    seed : of the order of samples and of what the module draws.
    workers : how many share each batch.

    Raises
    ------
    RecipeError
        The schedule has an optimizer with state, which would have to be as old as what is read; or `clip`.
    """

    def __init__(self, module: nn.Module, lesson: Lesson, schedule: Schedule, seed: int, workers: int) -> None:
        if schedule.optimizer != "sgd" or schedule.momentum:
            raise RecipeError(
                f"schedule.optimizer is {schedule.optimizer!r} with momentum {schedule.momentum}; expected sgd with "
                "momentum 0: updates of several workers meet in any order"
            )
        if schedule.accumulate > 1:
            raise RecipeError(
                f"schedule.accumulate is {schedule.accumulate}; expected 1: workers of a parameter server have a share "
                "of a batch each"
            )
        if schedule.clip:
            raise RecipeError(
                f"schedule.clip is {schedule.clip}: it takes the norm of the gradients of a whole batch, of which each "
                "worker of a parameter server has a share; leave it out"
            )
        self.module, self.lesson, self.schedule, self.seed, self.workers = module, lesson, schedule, seed, workers
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as `fit` has it
        self.steps = lesson.steps(schedule.batch)
        self.total = self.steps * schedule.epochs
        self._batches: dict[int, tuple[int, int, Iterator[Batch]]] = {}
        held = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        floats = {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}
        self._parameters, self._buffers = held, floats

    def values(self) -> dict[str, NDArray[Any]]:
        """What the server is to hold, as the module has it now; copies."""
        return {
            name: tensor.detach().clone().contiguous().numpy()
            for name, tensor in {**self._parameters, **self._buffers}.items()
        }

    def load(self, values: Values) -> None:
        """Give the module these values."""
        with torch.no_grad():
            for name, tensor in {**self._parameters, **self._buffers}.items():
                tensor.copy_(torch.tensor(values[name]))

    def update(self, values: Values, worker: int, clock: int) -> tuple[dict[str, NDArray[Any]], float]:
        """What `worker` at `clock` adds to `values`, and its loss. They and the seed decide it."""
        batch = self._batch(worker, clock)
        self.load(values)
        self.module.train()
        self.module.zero_grad()
        with worker_random(self.seed, clock, worker):
            loss = share_loss(self.module, batch, self.workers, worker)
            loss.backward()  # type: ignore[no-untyped-call]
        rate, decay = self.schedule.rate(clock, self.total) / self.workers, self.schedule.weight_decay
        update = {}
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                update[name] = (-rate * (gradient + decay * parameter)).contiguous().numpy()
            for name, buffer in self._buffers.items():
                update[name] = ((buffer - torch.tensor(values[name])) / self.workers).contiguous().numpy()
        return update, loss.item()

    def _batch(self, worker: int, clock: int) -> Batch:
        """The batch of a clock; each worker goes through the epochs at its own pace."""
        epoch, step = divmod(clock, self.steps)
        began, place, batches = self._batches.get(worker, (-1, 0, iter(())))
        if began != epoch or place > step:
            generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
            place, batches = 0, self.lesson.batches(epoch, self.schedule.batch, generator)
        for _ in range(step - place):
            next(batches)
        batch = next(batches)
        self._batches[worker] = epoch, step + 1, batches
        return batch
