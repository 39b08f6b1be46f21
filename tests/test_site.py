"""The site builds without a warning, and a link or an anchor that leads nowhere ends it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
FAR = re.compile(r"""<(?:script|link|img)\b[^>]*\b(?:src|href)=["'](?:https?:)?//""")
"""What a browser would load from elsewhere."""


def build(source: Path, to: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(source), str(to)]
    return subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=False)


@pytest.mark.verifies("site-builds")
@pytest.mark.slow
def test_site_builds_and_asks_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = build(DOCS, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    pages = {path: path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html")}
    assert tmp_path / "site" / "training" / "README.html" in pages
    assert [(path.name, found[0]) for path, page in pages.items() if (found := FAR.search(page))] == []
    assert "eie.compile" in (tmp_path / "site" / "api" / "README.html").read_text(encoding="utf-8")


@pytest.mark.verifies("site-builds")
@pytest.mark.parametrize(
    ("tag", "far"),
    [
        ('<script defer src="https://elsewhere.org/a.js">', True),
        ('<link rel="stylesheet"\nhref="//elsewhere.org/a.css">', True),
        ("<img alt='' src='http://elsewhere.org/a.png'>", True),
        ('<script src="_static/a.js">', False),
        ('<a href="https://elsewhere.org/">', False),
    ],
)
def test_planted_tags_that_load_from_elsewhere_are_found(tag: str, far: bool) -> None:
    assert bool(FAR.search(f"<head>{tag}</head>")) == far


@pytest.mark.verifies("site-builds")
@pytest.mark.parametrize(("link", "right"), [("a.md#there", True), ("none.md", False), ("a.md#none", False)])
def test_planted_broken_links_end_it(link: str, right: bool, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    shutil.copy(DOCS / "conf.py", tmp_path / "docs")
    (tmp_path / "docs" / "index.md").write_text(f"# Index\n\n```{{toctree}}\na\n```\n\n[a link]({link})\n")
    (tmp_path / "docs" / "a.md").write_text("# A\n\n## There\n\ntext\n")
    done = build(tmp_path / "docs", tmp_path / "site")
    assert (done.returncode == 0) == right, done.stderr
