"""A server and a worker as actors of Ray."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compiler import clusters
from compiler.errors import EieError, WorkerError
from compiler.train.consistency.client import Client
from compiler.train.consistency.core import Checker, Read, reads_ahead
from compiler.train.consistency.delays import Delays
from compiler.train.consistency.learner import Learner
from compiler.train.consistency.shard import Shard, Values, whole

__all__ = ["Server", "Worker"]

_PAUSE = 0.1  # seconds between tries to reach a server that restarts


class Server:
    """A shard behind calls. Reads wait until the bound admits them; all else is done at once.

    Parameters
    ----------
    path : of the checkpoint; where there is one, the shard goes on from it.
    every : a checkpoint is written whenever all workers have made so many updates more.
    """

    def __init__(
        self, number: int, values: Values, workers: int, staleness: int | None, path: Path, every: int
    ) -> None:
        self.shard = Shard(number, values, workers, staleness)
        self.path, self.every = path, every
        if path.exists():
            self.shard.restore(path)
        self.shard.save(path)
        self.changed = asyncio.Condition()
        self.waiting: set[tuple[int, int]] = set()
        self.processes: dict[int, tuple[str, int]] = {}

    async def join(self, worker: int, incarnation: int, host: str, process: int) -> int:
        """A process takes the part of a worker; the updates of that worker which are here."""
        before = self.shard.clocks.incarnations[worker]
        applied = self.shard.clocks.join(worker, incarnation)
        self.processes[worker] = host, process
        if incarnation > before:  # a shard that restarts must not take updates of the one before
            self.shard.save(self.path)
            async with self.changed:
                self.changed.notify_all()
        return applied

    async def read(self, worker: int, incarnation: int, clock: int, ahead: int = 0) -> tuple[Values, Read]:
        """The values, as soon as `Shard.admits` it. Raises `WorkerError` if the worker was replaced."""
        self.waiting.add((worker, incarnation))
        async with self.changed:
            await self.changed.wait_for(
                lambda: self.shard.clocks.fenced(worker, incarnation) or self.shard.admits(worker, clock, ahead)
            )
        self.waiting.discard((worker, incarnation))
        self._fence(worker, incarnation)
        return self.shard.read(worker, clock)

    async def push(self, worker: int, incarnation: int, clock: int, update: Values, last: bool = False) -> int:
        """Add an update; how many of this worker's the last checkpoint holds.

        With the `last` one of a worker, which ends then and can send nothing again, that is all of them.
        """
        self._fence(worker, incarnation)
        new = self.shard.apply(worker, clock, update)
        if self.shard.due(self.every) or (last and self.shard.durable[worker] <= clock):
            self.shard.save(self.path)
        if new:
            async with self.changed:
                self.changed.notify_all()
        return self.shard.durable[worker]

    async def state(self) -> dict[str, Any]:
        """For who watches: updates of each worker, which (worker, incarnation) wait, where the processes are."""
        return {
            "applied": list(self.shard.clocks.applied),
            "incarnations": list(self.shard.clocks.incarnations),
            "waiting": sorted(self.waiting),
            "processes": dict(self.processes),
            "process": (socket.gethostname(), os.getpid()),
            "generation": self.shard.generation,
        }

    async def watch(self) -> None:
        """Never returns: the call fails when this server is gone, which tells those who wait for others."""
        await asyncio.Event().wait()

    async def values(self, save: bool = False) -> Values:
        """What is held, written to the checkpoint first if that is wanted."""
        if save:
            self.shard.save(self.path)
        return self.shard.values

    def _fence(self, worker: int, incarnation: int) -> None:
        if self.shard.clocks.fenced(worker, incarnation):
            raise WorkerError(f"worker {worker} was replaced: process {incarnation} of it is no longer wanted")


@dataclass(frozen=True)
class _Call:
    """What every server was asked: method, arguments by server, references to the answers."""

    method: str
    arguments: Sequence[tuple[Any, ...]]
    asked: Sequence[Any]


class Worker:
    """One process of a worker.

    Parameters
    ----------
    names : of the servers' actors.
    parts : names of the parameters of each.
    patience : seconds in which a server that is gone must be back.
    overlap : read for the next step, and send the last update, while a step is computed.
    """

    def __init__(
        self,
        worker: int,
        incarnation: int,
        names: Sequence[str],
        parts: Sequence[Sequence[str]],
        staleness: int | None,
        patience: float,
        overlap: bool = False,
    ) -> None:
        self.ray = clusters.load()
        self.worker, self.incarnation, self.names, self.parts = worker, incarnation, names, parts
        self.patience = patience
        self.ahead = reads_ahead(overlap, staleness)
        self.checker = Checker(staleness)
        self.servers: list[Any] = [None] * len(names)
        self.watches: list[Any] = [None] * len(names)
        self.client: Client | None = None
        self.waited = 0.0

    def run(self, make: Callable[[], Learner], delays: Delays | None, seed: int, began: float) -> dict[str, Any]:
        """Make all updates.

        Parameters
        ----------
        make : the learner, in this process.
        delays : what a step takes at least, or None.
        seed : of the delays; began: the start of the training, seconds since the epoch.

        Raises
        ------
        WorkerError
            A read broke the bound, a server does not come back, or this worker was replaced.
        """
        torch.set_num_threads(1)
        learner = make()
        me = self.worker, self.incarnation
        self.client = client = Client(self.parts, self._all("join", [(*me, *_place())] * len(self.servers)))
        loss = 0.0
        reading: _Call | None = None
        sending: _Call | None = None
        while client.clock < learner.total:
            clock, at = client.clock, time.time()
            last = clock + 1 == learner.total
            reading = reading or self._begin("read", [(*me, clock, self.ahead)] * len(self.servers))
            given = [client.completed(shard, *each) for shard, each in enumerate(self._finish(reading))]
            self.checker.check([read for _, read in given])
            reading = None
            if self.ahead and not last:
                reading = self._begin("read", [(*me, clock + 1, self.ahead)] * len(self.servers))
            start = time.time()
            self.waited += start - at
            update, loss = learner.update(whole([values for values, _ in given]), self.worker, clock)
            if delays is not None:
                seconds = delays.seconds(seed, self.worker, learner.workers, clock, start - began)
                time.sleep(max(0.0, seconds - (time.time() - start)))
            shares = client.made(update)
            if sending is not None:
                self._sent(client, sending)
            sending = self._begin("push", [(*me, clock, share, last) for share in shares])
            if last or not self.ahead:
                self._sent(client, sending)
                sending = None
        return {
            "worker": self.worker,
            "reads": self.checker.reads,
            "lags": dict(self.checker.lags),
            "waited": self.waited,
            "loss": loss,
        }

    def _all(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What every server answers."""
        return self._finish(self._begin(method, arguments))

    def _begin(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> _Call:
        """Ask every server, and go on."""
        asked = [
            None if server is None else getattr(server, method).remote(*each)
            for server, each in zip(self.servers, arguments, strict=True)
        ]
        return _Call(method, arguments, asked)

    def _finish(self, call: _Call) -> list[Any]:
        """Wait for the answers."""
        return [
            self._answer(shard, call.method, call.arguments[shard], asked) for shard, asked in enumerate(call.asked)
        ]

    def _sent(self, client: Client, call: _Call) -> None:
        """Wait until an update is there, and forget what a checkpoint holds."""
        for shard, durable in enumerate(self._finish(call)):
            client.durable(shard, durable)

    def _answer(self, shard: int, method: str, arguments: tuple[Any, ...], reference: Any) -> Any:
        """The answer of a server, or of the one that takes its place."""
        errors = self.ray.exceptions
        deadline: float | None = None
        while True:
            try:
                if reference is None:
                    self._again(shard)
                    reference = getattr(self.servers[shard], method).remote(*arguments)
                self._wait(shard, reference)
                return self.ray.get(reference)
            except errors.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, EieError) else error) from None
            except (errors.RayActorError, ValueError) as error:  # ValueError: no actor of that name
                deadline = deadline or time.monotonic() + self.patience
                if time.monotonic() > deadline:
                    raise WorkerError(
                        f"server {shard} has been gone for {self.patience} s ({clusters.last_line(error)})"
                    ) from None
                reference = None
                time.sleep(_PAUSE)

    def _wait(self, shard: int, reference: Any) -> None:
        """Wait until a server answers or is gone.

        Meanwhile meet others that restart: what this worker waits for may wait there for what it alone can send again.
        """
        while True:
            watches = [each for each in self.watches if each is not None]
            ready, _ = self.ray.wait([reference, *watches], num_returns=1)
            gone = shard if ready[0] == reference else self.watches.index(ready[0])
            if gone == shard:
                return
            self._answer(gone, "join", (self.worker, self.incarnation, *_place()), None)

    def _again(self, shard: int) -> None:
        """Meet a server for the first time, or one that restarted: send it what its checkpoint does not hold."""
        server = self.ray.get_actor(self.names[shard])
        me = self.worker, self.incarnation
        applied = self.ray.get(server.join.remote(*me, *_place()))
        if self.client is not None:
            for clock, update in self.client.missing(shard, applied):
                self.client.durable(shard, self.ray.get(server.push.remote(*me, clock, update)))
        self.servers[shard], self.watches[shard] = server, server.watch.remote()


def _place() -> tuple[str, int]:
    """Host and process."""
    return socket.gethostname(), os.getpid()
