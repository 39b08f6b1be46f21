"""``eie compress-auto`` from the command line: the target is met by what is written, and both arms train alike."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.errors import InputError
from compiler.network_file import load
from sim.auto.pipeline import check
from sim.auto.run import Arm
from sim.cost import Cost, Cycles, LayerCost, cost_of
from tests.eie.conftest import Invoke

pytest.importorskip("torch")

RECIPE = """
name = "tiny"
[data]
name = "digits"
samples = 300
validation = 0.3
[model]
name = "mlp"
hidden = [20]
[[stages]]
kind = "dense"
epochs = 6
batch = 30
learning_rate = 1e-2
[[stages]]
kind = "prune"
epochs = 3
batch = 30
learning_rate = 5e-3
density = 0.5
scope = "global"
[[stages]]
kind = "share"
epochs = 1
batch = 30
learning_rate = 1e-3
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def done(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A compression, and its report."""
    from tests.eie.conftest import invoke

    out = tmp_path_factory.mktemp("auto") / "out"
    result = invoke("compress-auto", recipe, "--target", "cycles=45%", "-o", out, "--preset", "BALANCED_4",
                    "--accuracy-samples", 50, "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout)


@pytest.mark.verifies("auto-command", "auto-target")
def test_what_is_written_meets_the_target_and_costs_what_the_report_says(done: tuple[Path, dict[str, Any]]) -> None:
    out, report = done
    assert report == json.loads((out / "report.json").read_text())
    target, found = report["figures"]["target"], report["figures"]["networks"]["found"]
    assert target["met"]
    assert target["limit"] == pytest.approx(0.45 * report["figures"]["networks"]["dense"]["cycles"])
    network, inputs = load(out / "tiny.eie"), np.load(out / "inputs.npy")
    taken = cost_of(network, {node.name: inputs for node in network.graph.inputs})
    assert float(taken.cycles) == found["cycles"] <= target["limit"]
    assert int(taken.stored) == found["bytes"]
    assert (out / "tiny.eiez").stat().st_size == found["file"]
    page = (out / "report.html").read_text()
    assert "uniform" in page
    assert "Target cycles=45%" in page
    arm = Arm("found", None, {}, 4, 1, {}, taken, network)
    check(out / "tiny.eie", out / "inputs.npy", arm)
    wrong = dataclasses.replace(taken.layers[0], cycles=Cycles(taken.layers[0].cycles + 1))  # planted
    with pytest.raises(InputError, match="and its cost says"):
        check(out / "tiny.eie", out / "inputs.npy", dataclasses.replace(arm, cost=_with(taken, wrong)))


def _with(cost: Cost, layer: LayerCost) -> Cost:
    return dataclasses.replace(cost, layers=(layer, *cost.layers[1:]))


@pytest.mark.verifies("auto-report")
def test_both_arms_train_alike_from_the_same_dense_network(done: tuple[Path, dict[str, Any]]) -> None:
    out, report = done
    networks = report["figures"]["networks"]
    assert networks["found"]["epochs"] == networks["uniform"]["epochs"] == 4
    runs = {name: json.loads((out / networks[name]["folder"] / "report.json").read_text()) for name in networks
            if name != "dense"}  # fmt: skip
    stages = {name: run["recipe"]["stages"] for name, run in runs.items()}
    for one, other in zip(stages["uniform"], stages["found"], strict=True):
        assert {k: v for k, v in one.items() if k != "density"} == {k: v for k, v in other.items() if k != "density"}
    assert len(set(stages["uniform"][1]["density"].values())) == 1
    assert len(set(stages["found"][1]["density"].values())) == 2
    files = [out / folder / "checkpoints/dense.safetensors" for folder in ("dense", networks["found"]["folder"])]
    assert files[0].read_bytes() == files[1].read_bytes()
    for name, run in runs.items():
        share = run["stages"][-1]["accuracy"]["test"]
        assert networks[name]["errors"]["test"] == pytest.approx(100 * (1 - share), abs=1e-3)


@pytest.mark.verifies("auto-command")
def test_it_goes_on_where_it_was_killed(done: tuple[Path, dict[str, Any]], recipe: Path, invoke: Invoke) -> None:
    out, report = done
    arguments = ("compress-auto", recipe, "--target", "cycles=45%", "-o", out, "--preset", "BALANCED_4",
                 "--accuracy-samples", 50)  # fmt: skip
    refused = invoke(*arguments)
    assert refused.exit_code == 2
    assert "continue it with --resume" in refused.output
    other = invoke(*arguments, "--resume", "--seed", 2)
    assert other.exit_code == 2
    assert "they differ in recipe" in other.output
    less = invoke(*arguments, "--resume", "--target", "cycles=9")
    assert less.exit_code == 2
    assert "the least that is possible" in less.output
    (out / "tiny.eie").unlink()
    before = (out / report["figures"]["networks"]["found"]["folder"] / "report.json").read_bytes()
    again = invoke(*arguments, "--resume", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["figures"] == report["figures"]
    assert (out / report["figures"]["networks"]["found"]["folder"] / "report.json").read_bytes() == before
    assert (out / "tiny.eie").is_file()


@pytest.mark.verifies("auto-command")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing", "--target", "cycles=1"), "expected a recipe (RECIPE.toml), module:function, or one of mlp"),
        (("lenet-5", "--target", "cycles=1"), "give --data"),
        (("RECIPE", "--target", "cycles=1", "--epochs", 3), "says how it is trained"),
        (("RECIPE", "--target", "time=1"), "expected cycles=N"),
    ],
)
def test_what_makes_no_sense_is_said(
    arguments: tuple[Any, ...], words: str, recipe: Path, tmp_path: Path, invoke: Invoke
) -> None:
    given = [recipe if each == "RECIPE" else each for each in arguments]
    result = invoke("compress-auto", *given, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert words in result.output


@pytest.mark.verifies("auto-command")
def test_a_network_of_ones_own_that_is_trained_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    (tmp_path / "theirnet.py").write_text(
        "import numpy as np, torch\n"
        "def net():\n"
        "    torch.manual_seed(3)\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, bias=False), torch.nn.BatchNorm2d(3),\n"
        "                               torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(48, 3))\n"
        "def data():\n"
        "    rng = np.random.default_rng(1)\n"
        "    x, y = rng.random((90, 1, 6, 6), np.float32), rng.integers(0, 3, 90)\n"
        "    return x[:60], y[:60], x[60:], y[60:]\n"
    )
    monkeypatch.chdir(tmp_path)
    result = invoke("compress-auto", "theirnet:net", "--data", "theirnet:data", "--epochs", 0, "--retrain", 1,
                    "--preset", "BALANCED_2", "--samples", 1, "--accuracy-samples", 0, "--target", "bytes=90%",
                    "-o", tmp_path / "out", "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)["figures"]
    assert figures["networks"]["found"]["bytes"] <= figures["target"]["limit"]
    assert figures["networks"]["dense"]["folder"] is None
    assert (tmp_path / "out/net.eie").is_file()
