"""Depthwise results in planes, and windows without the positions that lie outside the map for all tiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from compiler.errors import ImageError
from compiler.graph.ir import Graph
from compiler.graph.operators import make
from compiler.graph.passes import run_passes
from compiler.lower import descriptors, encode, layout, tiles
from compiler.lower.build import build as build_image
from compiler.lower.layout import Tiling, Window
from compiler.lower.partition import partition
from compiler.lower.pipeline import compile_graph
from compiler.lower.quantize import quantize_graph
from compiler.lower.tiles import Choice
from hw.params import SEGMENTS, Params
from sim.compare import compare_networks
from sim.network import run_network
from sim.programs import program_of
from tests.arrays import COMMON
from tests.compiler.array_runs import Ran
from tests.compiler.test_array_graphs import Net

PARAMS = Params(pes=32, rows=64, act_lines=1 << 13)


@pytest.fixture
def planes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer takes planes wherever it may."""
    prefer(monkeypatch, lambda choice: 1.0 if choice.cut.planes == 1 else 1e-6)


def prefer(monkeypatch: pytest.MonkeyPatch, factor: Callable[[Choice], float]) -> None:
    estimate = tiles.estimate

    def other(*args: Any) -> Choice | None:
        choice = estimate(*args)
        return choice and dataclasses.replace(choice, cycles=choice.cycles * factor(choice))

    monkeypatch.setattr(tiles, "estimate", other)


def separable(seed: int, channels: int = 40, height: int = 9, width: int = 7, **rest: Any) -> Net:
    """A pointwise, a depthwise and a pointwise layer."""
    net = Net(seed, channels, height, width)
    first = net.conv("x", (channels, channels, 1, 1))
    window = {"groups": channels, "padding": (1, 1, 1, 1), "density": 0.8, **rest}
    net.conv(net.conv(first, (channels, 1, 3, 3), **window), (12, channels, 1, 1))
    return net


def planar(ran: Ran) -> list[int]:
    return [each.planes for image in ran.images for each in image.maps if each.planes > 1]


@pytest.mark.verifies("planes-depthwise-layers-window-read")
@pytest.mark.parametrize("pes", [8, 32, 64])
@pytest.mark.parametrize(
    "rest",
    [{}, {"stride": (2, 2)}, {"dilation": (2, 1), "padding": (2, 2, 1, 0)}, {"padding": (0, 0, 0, 0)},
     {"height": 14, "width": 10}, {"channels": 37}],
    ids=str,
)  # fmt: skip
@pytest.mark.usefixtures("planes")
def test_planes_hold_what_the_layer_makes(pes: int, rest: dict[str, Any], seed: int) -> None:
    ran = separable(seed, **rest).run(PARAMS.replace(pes=pes, rows=24 if "height" in rest else 64))
    assert not ran.wrong
    assert planar(ran) == [5]
    (image,) = ran.images
    assert [layer.name for layer in image.layers if "#" in layer.name] == [f"n2#{n}" for n in range(5)]
    assert {step.vectors for layer, steps in zip(image.layers, image.steps, strict=True) for step in steps
            if "#" in layer.name} == {1}  # fmt: skip


@pytest.mark.verifies("planes-read-convolutions-pooling-residual")
@pytest.mark.usefixtures("planes")
def test_a_result_in_planes_is_read_by_all_kinds_of_layers(seed: int) -> None:
    net = separable(seed, 24, 8, 8)
    made = net.nodes[2].output
    net.conv(made, (10, 24, 3, 3), padding=(1, 1, 1, 1))
    net.conv(made, (24, 1, 3, 3), groups=24, padding=(1, 1, 1, 1))  # planes of planes
    net.pool(made, "MaxPool", 3, 2, 1)
    net.add("Add", net.conv(made, (24, 24, 1, 1), activation="none"), made, activation="relu")
    net.linear(net.add("Reshape", made, shape=(24 * 64,)), 9, 24 * 64)
    ran = net.run(PARAMS)
    assert not ran.wrong
    assert len(planar(ran)) >= 2


