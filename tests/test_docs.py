"""The generated parts of docs/ say what the hardware is now."""

from __future__ import annotations

from pathlib import Path

import pytest

from hw.params import preset
from hw.registers import c_header, markdown

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(("name", "generate"), [("registers.md", markdown), ("eie.h", c_header)])
def test_generated_file_is_current(name, generate) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == generate(preset("BALANCED_16")), "run: make docs"
