"""A shard of the parameters: values, the updates that they hold, and a checkpoint that it starts again from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.train import checkpoint
from compiler.train.consistency.core import Clocks, Read

__all__ = ["Shard", "Values", "check_checkpoints", "shard_path", "split", "whole"]

Values = Mapping[str, NDArray[Any]]
"""Name of a parameter → its values, or what is added to them; float, any shape."""


class Shard:
    """Some of the parameters.

    Parameters
    ----------
    number : of the shard.
    values : at the start; a copy is taken.
    workers, staleness : see `Clocks`.

    Attributes
    ----------
    clocks : updates in `values`. Both change together, in `apply` alone.
    durable : updates of each worker that the last checkpoint holds.
    generation : how often it was restored.
    """

    def __init__(self, number: int, values: Values, workers: int, staleness: int | None) -> None:
        self.number, self.generation = number, 0
        self.values = {name: np.array(value) for name, value in values.items()}
        self.clocks = Clocks(workers, staleness)
        self.durable = [0] * workers

    def admits(self, worker: int, clock: int, ahead: int = 0) -> bool:
        """Whether a worker may read now what it uses at `clock`: by the bound, and with its own updates there.

        Parameters
        ----------
        ahead : of its own updates, so many of the last ones may be missing: it adds them itself (`Client.completed`).
        """
        return self.clocks.admits(clock) and self.clocks.applied[worker] >= clock - ahead

    def read(self, worker: int, clock: int) -> tuple[dict[str, NDArray[Any]], Read]:
        """Copies of the values, and which updates they hold; the caller has seen that it is admitted."""
        seen = Read(worker, clock, self.number, self.generation, tuple(self.clocks.applied))
        return {name: value.copy() for name, value in self.values.items()}, seen

    def apply(self, worker: int, clock: int, update: Values) -> bool:
        """Add the update that a worker made at `clock`; False if it is there already, as after a restart.

        Raises
        ------
        WorkerError
            An earlier update of the worker is missing.
        """
        if not self.clocks.takes(worker, clock):
            return False
        for name, value in update.items():
            self.values[name] += value
        self.clocks.applied[worker] += 1
        return True

    def due(self, every: int) -> bool:
        """Whether all workers have made `every` updates more than the last checkpoint holds."""
        return min(self.clocks.applied) >= min(self.durable) + every

    def save(self, path: Path) -> None:
        """Write a checkpoint whole or not at all; from then on workers need not keep what it holds."""
        tensors = {name: torch.from_numpy(value) for name, value in self.values.items()}
        content = {
            "shard": self.number,
            "generation": self.generation,
            "applied": self.clocks.applied,
            "incarnations": self.clocks.incarnations,
        }
        checkpoint.save(path, tensors, content)
        self.durable = list(self.clocks.applied)

    def restore(self, path: Path) -> None:
        """Go back to a checkpoint, as the next generation. Raises `InputError`."""
        tensors, content = checkpoint.load(path)
        numbers = content.get("applied"), content.get("incarnations")
        expected = {name: value.shape for name, value in self.values.items()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        whole = all(
            isinstance(each, list) and len(each) == len(self.durable) and all(type(n) is int and n >= 0 for n in each)
            for each in (*numbers, [0] * len(self.durable))
        )
        generation = content.get("generation")
        if not whole or expected != found or content.get("shard") != self.number or type(generation) is not int:
            raise InputError(
                f"{path} is no checkpoint of shard {self.number} of this network for {len(self.durable)} workers; give "
                "the recipe and the numbers of workers and servers that it was begun with, or choose another folder"
            )
        self.values = {name: np.array(tensor.numpy()) for name, tensor in tensors.items()}
        self.clocks.applied, self.clocks.incarnations = (list(each) for each in numbers)  # type: ignore[arg-type]
        self.durable, self.generation = list(self.clocks.applied), generation + 1


def shard_path(folder: Path, number: int) -> Path:
    """Where the checkpoint of a shard lies."""
    return folder / f"shard-{number}.safetensors"


def check_checkpoints(folder: Path, parts: Sequence[Values], workers: int, resume: bool) -> None:
    """Look at the checkpoints in a folder, before there are processes.

    Parameters
    ----------
    parts : what each shard is to hold.
    resume : whether there may be any.

    Raises
    ------
    InputError
        They are of a training that is not to go on, of another network, of other numbers of workers or servers, or
        damaged.
    """
    there = sorted(path.name for path in folder.glob("shard-*.safetensors"))
    if not there:
        return
    if not resume:
        raise InputError(f"{folder} holds a training already; continue it with --resume or choose another folder")
    wanted = [shard_path(folder, number).name for number in range(len(parts))]
    if there != sorted(wanted):
        raise InputError(
            f"{folder} holds {', '.join(there)}; {len(parts)} servers go on from {', '.join(wanted)}: give the number "
            "of servers that it was begun with, or choose another folder"
        )
    for number, values in enumerate(parts):
        Shard(number, values, workers, None).restore(shard_path(folder, number))


def split(sizes: Mapping[str, int], shards: int) -> list[list[str]]:
    """Names of the parameters of each shard, so that shards are of near equal size; whole parameters only.

    The largest goes first, to the shard that has least by then (Graham, 1969).

    Raises
    ------
    InputError
        There are fewer parameters than shards.
    """
    if not 1 <= shards <= len(sizes):
        raise InputError(f"{shards} servers for {len(sizes)} parameters; expected 1 … {len(sizes)}")
    parts: list[list[str]] = [[] for _ in range(shards)]
    held = [0] * shards
    for name in sorted(sizes, key=lambda each: (-sizes[each], each)):
        least = held.index(min(held))
        parts[least].append(name)
        held[least] += sizes[name]
    return parts


def whole(parts: Sequence[Values]) -> dict[str, NDArray[Any]]:
    """The parts of all shards together."""
    return {name: value for part in parts for name, value in part.items()}
