"""Terms of the field in what users read: words that were once riddles do not come back."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

RIDDLES = {
    r"\boctets?\b": "activation vector",
    r"\broom rule\b": "credit rule",
    r"\bfront door\b": "public API",
    r"\bat equal error\b": "at matched accuracy",
    r"\bof free order\b": "in any order",
    r"\bin the wild\b": "loaded",
    r"\bwhere things stand\b": "data placement",
    r"\bwell or with an error\b": "successfully or with an error",
    r"\bwords a unit\b": "words per unit",
    r"\bfound used up\b": "retired",
    r"\bwhat that is worth\b": "evaluation",
    r"\bthe room it takes is seen\b": "broadcast-to-credit latency",
    r"\bdeal(s|t|ing)? (the )?rows\b": "row assignment",
}


CONFLICT = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)
"""What a merge leaves where both sides changed a line."""


def found(text: str) -> list[str]:
    return [word for pattern, word in RIDDLES.items() if re.search(pattern, text, re.IGNORECASE)]


def sources() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "*.h"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    paths = [ROOT / name for name in listed] or [
        path for folder in ("hw", "compiler", "sim", "eie", "docs") for path in (ROOT / folder).rglob("*.[pmh]*")
    ]
    return [path for path in paths if path.is_file() and path.name != Path(__file__).name]


@pytest.mark.verifies("words-were-riddles-do-come")
def test_nothing_that_is_read_holds_a_riddle() -> None:
    wrong = {str(path.relative_to(ROOT)): found(path.read_text(encoding="utf-8")) for path in sources()}
    assert {name: words for name, words in wrong.items() if words} == {}


@pytest.mark.verifies("words-were-riddles-do-come")
@pytest.mark.parametrize("text", ["The octet is read.", "At equal error it is smaller.", "the Room rule"])
def test_a_planted_riddle_is_found(text: str) -> None:
    assert len(found(text)) == 1


@pytest.mark.verifies("no-half-merged-files")
def test_no_file_is_half_merged() -> None:
    assert [
        str(path.relative_to(ROOT)) for path in sources() if CONFLICT.search(path.read_text(encoding="utf-8"))
    ] == []
    assert CONFLICT.search("one\n<<<<<<< HEAD\ntwo\n")
