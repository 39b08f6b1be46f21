"""Hosts of their own for the workers of a measurement: Linux network namespaces, joined by a bridge.

Needs Linux, the right to make namespaces (root), util-linux (`unshare`, `nsenter`, `setpriv`) and iproute2's `ip`; `tc`
with tbf for links of limited bandwidth. Nothing is left of them when the process ends, even if it was killed.
Without that right, but where a user may have namespaces of his own, one namespace for all workers: its loopback
interface counts what all of them send together, and its bandwidth is not limited.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.errors import ToolError

__all__ = ["INTERFACE", "LOOPBACK", "NAMESPACES", "Way", "limit", "run_workers", "ways"]

NAMESPACES, LOOPBACK = "namespaces", "loopback"

INTERFACE = "eth0"
"""A worker's link to the others."""

_ADDRESS = "10.77.0.{}"
_PORT = 29500
_BURST = "8kb"  # what a link that was idle may send at once; a share of a percent of a gradient
_START = 30.0  # seconds until a process must have its namespace
_QUEUE = "300ms"  # of a limited link, beyond which it drops


@dataclass(frozen=True)
class Way:
    """How workers are kept apart on this machine.

    Attributes
    ----------
    name : NAMESPACES, LOOPBACK, or "" for not at all.
    limits : whether links can have limited bandwidth.
    missing : what is missing for more, in words; "" if nothing.
    """

    name: str
    limits: bool
    missing: str


def ways() -> Way:
    """What this machine allows, found by trying."""
    if not sys.platform.startswith("linux") or shutil.which("ip") is None:
        return Way("", False, "network namespaces need Linux and iproute2 (Debian: sudo apt install iproute2)")
    if absent := [tool for tool in ("unshare", "nsenter", "setpriv") if shutil.which(tool) is None]:
        return Way("", False, f"{', '.join(absent)} not found (Debian: sudo apt install util-linux)")
    pair = "ip link add t0 type veth peer name t1"
    made = _run("unshare", "--net", "sh", "-c", pair)
    if made is None:
        limited = f"{pair} && {shlex.join(('tc', *_tbf('t0', 10)))}"
        slow = _run("unshare", "--net", "sh", "-c", limited) if shutil.which("tc") else "tc is not installed"
        reason = "" if slow is None else f"links cannot be limited: {slow} (tc with tbf is needed)"
        return Way(NAMESPACES, slow is None, reason)
    alone = _run(*_UNSHARE, "ip link set lo up")
    reason = f"no network namespaces for each worker: {made} (run as root)"
    return Way(LOOPBACK, False, reason) if alone is None else Way("", False, f"{reason}; nor one for all: {alone}")


_UNSHARE = ("unshare", "--map-root-user", "--net", "sh", "-c")


def limit(mbit: float | None) -> None:
    """Limit what this worker's link sends, from within its namespace; None: not at all. Raises `ToolError`."""
    _run("tc", "qdisc", "del", "dev", INTERFACE, "root")  # there may be none
    if mbit is not None and (failed := _run("tc", *_tbf(INTERFACE, mbit))) is not None:
        raise ToolError(f"the link cannot be limited to {mbit} Mbit/s: {failed}")


def _tbf(device: str, mbit: float) -> list[str]:
    rate = f"{round(mbit * 1000)}kbit"
    return ["qdisc", "add", "dev", device, "root", "tbf", "rate", rate, "burst", _BURST, "latency", _QUEUE]


