"""A training over a parameter server in simulated time: real updates, real shards, seconds that are only counted.

The same clocks, shards and clients as on a cluster; messages take `latency` seconds, steps what `Delays` says. The same
arguments give the same reads and the same bits.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from compiler.errors import WorkerError
from compiler.train.consistency.client import Client
from compiler.train.consistency.core import Checker, Read, reads_ahead
from compiler.train.consistency.delays import Delays
from compiler.train.consistency.learner import Learner
from compiler.train.consistency.shard import Shard, Values, shard_path, split, whole

__all__ = ["Fault", "Outcome", "Simulation"]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes
    ----------
    kind : "killed" (a worker), "hung" (a worker, for `seconds`), or "restarted" (a shard, gone for `seconds`).
    number : of the worker or the shard.
    at : seconds since the start.
    """

    kind: str
    number: int
    at: float
    seconds: float = 0.0


@dataclass
class Outcome:
    """What a training over a parameter server was.

    Attributes
    ----------
    seconds : when the target was reached, or else when all workers had made all updates.
    reached : whether the target was.
    curve : (seconds, updates, loss).
    checker : that saw every read.
    waited : seconds that each worker waited for reads beyond their messages.
    faults : what went wrong, and seconds until the worker, or the shard, had more updates than before.
    refused : how often a process that had been replaced was turned away.
    values : at the end.
    """

    seconds: float
    reached: bool
    curve: list[tuple[float, int, float]]
    checker: Checker
    waited: list[float]
    faults: list[dict[str, Any]]
    refused: int
    values: dict[str, NDArray[Any]]


@dataclass(eq=False)
class _Process:
    """One process of a worker.

    met : the generation of each shard that it has talked to; one that restarted, it meets anew.
    """

    worker: int
    incarnation: int
    client: Client
    checker: Checker
    met: list[int]
    alive: bool = True
    hung_until: float = 0.0
    asked: float = 0.0
    computing: bool = False
    parts: dict[int, tuple[Values, Read]] = field(default_factory=dict)


