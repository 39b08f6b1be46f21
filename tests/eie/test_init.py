"""What `eie init` writes is what the other commands ask for; `eie presets` and completion name every array."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.shell_completion import ShellComplete
from safetensors.numpy import load

from eie.cli import cli
from eie.example_network import DIGITS, drawn, files, weights
from eie.packaged import recipe_folder, recipes
from hw.params import PRESETS

ROOT = Path(__file__).parents[2]


def test_files_are_the_same_on_every_call_and_the_network_reads_digits(rng) -> None:
    made = files()
    assert made == files()
    state = load(made["model.safetensors"])
    assert (state["features.weight"] == 0).mean() > 0.7
    digits = rng.integers(0, DIGITS, 500)
    hidden = np.maximum(drawn(digits, rng) @ state["features.weight"].T + state["features.bias"], 0)
    read = (hidden @ state["classes.weight"].T + state["classes.bias"]).argmax(axis=1)
    assert (read == digits).mean() > 0.99
    assert any((state[name] != value).any() for name, value in weights(rng).items())  # it does depend on the generator


@pytest.mark.verifies("eie-init-recipes-presets-readme")
def test_init_writes_all_files_and_replaces_none(invoke, tmp_path) -> None:
    result = invoke("init", tmp_path / "my", "--json")
    assert result.exit_code == 0, result.output
    names = json.loads(result.stdout)["files"]
    assert sorted(path.name for path in (tmp_path / "my").iterdir()) == sorted(names)
    assert (tmp_path / "my" / "digits.toml").read_bytes() == (ROOT / "recipes" / "digits.toml").read_bytes()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.npy").write_text("precious")
    refused = invoke("init", tmp_path / "other")
    assert refused.exit_code == 2
    assert "x.npy" in refused.stderr
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["x.npy"]
    assert (tmp_path / "other" / "x.npy").read_text() == "precious"


def test_init_compiles_and_runs_without_torch(invoke, tmp_path) -> None:
    invoke("init", tmp_path)
    made = invoke(
        "compile", tmp_path / "layer.npz", "--calibrate", tmp_path / "x.npy", "-o", tmp_path / "l.eie",
        "--preset", "BALANCED_4",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert invoke("run", tmp_path / "l.eie", "--input", tmp_path / "x.npy").exit_code == 0


def test_every_recipe_is_listed_and_says_what_it_does(invoke, tmp_path) -> None:
    there = {path.relative_to(ROOT / "recipes").as_posix() for path in (ROOT / "recipes").rglob("*.toml")}
    assert recipe_folder() == ROOT / "recipes"
    assert set(recipes()) == there
    assert all(len(text) > 10 for text in recipes().values())
    listed = invoke("init", "--list").stdout
    assert all(name in listed for name in there)
    assert invoke("init", tmp_path / "my", "--recipes").exit_code == 0
    for name in there:
        assert tomllib.loads((tmp_path / "my" / "recipes" / name).read_text())


def test_presets_names_every_array(invoke) -> None:
    shown = invoke("presets").stdout.split()
    assert all(name in shown for name in PRESETS)
    answer = json.loads(invoke("presets", "--json").stdout)
    assert {name: entry["params"] for name, entry in answer.items()} == {
        name: params.asdict() for name, params in PRESETS.items()
    }


@pytest.mark.verifies("eie-init-recipes-presets-readme")
@pytest.mark.parametrize("command", ["compile", "verilog"])
def test_preset_is_completed(command) -> None:
    complete = ShellComplete(cli, {}, "eie", "_EIE_COMPLETE")
    found = [item.value for item in complete.get_completions([command, "--preset"], "balanced_1")]
    assert found == ["BALANCED_1", "BALANCED_16", "BALANCED_128"]
