"""Runs: the same bits whether interrupted or not, and nothing read that is not right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from compiler.errors import EieError, InputError
from compiler.frontend.torch_export import from_torch
from compiler.train import checkpoint, recipe, run
from compiler.train.data import Dataset
from compiler.train.loop import reproducible
from compiler.train.recipe import Recipe
from compiler.train.run import load_run, train_recipe

TINY: Recipe = recipe.parse(
    {
        "name": "tiny",
        "seed": 4,
        "data": {"name": "digits", "validation": 0.2},
        "model": {"name": "mlp", "hidden": [12]},
        "stages": [
            {"kind": "dense", "epochs": 2, "learning_rate": 0.01},
            {"kind": "prune", "epochs": 2, "learning_rate": 0.01, "density": 0.3, "ramp": 0.5},
            {"kind": "share", "epochs": 2, "learning_rate": 0.001, "code_bits": 3},
        ],
    },
    "tiny",
)


RICH: Recipe = recipe.parse(
    {
        "name": "rich",
        "seed": 5,
        "precision": "bfloat16",
        "data": {"name": "digits", "validation": 0.2, "samples": 300, "augment": {"shift": 0.5, "copies": 2}},
        "model": {"name": "mlp", "hidden": [16]},
        "stages": [
            {"kind": "teacher", "model": {"name": "mlp", "hidden": [24]}, "epochs": 2, "learning_rate": 0.01},
            {"kind": "dense", "epochs": 2, "learning_rate": 0.01, "distill": {"teacher": "teacher"}},
            {
                "kind": "prune", "method": "iterative", "rounds": 2, "epochs": 4, "learning_rate": 0.01,
                "density": 0.3, "scope": "global", "distill": {"teacher": "dense"},
            },
            {"kind": "shrink"},
            {
                "kind": "share", "epochs": 3, "learning_rate": 0.001, "code_bits": 2, "bias_bits": 3,
                "labels": "free", "grid": "uniform", "distill": {"teacher": "teacher"},
            },
        ],
    },
    "rich",
)  # fmt: skip


DSD: Recipe = recipe.parse(
    {
        "name": "dsd",
        "seed": 6,
        "data": {"name": "digits", "validation": 0.2, "samples": 300},
        "model": {"name": "gru", "hidden": 8},
        "stages": [
            {"kind": "dense", "epochs": 2, "learning_rate": 0.01},
            {"kind": "dsd", "epochs": 2, "learning_rate": 0.01, "rounds": 2, "sparsity": 0.4},
        ],
    },
    "dsd",
)


class Killed(Exception):
    """Stands for a kill of the process."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    train_recipe(TINY, folder)
    return folder


@pytest.fixture
def copied(unbroken: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(unbroken, tmp_path / "run"))


