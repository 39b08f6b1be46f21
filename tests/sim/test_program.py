"""Batches in frames: every layer's map from what is written to activation memory, though its lines are used again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from compiler.image.image import Image
from compiler.lower.build import build
from compiler.lower.program import MapForm, Program, ProgramLayer, segment_of
from hw.params import Params
from sim import program as sim_program
from sim import run as engines
from sim.compare import compare
from sim.decode import decode
from sim.golden_array import run_layers
from sim.program import SimulationError, chunks, frames, layer_values, layer_words, map_values, output_lines

PARAMS = Params(pes=2, rows=16, act_lines=64, weight_words=256, pointer_blocks=256, output_words=256, codebooks=2,
                descriptors=16)  # fmt: skip


@pytest.fixture
def image(rng: np.random.Generator) -> Image:
    """Four layers in a row: the third one's result lies where the first one's was."""
    book = rng.integers(-9, 10, 16).astype(np.int16)
    book[0] = 0
    maps = [MapForm(f"map{n}", 24, 1, 1, 0) for n in range(5)]
    layers = []
    for n in range(4):
        codes = (rng.integers(1, 16, (24, 1, 1, 24)) * (rng.random((24, 1, 1, 24)) < 0.4)).astype(np.uint8)
        bias, shift = rng.integers(-50, 50, 24), np.full(24, 4)
        layers.append(ProgramLayer(f"layer{n}", n + 1, (segment_of(n, codes, book),), bias, shift))
    made = build(Program(tuple(maps), tuple(layers), (0,), (4,)), PARAMS)
    spans = [range(info.base, info.base + info.lines) for info in made.maps]
    assert any(set(a) & set(b) for a, b in itertools.combinations(spans, 2)), "no line is used twice"
    return made


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(-100, 100, (5, 24)).astype(np.int16)


@pytest.mark.verifies("map-taken-array-writes-batches")
def test_every_map_of_the_array_is_that_of_the_models(image: Image, x: np.ndarray) -> None:
    model, array = (engines.run(image, x, engine=engine) for engine in ("cycles", "amaranth"))
    assert list(model.values) == ["map1", "map2", "map3", "map4"]
    assert compare(array, model).equal
    assert compare(model, engines.run(image, x)).values_different == 0


@pytest.mark.verifies("planted-faults-maps-taken-too")
def test_maps_taken_at_the_end_are_caught(image: Image, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    model = engines.run(image, x, engine="golden")
    at_end = {}
    inputs, layers = engines.check_input(image, x)[0], decode(image)
    memory = frames(image, inputs)
    for _ in run_layers(layers, memory, PARAMS.acc_bits):
        pass
    for number in range(1, 5):
        at_end[f"map{number}"] = map_values(image, number, memory).reshape(len(x), -1)
    assert np.array_equal(at_end["map4"], model.values["map4"])
    assert any(not np.array_equal(at_end[name], raw) for name, raw in model.values.items())


@pytest.mark.verifies("planted-faults-maps-taken-too")
def test_a_layer_that_writes_the_wrong_words_is_caught(
    image: Image, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = engines.run(image, x, engine="cycles")

    def turned(*args):  # the second word of each bank arrives with another value
        written = layer_words(*args)
        written[1] = written[1] ^ 1
        return written

    monkeypatch.setattr("sim.amaranth_engine.layer_words", turned)
    found = compare(engines.run(image, x, engine="amaranth"), model)
    assert found.first is not None
    assert found.first.layer == "map2"


@pytest.mark.verifies("planted-faults-maps-taken-too")
def test_other_lines_are_refused(image: Image, x: np.ndarray) -> None:
    layers = decode(image)
    lines = np.concatenate([
        (np.arange(len(x))[:, None] * image.frame + layer.lines.reshape(-1)).reshape(-1) for layer in layers.runs
    ])  # fmt: skip
    data = np.zeros((len(lines), 8), np.int16)
    layer_values(image, layers, layer_words(image, layers, len(x), [(lines, data)]))
    moved = lines.copy()
    moved[3] += 1
    with pytest.raises(SimulationError, match=f"write 3 to bank 0 .*: line {moved[3]}; expected line {lines[3]}"):
        layer_words(image, layers, len(x), [(moved, data)])
    with pytest.raises(SimulationError, match="nothing; expected line"):
        layer_words(image, layers, len(x), [(lines[:-1], data[:-1])])
    with pytest.raises(SimulationError, match="expected nothing"):
        layer_words(image, layers, len(x), [(np.append(lines, 0), np.append(data, data[:1], axis=0))])


@pytest.mark.verifies("map-taken-array-writes-batches")
def test_batches_are_cut_to_what_fits(image: Image, x: np.ndarray) -> None:
    inputs = engines.check_input(image, np.tile(x, (20, 1)))[0]
    parts = list(chunks(image, inputs))
    fit = PARAMS.act_lines // image.frame
    assert [part.count for part in parts] == [fit] * (100 // fit) + ([100 % fit] if 100 % fit else [])
    assert [part.first for part in parts] == list(range(0, 100, fit))
    info = image.maps[image.outputs[0]]
    assert output_lines(image, 2)[: info.lines] == list(range(info.base, info.base + info.lines))
    assert output_lines(image, 2)[info.lines] == info.base + image.frame
    assert sim_program.cycle_limit(image, decode(image), 2) > 2 * sum(info.entries for info in image.layers)
