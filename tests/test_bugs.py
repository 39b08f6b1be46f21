"""The ledger of bugs names tests and proofs that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sim.formal.table import CLAIMS

ROOT = Path(__file__).parents[1]
WAYS = ("review", "simulation", "formal", "mutation", "fuzz")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PROOF = re.compile(r"`([a-z]+(?:-[a-z]+)+)`")


def problems(text: str, root: Path) -> list[str]:
    """What is wrong with the rows of a ledger."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        for line in text.splitlines()
        if re.match(r"\| \d+ \|", line)
    ]
    found = [] if rows else ["there is no row"]
    known = {claim.name for claim in CLAIMS}
    for number, row in enumerate(rows, 1):
        if len(row) != 5 or not all(row):
            found.append(f"row {number}: expected five cells")
            continue
        name, _, by, _, held = row
        if name != str(number):
            found.append(f"row {number} is numbered {name}")
        if by.partition(":")[0] not in WAYS:
            found.append(f"row {number}: found by {by!r}; expected one of {', '.join(WAYS)} and a colon")
        tests, proofs = TEST.findall(held), PROOF.findall(held)
        if not tests:
            found.append(f"row {number}: names no test")
        for file, test in tests:
            path = root / file
            if not path.is_file() or f"def {test}(" not in path.read_text(encoding="utf-8"):
                found.append(f"row {number}: there is no {file}::{test}")
        found += [f"row {number}: there is no proof {proof}" for proof in proofs if proof not in known]
    return found


@pytest.mark.verifies("bugs-name-tests")
def test_each_bug_names_tests_that_exist() -> None:
    assert problems((ROOT / "docs" / "bugs.md").read_text(encoding="utf-8"), ROOT) == []


@pytest.mark.verifies("bugs-name-tests")
@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("| 1 | wrong | review: by hand | none looked | `tests/test_a.py::test_there` |", None),
        ("| 1 | wrong | formal: a proof | none looked | `skid-order`; `tests/test_a.py::test_there` |", None),
        (
            "| 1 | wrong | review: by hand | none looked | `tests/test_a.py::test_gone` |",
            "no tests/test_a.py::test_gone",
        ),
        ("| 1 | wrong | review: by hand | none looked | `tests/test_b.py::test_there` |", "no tests/test_b.py"),
        ("| 1 | wrong | review: by hand | none looked | `skid-order` |", "names no test"),
        ("| 1 | wrong | fuzz: x | y | `skid-ordre`; `tests/test_a.py::test_there` |", "no proof skid-ordre"),
        ("| 1 | wrong | chance: x | y | `tests/test_a.py::test_there` |", "found by 'chance: x'"),
        ("| 2 | wrong | review: x | y | `tests/test_a.py::test_there` |", "is numbered 2"),
        ("| 1 | wrong | review: x | `tests/test_a.py::test_there` |", "expected five cells"),
        ("", "there is no row"),
    ],
)
def test_a_planted_row_is_caught(row: str, problem: str | None, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text("def test_there(): ...\n", encoding="utf-8")
    found = problems(f"| # | what |\n|---|---|\n{row}\n", tmp_path)
    assert len(found) == (problem is not None)
    assert problem is None or problem in found[0]
