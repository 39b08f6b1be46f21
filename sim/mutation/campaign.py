"""A campaign: mutants of all blocks, what kills each, and what is left to explain; it goes on where it was broken off."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compiler.errors import InputError
from hw.params import Params
from sim.mutation.netlist import Mutant, netlist
from sim.mutation.replay import Replayer, replayer, simulator
from sim.mutation.stimuli import Stimulus

__all__ = ["FULL", "PARAMS", "SAMPLE", "SAMPLE_PARAMS", "Campaign", "Fate", "Results", "begin"]

PARAMS = Params(
    pes=4, rows=64, queue_depth=8, weight_words=128, pointer_blocks=64, act_lines=300, output_words=512, codebooks=4,
    descriptors=64,
)  # fmt: skip
"""Everything is in it, once: four PEs, one write-back group, both activation streams, refill, tables, elementwise."""

SAMPLE_PARAMS = PARAMS.replace(pes=1, tables=1)

SAMPLE = (Stimulus("overlap", 1), Stimulus("rtl", 1))
FULL = (
    *(Stimulus(suite, 1) for suite in ("rtl", "networks", "overlap", "ends")),
    *(Stimulus(suite, seed) for seed in (2, 3, 4) for suite in ("rtl", "networks", "ends")),
    *(Stimulus(suite, seed) for seed in (5, 6, 7, 8) for suite in ("rtl", "networks")),
    Stimulus("streams", 1), Stimulus("streams", 3), Stimulus("corners", 1),
)  # fmt: skip
"""In the order in which they are replayed: those that kill most for their time come first."""


@dataclass(frozen=True)
class Fate:
    """What became of a mutant.

    by : "simulation", "formal", "equivalent", "listed", or None: nothing explains it. what : the recording, property,
    proof or reason. how : how a simulation showed it. cycle : of the recording.
    """

    change: str
    block: str
    lines: tuple[str, ...]
    by: str | None
    what: str = ""
    how: str = ""
    cycle: int = 0


class Results:
    """A file of JSON lines, the first one for the campaign, one for each mutant: the last one of a mutant counts.

    A line that was not written to its end, when a process was killed, is dropped.
    """

    def __init__(self, file: Path, key: str) -> None:
        self.file, self.fates = file, dict[str, Fate]()
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = b""
        if file.exists():
            raw = file.read_bytes()
            whole = raw[: raw.rfind(b"\n") + 1]
            if len(whole) < len(raw):
                os.truncate(file, len(whole))
        lines = whole.decode().splitlines()
        if lines and json.loads(lines[0]).get("campaign") != key:
            raise InputError(
                f"{file} holds another campaign (other hardware, seed or number); expected {key}: give another file, "
                "or remove it"
            )
        for line in lines[1:]:
            values = json.loads(line)
            self.fates[values["change"]] = Fate(**{**values, "lines": tuple(values["lines"])})
        self._stream = file.open("a", encoding="utf-8")
        if not lines:
            self._write({"campaign": key})

    def note(self, fate: Fate) -> None:
        """Keep it; it is in the file when this returns."""
        self.fates[fate.change] = fate
        self._write(asdict(fate))

    def _write(self, values: dict[str, Any]) -> None:
        self._stream.write(json.dumps(values) + "\n")
        self._stream.flush()


@dataclass(frozen=True)
class Campaign:
    """Mutants, the simulator with all of them, and results so far."""

    params: Params
    mutants: Sequence[Mutant]
    replayer: Replayer
    results: Results

    def simulate(self, jobs: int = 1, progress: Callable[[int, int], None] | None = None) -> None:
        """Replay everything for each mutant that has no fate yet."""
        fates = self.results.fates
        left = {each.number: each for each in self.mutants if each.change not in fates}
        for found in self.replayer.run(left, jobs):
            mutant = left[found["mutant"]]
            by = "simulation" if found["by"] else None
            self.results.note(
                Fate(mutant.change, mutant.block, mutant.lines, by, found["by"] or "", found.get("how", ""),
                     found.get("cycle", 0))
            )  # fmt: skip
            if progress:
                progress(sum(each.change in fates for each in self.mutants), len(self.mutants))


def begin(
    folder: Path,
    count: int = 5300,
    seed: int = 1,
    blocks: tuple[str, ...] = (),
    params: Params = PARAMS,
    stimuli: Sequence[Stimulus] = FULL,
    told: Callable[[str], None] = lambda text: None,
) -> Campaign:
    """Make mutants, simulator and recordings, or take them from the cache.

    Parameters
    ----------
    folder : of the results.
    count, seed, blocks : how many mutants, of which draw, of which blocks (all of them if empty).

    Raises
    ------
    InputError
        `folder` has results of another campaign, or there is no such block.
    ToolError
        A tool is missing or failed.
    """
    told("netlist")
    whole = netlist(params)
    mutants = whole.mutants(count, seed, blocks)
    key = hashlib.sha256(
        json.dumps([whole.prepared, [each.change for each in mutants]]).encode()
    ).hexdigest()[:24]  # fmt: skip
    results = Results(folder / "mutants.jsonl", key)
    told(f"simulator with {len(mutants):,} mutants")
    built = simulator(whole, mutants)
    return Campaign(params, mutants, replayer(built, whole, stimuli, told), results)
