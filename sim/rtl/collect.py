"""Counts of coverage, added up over runs: while something collects, every build is covered and every run is counted.

A folder holds for each build the names of its points, once, and for each process the counts:
``BUILD/points.txt.gz``, ``BUILD/accelerator.v``, ``BUILD/counts-PROCESS.npy``. What the benches say of each case is a
line of JSON in ``cases-PROCESS.jsonl``.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ToolError
from compiler.files import append_line

__all__ = [
    "collect_into", "collecting", "covered", "keep", "note_case", "place", "read_cases", "read_counts", "read_dat",
]  # fmt: skip

_POINT = re.compile(r"^C '(.*)' (\d+)$", re.MULTILINE)
_VERILOG = "accelerator.v"

_folder: Path | None = None


def collect_into(folder: Path | None) -> None:
    """From now on, in this process, cover all builds and add what runs count to `folder`; None: no longer."""
    global _folder
    _folder = folder


@contextmanager
def collecting(folder: Path) -> Iterator[None]:
    """Collect within the block."""
    before = _folder
    collect_into(folder)
    try:
        yield
    finally:
        collect_into(before)


def place() -> Path | None:
    """Where is collected now."""
    return _folder


def covered() -> bool:
    """Whether builds are to be covered now."""
    return _folder is not None


def read_dat(file: Path) -> tuple[list[str], NDArray[np.uint64]]:
    """Names of the points of Verilator's ``coverage.dat``, and how often each was counted, uint64.

    Raises
    ------
    ToolError
        The file is missing, or is none of Verilator's.
    """
    try:
        text = file.read_text(encoding="latin-1")
    except OSError as error:
        raise ToolError(f"the run left no {file.name} ({error.strerror}); was it built with coverage?") from None
    if not text.startswith("# SystemC::Coverage-3\n"):
        raise ToolError(f"{file}: begins with {text[:30]!r}; expected Verilator's '# SystemC::Coverage-3'")
    found = _POINT.findall(text)
    lines = text.count("\n") - 1
    if len(found) != lines:
        raise ToolError(f"{file}: {lines - len(found)} of {lines} lines are no points of the form C 'name' count")
    return [name for name, _ in found], np.array([int(count) for _, count in found], np.uint64)


def keep(run: Path, build: Path) -> None:
    """Add the counts of the run in folder `run` to those of its build."""
    if _folder is None:
        return
    names, counts = read_dat(run / "coverage.dat")
    place = _folder / build.name
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "points.txt.gz").exists():
        work = place / f"points-{os.getpid()}"
        with gzip.open(work, "wt", compresslevel=1) as file:
            file.write("\n".join(names))
        shutil.copyfile(build / _VERILOG, place / f"verilog-{os.getpid()}")
        os.replace(place / f"verilog-{os.getpid()}", place / _VERILOG)
        os.replace(work, place / "points.txt.gz")
    kept = place / f"counts-{os.getpid()}.npy"
    if kept.exists():
        counts = counts + np.load(kept)
    np.save(place / f"new-{os.getpid()}.npy", counts)
    os.replace(place / f"new-{os.getpid()}.npy", kept)


def note_case(line: dict[str, Any]) -> None:
    """Write down what a case was, a line of JSON, while something collects."""
    if _folder is not None:
        append_line(_folder / f"cases-{os.getpid()}.jsonl", json.dumps(line))


def read_cases(folder: Path) -> list[dict[str, Any]]:
    """All that was written down of cases."""
    files = sorted(folder.glob("cases-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def read_counts(folder: Path) -> Iterator[tuple[str, list[str], NDArray[np.uint64]]]:
    """For each build of which something was collected: its Verilog, names of its points, their counts."""
    for place in sorted(folder.iterdir()):
        files = sorted(place.glob("counts-*.npy"))
        if files:
            with gzip.open(place / "points.txt.gz", "rt") as file:
                names = file.read().split("\n")
            yield (place / _VERILOG).read_text(), names, sum((np.load(each) for each in files[1:]), np.load(files[0]))
