"""How far runs are, by the lines they write: trainings, experiments, regressions, fuzzing; and folders of several."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compiler.errors import InputError
from compiler.journal import JOURNAL
from sim.case_file import CASES
from sim.front import unbeaten

__all__ = ["runs_of", "state"]

QUIET = 120.0
"""Seconds without a line after which a run that has not ended is shown as silent: it was killed, or takes long."""

FAILURES = 20
"""Failures that are shown of a run, the last ones."""

_MOST, _EXACT = 1e100, 2**53
"""Figures up to the first can be drawn, whole numbers below the second are the same in a browser."""


def runs_of(folder: Path) -> list[Path]:
    """The folder if it is one of a run, and those one and two levels below; empty if there is none yet."""
    found = {
        path.parent for name in (JOURNAL, CASES) for depth in ("", "*/", "*/*/") for path in folder.glob(depth + name)
    }
    return sorted(path for path in found if (path / JOURNAL).exists() or next(_cases(path), None) is not None)


def state(folder: Path, now: float | None = None) -> dict[str, Any]:
    """What is known of the runs in a folder, as JSON.

    ``runs`` : of each its ``path`` below the folder, ``kind`` (training, experiment, search, regression, fuzz),
    ``name``, ``status`` (running, silent, finished, failed), ``message``, ``done`` and ``total`` of its epochs, trials
    or cases, seconds since its last line (``age``) and until the end at its pace (``left``, None if that is not known),
    ``failures``; of a training also ``stages`` with the ``history`` of each, of a search its ``objectives`` and
    ``front``, the trials that no other beats (`FAILURES` of them at most).

    Raises
    ------
    InputError
        There is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected that of a run, or one with runs in it")
    moment = time.time() if now is None else now
    return {
        "folder": folder.resolve().name,
        "runs": [{"path": path.relative_to(folder).as_posix(), **_run(path, moment)} for path in runs_of(folder)],
    }


def _number(value: Any) -> float | None:
    """A finite number of a line, which may be somebody's; None for all else: a loss that is NaN, a text."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MOST:
        return None
    return float(value)


def _count(value: Any) -> int | None:
    """A number of things in a line, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _EXACT else None


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """Whole lines of a file that may just be written; what is no JSON object is left out."""
    try:
        content = path.read_bytes()
    except OSError:
        return
    for line in content.split(b"\n")[:-1]:
        try:
            plain = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(plain, dict):
            yield plain


