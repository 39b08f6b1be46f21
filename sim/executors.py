"""Where the shards of a regression, or the trials of a search, run: in this process, in others, or on a Ray cluster.

All three run the same function. A shard whose worker died gives None: its caller has it run again. The shards may be a
deque to which whoever reads the results appends more: it is looked at again after each result.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Protocol

from compiler import clusters
from compiler.clusters import LOCAL
from compiler.errors import EieError, InputError, WorkerError
from compiler.parent import end_with_parent
from sim.rtl import collect
from sim.trials import run_shard

__all__ = ["LOCAL", "Cluster", "Executor", "Here", "Processes", "Work"]

_SECONDS = 1.0  # between looks at the cluster

Ran = tuple[Any, Sequence[Any] | None]

Work = Callable[..., Iterator[Any]]
"""A function of a shard, and of what is told what takes long, which gives its lines: a shard and its lines are pickled
between processes of this run."""


def _cases(shard: Any, told: Callable[[str], None] | None = None) -> Iterator[Any]:
    return run_shard(shard, told)


class Executor(Protocol):
    """Runs shards."""

    @property
    def local(self) -> bool:
        """On this machine, so that what is built here is there."""

    def run(self, shards: Iterable[Any], careful: bool = False) -> Iterator[Ran]:
        """Lines of each shard in any order, perhaps in several parts; None once if its worker died.

        careful : a worker that dies is to take no other shard with it.
        """


@dataclass
class Here:
    """The process itself. `told` is told what takes long."""

    told: Callable[[str], None] | None = None
    local: bool = True
    work: Work = _cases

    def run(self, shards: Iterable[Any], careful: bool = False) -> Iterator[Ran]:
        """See `Executor.run`."""
        waiting = _queue(shards)
        while waiting:
            shard = waiting.popleft()
            for line in self.work(shard, self.told):
                yield shard, [line]


def _queue(shards: Iterable[Any]) -> deque[Any]:
    """A deque stays the one that it is, as it may grow."""
    return shards if isinstance(shards, deque) else deque(shards)


def _lines(work: Work, shard: Any) -> list[Any]:
    return list(work(shard))


def _begin(folder: Any) -> None:
    """Start a worker: its coverage is collected, and it ends when the process that started it was killed."""
    collect.collect_into(folder)
    end_with_parent()


@dataclass
class Processes:
    """So many processes of this machine."""

    jobs: int
    local: bool = True
    work: Work = _cases

    def run(self, shards: Iterable[Any], careful: bool = False) -> Iterator[Ran]:
        """See `Executor.run`. A pool breaks as a whole when one of its processes dies; another one goes on."""
        waiting = _queue(shards)
        while waiting:
            running: dict[Future[list[Any]], Any] = {}
            count, start = 1 if careful else self.jobs, get_context("spawn")
            with ProcessPoolExecutor(count, start, _begin, (collect.place(),)) as pool:
                with contextlib.suppress(BrokenProcessPool):
                    while waiting or running:
                        while waiting and len(running) < (1 if careful else self.jobs):
                            running[pool.submit(_lines, self.work, waiting[0])] = waiting[0]
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
    work: Work = _cases

    @property
    def local(self) -> bool:
        """What is built here is there."""
        return self.address == LOCAL

    def run(self, shards: Iterable[Any], careful: bool = False) -> Iterator[Ran]:
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

    def _run(self, ray: Any, shards: Iterable[Any]) -> Iterator[Ran]:
        # Ray's own retries would not say that a worker died, nor that a case kills each one.
        task = ray.remote(max_retries=0, num_cpus=1)(_lines)
        waiting = _queue(shards)
        running: dict[Any, Any] = {}
        while waiting or running:
            while waiting:
                shard = waiting.popleft()
                running[task.remote(self.work, shard)] = shard
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
