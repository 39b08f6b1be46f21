"""The test plan in docs/verification.md names only tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PLAN = ROOT / "docs" / "verification.md"
HEADER = ("feature", "test", "status")
STATUSES = ("done", "partly", "open")
NAME = re.compile(r"`(tests/[\w/]+\.py)::(\w+(?:::\w+)?)`")


class Row(NamedTuple):
    """One line of the plan."""

    feature: str
    test: str
    status: str


def rows(text: str) -> list[Row]:
    """The rows of all tables whose header is feature, test, status."""
    found, inside = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.lstrip().startswith("|") else []
        if len(cells) != len(HEADER):
            inside = False
        elif tuple(cell.lower() for cell in cells) == HEADER:
            inside = True
        elif inside and not set("".join(cells)) <= set("-: "):
            found.append(Row(*cells))
    return found


def names_of_tests(source: str) -> set[str]:
    """Names of the tests of a file, those in classes as ``Class::test``."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            methods = (item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef))
            names.update(f"{node.name}::{item.name}" for item in methods if item.name.startswith("test_"))
    return names


def problems(text: str, root: Path) -> list[str]:
    """What is wrong with the plan: tests that do not exist, rows without a test, states that are none."""
    found = []
    for row in rows(text):
        named = NAME.findall(row.test)
        if not named and row.status != "open":
            found.append(f"{row.feature}: names no test as `tests/...py::test_name`")
        if row.status not in STATUSES:
            found.append(f"{row.feature}: status {row.status!r} is none of {', '.join(STATUSES)}")
        for file, test in named:
            path = root / file
            if not path.is_file():
                found.append(f"{row.feature}: there is no {file}")
            elif test not in names_of_tests(path.read_text(encoding="utf-8")):
                found.append(f"{row.feature}: {file} has no {test}")
    return found


def test_plan_names_only_tests_that_exist() -> None:
    text = PLAN.read_text(encoding="utf-8")
    assert rows(text), f"{PLAN} has no table with the columns {', '.join(HEADER)}"
    assert problems(text, ROOT) == []


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("| Reset | `tests/hw/test_a.py::test_there` | done |", None),
        ("| Reset | `tests/hw/test_a.py::test_there`, `tests/hw/test_a.py::TestA::test_inner` | partly |", None),
        ("| Reset | `tests/hw/test_a.py::test_gone` | done |", "tests/hw/test_a.py has no test_gone"),
        ("| Reset | `tests/hw/test_a.py::TestA::test_gone` | done |", "has no TestA::test_gone"),
        ("| Reset | `tests/hw/test_b.py::test_there` | done |", "there is no tests/hw/test_b.py"),
        ("| Reset | by hand | done |", "names no test"),
        ("| Reset | none yet | open |", None),
        ("| Reset | `tests/hw/test_a.py::test_there` | soon |", "status 'soon' is none of"),
    ],
)
def test_planted_row_is_caught(row: str, problem: str | None, tmp_path: Path) -> None:
    (tmp_path / "tests" / "hw").mkdir(parents=True)
    source = "def test_there(): ...\n\nclass TestA:\n    def test_inner(self): ...\n"
    (tmp_path / "tests" / "hw" / "test_a.py").write_text(source, encoding="utf-8")
    found = problems(f"# Plan\n\n| Feature | Test | Status |\n|---|---|---|\n{row}\n", tmp_path)
    if problem is None:
        assert found == []
    else:
        assert len(found) == 1
        assert problem in found[0]
