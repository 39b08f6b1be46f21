"""`eie bench networks`: its figures are measured, and a fault in the integers shows in them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import sim.run
from compiler.errors import InputError
from compiler.image.image import Image
from hw.params import preset
from sim.benchmarks.networks import measure
from sim.golden_array import Layer, Operation, Program

PARAMS = preset("BALANCED_4")


@pytest.mark.verifies("whole-networks-bench-measures-left")
def test_a_network_keeps_its_accuracy_in_integers(seed: int) -> None:
    [row] = measure(["mlp-bn"], PARAMS, seed=seed, epochs=4, onnx=False)
    assert row["samples"] > 300
    assert row["torch"] > 0.9
    assert abs(row["golden"] - row["torch"]) < 0.02
    assert 0 < row["rms_error"] < 0.2
    assert row["host"] == []
    assert (row["array_multiplies"], row["host_multiplies"]) == (32 * 32 * 256 + 256 * 128 + 128 * 10, 0)


@pytest.mark.verifies("whole-networks-bench-measures-left")
def test_a_wrong_operator_shows_in_the_error(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pooled layer that adds its pixels up instead of taking the largest."""
    decode = sim.run.decode
    [right] = measure(["lenet-5"], PARAMS, seed=seed, epochs=1, onnx=False)
    changed = []

    def added_up(image: Image) -> Program:
        program = decode(image)
        layers: list[Layer | Operation] = []
        for layer in program.layers:
            assert isinstance(layer, Layer)
            rounds = tuple(replace(each, maximum=np.zeros_like(each.maximum)) for each in layer.outputs.rounds)
            changed.extend(each for each in layer.outputs.rounds if each.maximum.any())
            layers.append(replace(layer, outputs=replace(layer.outputs, rounds=rounds)))
        return replace(program, layers=tuple(layers))

    monkeypatch.setattr(sim.run, "decode", added_up)
    [row] = measure(["lenet-5"], PARAMS, seed=seed, epochs=1, onnx=False)
    assert changed
    assert row["rms_error"] > 2 * right["rms_error"]
    assert row["host"] == right["host"] == []


@pytest.mark.verifies("onnx-torch-give-same-network")
@pytest.mark.slow
def test_onnx_gives_the_same_network(seed: int) -> None:
    pytest.importorskip("onnxscript")
    [row] = measure(["lstm-tagger"], PARAMS, seed=seed, epochs=1)
    assert row["onnx"] == pytest.approx(row["golden"], abs=0.002)


def test_the_command_writes_what_it_measured(invoke: Any) -> None:
    result = invoke("bench", "networks", "--networks", "mlp-bn", "--epochs", 1, "--no-onnx", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert [row["network"] for row in answer["rows"]] == ["mlp-bn"]


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown network vgg.*expected some of lenet-5"):
        list(measure(["vgg"], PARAMS))
