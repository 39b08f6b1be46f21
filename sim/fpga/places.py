"""Places of a Gowin part that a netlist takes, counted as nextpnr places cells (record 108).

A place has a lookup table, or one bit of an adder, and a flip-flop behind it that takes its data from there and from
nothing else. So what takes a place is each lookup table, each bit of an adder, and each flip-flop that another source
feeds; a cell of memory takes all eight of a tile. Of the eight, six have a flip-flop and an adder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compiler.errors import InputError

__all__ = ["Places", "check_places", "gowin_places"]

MEMORY = 8
"""Places that a cell of memory takes."""


@dataclass(frozen=True)
class Places:
    """What takes places.

    tables : lookup tables. adders : bits of adders, with those at both ends that lead carries in and out, and what
    makes them even. memory : cells of memory. alone : flip-flops that take a place without a lookup table or adder.
    """

    tables: int
    adders: int
    memory: int
    alone: int

    @property
    def all(self) -> int:
        """Places in all."""
        return self.tables + self.adders + MEMORY * self.memory + self.alone


def gowin_places(netlist: Mapping[str, Any], module: str) -> Places:
    """The places that a module of a flat netlist in yosys's JSON takes."""
    cells = netlist["modules"][module]["cells"]
    driver: dict[int, tuple[str, str]] = {}
    users: Counter[int] = Counter()
    for name, cell in cells.items():
        for port, bits in cell["connections"].items():
            for bit in bits:
                if cell["port_directions"][port] == "output":
                    driver[bit] = name, port
                else:
                    users[bit] += 1
    kinds = Counter("LUT" if cell["type"].startswith("LUT") else cell["type"] for cell in cells.values())
    front: set[str] = set()
    alone = 0
    for cell in cells.values():
        if cell["type"].startswith("DFF"):
            name, port = driver.get(cell["connections"]["D"][0], ("", ""))
            if port in ("F", "SUM") and name not in front:
                front.add(name)
            else:
                alone += 1
    return Places(kinds["LUT"], _adders(cells, driver, users), kinds["RAM16SDP4"], alone)


def _adders(cells: Mapping[str, Any], driver: Mapping[int, tuple[str, str]], users: Mapping[int, int]) -> int:
    """Bits of adders as nextpnr lays them out: a bit in front of each chain, one behind if its carry is used."""
    following = {}  # bit of an adder → the one that its carry goes to and to nothing else
    adders = {name: cell for name, cell in cells.items() if cell["type"] == "ALU"}
    heads = []
    for name, cell in adders.items():
        (carry,) = cell["connections"]["CIN"]
        before, port = driver.get(carry, ("", ""))
        if port == "COUT" and users[carry] == 1:
            following[before] = name
        else:
            heads.append(name)
    total = 0
    for head in heads:
        last, length = head, 2
        while last in following:
            last, length = following[last], length + 1
        length += any(users.get(bit, 0) for bit in adders[last]["connections"].get("COUT", ()))
        total += length + length % 2
    return total


def check_places(found: Places, holds: int, part: str) -> None:
    """Refuse a netlist that has no place on a part: nextpnr would look for one and never end.

    Raises
    ------
    InputError
        It has none; the message says what takes the places.
    """
    if found.all > holds:
        raise InputError(
            f"{part} has {holds:,} places, and the netlist takes {found.all:,}: {found.tables:,} lookup tables, "
            f"{found.adders:,} bits of adders, {found.memory:,} cells of memory of {MEMORY} each, and {found.alone:,} "
            "flip-flops without either in front. Choose a smaller array, --preset or --set, or another board "
            "(eie fpga --list)"
        )
