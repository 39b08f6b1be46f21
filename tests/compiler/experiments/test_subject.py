"""What a recipe of an experiment says of networks and data is what a trial gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler.errors import RecipeError
from compiler.experiments.base import Env
from compiler.experiments.subject import Subject, networks_of
from compiler.train.table import Table, read_toml

NETWORK = """[[networks]]
name = "mlp"
data = "digits"
samples = 240
model = { name = "mlp", hidden = [4] }
dense = { epochs = 1, learning_rate = 0.01 }
"""


def subject(folder: Path, more: str = "") -> Subject:
    path = folder / "recipe.toml"
    path.write_text(NETWORK + more)
    (spec,) = networks_of(Table(read_toml(path), str(path), ""))
    return Subject.make(spec, 1, Env(None, lambda text: None))


@pytest.mark.verifies("share-samples-experiment-holds-back")
@pytest.mark.parametrize(("more", "held"), [("", 20), ("validation = 0.25", 60)])
def test_the_share_held_back_is_the_recipes(tmp_path: Path, more: str, held: int) -> None:
    data = subject(tmp_path, more).dataset
    assert (len(data.train), len(data.validation)) == (240 - held, held)
    trained = {row.tobytes() for row in data.train.inputs}
    assert not trained & {row.tobytes() for row in data.validation.inputs}


def test_more_held_back_holds_the_same_samples_back(tmp_path: Path) -> None:
    few, many = subject(tmp_path).dataset, subject(tmp_path, "validation = 0.25").dataset
    kept = {row.tobytes() for row in many.validation.inputs}
    assert all(row.tobytes() in kept for row in few.validation.inputs)


def test_all_held_back_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="validation"):
        subject(tmp_path, "validation = 1.0")
