"""One simulator with all mutants, its recordings, and the runs of each mutant until something differs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.caches import cache_folder
from compiler.errors import ToolError
from hw.accelerator import TOP_MODULE
from sim.mutation.netlist import Mutant, Netlist
from sim.mutation.record import LOOK, PINS, with_recorder
from sim.mutation.stimuli import Stimulus, record
from sim.rtl.build import Build, build
from sim.trials import kit

__all__ = ["SECONDS", "Replayer", "recordings_key", "replayer", "simulator"]

SECONDS = 120
"""Processor seconds that a mutant may take; the longest run of one that survives takes a few."""

LEARN = (101, 102, 103)
"""Seeds of the random contents of memories: what is read and depends on them is not compared."""


def simulator(netlist: Netlist, mutants: Sequence[Mutant], quick: bool = False) -> Build:
    """The array with all mutants, compiled, in less time if it is for a few of them.

    Cocotb's benches run on it as well (``+eie_mutant=N``).
    """
    text = with_recorder(netlist.verilog(list(mutants)))
    return build(
        netlist.params,
        mutate=lambda _: text,
        program=(resources.files("sim") / "mutation" / "replay.cpp").read_text(),
        quick=quick,
    )


@dataclass(frozen=True)
class Replayer:
    """A simulator, and recordings in the order in which they are replayed.

    long : those behind `recordings`, only for mutants that these leave what the array is.
    """

    build: Build
    recordings: tuple[Path, ...]
    long: tuple[Path, ...] = ()

    def run(self, numbers: Iterable[int], jobs: int = 1, seed: int = 1) -> Iterator[dict[str, Any]]:
        """What became of each mutant, as it ends.

        ``mutant`` its number; ``by`` the recording that showed a difference, or None; ``how``: "value", "response",
        "beat" or "interrupt" is another one than recorded, "protocol" one that was not asked for, "hang" one that does
        not come, "assertion" if the array said so itself; ``cycle`` of the recording; ``cpu`` in seconds; of one that
        nothing shows ``active``, how many recordings make it another bit than the array's at all. The number 0 is the
        array without a fault, which lists what differs ("read" and "beat": rows).

        Raises
        ------
        ToolError
            The simulator ended before its time.
        """
        import cocotb_tools.config

        loader = "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH"
        environment = {**os.environ, loader: str(cocotb_tools.config.libs_dir)}
        command = [
            str(self.build.folder / TOP_MODULE), "+eie_replay", str(jobs), str(seed), str(SECONDS),
            *map(str, self.recordings), *(["+eie_long", *map(str, self.long)] if self.long else []),
        ]  # fmt: skip
        with tempfile.TemporaryFile("w+", encoding="utf-8") as given:
            given.write("\n".join(map(str, numbers)) + "\n")
            given.seek(0)
            with subprocess.Popen(
                command, env=environment, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                try:
                    for line in process.stdout:
                        yield json.loads(line)
                    if process.wait():
                        raise ToolError(f"the simulator of mutants failed: {process.stderr.read().strip()}")
                finally:
                    process.kill()


def recordings_key(netlist: Netlist) -> str:
    """Of the recordings of a netlist, whichever mutants are in the simulator: all sources may change a bench's run."""
    return hashlib.sha256(f"{kit()}\n{netlist.prepared}".encode()).hexdigest()[:24]


def replayer(
    built: Build, netlist: Netlist, stimuli: Sequence[Stimulus], told: Callable[[str], None] = lambda text: None
) -> Replayer:
    """The recordings of all stimuli, from the cache or made now.

    What is read and depends on what memories hold at the beginning is marked: it is not compared.

    Raises
    ------
    ToolError
        A bench fails on the array without a fault.
    """
    folder = cache_folder() / "mutation" / recordings_key(netlist)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for n, stimulus in enumerate(stimuli):
        file = folder / f"{stimulus.name}.bin"
        if not file.exists():
            told(f"recording {stimulus.name} ({n + 1} of {len(stimuli)})")
            made = _compared(built, record(built, netlist.params, stimulus), stimulus)
            part = file.with_suffix(f".{os.getpid()}.part")
            made.tofile(part)
            os.replace(part, file)
        files.append(file)
    long = [file for file, stimulus in zip(files, stimuli, strict=True) if stimulus.long]
    return Replayer(built, tuple(file for file in files if file not in long), tuple(long))


def _compared(built: Build, made: NDArray[np.uint8], stimulus: Stimulus) -> NDArray[np.uint8]:
    """The recording without what depends on the contents that memories begin with."""
    with tempfile.TemporaryDirectory(prefix="eie-mutation-") as name:
        file = Path(name) / f"{stimulus.name}.bin"
        made.tofile(file)
        one = Replayer(built, (file,))
        for seed in LEARN[: 1 if stimulus.long else None]:
            for found in one.run([0], seed=seed):
                if found.get("by"):
                    raise ToolError(f"{stimulus.name}: the array without a fault is not its recording: {found}")
                for what, bits in (("read", LOOK["read"] | LOOK["poll"]), ("beat", LOOK["maps"])):
                    if what in found:
                        made[found[what], PINS] &= ~np.uint8(bits)
    return made
