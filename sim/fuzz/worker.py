"""One case after the other in a process of its own, within limits of time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from compiler.errors import EieError, ToolError
from sim.fuzz.target import Finding, Target, random_of

__all__ = ["MEMORY", "SECONDS", "Chunk", "Failure", "Runner", "serve"]

SECONDS = 10.0
"""Of processor time that a case may take: what else the machine does makes no case slow."""

MEMORY = 1 << 30
"""Bytes that a process may have more than it had before its first case."""

_MESSAGE = 6000
"""Characters of an error: more is no message."""


class _Slow(BaseException):
    """Out of time; no `except Exception` of the kit shall take it."""


@dataclass(frozen=True)
class Failure:
    """A case that was neither refused in words nor right.

    kind : "exception", "wrong" (accepted, and not right), "message" (an error that says nothing), "slow", "memory", or
        "died" (the process ended).
    """

    target: str
    seed: int
    case: int
    kind: str
    what: str
    where: str = ""


@dataclass
class Chunk:
    """What came of successive cases: how many were refused and accepted, and all that failed.

    seconds, slowest : of processor time. largest : bytes of the process beyond the most that it had before.
    """

    target: str
    seed: int
    first: int
    count: int
    refused: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    largest: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def asdict(self) -> dict[str, Any]:
        """As a line of JSON has it."""
        return asdict(self)


class Runner:
    """Runs cases of some targets in this process.

    Parameters
    ----------
    limited : bound this process's memory for good; for processes that do nothing else.
    """

    def __init__(self, targets: dict[str, Target], limited: bool = False) -> None:
        self.targets = targets
        self._ready: set[str] = set()
        self._limited = limited
        self._base = 0
        place = Path("/dev/shm")
        self._folder = tempfile.TemporaryDirectory(prefix="eie-fuzz-", dir=place if place.is_dir() else None)

    def target(self, name: str) -> Target:
        """A target that is prepared."""
        found = self.targets[name]
        if name not in self._ready:
            with self._unlimited():
                found.prepare()
            self._ready.add(name)
        return found

    @contextlib.contextmanager
    def _unlimited(self) -> Iterator[None]:
        """Without a limit of memory in the block; behind it, one above what the process has then."""
        if not self._limited:
            yield
            return
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        try:
            yield
        finally:
            self._base = _data()
            most = self._base + MEMORY
            resource.setrlimit(resource.RLIMIT_DATA, (most if hard < 0 else min(most, hard), hard))

    def content(self, name: str, seed: int, case: int) -> bytes:
        """The file of a case."""
        return self.target(name).make(random_of(name, seed, case))

    def chunk(self, name: str, seed: int, first: int, count: int, at: Any = None) -> Chunk:
        """Run cases `first` to `first + count - 1`; `at` is told which one is under way (a shared integer)."""
        target = self.target(name)
        made = Chunk(name, seed, first, count)
        reasons: Counter[str] = Counter()
        before = _peak()
        for case in range(first, first + count):
            if at is not None:
                at[0], at[1] = case, time.monotonic()
            begin = time.process_time()
            failure, reason = self._case(target, seed, case)
            taken = time.process_time() - begin
            made.slowest = max(made.slowest, taken)
            made.seconds += taken
            if failure is not None:
                made.failures.append(failure)
            elif reason:
                made.refused += 1
                reasons[_shape(reason)] += 1
            else:
                made.accepted += 1
        made.largest = max(0, _peak() - before)
        made.reasons = dict(reasons)
        return made

    def _case(self, target: Target, seed: int, case: int) -> tuple[Failure | None, str]:
        """Why the case failed, or why it was refused; neither if it was accepted."""
        random = random_of(target.name, seed, case)
        content = target.make(random)
        return self.judge(target, content, random, seed, case)

    def judge(self, target: Target, content: bytes, random: Any, seed: int, case: int) -> tuple[Failure | None, str]:
        """The same for a given content."""
        path = Path(self._folder.name) / f"case{target.suffix}"
        path.write_bytes(content)

        def failed(kind: str, what: str, error: BaseException | None = None) -> tuple[Failure, str]:
            return Failure(target.name, seed, case, kind, what[:_MESSAGE], _where(error)), ""

        try:
            with _timed():
                target.check(path, random)
        except ToolError as error:
            raise error
        except EieError as error:
            said = str(error)
            if not said.strip() or len(said) > _MESSAGE:
                return failed("message", f"{type(error).__name__} of {len(said)} characters: {said[:500]}", error)
            if "report" in said and "report.json" not in said:
                return failed("wrong", f"{type(error).__name__}: {said}", error)
            return None, said
        except Finding as error:
            return failed("wrong", str(error), error)
        except _Slow as error:
            return failed("slow", f"not done after {SECONDS:g} s", error)
        except MemoryError as error:
            return failed("memory", f"more than {MEMORY >> 20} MiB: {error}", error)
        except Exception as error:
            return failed("exception", f"{type(error).__name__}: {error}", error)
        return None, ""

    def close(self) -> None:
        """Give back what the targets hold."""
        for name in self._ready:
            self.targets[name].close()
        self._folder.cleanup()


@contextlib.contextmanager
def _timed() -> Iterator[None]:
    """Raise `_Slow` in the block after `SECONDS`."""

    def end(*_: object) -> None:
        raise _Slow

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _where(error: BaseException | None) -> str:
    """The last places of the kit on the way to an error."""
    if error is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    root = str(Path(__file__).parents[2])
    own = [f"{frame.filename.removeprefix(root + '/')}:{frame.lineno}" for frame in frames
           if frame.filename.startswith(root)]  # fmt: skip
    last = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return " ".join([*own[-4:], last])


def _shape(reason: str) -> str:
    """What errors of one kind have in common: the words that are no numbers, names or paths."""
    words = re.sub(r"\S*/\S*:? ?", "", reason)
    words = re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\([^)]*\)|\S*\d\S*", "#", words)
    return words[:60]


def _data() -> int:
    """Bytes of this process that `RLIMIT_DATA` counts."""
    return _status("VmData")


def _peak() -> int:
    """The most bytes that this process has had in memory."""
    return _status("VmHWM")


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(name):
                return int(line.split()[1]) << 10
    return 0


def serve(connection: Connection, at: Any, targets: dict[str, Target]) -> None:
    """Run what comes through a connection until it says None: (target, seed, first, count) → a line of JSON.

    at : shared numbers: the case that is under way, and since when (`time.monotonic`).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    runner = Runner(targets, limited=True)
    try:
        while (work := connection.recv()) is not None:
            name, seed, first, count = work
            at[0], at[1] = -1, 0.0
            try:
                runner.target(name)
                answer = json.dumps(runner.chunk(name, seed, first, count, at).asdict())
            except ToolError as error:
                answer = json.dumps({"tool": str(error)})
            except Exception:  # of the making of cases, not of what is fuzzed
                answer = json.dumps({"broken": traceback.format_exc()})
            at[0], at[1] = -1, 0.0
            connection.send_bytes(answer.encode("utf-8", "backslashreplace"))
    except (EOFError, KeyboardInterrupt):
        pass
    finally:
        runner.close()
