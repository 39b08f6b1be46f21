"""Where the shards of a regression run: in this process, in others, or on a Ray cluster.

All three run the same function. A shard whose worker died gives None: its caller has it run again.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Protocol

from compiler import clusters
from compiler.clusters import LOCAL
from compiler.errors import EieError, InputError, WorkerError
from sim.rtl import collect
from sim.trials import Line, Shard, run_shard

__all__ = ["LOCAL", "Cluster", "Executor", "Here", "Processes"]

_SECONDS = 1.0  # between looks at the cluster

Ran = tuple[Shard, Sequence[Line] | None]


class Executor(Protocol):
    """Runs shards."""

    @property
    def local(self) -> bool:
        """On this machine, so that what is built here is there."""

    def run(self, shards: Sequence[Shard], careful: bool = False) -> Iterator[Ran]:
        """Lines of each shard in any order, perhaps in several parts; None once if its worker died.

        careful : a worker that dies is to take no other shard with it.
        """


@dataclass
class Here:
    """The process itself. `told` is told what takes long."""

    told: Callable[[str], None] | None = None
    local: bool = True

    def run(self, shards: Sequence[Shard], careful: bool = False) -> Iterator[Ran]:
        """See `Executor.run`."""
        for shard in shards:
            for line in run_shard(shard, self.told):
                yield shard, [line]


def _lines(shard: Shard) -> list[Line]:
    return list(run_shard(shard))


@dataclass
class Processes:
    """So many processes of this machine."""

    jobs: int
    local: bool = True

    def run(self, shards: Sequence[Shard], careful: bool = False) -> Iterator[Ran]:
        """See `Executor.run`. A pool breaks as a whole when one of its processes dies; another one goes on."""
        waiting = deque(shards)
        while waiting:
            running: dict[Future[list[Line]], Shard] = {}
            count, start = 1 if careful else self.jobs, get_context("spawn")
            with ProcessPoolExecutor(count, start, collect.collect_into, (collect.place(),)) as pool:
                with contextlib.suppress(BrokenProcessPool):
                    while waiting or running:
                        while waiting and len(running) < (1 if careful else self.jobs):
                            running[pool.submit(_lines, waiting[0])] = waiting[0]
                            waiting.popleft()
                        ended, _ = wait(running, return_when=FIRST_COMPLETED)
                        for future in sorted(ended, key=lambda future: future.exception() is not None):
                            lines = future.result()
                            yield running.pop(future), lines
            for shard in running.values():
                yield shard, None


@dataclass
class Cluster:
    """A Ray cluster: its address, or `LOCAL` for one of `jobs` workers on this machine.

    Every machine of the cluster has this kit installed, with the tools that the suite needs. A shard takes one CPU.
    """

    address: str
    jobs: int = 1

    @property
    def local(self) -> bool:
        """What is built here is there."""
        return self.address == LOCAL

    def run(self, shards: Sequence[Shard], careful: bool = False) -> Iterator[Ran]:
        """See `Executor.run`.

        Raises
        ------
        ToolError
            Ray is not installed.
        InputError
            There is no cluster at the address, or a machine of it cannot run the kit.
        WorkerError
            The cluster is gone, or does not start.
        """
        ray = clusters.load()
        try:
            clusters.connect(ray, self.address, self.jobs)
            yield from self._run(ray, shards)
        finally:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.shutdown()

    def _run(self, ray: Any, shards: Sequence[Shard]) -> Iterator[Ran]:
        # Ray's own retries would not say that a worker died, nor that a case kills each one.
        task = ray.remote(max_retries=0, num_cpus=1)(_lines)
        running = {task.remote(shard): shard for shard in shards}
        while running:
            ended, _ = ray.wait([*running], num_returns=1, timeout=_SECONDS)
            for reference in ended:
                shard = running.pop(reference)
                try:
                    lines = ray.get(reference)
                except (
                    ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError
                ):  # fmt: skip
                    yield shard, None
                    continue
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, EieError):
                        raise error.cause from None
                    raise InputError(
                        "a machine of the cluster cannot run the kit: install it on every machine "
                        f"({clusters.last_line(error)})"
                    ) from None
                except ray.exceptions.RayError as error:
                    raise WorkerError(f"the cluster at {self.address} is gone: {error}") from None
                yield shard, lines
