"""Every block of the tutorials runs, and prints what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import blocks, run_page

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
PAGES = sorted(path.name for path in FOLDER.glob("*.md") if path.name != "README.md")


@pytest.mark.verifies("tutorials-run")
@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_tutorial_runs_as_it_stands(name: str, tmp_path: Path) -> None:
    run_page((FOLDER / name).read_text(encoding="utf-8"), tmp_path)


@pytest.mark.verifies("tutorials-run")
def test_six_tutorials_are_there_and_each_has_blocks_that_run() -> None:
    assert len(PAGES) == 6
    for name in PAGES:
        languages = [language for language, _ in blocks((FOLDER / name).read_text(encoding="utf-8"))]
        assert {"sh", "python"} & set(languages), name
        assert "text" in languages, name


PAGE = """
```python
x = 1
```
Text between.
```python
print("x is", x)
```
```text
x is 1
```
```sh
echo two; echo three
```
```text
three
```
"""


@pytest.mark.verifies("tutorials-run")
@pytest.mark.parametrize(
    ("old", "new"), [("x = 1", "x = 2"), ("x = 1", "x = y"), ("echo two", "false"), ("text\nthree", "text\nfour")]
)
def test_a_planted_wrong_line_is_found(old: str, new: str, tmp_path: Path) -> None:
    run_page(PAGE, tmp_path)
    with pytest.raises(AssertionError):
        run_page(PAGE.replace(old, new), tmp_path)
