"""What yosys and nextpnr say about a design, in few words and with our names."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from compiler.errors import InputError

__all__ = ["Path", "cell_counts", "critical_path", "megahertz", "resources", "summary"]

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


def resources(report: Mapping[str, Any]) -> dict[str, int]:
    """What nextpnr used of the device, by our names; zero where it used none."""
    used = report["utilization"]
    return {name: int(used.get(kind, {"used": 0})["used"]) for kind, name in RESOURCES.items()}


def _signal_names(netlist: Mapping[str, Any], module: str) -> dict[int, list[str]]:
    """Every public name of each net."""
    names: dict[int, list[str]] = {}
    for name, net in netlist["modules"][module]["netnames"].items():
        if not net.get("hide_name"):
            for n, bit in enumerate(net["bits"]):
                names.setdefault(bit, []).append(f"{name}[{n}]" if len(net["bits"]) > 1 else name)
    return names


def _best(names: Iterable[str]) -> str | None:
    """The name that a reader of the hardware knows: in a block, not made by a tool, the shortest."""
    ours = [name.removeprefix("dut.") for name in names if not re.search(r"\$|_TRELLIS_|_LUT4|_PFUMX|_CCU2C", name)]
    return min(ours, key=lambda name: ("." not in name, len(name), name), default=None)


def critical_path(report: Mapping[str, Any], netlist: Mapping[str, Any], module: str) -> Path:
    """The slowest register-to-register path of nextpnr's report, in the names of the netlist it was made from."""
    (steps,) = [
        path["path"]
        for path in report["critical_paths"]
        if path["from"].startswith("posedge") and path["from"] == path["to"]
    ]
    cells = netlist["modules"][module]["cells"]
    names = _signal_names(netlist, module)

    def driven(end: Mapping[str, str], ports: tuple[str, ...]) -> str:
        """Name of the signal that the cell at one end of the path drives."""
        connections = cells.get(end["cell"], {}).get("connections", {})
        bits = [bit for port in ports for bit in connections.get(port, []) if isinstance(bit, int)]
        return _best(name for bit in bits for name in names.get(bit, [])) or end["cell"].removeprefix("dut.")

    def delay(*kinds: str) -> float:
        return round(sum(step["delay"] for step in steps if step["type"] in kinds), 2)

    first, last = steps[0]["from"], steps[-1]["to"]
    return Path(
        start=driven(first, (first["port"],)),
        end=driven(last, ("Q",)),
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


def as_run(seed: int, report: Mapping[str, Any], netlist: Mapping[str, Any], module: str) -> dict[str, Any]:
    """What one seed of place and route gave."""
    return {
        "seed": seed,
        "mhz": round(megahertz(report), 1),
        "resources": resources(report),
        "critical_path": asdict(critical_path(report, netlist, module)),
    }
