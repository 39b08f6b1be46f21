"""``eie diff``: silent where all is equal, exact where it is not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import sim.network
import sim.run
from compiler.image.image import Image
from compiler.network_file import load
from sim.compare import compare


def image_of(layer) -> Image:
    (image,) = load(layer.image).images
    return image


@pytest.fixture(scope="module")
def flipped(layer) -> Image:
    """The image with the lowest code bit of one weight flipped: the first whose fault reaches an output.

    That of a weight in a column without activations, or of a neuron that ReLU cuts off, does not.
    """
    image = image_of(layer)
    good = sim.run.run(image, layer.x, engine="golden").raw
    for entry in range(200):
        entries = image.entries.copy()
        bit = entry * image.params.entry_bits
        entries[0].reshape(-1)[bit // 8] ^= 1 << bit % 8
        bad = replace(image, entries=entries)
        if (sim.run.run(bad, layer.x, engine="golden").raw != good).any():
            return bad
    raise AssertionError("no weight of PE 0 matters")


@pytest.mark.verifies("eie-diff-flipped-weight-wrong")
def test_equal_engines_end_with_zero(layer, invoke) -> None:
    result = invoke("diff", layer.image, "--input", layer.inputs, "--engines", "golden,cycles", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["equal"] is True
    (comparison,) = answer["comparisons"]
    assert comparison["values"] == 5 * 300
    assert comparison["first"] is None
    assert answer["quantization"] is None


@pytest.mark.verifies("eie-diff-flipped-weight-wrong")
def test_a_flipped_weight_is_found_where_it_shows(layer, flipped) -> None:
    image = image_of(layer)
    good = sim.run.run(image, layer.x, engine="golden")
    bad = sim.run.run(flipped, layer.x, engine="golden")
    found = compare(good, bad)
    assert not found.equal
    assert found.first is not None
    # Independently: the first difference in reading order, and its lowest bit.
    samples, neurons = np.nonzero(good.raw != bad.raw)
    assert (found.first.sample, found.first.neuron) == (samples[0], neurons[0])
    assert found.values_different == len(samples)
    a, b = found.first.values
    assert (a, b) == (good.raw[samples[0], neurons[0]], bad.raw[samples[0], neurons[0]])
    low = (1 << found.first.bit) - 1
    assert a & low == b & low
    assert (a ^ b) >> found.first.bit & 1
    assert len(set(neurons)) == 1  # one weight, one neuron


@pytest.mark.verifies("eie-diff-flipped-weight-wrong")
def test_a_flipped_weight_ends_the_command_with_one(layer, flipped, invoke, monkeypatch) -> None:
    honest = sim.run.run

    def run(image, x, *, engine, **options):
        return honest(flipped if engine == "cycles" else image, x, engine=engine, **options)

    monkeypatch.setattr(sim.network, "run", run)
    arguments = ("diff", layer.image, "--input", layer.inputs, "--engines", "golden,cycles")
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert "golden and cycles DIFFER" in result.stdout
    answer = json.loads(invoke(*arguments, "--json").stdout)
    assert answer["equal"] is False
    first = answer["comparisons"][0]["first"]
    assert first["layer"] == "layer"
    assert f"neuron {first['neuron']}, bit {first['bit']}" in result.stdout


@pytest.mark.verifies("eie-diff-flipped-weight-wrong")
@pytest.mark.parametrize("field", ["written", "starved"])
def test_a_wrong_time_or_counter_is_found(field, layer) -> None:
    result = sim.run.run(image_of(layer), layer.x, engine="cycles")
    two = replace(result, records=[[dict(record) for record in run] for run in result.records * 2])
    records = [[dict(record) for record in run] for run in two.records]
    records[1][0][field] += 1
    found = compare(two, replace(two, records=records))
    assert found.first is None
    assert not found.equal
    assert found.records_different == 1
    assert found.first_record is not None
    assert (found.first_record.run, found.first_record.field) == (1, field)
    assert any("run 1" in line and field in line for line in found.explain())


def test_times_are_compared_only_where_both_engines_have_them(layer) -> None:
    image = image_of(layer)
    found = compare(sim.run.run(image, layer.x, engine="golden"), sim.run.run(image, layer.x, engine="cycles"))
    assert found.records == 0
    assert found.equal


def test_cycles_are_compared_even_if_the_first_engine_has_none(layer, invoke, monkeypatch) -> None:
    honest = sim.run.run

    def run(image, x, *, engine, **options):
        if engine != "amaranth":
            return honest(image, x, engine=engine, **options)
        result = replace(honest(image, x, engine="cycles"), engine=engine)
        result.records[0][0]["blocked"] += 1
        return result

    monkeypatch.setattr(sim.network, "run", run)
    result = invoke("diff", layer.image, "--input", layer.inputs, "--engines", "golden,cycles,amaranth")
    assert result.exit_code == 1
    assert "cycles and amaranth DIFFER" in result.stdout
    assert "blocked" in result.stdout


@pytest.mark.verifies("eie-diff-flipped-weight-wrong")
def test_quantization_error_of_an_exact_layer_is_its_rounding(layer, invoke, tmp_path) -> None:
    result = invoke(
        "diff", layer.image, "--input", layer.inputs, "--engines", "golden,torch", "--model", layer.npz, "--json"
    )
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["comparisons"] == []
    (error,) = answer["quantization"]
    assert error["layer"] == "layer"
    assert error["saturated"] == 0
    assert 0 < error["max_abs"] <= error["step"] / 2
    assert 0 < error["rms"] < error["max_abs"]
    assert 0 < error["relative"] < 0.01


def test_quantization_error_sees_another_bias(layer, invoke, tmp_path) -> None:
    # The same shape under the same name, so only the numbers can tell.
    bias = layer.bias.astype(np.float64)
    bias[5] += 1e5
    np.savez(tmp_path / "layer.npz", weight=layer.weight.astype(np.float32), bias=bias, activation="relu")
    options = ("--input", layer.inputs, "--engines", "golden,torch", "--model", tmp_path / "layer.npz", "--json")
    (error,) = json.loads(invoke("diff", layer.image, *options).stdout)["quantization"]
    assert error["max_abs"] > 5e4


def test_a_model_of_another_shape_is_refused(layer, invoke, tmp_path) -> None:
    np.savez(tmp_path / "other.npz", weight=np.ones((2, 784), np.float32))
    options = ("--input", layer.inputs, "--engines", "golden,torch", "--model", tmp_path / "other.npz")
    result = invoke("diff", layer.image, *options)
    assert result.exit_code == 2
    assert "layer of shape (2,)" in result.stderr
    assert "layer of shape (300,)" in result.stderr


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--engines", "golden"], "two or more"),
        (["--engines", "golden,golden"], "two or more"),
        (["--engines", "golden,fpga"], "fpga"),
        (["--engines", "golden,torch"], "--model"),
        (["--engines", "golden,cycles", "--trust"], "--model"),
        ([], "--engines"),
    ],
)
def test_wrong_usage_is_refused(options, word, layer, invoke) -> None:
    result = invoke("diff", layer.image, "--input", layer.inputs, *options)
    assert result.exit_code == 2
    assert word in result.stderr
