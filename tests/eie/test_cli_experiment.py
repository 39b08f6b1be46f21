"""``eie experiment``, ``eie bench train`` and ``eie bench array``: reports are written, and wrong use is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

RECIPE = """
kind = "quantization"
seeds = [1, 2]
bits = [2]
finetune = { epochs = 1, batch = 64, learning_rate = 1e-3 }
[[networks]]
name = "tiny"
data = "digits"
samples = 300
model = { name = "mlp", hidden = [8] }
dense = { epochs = 2, batch = 32, learning_rate = 1e-2 }
"""


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "tiny.toml").write_text(RECIPE)
    return folder


@pytest.mark.verifies("eie-experiment-eie-bench-train")
def test_an_experiment_prints_what_its_report_says(invoke, tmp_path: Path, recipes: Path) -> None:
    out = tmp_path / "out"
    result = invoke("experiment", str(recipes / "tiny.toml"), "-o", str(out))
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text())
    assert report["experiment"]["seeds"] == [1, 2]
    assert "tiny: mean test error" in result.output
    assert "thesis' ordering of levels" in result.output
    assert f"- {report['findings'][0]}" in (out / "report.md").read_text()
    again = invoke("experiment", str(recipes / "tiny.toml"), "-o", str(out))
    assert again.exit_code == 2
    assert "--resume" in again.output


@pytest.mark.verifies("eie-experiment-eie-bench-train")
def test_bench_train_runs_what_is_named_and_says_what_there_is(invoke, tmp_path: Path, recipes: Path) -> None:
    common = ("bench", "train", "--recipes", str(recipes), "-o", str(tmp_path / "out"))
    unknown = invoke(*common, "--only", "nothing")
    assert unknown.exit_code == 2
    assert "expected some of tiny" in unknown.output
    result = invoke(*common, "--json", str(tmp_path / "all.json"))
    assert result.exit_code == 0, result.output
    reports = json.loads((tmp_path / "all.json").read_text())
    kept = json.loads((tmp_path / "out" / "tiny" / "report.json").read_text())
    assert kept.pop("trials") == list(reports["tiny"].pop("trials"))  # what each found is in files of their own
    assert reports["tiny"] == kept


@pytest.mark.verifies("eie-bench-array-wrong-use")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--structured", "nothing"), "expected one of"),
        (("--densities", "0.1,x"), "expected numbers with commas"),
        (("--densities", "0.1,2"), "above 0 and at most 1"),
    ],
)
def test_bench_array_says_what_is_wrong(invoke, tmp_path: Path, options: tuple[str, str], words: str) -> None:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "ssl.toml").write_text("")
    result = invoke("bench", "array", "--recipes", str(recipes), "-o", str(tmp_path / "out"), *options)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()
