"""A network that went dense, sparse, dense, and was then pruned and shared, on the array: the same bits everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from compiler.lower.pipeline import compile_graph
from compiler.source import from_module
from compiler.train import recipe
from compiler.train.run import load_run, train_recipe
from hw.params import Params
from sim.run import run

# LeNet-300-100's form on 8x8 digits.
RECIPE = recipe.parse(
    {
        "name": "dsd-digits",
        "seed": 2,
        "data": {"name": "digits", "validation": 0.15},
        "model": {"name": "mlp", "hidden": [48, 24]},
        "stages": [
            {"kind": "dense", "epochs": 12, "learning_rate": 4e-3},
            {"kind": "dsd", "epochs": 6, "learning_rate": 2e-3},
            {"kind": "prune", "epochs": 10, "learning_rate": 2e-3, "density": 0.25},
            {"kind": "share", "epochs": 4, "learning_rate": 5e-4, "code_bits": 4},
        ],
    },
    "dsd-digits",
)
PARAMS = Params(pes=4, rows=64, weight_words=1024, pointer_blocks=128, act_lines=64, output_words=512, descriptors=16)


@pytest.mark.verifies("dsd-network-trained-so-bit")
@pytest.mark.slow
def test_a_dsd_trained_network_is_bit_exact_on_the_array(tmp_path: Path) -> None:
    report = train_recipe(RECIPE, tmp_path / "run")
    assert [stage["kind"] for stage in report["stages"]] == ["dense", "prune", "lift", "prune", "share"]
    assert report["stages"][2]["layers"][0]["density"] > 0.85  # but for pixels that are never set
    trained = load_run(tmp_path / "run")
    graph = from_module(trained.module, trained.example_inputs).graph
    image = compile_graph(graph, PARAMS, trained.calibration).only

    golden = run(image, trained.test_inputs)
    right = (golden.value.argmax(1) == trained.test_labels).mean()
    assert right >= 0.93
    assert right == pytest.approx(report["stages"][-1]["accuracy"]["test"], abs=0.01)

    few = trained.test_inputs[:2]
    array = run(image, few, engine="amaranth")
    model = run(image, few, engine="cycles")
    assert set(array.values) == set(golden.values)
    for name, found in array.values.items():
        np.testing.assert_array_equal(found, golden.values[name][:2], err_msg=name)
    assert array.records == model.records
    assert array.cycles == model.cycles
    assert np.any(array.raw)
