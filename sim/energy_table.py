"""Energy of one access: published figures from a table, and the rules that scale them to the memories of an array."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from compiler.errors import InputError
from hw.layouts import ACT_BITS, REFILL_BITS, Memory, descriptor_stride, memory_shape, near_sum, table_word
from hw.params import DESCRIPTOR_PARTS, LANES, PIECES, Params
from hw.streams import job

__all__ = ["ARRAY_MEMORIES", "Cost", "Table", "costs", "load_table", "memories"]

_UNITS: dict[str, tuple[str, ...]] = {
    "multiply": ("pj",),
    "add": ("pj", "bits"),
    "sram": ("pj", "bits", "bytes"),
    "dram": ("pj", "bits"),
    "clock": ("pj",),
    "register": ("pj",),
    "logic": ("pj",),
}
"""Sections of a table, and the numbers that each must have."""

ARRAY_MEMORIES: dict[str, str] = {
    "weights": "weight",
    "pointers": "pointer",
    "queue": "queue",
    "codebook": "codebook",
    "accumulators": "accumulator",
    "activations": "activation",
    "outputs": "output",
    "tables": "table",
    "operands": "operand",
    "descriptors": "descriptor",
}
"""Sections that a user's table may have: a memory of the array → the name of its accesses, but _reads or _writes."""


@dataclass(frozen=True)
class Table:
    """Energies in pJ with their sources; `file` is where they come from.

    units : section → its numbers. own : memory of the array → {"read": pJ, "write": pJ}, in place of the SRAM rule.
    sources : section → where its figure is from.
    """

    name: str
    units: dict[str, dict[str, float]]
    own: dict[str, dict[str, float]]
    sources: dict[str, str]

    def sram(self, bits: int, size: float) -> float:
        """One access of `bits` bits in a memory of `size` bytes: linear in the width, square root of the size."""
        unit = self.units["sram"]
        return unit["pj"] * bits / unit["bits"] * math.sqrt(size / unit["bytes"])

    def linear(self, section: str, bits: int) -> float:
        """The figure of a section, in proportion to the width."""
        return self.units[section]["pj"] * bits / self.units[section]["bits"]

    def pj(self, section: str) -> float:
        """The figure of a section as it is."""
        return self.units[section]["pj"]


@dataclass(frozen=True)
class Cost:
    """What one access takes: pJ, the part of the array it belongs to, how it follows from the table, its source."""

    pj: float
    part: str
    rule: str
    source: str


def load_table(path: Path | None = None) -> Table:
    """The table that comes with the kit, with the sections of a file in place of its own.

    Raises
    ------
    InputError
        The file is not there, is no TOML, or has sections or numbers that no table has.
    """
    shipped = tomllib.loads((resources.files("sim") / "energy45.toml").read_text(encoding="utf-8"))
    given: dict[str, Any] = {}
    if path is not None:
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"{path} is no table of energies: {error}; docs/energy.md shows one") from None
    where = str(path)
    known = {*_UNITS, *ARRAY_MEMORIES}
    for section, values in given.items():
        if section == "name":
            continue
        if section not in known or not isinstance(values, dict):
            raise InputError(f"{where}: unknown section {section!r}; expected some of {', '.join(sorted(known))}")
        numbers = _UNITS.get(section, ("read", "write"))
        if sorted(set(values) - {"source"}) != sorted(numbers):
            raise InputError(
                f"{where}: section [{section}] has {', '.join(values) or 'nothing'}; expected "
                f"{', '.join(numbers)}, source"
            )
        for name in numbers:
            _check(where, section, name, values[name])
    merged = {**shipped, **given}
    units = {section: {name: float(merged[section][name]) for name in names} for section, names in _UNITS.items()}
    own = {
        section: {name: float(given[section][name]) for name in ("read", "write")}
        for section in ARRAY_MEMORIES
        if section in given
    }
    sources = {section: str(merged[section].get("source", where)) for section in (*units, *own)}
    return Table(str(merged["name"]), units, own, sources)


def _check(where: str, section: str, name: str, value: object) -> None:
    least = "more than 0" if name in ("bits", "bytes") else "0 or more"
    if (
        isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0
        or (name in ("bits", "bytes") and value == 0)
    ):  # fmt: skip
        raise InputError(f"{where}: [{section}] {name} is {value!r}; expected a number, {least}")


def memories(params: Params) -> dict[str, tuple[int, int]]:
    """Bits of a word, with its parity bit, and words of each memory of the array, one unit of it."""
    shapes = {name: memory_shape(params, kind)[1:] for name, kind in (
        ("weights", Memory.WEIGHTS), ("pointers", Memory.POINTERS), ("codebook", Memory.CODEBOOK),
        ("activations", Memory.ACTIVATIONS), ("outputs", Memory.OUTPUTS), ("descriptors", Memory.DESCRIPTORS),
    )}  # fmt: skip
    found = {
        **{name: (bits, words) for name, (words, bits) in shapes.items()},
        "queue": (job(params).size, params.queue_words),
        "accumulators": (near_sum(params).size if params.near else params.acc_bits, params.rows),
        "tables": (table_word(params).size, params.tables * PIECES),
        "operands": (ACT_BITS * LANES, 4),
        **({"descriptors": (32, DESCRIPTOR_PARTS * descriptor_stride(params))} if params.slim else {}),
    }
    return {name: (bits + params.parity, words) for name, (bits, words) in found.items()}


def costs(params: Params, table: Table) -> dict[str, Cost]:
    """Access by the name that `sim.accesses` has for it → what one takes."""
    found: dict[str, Cost] = {}
    shapes = memories(params)
    for memory, access in ARRAY_MEMORIES.items():
        bits, words = shapes[memory]
        part = _PARTS[memory]
        for way in ("read", "write"):
            if memory in table.own:
                cost = Cost(table.own[memory][way], part, "as the table says", table.sources[memory])
            else:
                size = bits * words / 8
                words_of = DESCRIPTOR_PARTS if memory == "descriptors" and params.slim else 1
                rule = f"sram: {f'{words_of} x ' if words_of > 1 else ''}{bits} bits of {_size(size)}"
                cost = Cost(words_of * table.sram(bits, size), part, rule, table.sources["sram"])
            found[f"{access}_{way}s"] = cost
    adder = params.acc_bits
    found["multiplications"] = Cost(table.pj("multiply"), "arithmetic", "multiply", table.sources["multiply"])
    found["additions"] = Cost(table.linear("add", adder), "arithmetic", f"add: {adder} bits", table.sources["add"])
    found["stream_beats"] = Cost(
        table.linear("dram", REFILL_BITS), "off chip", f"dram: {REFILL_BITS} bits", table.sources["dram"]
    )
    beat = ACT_BITS * LANES
    found["map_beats"] = Cost(table.linear("dram", beat), "off chip", f"dram: {beat} bits", table.sources["dram"])
    found["working_cycles"] = Cost(
        table.pj("register") + table.pj("logic"), "registers, logic", "register + logic",
        f"{table.sources['register']}; {table.sources['logic']}",
    )  # fmt: skip
    found["pe_cycles"] = Cost(table.pj("clock"), "clock", "clock", table.sources["clock"])
    return found


_PARTS = {
    "weights": "weights", "pointers": "pointers", "queue": "queue", "codebook": "codebook",
    "accumulators": "accumulators", "activations": "activations", "outputs": "write-back", "tables": "write-back",
    "operands": "write-back", "descriptors": "control",
}  # fmt: skip


def _size(size: float) -> str:
    return f"{size / 1024:.4g} KB" if size >= 1024 else f"{size:.4g} bytes"
