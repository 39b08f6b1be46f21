"""Values within an image have the name, shape and contents that the graph gives them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from compiler.errors import ImageError
from compiler.graph.passes import run_passes
from compiler.image.check import check
from compiler.image.image import Image
from compiler.lower.build import build
from compiler.lower.calibrate import quantize_calibrated
from compiler.lower.partition import partition
from compiler.lower.pipeline import compile_graph
from compiler.lower.quantize import quantize_graph
from compiler.network import Network
from compiler.options import DEFAULT
from hw.params import Params
from sim import golden
from sim.network import run_network
from sim.recurrent_cases import recurrent, small_array
from tests.random_graphs import random_graph

PARAMS = Params(pes=4, rows=64)


def networks(seed: int) -> tuple[Network, list[np.ndarray], dict[str, golden.GoldenValue]]:
    """A random graph compiled, two samples for it, and all its values."""
    graph, data = random_graph(seed)
    made = quantize_graph(run_passes(graph), PARAMS, data).graph
    x = [
        given[:2].astype(np.int64) if node["kind"] == "index" else golden.quantize_input(given[:2], node["exponent"])[0]
        for node, given in zip(made.inputs, data, strict=True)
    ]
    parts = partition(made, PARAMS)
    images = tuple(build(program, PARAMS, DEFAULT) for program in parts.programs)
    return Network(PARAMS, parts.graph, images), x, golden.run_graph(made, x, PARAMS.acc_bits)


def test_all_values_are_those_of_the_graph(request: pytest.FixtureRequest) -> None:
    first = 100 * request.config.getoption("seed")
    inner, kinds = 0, set()
    for seed in (49, *range(first, first + 20)):
        network, x, right = networks(seed)
        result = run_network(network, x if len(x) > 1 else x[0])
        for name, raw in result.values.items():
            if name in right:
                assert raw.shape == right[name].raw.shape, f"seed {seed}, {name}"
                assert np.array_equal(raw, right[name].raw), f"seed {seed}, {name}"
        for image in network.images:
            ends = {image.maps[n].name for n in (*image.inputs, *image.outputs)}
            once = [each for n, each in enumerate(image.maps) if n not in image.repeated]  # not one a step
            maps = [each for each in once if each.name not in ends and each.name in right]
            inner += len(maps)
            kinds |= {each.axes for each in maps}
            for each in maps:
                assert result.types[each.name].shape == each.shape == right[each.name].raw.shape[1:]
    assert inner > 5
    assert len(kinds) > 1


def loop_values(kind: str, seed: int) -> list[tuple[str, bool]]:
    """Values of the bodies of a network's loops on the array, and whether they are those of the graph."""
    rng = np.random.default_rng(seed)
    graph, data = recurrent(rng, kind)
    graph, params = run_passes(graph), small_array(rng)
    made = quantize_calibrated(graph, params, [data]).graph
    raw, _ = golden.quantize_input(data[:2], made.inputs[0]["exponent"])
    right = golden.run_graph(made, [raw], params.acc_bits)
    result = run_network(compile_graph(graph, params, data), raw)
    inner = [name for name in result.values if "/" in name and name in right]
    for name in inner:
        assert (result.types[name].layout, result.types[name].shape) == ("TC", right[name].raw.shape[1:])
    return [(name, np.array_equal(result.values[name], right[name].raw)) for name in inner]


@pytest.mark.verifies("values-loop-s-body-array")
@pytest.mark.parametrize("kind", ["lstm", "gru", "rhn"])
def test_all_steps_of_values_in_a_loop(kind: str, seed: int) -> None:
    found = [each for n in range(4) for each in loop_values(kind, 1000 * seed + n)]
    assert len(found) > 8
    assert [name for name, same in found if not same] == []


@pytest.mark.verifies("values-loop-s-body-array")
def test_steps_in_the_order_of_rounds_are_caught(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Image.repeated.func  # type: ignore[attr-defined]
    forwards = property(lambda image: {n: dataclasses.replace(loop, pitch=1) for n, loop in found(image).items()})
    monkeypatch.setattr(Image, "repeated", forwards)
    assert not all(same for n in range(6) for _, same in loop_values("lstm", 1000 * seed + n))


def test_axes_that_do_not_name_a_size_are_refused() -> None:
    network, _, _ = networks(49)
    image = next(image for image in network.images if any(each.width > 1 for each in image.maps))
    number = next(n for n, each in enumerate(image.maps) if each.width > 1)
    maps = [*image.maps]
    maps[number] = dataclasses.replace(maps[number], axes="C")
    with pytest.raises(ImageError, match="axes 'C' for"):
        check(dataclasses.replace(image, maps=tuple(maps)))
