"""Recipes: what is legal is read, and what is not is named with key, value and legal range."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compiler.errors import RecipeError
from compiler.train import recipe
from compiler.train.schedule import Schedule

FOLDER = Path(__file__).parents[3] / "recipes"
RECIPES = [path for pattern in ("*.toml", "networks/**/*.toml") for path in sorted(FOLDER.glob(pattern))]

GOOD: dict[str, Any] = {
    "name": "example",
    "seed": 3,
    "threads": 2,
    "data": {"name": "digits", "validation": 0.2},
    "model": {"name": "mlp", "hidden": [8]},
    "stages": [
        {"kind": "dense", "epochs": 2, "batch": 32, "learning_rate": 0.01, "weight_decay": 0.1},
        {"kind": "prune", "epochs": 2, "learning_rate": 0.01, "density": {"fc1": 0.1, "fc2": 1}, "ramp": 0.5},
        {"kind": "share", "epochs": 0, "learning_rate": 0.01, "code_bits": 3},
    ],
}


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    content = copy.deepcopy(GOOD)
    change(content)
    return content


def test_a_good_recipe() -> None:
    parsed = recipe.parse(GOOD, "good.toml")
    assert (parsed.name, parsed.seed, parsed.threads) == ("example", 3, 2)
    assert (parsed.dataset, parsed.validation, parsed.model.options["hidden"]) == ("digits", 0.2, (8,))
    dense, prune, share = parsed.stages
    assert dense.schedule == Schedule(2, 32, 0.01, 0.1)
    assert (prune.density, prune.ramp, prune.method) == ({"fc1": 0.1, "fc2": 1.0}, 0.5, "gradual")
    assert (share.schedule, share.code_bits, share.labels) == (Schedule(0, 64, 0.01), 3, "fixed")


def test_one_density_is_for_all_layers() -> None:
    parsed = recipe.parse(changed(lambda c: c["stages"][1].update(density=0.3)), "one.toml")
    assert isinstance(parsed.stages[1], recipe.Prune)
    assert parsed.stages[1].density == 0.3


def test_stages_may_be_left_out() -> None:
    for kept in ([0], [0, 1], [0, 2]):
        parsed = recipe.parse(changed(lambda c, kept=kept: c.update(stages=[c["stages"][n] for n in kept])), "few.toml")
        assert len(parsed.stages) == len(kept)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(FOLDER).with_suffix("")))
def test_shipped_recipes(path: Path) -> None:
    loaded = recipe.load(path)
    assert loaded.name == path.stem
    assert [stage.kind for stage in loaded.stages if stage.schedule][-2:] == ["prune", "share"]
    assert recipe.parse(loaded.asdict(), "again") == loaded


def test_the_papers_operating_point() -> None:
    loaded = recipe.load(next(path for path in RECIPES if path.stem == "paper-lenet-300-100"))
    assert loaded.model.name == "lenet-300-100"
    assert isinstance(loaded.stages[1], recipe.Prune)
    assert loaded.stages[1].density == {"fc1": 0.08, "fc2": 0.09, "fc3": 0.26}


def test_name_defaults_to_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[data]\nname = "digits"\n[model]\nname = "lenet-300-100"\n'
        '[[stages]]\nkind = "dense"\nepochs = 1\nlearning_rate = 1e-3\n'
    )
    loaded = recipe.load(path)
    assert (loaded.name, loaded.seed, loaded.threads, loaded.model.name) == ("mine", 1, 1, "lenet-300-100")


def test_replace_is_checked() -> None:
    parsed = recipe.parse(GOOD, "good.toml")
    assert parsed.replace(seed=9).seed == 9
    with pytest.raises(RecipeError, match="seed is -1"):
        parsed.replace(seed=-1)


STAGE = {"kind": "dense", "epochs": 1, "learning_rate": 0.1}

BAD: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda c: c.update(seed=-1), "seed is -1; expected an integer from 0 to 4294967295"),
    (lambda c: c.update(seed=True), "seed is True; expected an integer"),
    (lambda c: c.update(seed="1"), "seed is '1'; expected an integer"),
    (lambda c: c.update(threads=0), "threads is 0; expected an integer from 1 to 64"),
    (lambda c: c.update(name=""), "name is ''; expected a text that is not empty"),
    (lambda c: c.update(sead=1), "unknown key sead"),
    (lambda c: c.pop("data"), "data is missing; expected a table"),
    (lambda c: c.update(data=[]), "data is []; expected a table"),
    (lambda c: c["data"].update(name="cifar"), "data.name is 'cifar'; expected one of digits, mnist"),
    (lambda c: c["data"].update(name=[]), "data.name is []; expected one of digits, mnist"),
    (lambda c: c["data"].update(validation=0), "data.validation is 0; expected a number above 0 to below 1"),
    (lambda c: c["data"].update(validation=1.0), "data.validation is 1.0; expected a number above 0 to below 1"),
    (lambda c: c["data"].update(validation=float("nan")), "data.validation is nan; expected a number"),
    (lambda c: c["data"].update(path="x", folder="y"), "unknown key data.path, data.folder"),
    (lambda c: c["model"].update(name="vgg"), "model.name is 'vgg'; expected one of mlp, lenet-300-100"),
    (lambda c: c["model"].pop("hidden"), "model.hidden is missing; expected a list of integers from 1 to 65536"),
    (lambda c: c["model"].update(hidden=[0]), "model.hidden is [0]; expected a list of integers from 1 to 65536"),
    (lambda c: c["model"].update(name="lenet-300-100"), "unknown key model.hidden"),
    (lambda c: c.update(stages={}), "stages is {}; expected tables [[stages]]"),
    (lambda c: c.update(stages=[]), "stages are empty; expected at least one that trains"),
    (lambda c: c.update(stages=[3]), "stages[0] is 3; expected a table"),
    (lambda c: c["stages"].reverse(), "stages[0] is of kind share; expected one that trains the network"),
    (lambda c: c.update(stages=[STAGE, STAGE]), "stages[1].name is 'dense'; expected letters, digits"),
    (
        lambda c: c["stages"][0].update(kind="warm"),
        "stages[0].kind is 'warm'; expected one of teacher, dense",
    ),
    (lambda c: c["stages"][0].update(epochs=0), "stages[0].epochs is 0; expected an integer from 1 to 10000"),
    (lambda c: c["stages"][0].update(epochs=1.5), "stages[0].epochs is 1.5; expected an integer"),
    (lambda c: c["stages"][0].update(batch=0), "stages[0].batch is 0; expected an integer from 1"),
    (lambda c: c["stages"][0].pop("learning_rate"), "stages[0].learning_rate is missing; expected a number above 0"),
    (lambda c: c["stages"][0].update(weight_decay=-0.1), "stages[0].weight_decay is -0.1; expected a number from 0"),
    (lambda c: c["stages"][0].update(code_bits=4), "unknown key stages[0].code_bits"),
    (lambda c: c["stages"][1].update(ramp=1.1), "stages[1].ramp is 1.1; expected a number from 0 to 1"),
    (lambda c: c["stages"][1].pop("density"), "stages[1].density is missing; expected a number above 0 to 1"),
    (lambda c: c["stages"][1].update(density=0), "stages[1].density is 0; expected a number above 0 to 1"),
    (lambda c: c["stages"][1]["density"].update(fc2=2), "stages[1].density.fc2 is 2; expected a number above 0 to 1"),
    (lambda c: c["stages"][1]["density"].pop("fc2"), "stages[1].density.fc2 is missing; expected a number above 0"),
    (lambda c: c["stages"][1]["density"].update(fc3=0.1), "unknown key stages[1].density.fc3"),
    (lambda c: c["stages"][2].update(code_bits=0), "stages[2].code_bits is 0; expected an integer from 1 to 8"),
    (lambda c: c["stages"][2].update(code_bits=9), "stages[2].code_bits is 9; expected an integer from 1 to 8"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_recipe(change: Callable[[dict[str, Any]], Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe.parse(changed(change), "bad.toml")
    assert f"bad.toml: {message}" in str(caught.value)
    assert caught.value.exit_code == 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        recipe.load(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("seed = = 1\n")
    with pytest.raises(RecipeError, match=r"broken\.toml is not valid TOML: .*line 1"):
        recipe.load(tmp_path / "broken.toml")
    (tmp_path / "bytes.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(RecipeError, match=r"bytes\.toml is not valid TOML"):
        recipe.load(tmp_path / "bytes.toml")


@pytest.mark.verifies("robust-toml")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 20_000, "nested too deeply"),
        ("a = " + "9" * 10_000, "is not valid TOML: Exceeds the limit"),
        ("[a" + ".b" * 50_000 + "]", "expected a recipe of at most 32768"),
    ],
)
def test_toml_that_the_reader_trips_over_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        recipe.load(tmp_path / "r.toml")