@pytest.mark.verifies("planes-depthwise-layers-window-read")
@pytest.mark.usefixtures("planes")
def test_random_depthwise_layers(rng: np.random.Generator) -> None:
    found = 0
    for _ in range(25):
        channels, height, width = (int(rng.integers(low, 30)) for low in (9, 1, 1))
        kernel = tuple(int(n) for n in rng.integers(1, 5, 2))
        reach = [int(rng.integers(0, size + 1)) for size in kernel]
        padding = tuple(max(reach[n % 2], -(-(kernel[n % 2] - (height, width)[n % 2]) // 2)) for n in range(4))
        net = Net(int(rng.integers(1 << 30)), channels, height, width)
        stride, density = tuple(int(n) for n in rng.integers(1, 4, 2)), float(rng.choice([0.1, 0.5, 1]))
        net.conv("x", (channels, 1, *kernel), density, groups=channels, padding=padding, stride=stride)
        ran = net.run(Params(pes=1 << int(rng.integers(0, 7)), rows=int(rng.choice([16, 64, 256]))))
        assert not ran.wrong, (channels, height, width, kernel, padding)
        found += len(planar(ran))
    assert found > 5


@pytest.mark.verifies("planes-array-makes-values-times")
@pytest.mark.usefixtures("planes")
def test_an_image_with_planes_says_its_program(seed: int) -> None:
    (image,) = separable(seed, stride=(2, 1)).run(PARAMS).images
    again = build_image(program_of(image), PARAMS)
    for name in ("entries", "pointers", "table", "descriptors", "orders"):
        assert np.array_equal(getattr(again, name), getattr(image, name)), name
    assert again.maps == image.maps


@pytest.mark.verifies("planes-array-makes-values-times")
@pytest.mark.rtl
@pytest.mark.usefixtures("planes")
def test_the_array_runs_planes(seed: int) -> None:
    net = separable(seed, 16, 6, 5)
    graph = run_passes(Graph((*net.nodes, make("Output", "y", net.nodes[-1].output))))
    network = compile_graph(graph, COMMON, net.data)
    assert any(each.planes > 1 for each in network.only.maps)
    ran = [run_network(network, net.data[:2], engine=engine) for engine in ("rtl", "cycles")]
    compared = compare_networks(*ran)
    assert compared.equal
    assert compared.records > 5


@pytest.mark.verifies("planes-read-convolutions-pooling-residual")
def test_readers_limit_the_planes(seed: int) -> None:
    net = separable(seed, 40, 4, 4)
    net.add("Add", net.conv("n2", (40, 40, 1, 1), activation="none"), "n1", activation="relu")
    graph = run_passes(Graph((*net.nodes, make("Output", "y", "n3"), make("Output", "z", "n5"))))
    (program,) = partition(quantize_graph(graph, PARAMS, [net.data]).graph, PARAMS).programs
    found = dict(zip((layer.name for layer in program.layers), tiles.most_planes(program), strict=True))
    assert [len(layer.segments) for layer in program.layers] == [1, 1, 1, 2]
    assert list(found.values()) == [1, SEGMENTS // 2, 1, 1]


@pytest.fixture
def one_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer takes one tile wherever it may."""
    prefer(monkeypatch, lambda choice: 1e3**choice.cut.tiles)


@pytest.mark.verifies("windows-tile-position-outside-map")
@pytest.mark.usefixtures("one_tile")
def test_positions_outside_the_map_are_not_scanned(seed: int) -> None:
    """A tile of all pixels: its window is the map and nothing else."""
    net = Net(seed, 3, 5, 4)
    net.conv("x", (9, 3, 3, 3), padding=(1, 1, 1, 1))
    ran = net.run(PARAMS)
    (image,) = ran.images
    ((step,),) = image.steps
    assert not ran.wrong
    assert (step.tiles_y, step.tiles_x) == (1, 1)
    assert (step.wy, step.wx, step.y0, step.x0) == (5, 4, 0, 0)


@pytest.mark.verifies("planted-faults-planes-another-order")
@pytest.mark.usefixtures("planes")
def test_planes_in_another_order_are_refused(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plane_tiling = layout.plane_tiling

    def turned(*args: Any) -> Tiling:
        cut = plane_tiling(*args)
        return dataclasses.replace(cut, blocks=cut.blocks[::-1])

    monkeypatch.setattr(tiles, "plane_tiling", turned)
    with pytest.raises(ImageError, match=r"a tile does not make each channel of its pixels once|are written at lines"):
        separable(seed, 37).run(PARAMS)


@pytest.mark.verifies("planted-faults-planes-another-order")
@pytest.mark.usefixtures("planes")
def test_a_plane_that_is_made_twice_is_refused(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer_fields = descriptors._layer_fields

    def twice(layer: Any, encoded: Any, *rest: Any) -> dict[str, int]:
        if layer.cut.planes > 1 and layer.block == layer.cut.blocks[-1]:
            layer = dataclasses.replace(layer, block=layer.cut.blocks[0])
        return layer_fields(layer, encoded, *rest)

    monkeypatch.setattr(descriptors, "_layer_fields", twice)
    with pytest.raises(ImageError, match="its planes are written at lines"):
        separable(seed).run(PARAMS)


@pytest.mark.verifies("planted-faults-planes-another-order")
@pytest.mark.usefixtures("planes")
def test_the_vectors_of_another_plane_are_seen(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    strip_fields = descriptors._strip_fields

    def next_plane(layer: Any, *rest: Any) -> dict[str, int]:
        fields = strip_fields(layer, *rest)
        first = layer.cut.planes > 1 and layer.block == layer.cut.blocks[0]
        return {**fields, "source": fields["source"] + int(first)}

    monkeypatch.setattr(descriptors, "_strip_fields", next_plane)
    assert separable(seed).run(PARAMS).wrong


@pytest.mark.verifies("planted-faults-planes-another-order")
@pytest.mark.usefixtures("one_tile")
def test_a_window_cut_too_short_is_seen(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    window = layout.window

    def short(*args: Any) -> Window:
        seen = window(*args)
        return dataclasses.replace(seen, wy=seen.wy - 1) if seen.top else seen

    monkeypatch.setattr(encode, "window", short)
    net = Net(seed, 3, 5, 4)
    net.conv("x", (9, 3, 3, 3), padding=(1, 1, 1, 1))
    assert net.run(PARAMS).wrong == [net.nodes[-1].output]
