"""``eie train --workers``: a run like any other, and wrong use in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compiler.claim import claimed

RECIPE = """
[data]
name = "digits"
samples = 200
[model]
name = "mlp"
hidden = [8]
[schedule]
epochs = 1
batch = 40
learning_rate = 0.1
optimizer = "sgd"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "job.toml"
    path.write_text(RECIPE)
    return str(path)


@pytest.mark.slow
@pytest.mark.verifies("parallel-training-equals-one-process")
def test_a_run_on_two_processes_is_read_like_any_other(invoke, recipe: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = invoke("train", recipe, "-o", str(out), "--workers", "2", "--parallel", "tensor")
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text())
    assert report["parallel"] == {"way": "tensor", "workers": 2, "ternary": []}
    assert [row["epoch"] for row in report["stages"][0]["history"]] == [1]
    from compiler.train.runfolder import load_run

    assert load_run(out).recipe.stages[0].kind == "dense"
    again = invoke("train", recipe, "-o", str(out), "--workers", "2", "--parallel", "tensor")
    assert again.exit_code == 2
    assert "continue it with --resume" in again.output


@pytest.mark.verifies("parallel-wrong-use")
@pytest.mark.parametrize("resume", [[], ["--resume"]])
@pytest.mark.parametrize(
    ("there", "options", "said"),
    [
        (["checkpoints"], ["--workers", "2"], "holds a run of one process, and this is one on several processes"),
        (
            ["checkpoints"],
            ["--workers", "2", "--parallel", "server"],
            "holds a run of one process, and this is one over",
        ),
        (
            ["checkpoint.safetensors"],
            [],
            "holds a run on several processes (--workers), and this is one of one process",
        ),
        (["shards"], ["--workers", "2"], "holds a run over a parameter server (--parallel server), and this is one on"),
        (["shards", "checkpoint.safetensors"], [], "holds a run over a parameter server"),
    ],
)
def test_a_folder_goes_on_in_the_way_that_it_was_begun(
    there: list[str], options: list[str], resume: list[str], said: str, invoke, recipe: str, tmp_path: Path
) -> None:
    for name in there:
        (tmp_path / "run" / name).mkdir(parents=True)
    Path(recipe).write_text(RECIPE.replace("[schedule]", '[[stages]]\nkind = "dense"'))  # which one process takes too
    result = invoke("train", recipe, "-o", str(tmp_path / "run"), *options, *resume)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


@pytest.mark.verifies("parallel-wrong-use")
@pytest.mark.parametrize("way", ["data", "server"])
def test_two_commands_in_one_folder_are_refused(way: str, invoke, recipe: str, tmp_path: Path) -> None:
    with claimed(tmp_path / "run"):
        result = invoke("train", recipe, "-o", str(tmp_path / "run"), "--workers", "2", "--parallel", way)
    assert result.exit_code == 2
    assert "another process is at work in" in " ".join(result.output.replace("│", " ").split())


@pytest.mark.verifies("parallel-wrong-use")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--parallel", "tensor"], "--parallel is for several processes: say how many with --workers"),
        (["--workers", "2", "--micro", "2"], "--micro is for --parallel pipeline; it is data"),
        (["--workers", "2", "--staleness", "1"], "--staleness is for --parallel server; it is data"),
        (["--workers", "2", "--parallel", "server", "--staleness", "-1"], "'-1' is no bound; expected 0, 1, 2"),
        (["--workers", "2", "--seeds"], "leave out --seed and --seeds"),
        (["--workers", "2", "--parallel", "server"], "expected sgd with momentum 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], said: str, invoke, recipe: str, tmp_path: Path
) -> None:
    result = invoke("train", recipe, "-o", str(tmp_path / "run"), *options)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())
    assert not list((tmp_path / "run").rglob("*")) if (tmp_path / "run").exists() else True