def assert_same_bits(first: Path, second: Path) -> None:
    for stage in sorted(path.stem for path in (first / "checkpoints").iterdir()):
        mine, yours = (load_file(folder / "checkpoints" / f"{stage}.safetensors") for folder in (first, second))
        assert mine.keys() == yours.keys()
        for name in mine:
            assert torch.equal(mine[name], yours[name]), (stage, name)
    for name in ("model.safetensors", "calibration.npy"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def kill_at(stage: str, done: int) -> run.Progress:
    def progress(name: str, epoch: int, total: int, text: str) -> None:
        if (name, epoch) == (stage, done):
            raise Killed

    return progress


def check_resumed_equals_unbroken(
    unbroken: Path, folder: Path, kills: list[tuple[str, int]], recipe: Recipe = TINY
) -> None:
    for stage, done in kills:
        with pytest.raises(Killed):
            train_recipe(recipe, folder, resume=True, progress=kill_at(stage, done))
        with pytest.raises(InputError):
            load_run(folder)
    # What is random elsewhere in the process must not matter.
    torch.manual_seed(99)
    train_recipe(recipe, folder, resume=True)
    assert_same_bits(unbroken, folder)


@pytest.mark.verifies("training-resumed-run-equals-unbroken")
def test_resumed_run_equals_unbroken_one(unbroken: Path, tmp_path: Path) -> None:
    kills = [("dense", 1), ("prune", 1), ("share", 0), ("share", 2)]
    check_resumed_equals_unbroken(unbroken, tmp_path / "resumed", kills)
    first, second = (json.loads((folder / "report.json").read_text()) for folder in (unbroken, tmp_path / "resumed"))
    clock = {"seconds": 0, "cpu_seconds": 0}
    for mine, yours in zip(first["stages"], second["stages"], strict=True):
        assert {**mine, **clock} == {**yours, **clock}


@pytest.mark.verifies("training-same-teacher-copies-rounds")
def test_resumed_run_of_every_option_equals_unbroken_one(tmp_path: Path) -> None:
    train_recipe(RICH, tmp_path / "unbroken")
    kills = [("teacher", 1), ("dense", 1), ("prune", 1), ("prune", 3), ("share", 2)]
    check_resumed_equals_unbroken(tmp_path / "unbroken", tmp_path / "resumed", kills, RICH)


@pytest.mark.verifies("training-same-masks-were-lifted")
def test_resumed_run_with_lifted_masks_equals_unbroken_one(tmp_path: Path) -> None:
    train_recipe(DSD, tmp_path / "unbroken")
    kills = [("dsd-sparse-1", 1), ("dsd-dense-1", 0), ("dsd-dense-1", 1), ("dsd-sparse-2", 2), ("dsd-dense-2", 1)]
    check_resumed_equals_unbroken(tmp_path / "unbroken", tmp_path / "resumed", kills, DSD)


@pytest.mark.verifies("planted-fault-shared-random-numbers")
def test_planted_fault_shared_random_numbers_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # If stages drew from one generator that runs on, a resumed run would draw other samples than the unbroken one.
    runs_on, load_data = torch.Generator(), run.load_data

    class RunsOn:
        def manual_seed(self, seed: int) -> torch.Generator:
            return runs_on

    def start(*arguments: Any) -> Dataset:
        runs_on.manual_seed(1)  # as a process does when it starts
        return load_data(*arguments)

    monkeypatch.setattr(run.torch, "Generator", RunsOn)
    monkeypatch.setattr(run, "load_data", start)
    train_recipe(TINY, tmp_path / "unbroken")
    with pytest.raises(AssertionError, match="prune"):
        check_resumed_equals_unbroken(tmp_path / "unbroken", tmp_path / "resumed", [("prune", 1)])


def test_a_finished_run_is_left_as_it_is(copied: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    report = train_recipe(TINY, copied, resume=True)
    assert report == json.loads((copied / "report.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before


def test_a_lost_report_is_written_again(copied: Path, unbroken: Path) -> None:
    (copied / "report.json").unlink()
    train_recipe(TINY, copied, resume=True)
    assert_same_bits(unbroken, copied)


def test_another_seed_gives_another_network(unbroken: Path, tmp_path: Path) -> None:
    report = train_recipe(TINY, tmp_path / "other", seed=5)
    assert (report["seed"], report["recipe"]["seed"]) == (5, 5)
    with pytest.raises(AssertionError):
        assert_same_bits(unbroken, tmp_path / "other")


def test_an_existing_run_is_not_overwritten(copied: Path) -> None:
    with pytest.raises(InputError, match="holds a run already; continue it with --resume"):
        train_recipe(TINY, copied)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(InputError, match="is a file; expected a folder"):
        train_recipe(TINY, tmp_path / "run", resume=True)


def test_resuming_with_another_recipe_is_refused(copied: Path) -> None:
    with pytest.raises(InputError, match=r"another recipe \(it differs in seed\)"):
        train_recipe(TINY, copied, resume=True, seed=77)


def test_stages_that_follow_may_change(copied: Path, tmp_path: Path) -> None:
    table = TINY.asdict()
    table["stages"][2]["code_bits"] = 2
    changed = recipe.parse({**table, "seeds": [4, 5]}, "changed")
    with pytest.raises(InputError, match=r"share\.safetensors was trained by another recipe \(it differs in stages\)"):
        train_recipe(changed, copied, resume=True)
    (copied / "checkpoints" / "share.safetensors").unlink()
    train_recipe(changed, copied, resume=True)
    train_recipe(changed, tmp_path / "anew")
    assert (copied / "model.safetensors").read_bytes() == (tmp_path / "anew" / "model.safetensors").read_bytes()
    table["stages"][1]["density"] = 0.2
    (copied / "checkpoints" / "share.safetensors").unlink()
    with pytest.raises(InputError, match=r"prune\.safetensors was trained by another recipe"):
        train_recipe(recipe.parse(table, "changed"), copied, resume=True)


def test_report(unbroken: Path) -> None:
    report = json.loads((unbroken / "report.json").read_text())
    assert [stage["stage"] for stage in report["stages"]] == ["dense", "prune", "share"]
    assert report["data"] == {
        "name": "digits",
        "train": 1150,
        "validation": 288,
        "test": 359,
        "refit": False,
        "augmentation": False,
    }
    assert report["size"]["file_bytes"] == (unbroken / "model.eiez").stat().st_size
    assert report["recipe"] == TINY.asdict()
    assert report["versions"]["torch"] == torch.__version__
    assert report["command"]
    dense, prune, share = report["stages"]
    for stage in report["stages"]:
        assert set(stage["accuracy"]) == {"validation", "test"}
        assert 0.2 < stage["accuracy"]["test"] <= 1
    assert [layer["density"] for layer in dense["layers"]] == [1, 1]
    assert [layer["nonzeros"] for layer in prune["layers"]] == [round(0.3 * 768), round(0.3 * 120)]
    assert [layer["distinct"] for layer in share["layers"]] == [7, 7]
    assert report["size"]["weights"] == 888
    assert report["size"]["dense_bytes"] == 4 * (888 + 22)
    assert report["size"]["sparse_bytes"] < report["size"]["dense_bytes"]


def test_loaded_run(unbroken: Path) -> None:
    loaded = load_run(unbroken)
    assert not loaded.module.training
    assert loaded.calibration.shape == (1024, 64)
    assert loaded.calibration.dtype == np.float32
    assert loaded.recipe == TINY
    graph = from_torch(loaded.module, loaded.example_inputs)
    layers = {node.name: node.tensors["weight"] for node in graph if node.op == "Linear"}
    assert list(layers) == ["fc1", "fc2"]
    for weight in layers.values():
        assert len(np.unique(weight[weight != 0])) == 7
    with torch.no_grad():
        guesses = loaded.module(torch.from_numpy(loaded.test_inputs)).argmax(1).numpy()
    assert (guesses == loaded.test_labels).mean() == loaded.report["stages"][-1]["accuracy"]["test"]


def test_calibration_is_not_taken_from_the_test_set(unbroken: Path) -> None:
    loaded = load_run(unbroken)
    test = {inputs.tobytes() for inputs in loaded.test_inputs}
    assert not any(inputs.tobytes() in test for inputs in loaded.calibration)


def test_progress_tells_every_epoch(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    train_recipe(TINY, tmp_path / "run", progress=lambda stage, done, total, text: told.append((stage, done, total)))
    stages = [(stage, done, 2) for stage in ("dense", "prune", "share") for done in (0, 1, 2)]
    assert told == [("data", 0, 1), ("data", 1, 1), *stages]


def test_settings_of_torch_come_back() -> None:
    before = torch.get_num_threads()
    inside: list[Any] = []

    def fail() -> None:
        with reproducible(before + 1):
            inside.extend([torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()])
            raise Killed

    with pytest.raises(Killed):
        fail()
    assert inside == [before + 1, True]
    assert torch.get_num_threads() == before
    assert not torch.are_deterministic_algorithms_enabled()


def rewrite(change: Callable[[dict[str, torch.Tensor], dict[str, Any]], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors, content = checkpoint.load(folder / "model.safetensors")
        change(tensors, content)
        checkpoint.save(folder / "model.safetensors", tensors, content)

    return spoil


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def truncate(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-5]) and None


def pickled_calibration(folder: Path) -> None:
    np.save(folder / "calibration.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no folder": (shutil.rmtree, "is not a folder"),
    "no model": (lambda folder: (folder / "model.safetensors").unlink(), "run is not finished"),
    "empty folder": (lambda folder: (shutil.rmtree(folder), folder.mkdir()) and None, "holds no model.safetensors"),
    "truncated model": (truncate("model.safetensors"), "model.safetensors is damaged"),
    "model is text": (write("model.safetensors", b"hello"), "model.safetensors is damaged"),
    "foreign model": (
        lambda folder: save_file({"fc1.weight": torch.zeros(2)}, folder / "model.safetensors"),
        "was not written by this kit",
    ),
    "no recipe": (rewrite(lambda tensors, content: content.pop("recipe")), "holds no recipe"),
    "bad recipe": (rewrite(lambda tensors, content: content["recipe"].update(seed=-1)), "seed is -1"),
    "other format": (rewrite(lambda tensors, content: content.update(format=2)), "has format 2; expected 1"),
    "wider layer": (
        rewrite(lambda tensors, content: tensors.update({"fc1.weight": torch.zeros(13, 64)})),
        "its recipe makes",
    ),
    "layers that do not fit": (
        rewrite(lambda tensors, content: tensors.update({"fc2.weight": torch.zeros(10, 11)})),
        "do not fit each other",
    ),
    "missing layer": (rewrite(lambda tensors, content: tensors.pop("fc2.weight")), "its recipe makes"),
    "extra tensor": (rewrite(lambda tensors, content: tensors.update(x=torch.zeros(1))), "its recipe makes"),
    "wrong dtype": (
        rewrite(lambda tensors, content: tensors.update({"fc1.bias": torch.zeros(12, dtype=torch.float64)})),
        "its recipe makes",
    ),
    "truncated calibration": (truncate("calibration.npy"), "calibration.npy cannot be read"),
    "no calibration": (lambda folder: (folder / "calibration.npy").unlink(), "calibration.npy cannot be read"),
    "pickled calibration": (pickled_calibration, "calibration.npy cannot be read"),
    "wrong calibration": (
        lambda folder: np.save(folder / "calibration.npy", np.zeros((3, 5), np.float32)),
        "float32 inputs of 64 values",
    ),
    "nested metadata": (
        lambda folder: save_file({"a": torch.zeros(1)}, folder / "model.safetensors", {"eie": "[" * 100_000}),
        "its metadata is nested too deeply",
    ),
    "nested report": (write("report.json", b"[" * 100_000), "report.json cannot be read"),
    "truncated report": (truncate("report.json"), "report.json cannot be read"),
    "foreign report": (write("report.json", b"[]"), "is not the report of a run"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_run_is_refused(copied: Path, case: str) -> None:
    spoil, message = BROKEN[case]
    spoil(copied)
    with pytest.raises(EieError) as caught:
        load_run(copied)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_damaged_checkpoint_is_refused(copied: Path) -> None:
    truncate("checkpoints/share.safetensors")(copied)
    with pytest.raises(InputError, match=r"share\.safetensors is damaged"):
        train_recipe(TINY, copied, resume=True)


def test_checkpoint_of_another_network_is_refused(copied: Path) -> None:
    path = copied / "checkpoints" / "share.safetensors"
    tensors, content = checkpoint.load(path)
    checkpoint.save(path, {**tensors, "module.fc1.bias": torch.zeros(50)}, content)
    (copied / "report.json").unlink()
    with pytest.raises(InputError, match="does not hold this network"):
        train_recipe(TINY, copied, resume=True)


@pytest.mark.verifies("watch-page-browser")
def test_its_lines_say_what_the_report_says(unbroken: Path) -> None:
    lines = [json.loads(line) for line in (unbroken / "progress.jsonl").read_text().splitlines()]
    report = json.loads((unbroken / "report.json").read_text())
    assert [line["what"] for line in lines[:: len(lines) - 1]] == ["begin", "end"]
    for stage in report["stages"]:
        epochs = [line for line in lines if line["what"] == "epoch" and line["stage"] == stage["stage"]]
        assert [{key: line[key] for key in ("epoch", "loss", "validation", "density")} for line in epochs] == stage[
            "history"
        ]
        (end,) = (line for line in lines if line["what"] == "stage" and line["stage"] == stage["stage"])
        assert end["test"] == stage["accuracy"]["test"]


def test_nothing_half_written_is_left(unbroken: Path) -> None:
    found = sorted(str(path.relative_to(unbroken)) for path in unbroken.rglob("*") if path.is_file())
    assert found == [
        "calibration.npy",
        "checkpoints/dense.safetensors",
        "checkpoints/prune.safetensors",
        "checkpoints/share.safetensors",
        "model.eiez",
        "model.safetensors",
        *(f"plots/{name}.{form}" for name in ("history", "size", "weights") for form in ("png", "svg")),
        "progress.jsonl",
        "report.json",
    ]


def test_shipped_digits_recipe_is_good_enough(tmp_path: Path) -> None:
    path = Path(__file__).parents[3] / "recipes" / "digits.toml"
    report = train_recipe(path, tmp_path / "digits")
    dense, _, share = (stage["accuracy"]["test"] for stage in report["stages"])
    assert dense >= 0.96
    assert share >= dense - 0.015
    assert 0.15 <= report["size"]["density"] <= 0.25
    assert all(layer["distinct"] <= 15 for layer in report["stages"][-1]["layers"])
