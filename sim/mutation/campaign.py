"""A campaign: mutants of all blocks, what kills each, and what is left; it goes on where it was broken off."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from compiler.errors import InputError
from hw.params import Params
from sim.mutation.equivalence import equivalent
from sim.mutation.netlist import Mutant, Netlist, netlist
from sim.mutation.reasons import Reason, fitting, read, stale
from sim.mutation.replay import replayer, simulator
from sim.mutation.stimuli import Stimulus

__all__ = ["FULL", "PARAMS", "SAMPLE", "SAMPLE_PARAMS", "Campaign", "Fate", "Results", "begin"]

PARAMS = Params(
    pes=4, rows=64, queue_depth=8, weight_words=128, pointer_blocks=64, act_lines=300, output_words=512, codebooks=4,
    descriptors=64,
)  # fmt: skip
"""Everything is in it, once: four PEs, one write-back group, both activation streams, refill, tables, elementwise."""

SAMPLE_PARAMS = PARAMS.replace(pes=1, tables=1)

COUNT = 5300
"""Mutants that are asked for; some are drawn twice or cannot be made, so that there are fewer."""

PART = 650
"""Mutants in one simulator: compiling takes longer for each, and so does a cycle."""

SAMPLE = (Stimulus("overlap", 1), Stimulus("rtl", 1))
_ORDER = (
    "rtl-1 ends-1 networks-1 rtl-44 rtl-6 networks-7 rtl-68 networks-2 ends-3 rtl-7 rtl-3 networks-3 ends-2 rtl-5 "
    "overlap-1 rtl-8 networks-8 rtl-2 streams-1 corners-1"
)
FULL = tuple(Stimulus(suite, int(seed)) for suite, seed in (each.split("-") for each in _ORDER.split()))
"""In the order in which they are replayed: those that kill most for their time come first. rtl-44 and rtl-68 stream
weights in, which few random networks do on this array."""


WAYS = ("simulation", "formal", "equivalent", "listed")


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
        if not lines:
            self._write({"campaign": key})

    def note(self, fate: Fate) -> None:
        """Keep it; it is in the file when this returns."""
        self.fates[fate.change] = fate
        self._write(asdict(fate))

    def _write(self, values: dict[str, Any]) -> None:
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")


@dataclass(frozen=True)
class Campaign:
    """Mutants, what they are run against, and results so far. whole : every reason must fit one of its survivors."""

    netlist: Netlist
    mutants: Sequence[Mutant]
    stimuli: Sequence[Stimulus]
    results: Results
    reasons: Sequence[Reason]
    told: Callable[[str], None] = lambda text: None
    whole: bool = False

    def fate(self, mutant: Mutant) -> Fate | None:
        """What became of a mutant, if it is known; a reason is looked up anew each time."""
        fate = self.results.fates.get(mutant.change)
        if fate is None or fate.by:
            return fate
        reason = fitting(self.reasons, mutant)
        return replace(fate, by="listed", what=reason.why) if reason else fate

    def simulate(self, jobs: int = 1, progress: Callable[[int, int], None] | None = None) -> None:
        """Replay everything for each mutant that has no fate yet, part by part: a simulator of all would be slow."""
        fates = self.results.fates
        for begin in range(0, len(self.mutants), PART):
            part = self.mutants[begin : begin + PART]
            left = {each.number - begin: each for each in part if each.change not in fates}
            if not left:
                continue
            self.told(f"simulator with mutants {begin + 1:,} to {begin + len(part):,} of {len(self.mutants):,}")
            built = simulator(self.netlist, [replace(each, number=each.number - begin) for each in part])
            replay = replayer(built, self.netlist, self.stimuli, self.told)
            for found in replay.run(left, jobs):
                mutant = left[found["mutant"]]
                by = "simulation" if found["by"] else None
                self.results.note(
                    Fate(mutant.change, mutant.block, mutant.lines, by, found["by"] or "", found.get("how", ""),
                         found.get("cycle", 0))
                )  # fmt: skip
                if progress:
                    progress(len(fates), len(self.mutants))

    def prove(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Look for a proof that a survivor is equivalent, where that was not tried yet."""
        left = [each for each in self.mutants if (fate := self.results.fates.get(each.change)) and not fate.by]
        left = [each for each in left if not self.results.fates[each.change].what]
        for change, state in equivalent(self.netlist, left, progress):
            fate = self.results.fates[change]
            self.results.note(replace(fate, by="equivalent" if state == "equivalent" else None, what=state))

    @property
    def stale(self) -> list[Reason]:
        """Reasons that are about no survivor, in a campaign of all blocks."""
        fates = self.results.fates
        left = [each for each in self.mutants if (fate := fates.get(each.change)) and not fate.by]
        return stale(self.reasons, left) if self.whole else []

    def asdict(self) -> dict[str, Any]:
        """Counts by block of the mutants that were run, what killed them, and every one that is not explained."""
        blocks: dict[str, dict[str, int]] = {}
        suites: dict[str, int] = {}
        reasons: dict[str, int] = {}
        left = []
        for mutant in self.mutants:
            fate = self.fate(mutant)
            if fate is None:
                continue
            row = blocks.setdefault(mutant.block, dict.fromkeys(("mutants", *WAYS, "unexplained"), 0))
            row["mutants"] += 1
            row[fate.by or "unexplained"] += 1
            if fate.by == "simulation":
                suite = fate.what.rsplit("-", 1)[0]
                suites[suite] = suites.get(suite, 0) + 1
            if fate.by == "listed":
                reasons[fate.what] = reasons.get(fate.what, 0) + 1
            if not fate.by:
                left.append({"block": mutant.block, "change": mutant.change, "lines": list(mutant.lines),
                             "found": fate.what})  # fmt: skip
        total = {name: sum(row[name] for row in blocks.values()) for name in ("mutants", *WAYS, "unexplained")}
        return {
            "passed": 0 < total["mutants"] == len(self.mutants) and not left and not self.stale,
            "drawn": len(self.mutants), "total": total, "blocks": blocks,
            "suites": suites, "reasons": reasons, "stale": [reason.why for reason in self.stale],
            "unexplained": left,
        }  # fmt: skip


def begin(
    folder: Path,
    count: int = COUNT,
    seed: int = 1,
    blocks: tuple[str, ...] = (),
    params: Params = PARAMS,
    stimuli: Sequence[Stimulus] = FULL,
    told: Callable[[str], None] = lambda text: None,
) -> Campaign:
    """Make the mutants, and read what is known of them.

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
    for block in blocks:  # before anything takes time
        if not (Path(__file__).parents[2] / "hw" / f"{block}.py").exists():
            raise InputError(f"unknown block {block!r}; expected the name of a file in hw, as scan or tile_loop")
    told("netlist")
    whole = netlist(params)
    mutants = whole.mutants(count, seed, blocks)
    key = hashlib.sha256(
        json.dumps([whole.prepared, [each.change for each in mutants]]).encode()
    ).hexdigest()[:24]  # fmt: skip
    results = Results(folder / "mutants.jsonl", key)
    return Campaign(whole, mutants, stimuli, results, read(), told, not blocks and count >= COUNT)
