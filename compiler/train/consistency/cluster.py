"""Training over a parameter server on Ray: starts servers and workers, and others where one is gone or hangs."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from compiler import clusters
from compiler.errors import EieError, WorkerError
from compiler.train.consistency.actors import Server, Worker
from compiler.train.consistency.delays import Delays
from compiler.train.consistency.learner import Learner
from compiler.train.consistency.shard import check_checkpoints, shard_path, split, whole

__all__ = ["Driver", "Settings", "Trained", "train"]

_BEAT = 0.25  # seconds between looks
_BEGIN = 180.0  # seconds that a process may take to load and to read the data


@dataclass(frozen=True)
class Settings:
    """How workers and servers work together.

    Attributes
    ----------
    workers, servers : how many processes of each.
    staleness : the bound; None for none.
    every : a server writes a checkpoint whenever all workers have made so many updates more.
    timeout : seconds without an update after which a worker that does not wait for others counts as hung. Must be
        longer than its longest step.
    restarts : how many processes may be replaced in all.
    seed : of delays.
    overlap : workers read and send while they compute; see `core.reads_ahead`.
    """

    workers: int
    servers: int = 1
    staleness: int | None = 3
    every: int = 20
    timeout: float = 60.0
    restarts: int = 10
    seed: int = 1
    overlap: bool = False


@dataclass
class Trained:
    """What came out.

    Attributes
    ----------
    values : of all parameters.
    seconds : from the first update until all were made.
    reads, lags : see `Checker`; of the processes that ended regularly.
    waited : seconds that each worker waited for reads.
    faults : processes that were replaced: kind, number, and seconds from the last sign of life to the first update
        after it.
    """

    values: dict[str, NDArray[Any]]
    seconds: float
    reads: int
    lags: Counter[int]
    waited: list[float]
    faults: list[dict[str, Any]]


@dataclass
class _Sign:
    """When a worker, or a server, had its last update."""

    count: int = 0
    at: float = field(default_factory=time.monotonic)
    fresh: bool = True
    """Its process has made none yet: it loads, and its first step is the longest."""


def train(
    make: Callable[[], Learner],
    settings: Settings,
    folder: Path,
    *,
    address: str = clusters.LOCAL,
    delays: Delays | None = None,
    resume: bool = False,
    told: Callable[[list[dict[str, Any]]], None] | None = None,
) -> Trained:
    """Train over a parameter server.

    Parameters
    ----------
    make : the learner; called in every process, so it must come out alike.
    folder : of the servers' checkpoints; on a cluster of several machines, one that all of them see.
    address : of a Ray cluster, or `clusters.LOCAL`. A program that has joined one already stays there.
    delays : steps take at least as long.
    resume : go on from the checkpoints in the folder, if there are any.
    told : is told several times a second what every server says of itself; see `Server.state`.

    Raises
    ------
    WorkerError
        A read broke the bound, updates are lost, or more processes ended than may be replaced.
    InputError
        `folder` holds a training and `resume` is not set, or another one than this; or as `clusters.connect`.
    ToolError
        Ray is not installed.
    """
    ray = clusters.load()
    joined = ray.is_initialized()
    driver = Driver(ray, make, settings, folder, delays, resume)
    try:
        if not joined:
            clusters.connect(ray, address, settings.workers)
        return driver.run(told)
    finally:
        driver.end()
        if not joined:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.shutdown()


class Driver:
    """The process that starts and watches the others."""

    def __init__(
        self,
        ray: Any,
        make: Callable[[], Learner],
        settings: Settings,
        folder: Path,
        delays: Delays | None,
        resume: bool = False,
    ) -> None:
        self.ray, self.make, self.settings, self.folder, self.delays = ray, make, settings, folder.absolute(), delays
        learner = make()
        self.total, values = learner.total, learner.values()
        self.parts = split({name: value.size for name, value in values.items()}, settings.servers)
        self.values = [{name: values[name] for name in part} for part in self.parts]
        check_checkpoints(self.folder, self.values, settings.workers, resume)
        run = secrets.token_hex(4)
        self.names = [f"eie-{run}-{number}" for number in range(settings.servers)]
        self.servers: list[Any] = []
        self.workers: dict[int, Any] = {}
        self.running: dict[Any, int] = {}
        self.incarnations = [0] * settings.workers
        self.signs = {("worker", number): _Sign() for number in range(settings.workers)}
        self.signs |= {("server", number): _Sign() for number in range(settings.servers)}
        self.faults: list[dict[str, Any]] = []
        self.replaced = 0
        self.began = 0.0

    def run(self, told: Callable[[list[dict[str, Any]]], None] | None = None) -> Trained:
        """See `train`."""
        self.servers = [self._serve(number) for number in range(self.settings.servers)]
        try:
            states = self.ray.get([server.state.remote() for server in self.servers])
        except self.ray.exceptions.RayError as error:
            raise WorkerError(f"the servers did not start: {clusters.last_line(error)}") from None
        self._first(states)
        self.began = time.time()
        for worker in range(self.settings.workers):
            self._begin(worker)
        first: float | None = None
        results: dict[int, dict[str, Any]] = {}
        while self.running:
            ended, _ = self.ray.wait([*self.running], num_returns=1, timeout=_BEAT)
            for reference in ended:
                self._ended(reference, results)
            states = self._look()
            if first is None and any(count for state in states for count in state["applied"]):
                first = time.monotonic()
            self._hung(states)
            if told is not None:
                told(states)
        seconds = time.monotonic() - (first or time.monotonic())
        applied = [state["applied"] for state in self._look()]
        if any(count != self.total for each in applied for count in each):
            raise WorkerError(f"updates are lost: servers have {applied}, expected {self.total} of each worker")
        values = whole([self._ask(number, "values", True) for number in range(len(self.servers))])
        lags: Counter[int] = Counter()
        for result in results.values():
            lags.update(result["lags"])
        return Trained(
            {name: value.copy() for name, value in values.items()},
            seconds,
            sum(result["reads"] for result in results.values()),
            lags,
            [results[worker]["waited"] for worker in sorted(results)],
            [{key: fault[key] for key in ("kind", "number", "seconds") if key in fault} for fault in self.faults],
        )

    def end(self) -> None:
        """End every process that was started."""
        for actor in (*self.workers.values(), *self.servers):
            with contextlib.suppress(Exception):  # it may be gone, and Ray with it
                self.ray.kill(actor)

    def bound(self) -> int | None:
        """What servers admit by."""
        return self.settings.staleness

    def _path(self, number: int) -> Path:
        return shard_path(self.folder, number)

    def _serve(self, number: int) -> Any:
        calls = 1000 + 2 * self.settings.workers  # at once: each worker waits for an answer, and watches
        actor = self.ray.remote(num_cpus=0, max_restarts=0, max_concurrency=calls)(Server)
        return actor.options(name=self.names[number]).remote(
            number, self.values[number], self.settings.workers, self.bound(), self._path(number), self.settings.every
        )

    def _begin(self, worker: int) -> None:
        actor = self.ray.remote(num_cpus=0, max_restarts=0)(Worker)
        self.workers[worker] = actor.remote(
            worker, self.incarnations[worker], self.names, self.parts, self.settings.staleness, _BEGIN,
            self.settings.overlap,
        )  # fmt: skip
        reference = self.workers[worker].run.remote(self.make, self.delays, self.settings.seed, self.began)
        self.running[reference] = worker

    def _ended(self, reference: Any, results: dict[int, dict[str, Any]]) -> None:
        """A worker made all its updates, or is gone."""
        worker = self.running.pop(reference)
        try:
            results[worker] = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, EieError):
                raise error.cause from None
            raise WorkerError(f"worker {worker} failed: {clusters.last_line(error)}") from None
        except self.ray.exceptions.RayActorError as error:
            self._replace("killed", worker, clusters.last_line(error))
        except self.ray.exceptions.RayError as error:
            raise WorkerError(f"worker {worker} failed: {clusters.last_line(error)}") from None

    def _replace(self, kind: str, worker: int, reason: str) -> None:
        self._fault(kind, worker, reason)
        self.incarnations[worker] += 1
        for reference in [each for each, number in self.running.items() if number == worker]:
            del self.running[reference]
        self.ray.kill(self.workers[worker])
        self._begin(worker)

    def _look(self) -> list[dict[str, Any]]:
        """The state of every server."""
        states = [self._ask(number, "state") for number in range(len(self.servers))]
        self._note(states)
        return states

    def _ask(self, number: int, method: str, *arguments: Any) -> Any:
        """What a server answers; one that is gone is started again from its checkpoint first."""
        while True:
            try:
                asked = getattr(self.servers[number], method).remote(*arguments)
                return self.ray.get(asked, timeout=self.settings.timeout)
            except self.ray.exceptions.RayTaskError as error:
                raise WorkerError(f"server {number} failed: {clusters.last_line(error)}") from None
            except (self.ray.exceptions.RayActorError, self.ray.exceptions.GetTimeoutError) as error:
                self._fault("server", number, clusters.last_line(error))
                self.ray.kill(self.servers[number])
                self.servers[number] = self._served_again(number)
                for worker in range(self.settings.workers):  # which could do nothing meanwhile
                    self.signs["worker", worker].at = time.monotonic()

    def _served_again(self, number: int) -> Any:
        """A server of the same name; Ray takes a moment to give up the old one's."""
        deadline = time.monotonic() + _BEGIN
        while True:
            try:
                server = self._serve(number)
                self.ray.get(server.state.remote(), timeout=_BEGIN)
                return server
            except ValueError:
                if time.monotonic() > deadline:
                    raise WorkerError(f"server {number} could not be started again in {_BEGIN} s") from None
                time.sleep(_BEAT)
            except self.ray.exceptions.RayError as error:
                raise WorkerError(f"server {number} did not start again: {clusters.last_line(error)}") from None

    def _hung(self, states: list[dict[str, Any]]) -> None:
        """Replace a worker that is silent, and does not wait for others."""
        for worker in set(self.running.values()):
            sign = self.signs["worker", worker]
            me = worker, self.incarnations[worker]  # a process before it may have been waiting when it was killed
            if any(me in state["waiting"] for state in states):
                sign.at = time.monotonic()
            limit = _BEGIN if sign.fresh else self.settings.timeout
            if time.monotonic() - sign.at > limit:
                self._replace("hung", worker, f"silent for {limit} s")

    def _fault(self, kind: str, number: int, reason: str) -> None:
        self.replaced += 1
        if self.replaced > self.settings.restarts:
            raise WorkerError(
                f"{self.replaced} processes ended, the last one {kind} ({reason}); {self.settings.restarts} may be "
                "replaced. Go on from the checkpoints with --resume"
            )
        what = "server" if kind == "server" else "worker"
        sign = self.signs[what, number]
        self.faults.append({"kind": kind, "number": number, "at": sign.at})
        sign.at, sign.fresh = time.monotonic(), True  # its successor's time begins

    def _first(self, states: list[dict[str, Any]]) -> None:
        """Begin with what the servers have: nothing, or the training that goes on."""
        self.incarnations = [max(each) for each in zip(*(state["incarnations"] for state in states), strict=True)]
        for key, count in self._counts(states).items():
            self.signs[key] = _Sign(count)

    def _counts(self, states: list[dict[str, Any]]) -> dict[tuple[str, int], int]:
        """Updates of every worker that all servers have, and of all workers that a server has."""
        counts = {("worker", w): min(state["applied"][w] for state in states) for w in range(self.settings.workers)}
        return counts | {("server", number): sum(state["applied"]) for number, state in enumerate(states)}

    def _note(self, states: list[dict[str, Any]]) -> None:
        """Signs of life, and whether what was replaced goes on."""
        now = time.monotonic()
        for key, count in self._counts(states).items():
            sign = self.signs[key]
            if count > sign.count:
                sign.count, sign.at, sign.fresh = count, now, False
            for fault in self.faults:
                if key != ("server" if fault["kind"] == "server" else "worker", fault["number"]):
                    continue
                if "had" not in fault:  # with what came between the last look and the fault
                    fault["had"] = sign.count
                elif "seconds" not in fault and count > fault["had"]:
                    fault["seconds"] = now - fault.pop("at")
