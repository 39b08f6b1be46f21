"""A campaign: mutants of all blocks, what kills each, and what is left; it goes on where it was broken off."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from compiler.claim import claimed
from compiler.errors import InputError
from compiler.files import append_line
from hw.params import Params
from sim.case_file import json_lines
from sim.mutation.equivalence import equivalent
from sim.mutation.netlist import Mutant, Netlist, netlist
from sim.mutation.reasons import Reason, fitting, read, stale
from sim.mutation.replay import recordings_key, replayer, simulator
from sim.mutation.stimuli import Stimulus

__all__ = [
    "COUNT", "FULL", "MUTANTS", "PARAMS", "SAMPLE", "SAMPLE_PARAMS", "WAYS", "Campaign", "Fate", "Results", "begin",
    "explained", "key_of", "read_results", "sums",
]  # fmt: skip

PARAMS = Params(
    pes=4, rows=64, queue_depth=8, weight_words=128, pointer_blocks=64, act_lines=300, output_words=512, codebooks=4,
    descriptors=64,
)  # fmt: skip
"""Everything is in it, once: four PEs, one write-back group, both activation streams, refill, tables, elementwise."""

SAMPLE_PARAMS = PARAMS.replace(pes=1, tables=1)

COUNT = 5300
"""Mutants that are asked for; some are drawn twice or cannot be made, so that there are fewer."""

MUTANTS = "mutants.jsonl"
"""Of the folder of a campaign."""

PART = 1300
"""Mutants in one simulator: compiling takes longer for each, and so does a cycle."""

FEW = 200
"""So few are not worth the time in which a compiler makes a fast simulator."""

SAMPLE = (Stimulus("overlap", 1), Stimulus("rtl", 1))
_ORDER = (
    "rtl-1 ends-1 networks-1 streams-3 functions-1 recurrent-2 rtl-44 overlap-1 edges-1 corners-1 streams-2 rtl-10 "
    "ends-2 functions-2 networks-5 rtl-12 streams-4 ends-5 networks-3 recurrent-3 rtl-68 rtl-2 ends-3 networks-2 rtl-7 "
    "functions-3 ends-4 functions-5 rtl-3 networks-7 rtl-6 recurrent-4 streams-1 extents-303 extents-4095"
)
FULL = tuple(Stimulus(suite, int(seed)) for suite, seed in (each.split("-") for each in _ORDER.split()))
"""In the order in which they are replayed: those that kill most for their time come first. They are chosen so that all
that a descriptor and a word of the output table can ask for is there: few random networks of this array stream weights
(rtl-44, rtl-68), join by maximum (rtl-10, rtl-12), have positions that share weights (networks-5, streams-2), or rings
of several rows of tiles (streams-2, streams-3, streams-4)."""


WAYS = ("simulation", "equivalent", "listed")


@dataclass(frozen=True)
class Fate:
    """What became of a mutant.

    by : "simulation", "equivalent", "listed", or None: nothing explains it. what : the recording, the state of the
    proof, or the reason. how : how a simulation showed it. cycle : of the recording. active : recordings in which the
    bit of a survivor is another one than without the fault at all.
    """

    change: str
    block: str
    lines: tuple[str, ...]
    by: str | None
    what: str = ""
    how: str = ""
    cycle: int = 0
    active: int = 0


def read_results(file: Path) -> tuple[dict[str, Any], dict[str, Fate], int]:
    """What stands in a file of results: its first line, the fates by change, and the bytes of whole lines.

    A line that was not written to its end, when a process was killed, is left out. The first line is empty if there is
    none.

    Raises
    ------
    InputError
        A line is none of a campaign.
    """
    lines, size = json_lines(file)
    if not lines:
        return {}, {}, 0
    fates: dict[str, Fate] = {}
    for number, values in enumerate(lines, 1):
        try:
            if number == 1:
                head = {"campaign": str(values["campaign"]), "drawn": int(values["drawn"])}
                continue
            fate = Fate(**{**values, "lines": tuple(values["lines"])})
            fates[fate.change] = fate
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{file}, line {number} is not of a campaign; remove it, or choose another folder (-o)"
            ) from None
    return head, fates, size


class Results:
    """A file of JSON lines, the first one for the campaign, one for each mutant: the last one of a mutant counts.

    key, drawn : of the campaign, and how many mutants it has. The folder must be held (`compiler.claim.claimed`).
    """

    def __init__(self, file: Path, key: str, drawn: int) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        head, self.fates, size = read_results(file)
        if head and head["campaign"] != key:
            raise InputError(
                f"{file} holds another campaign (of other sources, stimuli, seed or number); expected {key}: choose "
                "another folder (-o), or remove it"
            )
        if file.exists() and size < file.stat().st_size:
            os.truncate(file, size)
        if not head:
            self._write({"campaign": key, "drawn": drawn})

    def note(self, fate: Fate) -> None:
        """Keep it; it is in the file when this returns."""
        self.fates[fate.change] = fate
        self._write(asdict(fate))

    def _write(self, values: dict[str, Any]) -> None:
        append_line(self.file, json.dumps(values))


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
        return explained(fate, self.reasons) if fate else None

    def simulate(self, jobs: int = 1, progress: Callable[[int, int], None] | None = None) -> None:
        """Replay everything for each mutant that has no fate yet, part by part: a simulator of all would be slow."""
        fates = self.results.fates
        for begin in range(0, len(self.mutants), PART):
            part = self.mutants[begin : begin + PART]
            left = {each.number - begin: each for each in part if each.change not in fates}
            if not left:
                continue
            self.told(f"simulator with mutants {begin + 1:,} to {begin + len(part):,} of {len(self.mutants):,}")
            built = simulator(
                self.netlist, [replace(each, number=each.number - begin) for each in part], len(part) <= FEW
            )
            replay = replayer(built, self.netlist, self.stimuli, self.told)
            for found in replay.run(left, jobs):
                mutant = left[found["mutant"]]
                by = "simulation" if found["by"] else None
                self.results.note(
                    Fate(mutant.change, mutant.block, mutant.lines, by, found["by"] or "", found.get("how", ""),
                         found.get("cycle", 0), found.get("active", 0))
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
        left = [(each, fate.active) for each in self.mutants if (fate := fates.get(each.change)) and not fate.by]
        return stale(self.reasons, left) if self.whole else []

    def asdict(self) -> dict[str, Any]:
        """Counts by block of the mutants that were run, what killed them, and every one that is not explained."""
        found = sums([fate for mutant in self.mutants if (fate := self.fate(mutant))])
        run = found["total"]["mutants"]
        return {
            "passed": 0 < run == len(self.mutants) and not found["unexplained"] and not self.stale,
            "drawn": len(self.mutants), **found, "stale": [reason.why for reason in self.stale],
        }  # fmt: skip


def explained(fate: Fate, reasons: Sequence[Reason]) -> Fate:
    """A fate, with the first reason for it if nothing else explains it."""
    if fate.by:
        return fate
    reason = fitting(reasons, Mutant(0, fate.block, fate.change, fate.lines), fate.active)
    return replace(fate, by="listed", what=reason.why) if reason else fate


def sums(fates: Iterable[Fate]) -> dict[str, Any]:
    """Counts by block and way, suites that killed, reasons, and what nothing explains."""
    columns = ("mutants", *WAYS, "unexplained")
    blocks: dict[str, dict[str, int]] = {}
    suites: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    left = []
    for fate in fates:
        row = blocks.setdefault(fate.block, dict.fromkeys(columns, 0))
        row["mutants"] += 1
        row[fate.by or "unexplained"] += 1
        if fate.by == "simulation":
            suites[fate.what.rsplit("-", 1)[0]] += 1
        if fate.by == "listed":
            reasons[fate.what] += 1
        if not fate.by:
            left.append({
                "block": fate.block, "change": fate.change, "lines": list(fate.lines), "found": fate.what,
                "active": fate.active,
            })  # fmt: skip
    total = {name: sum(row[name] for row in blocks.values()) for name in columns}
    return {
        "total": total, "blocks": blocks, "suites": dict(suites), "reasons": dict(reasons), "unexplained": left,
    }  # fmt: skip


def key_of(netlist: Netlist, mutants: Sequence[Mutant], stimuli: Sequence[Stimulus]) -> str:
    """Of a campaign: its mutants, what is replayed for each, and all sources that a recording comes from."""
    parts = [recordings_key(netlist), [each.name for each in stimuli], [each.change for each in mutants]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


@contextmanager
def begin(
    folder: Path,
    count: int = COUNT,
    seed: int = 1,
    blocks: tuple[str, ...] = (),
    params: Params = PARAMS,
    stimuli: Sequence[Stimulus] = FULL,
    told: Callable[[str], None] = lambda text: None,
) -> Iterator[Campaign]:
    """Make the mutants, read what is known of them, and hold the folder as long as the block runs.

    Parameters
    ----------
    folder : of the results.
    count, seed, blocks : how many mutants, of which draw, of which blocks (all of them if empty).

    Raises
    ------
    InputError
        `folder` has results of another campaign, another process is at work in it, or there is no such block.
    ToolError
        A tool is missing or failed.
    """
    for block in blocks:  # before anything takes time
        if not (Path(__file__).parents[2] / "hw" / f"{block}.py").exists():
            raise InputError(f"unknown block {block!r}; expected the name of a file in hw, as scan or tile_loop")
    with claimed(folder):
        told("netlist")
        whole = netlist(params)
        mutants = whole.mutants(count, seed, blocks)
        results = Results(folder / MUTANTS, key_of(whole, mutants, stimuli), len(mutants))
        yield Campaign(whole, mutants, stimuli, results, read(), told, not blocks and count >= COUNT)