def _cases(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Lines of a regression; those that a fuzzing campaign writes under the same name say no status."""
    return (line for line in _lines(folder / CASES) if isinstance(line.get("status"), str))


def _run(folder: Path, now: float) -> dict[str, Any]:
    lines = list(_lines(folder / JOURNAL))
    nothing: Mapping[str, Any] = {}
    begin = next((line for line in reversed(lines) if line.get("what") == "begin"), nothing)
    kind = str(begin.get("kind", "regression"))
    last = lines[-1] if lines else nothing
    files = [folder / name for name in (JOURNAL, CASES) if (folder / name).exists()]
    age = max(0.0, now - max((file.stat().st_mtime for file in files), default=now))
    found: dict[str, Any] = {
        "kind": kind, "name": str(begin.get("name", folder.name)), "message": "", "failures": [], "stages": [],
        "done": 0, "total": None, "left": None, "age": round(age, 1),
        "status": "running" if age < QUIET else "silent",
    }  # fmt: skip
    if last.get("what") == "end":
        found["status"] = "finished" if last.get("status") == "finished" else "failed"
        found["message"] = str(last.get("message", ""))
    {"training": _training, "experiment": _experiment, "search": _search, "fuzz": _fuzz}.get(kind, _regression)(
        folder, lines, begin, found
    )
    began, done = _number(begin.get("time")), found["done"] - found.pop("before")
    if found["status"] == "running" and found["total"] and done > 0 and began is not None and 0 <= began <= now:
        pace = (now - age - began) / done
        found["left"] = round(max(0.0, pace * (found["total"] - found["done"]) - age), 1)
    return found


def _training(folder: Path, lines: list[Mapping[str, Any]], begin: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Epochs: the last line of each counts, those that an earlier process wrote among them.

    A figure that is not finite, as the loss of a training that diverges, is None.
    """
    given = begin.get("epochs")
    planned = {name: _count(count) for name, count in given.items()} if isinstance(given, dict) else {}
    stages: dict[str, dict[str, Any]] = {
        name: {"stage": name, "epochs": count, "finished": False, "test": None, "history": {}}
        for name, count in planned.items()
    }
    first = next((n for n, line in enumerate(lines) if line is begin), 0)
    new = set()
    for number, line in enumerate(lines):
        stage = stages.get(str(line.get("stage")))
        if stage is None:
            continue
        if line.get("what") == "stage":
            stage["finished"], stage["test"] = True, _number(line.get("test"))
        elif line.get("what") == "epoch" and (epoch := _count(line.get("epoch"))) is not None:
            figures = {name: _number(line.get(name)) for name in ("loss", "validation", "density")}
            stage["history"][epoch] = {"epoch": epoch, **figures}
            if number > first:
                new.add((stage["stage"], epoch))
    for stage in stages.values():
        stage["history"] = [stage["history"][epoch] for epoch in sorted(stage["history"])]
    found["stages"] = list(stages.values())
    found["done"] = sum(len(stage["history"]) for stage in stages.values())
    found["total"] = sum(count for count in planned.values() if count is not None)
    found["before"] = found["done"] - len(new)


def _experiment(folder: Path, lines: list[Mapping[str, Any]], begin: Mapping[str, Any], found: dict[str, Any]) -> None:
    before = begin.get("done")
    keys = {str(key) for key in before} if isinstance(before, list) else set()
    found["before"] = len(keys)
    keys |= {str(line.get("key")) for line in lines if line.get("what") == "trial"}
    found["done"], found["total"] = len(keys), _count(begin.get("total"))
    found["trials"] = sorted(keys)


def _search(folder: Path, lines: list[Mapping[str, Any]], begin: Mapping[str, Any], found: dict[str, Any]) -> None:
    """As an experiment, with the trials that no other beats in all objectives, the best of the first one first."""
    _experiment(folder, lines, begin, found)
    given = begin.get("objectives")
    names = [str(name)[:40] for name in given] if isinstance(given, list) else []
    trials = {str(line.get("key")): line for line in lines if line.get("what") == "trial"}
    points: dict[str, list[float]] = {}
    for key, line in trials.items():
        numbers = line.get("objectives")
        plain = [_number(each) for each in numbers] if isinstance(numbers, list) else []
        if names and len(plain) == len(names) and None not in plain:
            points[key] = [each for each in plain if each is not None]
    keys = list(points)
    best = sorted((keys[number] for number in unbeaten(list(points.values()))), key=lambda key: points[key])
    found["objectives"] = names
    found["front"] = [{"trial": key, "figures": points[key]} for key in best[:FAILURES]]
    found["failures"] = [
        {"seed": None, "status": "failed", "message": f"trial {key}: {line.get('message', '')}"[:500]}
        for key, line in trials.items() if line.get("state") == "failed"
    ][-FAILURES:]  # fmt: skip


def _regression(folder: Path, lines: list[Mapping[str, Any]], begin: Mapping[str, Any], found: dict[str, Any]) -> None:
    cases = {tuple(str(line.get(name)) for name in ("stage", "number", "seed")): line for line in _cases(folder)}
    statuses = Counter(line["status"] for line in cases.values())
    found["done"], found["total"] = len(cases), _count(begin.get("total"))
    found["before"] = _count(begin.get("done")) or 0
    found["cases"] = dict(statuses)
    found["values"] = sum(_count(line.get("values")) or 0 for line in cases.values())
    failed = [line for line in cases.values() if line["status"] != "passed"]
    found["failures"] = [
        {"seed": seed if isinstance(seed := line.get("seed"), int) else None, "status": line["status"],
         "message": str(line.get("message", ""))[:500]}
        for line in failed[-FAILURES:]
    ]  # fmt: skip


def _fuzz(folder: Path, lines: list[Mapping[str, Any]], begin: Mapping[str, Any], found: dict[str, Any]) -> None:
    """As a regression; a line is a chunk of cases, each refused in words, right or a failure."""
    sums: Counter[str] = Counter()
    for line in _lines(folder / CASES):
        given = line.get("failures")
        failures = [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []
        sums += Counter({"refused": _count(line.get("refused")) or 0, "right": _count(line.get("accepted")) or 0})
        sums["failed"] += len(failures)
        found["done"] += _count(line.get("count")) or 0
        found["failures"] += [
            {"seed": _count(each.get("seed")), "status": str(each.get("kind", ""))[:40],
             "message": f"{each.get('target')}, case {each.get('case')}: {each.get('what', '')}"[:500]}
            for each in failures
        ]  # fmt: skip
    found["total"], found["before"] = _count(begin.get("total")), _count(begin.get("done")) or 0
    found["cases"] = dict(sums)
    found["failures"] = found["failures"][-FAILURES:]