class Simulation:
    """Workers and shards in simulated time.

    Parameters
    ----------
    learner : of all workers, which compute by turns.
    delays : seconds of their steps.
    staleness, shards : bound (None for none), and number of servers.
    latency : seconds of a message.
    seed : of the delays.
    folder : of checkpoints; needed for faults of shards.
    every : a shard writes a checkpoint whenever all workers have made so many updates more.
    timeout, start : seconds until a silent worker counts as hung, and until the process that replaces one is there.
    overlap : workers read for the next step while they compute one; see `core.reads_ahead`.
    """

    def __init__(
        self,
        learner: Learner,
        delays: Delays,
        *,
        staleness: int | None,
        shards: int = 1,
        latency: float = 0.0,
        seed: int = 1,
        folder: Path | None = None,
        every: int = 10,
        timeout: float = 20.0,
        start: float = 5.0,
        overlap: bool = False,
    ) -> None:
        self.learner, self.delays, self.latency, self.seed = learner, delays, latency, seed
        self.folder, self.every, self.timeout, self.start = folder, every, timeout, start
        self.ahead = reads_ahead(overlap, staleness)
        values = learner.values()
        self.parts = split({name: value.size for name, value in values.items()}, shards)
        self.shards = [
            Shard(number, {name: values[name] for name in part}, learner.workers, staleness)
            for number, part in enumerate(self.parts)
        ]
        self.staleness, self._checkers = staleness, list[Checker]()
        self.now, self.refused, self.faults = 0.0, 0, list[dict[str, Any]]()
        self.waited = [0.0] * learner.workers
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._waiting: list[list[tuple[_Process, int]]] = [[] for _ in range(shards)]
        self._down = [False] * shards
        self._processes: dict[int, _Process] = {}
        self._stop = False

    def run(
        self, loss: Callable[[], float] | None = None, target: float | None = None, faults: Sequence[Fault] = ()
    ) -> Outcome:
        """Train to the end, or until the loss of the module is no more than `target`.

        Parameters
        ----------
        loss : of the learner's module with what the shards hold; taken as often as all workers together have made
            as many updates as there are workers.

        Raises
        ------
        WorkerError
            A read broke the bound, or an update is lost.
        """
        curve: list[tuple[float, int, float]] = []
        reached = False

        def measured() -> None:
            nonlocal reached
            updates = sum(self.shards[0].clocks.applied)
            if loss is None or updates % self.learner.workers:
                return
            self.learner.load(self.values())
            curve.append((self.now, updates, loss()))
            reached = target is not None and curve[-1][2] <= target
            self._stop = reached

        self._measured = measured
        if self.folder is not None:
            for shard in self.shards:
                shard.save(self._path(shard))
        for fault in faults:
            self._at(fault.at, self._fault, fault)
        for worker in range(self.learner.workers):
            self._begin(worker, 0)
        while self._events and not self._stop:
            self.now, _, what, arguments = heapq.heappop(self._events)
            what(*arguments)
        total, applied = self.learner.total, [shard.clocks.applied for shard in self.shards]
        if not self._stop and any(count != total for each in applied for count in each):
            raise WorkerError(
                f"nothing goes on at {self.now:.3f} s: updates {applied}, expected {total} of each worker"
            )
        return Outcome(
            self.now, reached, curve, self._checked(), self.waited, self.faults, self.refused, self.values()
        )  # fmt: skip

    def values(self) -> dict[str, NDArray[Any]]:
        """What all shards hold now."""
        return whole([shard.values for shard in self.shards])

    def _checked(self) -> Checker:
        """What the checkers of all processes saw."""
        found = Checker(self.staleness)
        for each in self._checkers:
            found.reads += each.reads
            found.lags.update(each.lags)
        return found

    def _at(self, time: float, what: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (time, self._count, what, arguments))
        self._count += 1

    def _path(self, shard: Shard) -> Path:
        assert self.folder is not None
        return shard_path(self.folder, shard.number)

    # What workers do

    def _begin(self, worker: int, incarnation: int) -> None:
        if any(self._down):
            self._at(self.now + self.start, self._begin, worker, incarnation)
            return
        applied = [shard.clocks.join(worker, incarnation) for shard in self.shards]
        if incarnation and self.folder is not None:
            for shard in self.shards:  # so that a shard that restarts does not take updates of the one before
                shard.save(self._path(shard))
        met = [shard.generation for shard in self.shards]
        process = _Process(worker, incarnation, Client(self.parts, applied), Checker(self.staleness), met)
        self._processes[worker] = process
        self._checkers.append(process.checker)
        self._ask(process, process.client.clock)

    def _ask(self, process: _Process, clock: int) -> None:
        if clock == self.learner.total:
            return
        process.parts, process.asked = {}, self.now
        for shard in self.shards:
            self._at(self.now + self.latency, self._asked, process, shard.number, clock)

    def _replied(self, process: _Process, number: int, values: Values, read: Read) -> None:
        if self._held(process, self._replied, number, values, read):
            return
        process.parts[number] = values, read
        if not process.computing:
            self.waited[process.worker] += self._compute(process, process.asked + 2 * self.latency)

    def _compute(self, process: _Process, since: float) -> float:
        """Begin a step if all that it needs is there; seconds of waiting `since` then."""
        if len(process.parts) < len(self.shards) or process.client.clock == self.learner.total:
            return 0.0
        given = [process.client.completed(number, *part) for number, part in process.parts.items()]
        process.checker.check([read for _, read in given])
        process.computing = True
        update, _ = self.learner.update(whole([values for values, _ in given]), process.worker, process.client.clock)
        seconds = self.delays.seconds(
            self.seed, process.worker, self.learner.workers, process.client.clock, self.now
        )  # fmt: skip
        self._at(self.now + seconds, self._made, process, update)
        if self.ahead:
            self._ask(process, process.client.clock + 1)
        return max(0.0, self.now - since)

    def _made(self, process: _Process, update: Values) -> None:
        if self._held(process, self._made, update):
            return
        clock = process.client.clock
        for number, share in enumerate(process.client.made(update)):
            # One message after the other: a worker may end in between.
            self._at(self.now + 0.1 * self.latency * number, self._send, process, number, clock, share)
        process.computing = False
        if not self.ahead:
            self._ask(process, clock + 1)
            return
        process.asked = self.now - 2 * self.latency  # from now on it waits
        self._compute(process, self.now)

    def _send(self, process: _Process, number: int, clock: int, update: Values) -> None:
        if self._held(process, self._send, number, clock, update):
            return
        if self._unmet(process, number):
            self._meet(process, number)  # and send this with all that the shard misses
            return
        self._at(self.now + self.latency, self._pushed, process, number, self.shards[number].generation, clock, update)

    def _unmet(self, process: _Process, number: int) -> bool:
        """Whether a shard restarted and this process has not noticed yet."""
        return process.met[number] != self.shards[number].generation

    def _meet(self, process: _Process, number: int) -> None:
        """Send a shard that restarted what its checkpoint does not hold."""
        shard = self.shards[number]
        if self._held(process, self._meet, number) or self._down[number] or not self._unmet(process, number):
            return
        if shard.clocks.fenced(process.worker, process.incarnation):
            self.refused += 1
            process.alive = False  # it is told so, and ends
            return
        process.met[number] = shard.generation
        for clock, update in process.client.missing(number, shard.clocks.applied[process.worker]):
            self._send(process, number, clock, update)

    def _held(self, process: _Process, what: Callable[..., None], *arguments: Any) -> bool:
        """Whether a process cannot do `what` now: it is gone, or hangs and does it later."""
        if process.alive and self.now < process.hung_until:
            self._at(process.hung_until, what, process, *arguments)
            return True
        return not process.alive

    # What shards do

    def _asked(self, process: _Process, number: int, clock: int) -> None:
        shard = self.shards[number]
        if shard.clocks.fenced(process.worker, process.incarnation):
            return
        if self._down[number] or not self.admitted(shard, process.worker, clock):
            self._waiting[number].append((process, clock))
            return
        self._at(self.now + self.latency, self._replied, process, number, *shard.read(process.worker, clock))

    def admitted(self, shard: Shard, worker: int, clock: int) -> bool:
        """Whether a shard lets a worker read."""
        return shard.admits(worker, clock, self.ahead)

    def _pushed(self, process: _Process, number: int, generation: int, clock: int, update: Values) -> None:
        shard = self.shards[number]
        if self._down[number] or generation != shard.generation:
            return  # lost with the server that it was sent to; the worker has it yet
        if shard.clocks.fenced(process.worker, process.incarnation):
            self.refused += 1
            return
        if not shard.apply(process.worker, clock, update):
            return
        self._note(shard)
        if self.folder is not None and (shard.due(self.every) or clock + 1 == self.learner.total):
            shard.save(self._path(shard))  # with the last update of a worker too, which ends then and keeps nothing
            for each in self._processes.values():
                each.client.durable(number, shard.durable[each.worker])
        self._wake(number)
        if number == 0:
            self._measured()

    def _wake(self, number: int) -> None:
        waiting, self._waiting[number] = self._waiting[number], []
        for process, clock in waiting:
            self._asked(process, number, clock)

    # What goes wrong

    def _fault(self, fault: Fault) -> None:
        before = (
            [sum(self.shards[fault.number].clocks.applied)]
            if fault.kind == "restarted"
            else [shard.clocks.applied[fault.number] for shard in self.shards]
        )
        self.faults.append({"kind": fault.kind, "number": fault.number, "at": self.now, "had": max(before)})
        if fault.kind == "restarted":
            self._down[fault.number] = True
            self._at(self.now + fault.seconds, self._restarted, fault.number)
            return
        process = self._processes[fault.number]
        if fault.kind == "killed":
            process.alive = False
            self._at(self.now + self.start, self._begin, process.worker, process.incarnation + 1)
        else:
            process.hung_until = self.now + fault.seconds
            if fault.seconds > self.timeout:
                self._at(self.now + self.timeout + self.start, self._begin, process.worker, process.incarnation + 1)

    def _restarted(self, number: int) -> None:
        shard = self.shards[number]
        shard.restore(self._path(shard))
        shard.save(self._path(shard))  # its generation
        self._down[number] = False
        for process in self._processes.values():
            # Who waits for an answer, of whatever shard, notices now; who computes does when it sends the update.
            if len(process.parts) < len(self.shards) or process.client.clock == self.learner.total:
                self._meet(process, number)
        self._wake(number)

    def _note(self, shard: Shard) -> None:
        """See whether what failed goes on."""
        for fault in self.faults:
            if "seconds" in fault:
                continue
            if fault["kind"] == "restarted":
                has = sum(shard.clocks.applied) if shard.number == fault["number"] else 0
            else:
                has = min(each.clocks.applied[fault["number"]] for each in self.shards)
            if has > fault["had"]:
                fault["seconds"] = self.now - fault["at"]
