"""Peak memory of a piece of work, this process and its children apart."""

from __future__ import annotations

import contextlib
import resource
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Peak", "peak_memory"]

_EVERY = 0.05  # seconds between looks at the children


@dataclass
class Peak:
    """MiB, filled in when the block ends: most that was resident, before and during it; None where it is not known."""

    before: float | None = None
    own: float | None = None
    children: float | None = None


@contextlib.contextmanager
def peak_memory() -> Iterator[Peak]:
    """Peak memory of the block.

    On Linux the kernel's high-water mark is reset first, and children (compilers, the simulator) are looked at twenty
    times a second. Elsewhere the mark of the whole process is all there is, and children are not seen.
    """
    peak = Peak()
    if not Path("/proc/self/status").exists():
        yield peak
        peak.own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return
    with contextlib.suppress(OSError):  # without it the mark is that of the process's whole life
        Path("/proc/self/clear_refs").write_text("5")
    peak.before = _status("self", "VmRSS")
    done, most = threading.Event(), [0.0]

    def watch() -> None:
        while not done.wait(_EVERY):
            most[0] = max(most[0], sum(_status(child, "VmRSS") for child in _descendants("self")))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak.own, peak.children = _status("self", "VmHWM"), most[0]


def _status(process: str, name: str) -> float:
    """A figure of ``/proc/…/status`` in MiB; 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name + ":")), 0.0)


def _descendants(process: str) -> list[str]:
    found: list[str] = []
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in listed.read_text().split():
                found += [child, *_descendants(child)]
    return found
