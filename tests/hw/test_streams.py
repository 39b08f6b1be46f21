"""Every layout that travels between blocks stands in `hw/streams.py`, or in `hw/layouts.py` if a file has it too."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import hw
from hw import streams
from hw.layouts import REFILL_BITS
from hw.params import Params

HW = Path(hw.__file__).parent
PLACES = {"streams.py", "layouts.py", "frames.py"}  # between blocks; in memories; on a serial line


def layouts_made(source: str) -> list[str]:
    """Functions that only return a layout."""
    return [
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.returns is not None and "Layout" in ast.unparse(node.returns)
    ]


@pytest.mark.verifies("layouts-between-blocks-stand-place")
@pytest.mark.parametrize("path", sorted(HW.glob("*.py")), ids=lambda path: path.name)
def test_layouts_have_one_place(path: Path) -> None:
    found = layouts_made(path.read_text("utf-8"))
    assert bool(found) == (path.name in PLACES), f"{path.name} defines {found}"


def test_the_search_finds_a_layout_elsewhere() -> None:
    assert layouts_made("def act_vector(params: Params) -> data.StructLayout:\n    return x\n") == ["act_vector"]


@pytest.mark.parametrize("params", [Params(), Params(pes=1, refill=False)], ids=["full", "plain"])
def test_all_of_them_are_layouts(params: Params) -> None:
    names = [name for name in streams.__all__ if name.islower() and name != "beat"]
    assert all(getattr(streams, name)(params).size > 0 for name in names)
    assert streams.beat(REFILL_BITS).size == REFILL_BITS + 1
