"""What the README shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import blocks, run_shell

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def shown(text: str, language: str) -> list[str]:
    """Contents of the blocks of a page in one language."""
    return [content for each, content in blocks(text) if each == language]


@pytest.mark.verifies("readme-s-python-example-runs")
@pytest.mark.rtl
@pytest.mark.slow
def test_python_example_runs(tmp_path):
    (example,) = shown(README, "python")
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.match(r"\[\d( \d){7}\] \d+\n", done.stdout)
    assert (tmp_path / "net.eie").exists()


@pytest.mark.verifies("eie-init-recipes-presets-readme")
@pytest.mark.rtl
@pytest.mark.slow
def test_commands_of_your_own_network_run_as_they_stand(tmp_path):
    section = README.split("## Your own network")[1]
    lines = shown(section, "sh")[0].splitlines()
    assert lines[0].startswith("eie init ")
    done = run_shell("\n".join(lines), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^ +(\d+) +(\d+): ", done.stdout, re.MULTILINE)
    assert [digit for _, digit in rows[:8]] == list("01234567")  # what is drawn is what is read
    made = {path.name for path in (tmp_path / "my").iterdir()}
    assert {"net.eie", "y.npz", "net.eiez", "rtl", "layer.eie", "run", "trained.eie"} <= made


def test_commands_shown_exist():
    from click.testing import CliRunner

    from eie.cli import cli

    commands = set(re.findall(r"(?:^|`)eie (\w+)", README, re.MULTILINE))
    assert commands >= {"compile", "info", "run", "diff", "verilog", "verify"}
    for command in commands:
        assert CliRunner().invoke(cli, [command, "--help"]).exit_code == 0


OWN_MODULE = (Path(__file__).parents[1] / "docs" / "training" / "own-module.md").read_text(encoding="utf-8")
TRAINING = (Path(__file__).parents[1] / "docs" / "training" / "README.md").read_text(encoding="utf-8")


def test_training_examples_run_and_name_every_stage(tmp_path):
    import torch
    from torch import nn

    from compiler.train.recipe import load
    from compiler.train.stages import KINDS

    example = shown(OWN_MODULE, "python")[0]
    encoder = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
    model = nn.Sequential()
    model.add_module("encoder", encoder)
    model.add_module("head", nn.Linear(32, 10))
    exec(example, {"model": model, "samples": torch.rand(8, 64)})  # it is our own page
    weight = model.encoder[0].weight
    assert 0 < int((weight != 0).sum()) < 0.35 * weight.numel()
    assert len(weight.unique()) == 16
    assert bool((model.head.weight != 0).all())
    (recipe,) = shown(TRAINING, "toml")
    (tmp_path / "mine.toml").write_text(recipe)
    assert load(tmp_path / "mine.toml").name == "mine"
    table = "\n".join(line for line in TRAINING.splitlines() if line.startswith("|"))
    assert [kind for kind in KINDS if f"`{kind}`" not in table] == []


def test_recipes_shown_exist():
    recipes = set(re.findall(r"recipes/[\w/-]+\.toml", README + TRAINING)) - {"recipes/experiments/NAME.toml"}
    assert recipes
    assert [name for name in recipes if not (Path(__file__).parents[1] / name).is_file()] == []
