"""The generated parts of docs/ say what the hardware is now, and what the documents link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hw.params import preset
from hw.registers import c_header, markdown

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(("name", "generate"), [("registers.md", markdown), ("eie.h", c_header)])
def test_generated_file_is_current(name, generate) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == generate(preset("BALANCED_16")), "run: make docs"


LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s#]+)(?:#[^)]*)?\)")
DOCUMENTS = sorted([*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")])


def broken(text: str, folder: Path) -> list[str]:
    """Relative links of a document in `folder` that lead nowhere."""
    links = [link for link in LINK.findall(text) if not re.match(r"[a-z]+:", link)]
    return [link for link in links if not (folder / link).exists()]


@pytest.mark.verifies("documents-link-files-exist-docs")
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(DOCS.parent).as_posix())
def test_links_lead_to_something(path: Path) -> None:
    assert broken(path.read_text(encoding="utf-8"), path.parent) == []


def test_a_broken_link_is_found() -> None:
    text = "[a](none.md) ![b](none.svg) [c](verification.md#there) [d](https://example.org/none) [e](#here)"
    assert broken(text, DOCS) == ["none.md", "none.svg"]


@pytest.mark.verifies("documents-link-files-exist-docs")
def test_results_are_summaries() -> None:
    """Markdown, short JSON, a ledger and one format of pictures; the rest is written again by its command."""
    files = [path for path in (DOCS / "results").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".md", ".json", ".jsonl", ".svg"}
    assert max(path.stat().st_size for path in files) < 100_000
    assert sum(path.stat().st_size for path in files) < 2_500_000
