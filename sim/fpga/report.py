"""What yosys and nextpnr say about a design, in few words and with our names."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from compiler.errors import InputError

__all__ = [
    "Path", "cell_counts", "critical_path", "megahertz", "public_names", "resources", "slowest_clock", "source_names",
    "summary",
]  # fmt: skip

# How nextpnr and yosys call what the ECP5 consists of, and how its users do.
RESOURCES = {
    "TRELLIS_COMB": "comb", "TRELLIS_FF": "ff", "TRELLIS_RAMW": "ramw", "DP16KD": "ebr", "MULT18X18D": "mult18",
}  # fmt: skip
CELLS = {
    "LUT4": "lut4", "CCU2C": "ccu2c", "TRELLIS_DPR16X4": "dpr16x4", "PFUMX": "pfumx", "L6MUX21": "l6mux21",
    "TRELLIS_FF": "ff", "MULT18X18D": "mult18", "DP16KD": "ebr",
}  # fmt: skip


@dataclass(frozen=True)
class Path:
    """The slowest path between two registers, in ns; `start` and `end` are signals of the hardware.

    `clock_to_q`, `logic` and `routing` (setup among the logic) add up to `total`; `levels` counts the cells between.
    """

    start: str
    end: str
    total: float
    clock_to_q: float
    logic: float
    routing: float
    levels: int


def cell_counts(netlist: Mapping[str, Any], module: str) -> dict[str, int]:
    """Cells of a module of yosys's JSON netlist, by our names; zero where there is none."""
    found = Counter(cell["type"] for cell in netlist["modules"][module]["cells"].values())
    return {name: found[kind] for kind, name in CELLS.items()}


def megahertz(report: Mapping[str, Any]) -> float:
    """Clock that nextpnr's report says is reached; there must be one clock and no other."""
    clocks = report.get("fmax", {})
    if len(clocks) != 1:
        raise InputError(
            f"nextpnr reports {len(clocks)} clocks ({', '.join(clocks) or 'none'}); expected one. "
            "Measure a design with one clock domain and at least one register."
        )
    (clock,) = clocks.values()
    return float(clock["achieved"])


def slowest_clock(report: Mapping[str, Any]) -> tuple[str, float]:
    """Name and MHz of the slowest clock with a path between two of its registers.

    A board has others beside the design's: that of the pin in front of a PLL.

    Raises
    ------
    InputError
        nextpnr found no such path.
    """
    inside = {
        path["from"].removeprefix("posedge "): sum(float(step["delay"]) for step in path["path"])
        for path in report["critical_paths"]
        if path["from"] == path["to"] and path["from"].startswith("posedge")
    }
    if not inside:
        raise InputError("nextpnr reports no path between two registers; expected a design with a clock")
    clock = max(inside, key=lambda name: inside[name])
    return clock, float(report["fmax"][clock]["achieved"])


def resources(report: Mapping[str, Any]) -> dict[str, int]:
    """What nextpnr used of the device, by our names; zero where it used none."""
    used = report["utilization"]
    return {name: int(used.get(kind, {"used": 0})["used"]) for kind, name in RESOURCES.items()}


def _aliases(netlist: Mapping[str, Any], module: str) -> dict[int, list[tuple[int, str]]]:
    """Every public name of each net, and the width of the signal that it is a bit of."""
    names: dict[int, list[tuple[int, str]]] = {}
    for name, net in netlist["modules"][module]["netnames"].items():
        if not net.get("hide_name"):
            for n, bit in enumerate(net["bits"]):
                names.setdefault(bit, []).append((len(net["bits"]), f"{name}[{n}]" if len(net["bits"]) > 1 else name))
    return names


def source_names(design: Mapping[str, Any], module: str, inside: str = "dut.") -> dict[str, str]:
    """For every name of a net, the one that a reader of the hardware knows it by.

    Optimization keeps one name of each net, often one that the Verilog's writer made up. `design` is the netlist before
    it, flattened, in which all names are left: of these one without a made-up part, in the block whose
    register drives the net, of the narrowest signal (a field rather than the whole payload), and the shortest. Names
    begin with `inside`, which is left out.
    """
    blocks: dict[int, str] = {}
    for name, cell in design["modules"][module]["cells"].items():
        if "dff" in cell["type"] and (found := re.match(r"\$flatten\\(.*?\.)\$", name)):
            blocks |= dict.fromkeys(cell["connections"]["Q"], found[1].replace("\\", ""))
    best: dict[str, str] = {}
    for bit, names in _aliases(design, module).items():
        ours = [(width, name) for width, name in names if "$" not in name and name.startswith(inside)] or names
        block = blocks.get(bit, "")
        _, chosen = min(ours, key=lambda item: (not item[1].startswith(block), item[0], len(item[1]), item[1]))
        best |= dict.fromkeys((name for _, name in names), chosen.removeprefix(inside))
    return best


def public_names(netlist: Mapping[str, Any], module: str) -> dict[str, str]:
    """For every name of a net of a finished netlist, the shortest of that net without a made-up part.

    Where optimization has left none, there is no entry.
    """
    best: dict[str, str] = {}
    for names in _aliases(netlist, module).values():
        if ours := [name for _, name in names if "$" not in name]:
            best |= dict.fromkeys((name for _, name in names), min(ours, key=len))
    return best


def critical_path(
    report: Mapping[str, Any], netlist: Mapping[str, Any], module: str, known: Mapping[str, str],
    clock: str | None = None, inside: str = "dut.",
) -> Path:  # fmt: skip
    """The slowest register-to-register path of nextpnr's report; `known` is what `source_names` gives.

    Of the clock of that name, which may be left out where there is one only.
    """
    (steps,) = [
        path["path"]
        for path in report["critical_paths"]
        if path["from"].startswith("posedge")
        and path["from"] == path["to"]
        and clock in (None, path["from"].removeprefix("posedge "))
    ]
    cells = netlist["modules"][module]["cells"]
    names = _aliases(netlist, module)

    def driven(end: Mapping[str, str], port: str) -> str:
        """Name of the signal that the cell at one end of the path drives; the cell's own where it drives none."""
        bits = cells.get(end["cell"], {}).get("connections", {}).get(port, [])
        found = [known[name] for bit in bits for _, name in names.get(bit, []) if name in known]
        return min(found, key=len, default=end["cell"].removeprefix(inside))

    def delay(*kinds: str) -> float:
        return round(sum(float(step["delay"]) for step in steps if step["type"] in kinds), 2)

    first, last = steps[0]["from"], steps[-1]["to"]
    return Path(
        start=driven(first, first["port"]),
        end=driven(last, "Q"),
        total=delay("clk-to-q", "source", "logic", "routing", "setup"),
        clock_to_q=delay("clk-to-q", "source"),
        logic=delay("logic", "setup"),
        routing=delay("routing"),
        levels=sum(step["type"] == "logic" for step in steps),
    )


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Slowest and median clock of the seeds, and the critical path of the slowest."""
    slowest = min(runs, key=lambda run: run["mhz"])
    return {
        "min_mhz": slowest["mhz"],
        "median_mhz": round(statistics.median(run["mhz"] for run in runs), 1),
        "critical_path": slowest["critical_path"],
    }


def as_run(
    seed: int, report: Mapping[str, Any], netlist: Mapping[str, Any], module: str, known: Mapping[str, str]
) -> dict[str, Any]:
    """What one seed of place and route gave."""
    return {
        "seed": seed,
        "mhz": round(megahertz(report), 1),
        "resources": resources(report),
        "critical_path": asdict(critical_path(report, netlist, module, known)),
    }