def run_workers(module: str, plan: Mapping[str, Any], workers: int, way: Way, seconds: float) -> list[dict[str, Any]]:
    """Run ``python -m module PLAN OUT`` as every worker, each on its host; what each wrote to its OUT, by rank.

    Parameters
    ----------
    plan : JSON, in the file PLAN.
    seconds : after which they are ended.

    Raises
    ------
    ToolError
        A worker failed or took too long; with the end of what it said.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        outs = [folder / f"{rank}.json" for rank in range(workers)]
        commands = [[sys.executable, "-m", module, str(folder / "plan.json"), str(out)] for out in outs]
        if way.name == NAMESPACES:
            with _namespaces(workers) as pids:
                _finish(
                    [[*_enter(pid), *command] for pid, command in zip(pids, commands, strict=True)],
                    [_environment(rank, workers, _ADDRESS.format(1), INTERFACE) for rank in range(workers)],
                    folder,
                    seconds,
                )
        elif way.name == LOOPBACK:
            lines = ["ip link set lo up"]
            for rank, command in enumerate(commands):
                variables = _environment(rank, workers, "127.0.0.1", "lo")
                words = " ".join(f"{name}={value}" for name, value in variables.items())
                lines.append(f"{words} {shlex.join([*_DIES, *command])} & w{rank}=$!")
            lines += [f"wait $w{rank} || exit 1" for rank in range(workers)]
            _finish([[*_DIES, *_UNSHARE, "\n".join(lines)]], [{}], folder, seconds)
        else:
            raise ToolError(f"workers cannot be kept apart on this machine: {way.missing}")
        return [json.loads(out.read_text(encoding="utf-8")) for out in outs]


def _environment(rank: int, workers: int, master: str, interface: str) -> dict[str, str]:
    """As torchrun sets it, and one thread."""
    return {
        "RANK": str(rank), "WORLD_SIZE": str(workers), "MASTER_ADDR": master, "MASTER_PORT": str(_PORT),
        "GLOO_SOCKET_IFNAME": interface, "OMP_NUM_THREADS": "1",
    }  # fmt: skip


_DIES = ("setpriv", "--pdeathsig", "KILL")
"""Before a command: it is killed when the process that started it ends, in whatever way."""


@contextmanager
def _namespaces(workers: int) -> Iterator[list[int]]:
    """A namespace for each worker, with `INTERFACE` on a bridge that stands in one of its own: a process in each.

    The namespaces have no names. Each lasts as long as a process is in it, and all of these end with this one, so that
    nothing is left however this one ends.
    """
    holders: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(workers + 1):
            holders.append(subprocess.Popen([*_DIES, "unshare", "--net", "sleep", "infinity"]))
        for holder in holders:
            _apart(holder)
            _within(holder.pid, "ip", "link", "set", "lo", "up")
        hub, *pids = (holder.pid for holder in holders)
        _within(hub, "ip", "link", "add", "bridge", "type", "bridge")
        _within(hub, "ip", "link", "set", "bridge", "up")
        for rank, pid in enumerate(pids):
            port = f"port{rank}"
            peer = ("type", "veth", "peer", "name", port, "netns", str(hub))
            _within(pid, "ip", "link", "add", INTERFACE, *peer)
            _within(hub, "ip", "link", "set", port, "master", "bridge", "up")
            _within(pid, "ip", "addr", "add", f"{_ADDRESS.format(rank + 1)}/24", "dev", INTERFACE)
            _within(pid, "ip", "link", "set", INTERFACE, "up")
        yield pids
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


def _apart(holder: subprocess.Popen[bytes]) -> None:
    """Wait until a process has its own namespace."""
    mine = os.stat("/proc/self/ns/net").st_ino
    end = time.monotonic() + _START
    while holder.poll() is None and time.monotonic() < end:
        with suppress(OSError):
            if Path(f"/proc/{holder.pid}/ns/net").stat().st_ino != mine:
                return
        time.sleep(0.002)
    raise ToolError("a network namespace cannot be made: unshare --net ended or did not answer; run as root")


def _enter(pid: int) -> tuple[str, ...]:
    """Before a command: it runs in the namespace of a process."""
    return (*_DIES, "nsenter", "--target", str(pid), "--net")


def _within(pid: int, *command: str) -> None:
    if (failed := _run(*_enter(pid), *command)) is not None:
        raise ToolError(f"{shlex.join(command)}: {failed}")


def _finish(commands: list[list[str]], variables: list[dict[str, str]], folder: Path, seconds: float) -> None:
    """Run all at once; none is left behind."""
    logs = [folder / f"log{number}" for number in range(len(commands))]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command, extra, log in zip(commands, variables, logs, strict=True):
            with log.open("wb") as stream:
                running.append(
                    subprocess.Popen(command, env={**os.environ, **extra}, stdout=stream, stderr=subprocess.STDOUT)
                )
        end = time.monotonic() + seconds
        while any(process.poll() is None for process in running):
            failed = any(process.poll() for process in running)
            if failed or time.monotonic() > end:
                break
            time.sleep(0.1)
        for number, process in enumerate(running):
            if process.poll() != 0:
                what = f"took more than {seconds:.0f} s" if process.poll() is None else f"ended with {process.poll()}"
                said = logs[number].read_text(encoding="utf-8", errors="replace")[-2000:]
                raise ToolError(f"worker {number} {what}: {said}")
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
            process.wait()


def _run(*command: str) -> str | None:
    """None if the command succeeded, else what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip() or f"{command[0]} ended with {done.returncode}"
