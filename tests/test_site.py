"""The site builds without a warning, and a link or an anchor that leads nowhere ends it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def build(source: Path, to: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(source), str(to)]
    return subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=False)


@pytest.mark.verifies("site-builds")
@pytest.mark.slow
def test_site_builds_and_asks_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = build(DOCS, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert '<script src="http' not in index
    assert 'rel="stylesheet" type="text/css" href="http' not in index
    assert "eie.compile" in (tmp_path / "site" / "api" / "README.html").read_text(encoding="utf-8")


@pytest.mark.verifies("site-builds")
@pytest.mark.parametrize(("link", "right"), [("a.md#there", True), ("none.md", False), ("a.md#none", False)])
def test_planted_broken_links_end_it(link: str, right: bool, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    shutil.copy(DOCS / "conf.py", tmp_path / "docs")
    (tmp_path / "docs" / "index.md").write_text(f"# Index\n\n```{{toctree}}\na\n```\n\n[a link]({link})\n")
    (tmp_path / "docs" / "a.md").write_text("# A\n\n## There\n\ntext\n")
    done = build(tmp_path / "docs", tmp_path / "site")
    assert (done.returncode == 0) == right, done.stderr
