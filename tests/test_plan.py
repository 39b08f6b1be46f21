"""Each feature of the plan has a test, each marker of a test a feature, and docs/verification.md says so."""

from __future__ import annotations

import pytest

from tests.features import LIST, PLAN, ROOT, Feature, document, features, marked, markers, problems


@pytest.mark.verifies("features-have-tests")
def test_each_feature_has_a_test_and_each_marker_a_feature() -> None:
    assert problems(features(LIST.read_text(encoding="utf-8")), marked(ROOT), PLAN.read_text(encoding="utf-8")) == []


@pytest.mark.verifies("features-have-tests")
def test_the_tables_are_those_of_the_markers() -> None:
    plan = PLAN.read_text(encoding="utf-8")
    written = document(plan, features(LIST.read_text(encoding="utf-8")), marked(ROOT))
    stale = next((now for now, new in zip(plan.splitlines(), written.splitlines(), strict=False) if now != new), "")
    assert stale == "", "run `make docs`"
    assert len(plan) == len(written), "run `make docs`"


TESTS = """
@pytest.mark.slow
@pytest.mark.verifies("reset", "restart")
def test_both(): ...

class TestInner:
    @pytest.mark.verifies("reset")
    def test_one(self): ...

@pytest.mark.verifies("clock")
def no_test(): ...
"""


@pytest.mark.verifies("features-have-tests")
def test_markers_are_read() -> None:
    assert list(markers(TESTS)) == [
        ("reset", "test_both"),
        ("restart", "test_both"),
        ("reset", "TestInner::test_one"),
    ]


RESET, OPEN = Feature("blocks", "reset", "Reset"), Feature("blocks", "board", "A board", "none has been run")
PAGE = "# Plan\n\n<!-- features: blocks -->\nold\n<!-- end -->\n"
THERE = {"reset": ["tests/test_a.py::test_there"]}


@pytest.mark.verifies("features-have-tests")
@pytest.mark.parametrize(
    ("listed", "tests", "page", "problem"),
    [
        ([RESET, OPEN], THERE, PAGE, None),
        ([RESET], {}, PAGE, "feature 'reset' has no test"),
        ([RESET, RESET], THERE, PAGE, "feature 'reset' is listed 2 times"),
        ([OPEN], THERE, PAGE, "tests/test_a.py::test_there verifies 'reset', which tests/features.toml does not list"),
        ([RESET], THERE, "# Plan\n", "has no table for section 'blocks'"),
        ([RESET], THERE, PAGE + PAGE.replace("blocks", "driver"), "has no section 'driver'"),
    ],
)
def test_planted_problem_is_caught(
    listed: list[Feature], tests: dict[str, list[str]], page: str, problem: str | None
) -> None:
    found = problems(listed, tests, page)
    if problem is None:
        assert found == []
    else:
        assert len(found) == 1
        assert problem in found[0]


@pytest.mark.verifies("features-have-tests")
def test_a_table_says_tests_and_what_is_missing() -> None:
    page = document(PAGE, features('[blocks]\nreset = "Reset"\nboard = {text = "A board", missing = "none"}\n'), THERE)
    assert "| Reset | `tests/test_a.py::test_there` | done |\n| A board | none | open: none |\n" in page
    assert "old" not in page
