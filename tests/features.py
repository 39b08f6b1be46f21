"""What is verified by which test: tests/features.toml, the markers of the tests, the tables of docs/verification.md.

A test says ``@pytest.mark.verifies("feature", …)``. ``python -m tests.features`` (``make docs``) writes the tables.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Feature", "document", "features", "markers", "problems"]

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tests" / "features.toml"
PLAN = ROOT / "docs" / "verification.md"
TABLE = re.compile(r"<!-- features: ([\w-]+) -->\n(.*?)<!-- end -->\n", re.DOTALL)
MARKER = "verifies"


class Feature(NamedTuple):
    """A line of the plan. missing : what is not verified yet; then it may be without a test."""

    section: str
    name: str
    text: str
    missing: str = ""


def features(text: str) -> list[Feature]:
    """The features of a list: a table for each section, of ``name = "text"`` or ``{text = "…", missing = "…"}``."""
    found = []
    for section, lines in tomllib.loads(text).items():
        for name, line in lines.items():
            entry = {"text": line} if isinstance(line, str) else line
            found.append(Feature(section, name, entry["text"], entry.get("missing", "")))
    return found


def _decorated(body: list[ast.stmt], outer: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield outer + node.name, node
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from _decorated(node.body, f"{outer}{node.name}::")


def markers(source: str) -> Iterator[tuple[str, str]]:
    """Feature and test, those in classes as ``Class::test``, for each marker of a file."""
    for test, node in _decorated(ast.parse(source).body):
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == f"pytest.mark.{MARKER}":
                for argument in decorator.args:
                    yield str(ast.literal_eval(argument)), test


def marked(root: Path) -> dict[str, list[str]]:
    """The tests of each feature, as ``tests/file.py::test``, in the order of files and lines."""
    found: dict[str, list[str]] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        for name, test in markers(path.read_text(encoding="utf-8")):
            found.setdefault(name, []).append(f"{path.relative_to(root).as_posix()}::{test}")
    return found


def problems(listed: list[Feature], tests: dict[str, list[str]], plan: str) -> list[str]:
    """Features without a test or listed twice, markers without a feature, sections without a table."""
    names = Counter(feature.name for feature in listed)
    found = [f"feature {name!r} is listed {count} times" for name, count in names.items() if count > 1]
    found += [
        f"feature {feature.name!r} has no test with @pytest.mark.{MARKER}({feature.name!r})"
        for feature in listed
        if feature.name not in tests and not feature.missing
    ]
    found += [
        f"{tests[name][0]} verifies {name!r}, which tests/features.toml does not list"
        for name in tests
        if name not in names
    ]
    sections, tables = {feature.section for feature in listed}, [name for name, _ in TABLE.findall(plan)]
    found += [f"docs/verification.md has no table for section {name!r}" for name in sorted(sections - set(tables))]
    found += [f"tests/features.toml has no section {name!r}" for name in sorted(set(tables) - sections)]
    return found


def document(plan: str, listed: list[Feature], tests: dict[str, list[str]]) -> str:
    """docs/verification.md with the tables as they are now."""

    def table(match: re.Match[str]) -> str:
        lines = [f"<!-- features: {match[1]} -->", "| Feature | Tests | Status |", "|---|---|---|"]
        for feature in listed:
            if feature.section == match[1]:
                named = ", ".join(f"`{test}`" for test in tests.get(feature.name, ())) or "none"
                lines.append(f"| {feature.text} | {named} | {_status(feature, named)} |")
        return "\n".join(lines) + "\n<!-- end -->\n"

    return TABLE.sub(table, plan)


def _status(feature: Feature, named: str) -> str:
    if not feature.missing:
        return "done"
    return f"{'open' if named == 'none' else 'partly'}: {feature.missing}"


def main() -> None:
    """Write the tables again."""
    plan = PLAN.read_text(encoding="utf-8")
    PLAN.write_text(document(plan, features(LIST.read_text(encoding="utf-8")), marked(ROOT)), encoding="utf-8")


if __name__ == "__main__":
    main()
