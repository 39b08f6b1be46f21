"""``eie search`` from the command line, and the pages about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim.pages.progress import state
from tests.eie.conftest import Invoke

pytest.importorskip("optuna")
pytest.importorskip("torch")

RECIPE = """
[search]
sampler = "random"
trials = 3
objectives = ["error", "file"]

[search.variables]
"model.hidden.0" = { low = 4, high = 9 }

[data]
name = "digits"
samples = 100

[model]
name = "mlp"
hidden = [6]

[[stages]]
kind = "dense"
epochs = 1
batch = 50
learning_rate = 1e-2
"""


@pytest.mark.verifies("search-command", "search-pages")
def test_report_json_and_pages_agree(tmp_path: Path, invoke: Invoke) -> None:
    recipe, out = tmp_path / "small.toml", tmp_path / "out"
    recipe.write_text(RECIPE)
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    result = invoke("search", recipe, "-o", out, "--rtl", "0", "--tensorboard", tmp_path / "events", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    (events,) = (tmp_path / "events").iterdir()
    points = [(v.tag, e.step) for e in loader.EventFileLoader(str(events)).Load() for v in e.summary.value]
    assert sorted(points) == [(name, trial) for name in ("error", "file") for trial in range(3)]
    assert report == json.loads((out / "report.json").read_text())
    front = report["figures"]["search"]["front"]
    (run,) = (each for each in state(out)["runs"] if each["kind"] == "search")
    assert (run["status"], run["done"], run["total"], run["objectives"]) == ("finished", 3, 3, ["error", "file"])
    assert [int(each["trial"]) for each in run["front"]] == [each["trial"] for each in front]
    assert [each["figures"][1] for each in run["front"]] == [each["figures"]["file"] for each in front]
    page = invoke("report", out, "-o", tmp_path / "page.html", "--json")
    assert page.exit_code == 0, page.output
    (panel,) = json.loads(page.stdout)["search"]["fronts"]
    assert (panel["up"], panel["across"]) == ("error", "file")
    drawn = (tmp_path / "page.html").read_text()
    assert ">error against file</title>" in drawn
    assert "Error against compression" not in drawn
    assert "Filled: no other trial is better in all objectives." in drawn
    assert sum(point["front"] for point in panel["points"]) == len(front)
    again = invoke("search", recipe, "-o", out, "--rtl", "0")
    assert again.exit_code == 2
    assert "continue it with --resume" in again.stderr
    wrong = json.loads((out / "report.json").read_text())
    wrong["figures"]["search"]["tried"][0]["objectives"] = [1]
    (out / "report.json").write_text(json.dumps(wrong))
    refused = invoke("report", out, "-o", tmp_path / "wrong.html")
    assert refused.exit_code == 2
    assert "tried[0].objectives should be 2 numbers" in refused.stderr


@pytest.mark.verifies("search-command")
def test_what_is_no_search_leaves_nothing_behind(tmp_path: Path, invoke: Invoke) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(RECIPE.replace("[search]", "[other]").replace("[search.variables]", "[other.variables]"))
    result = invoke("search", recipe, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "has no table [search]" in result.stderr
    assert not (tmp_path / "out").exists()
