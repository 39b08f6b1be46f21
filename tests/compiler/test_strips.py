"""Windows that are scanned in strips: all of each, in turn, and with the same result."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from compiler.errors import ImageError
from compiler.graph.ir import Graph
from compiler.graph.operators import make
from compiler.graph.passes import run_passes
from compiler.image.check import check
from compiler.lower import descriptors
from compiler.lower.encode import EncodedLayer, EncodedSegment, Span
from compiler.lower.layout import Tiling, Window
from compiler.lower.outputs import OutputWords
from compiler.lower.pipeline import compile_graph
from compiler.lower.strips import Strip, strips
from compiler.options import DEFAULT
from hw.params import LANES, SEGMENTS, Params
from sim.network import run_network
from sim.recurrent_cases import recurrent, small_array
from tests.compiler.array_runs import Ran, run_float
from tests.compiler.test_array_graphs import Net

PARAMS = Params(pes=16)
HALF = [0.5, 0.5]


def layer_of(rows: list[int], loads: list[float], width: int = 3, planes: int = 1) -> EncodedLayer:
    """Windows of so many rows, with so many entries a vector in the one PE; their maps lie in so many planes."""
    none = np.zeros(0, np.uint8)
    segments = tuple(
        EncodedSegment(
            Window(count, width, 1, 1, 1, 1), tuple(Span(n, 0, 1) for n in range(planes)),
            np.full((1, count * width * planes * LANES), load / LANES * 2), none, none,
        )
        for count, load in zip(rows, loads, strict=True)
    )  # fmt: skip
    words = OutputWords(*[np.zeros((1, 1), np.int64)] * 9)
    return EncodedLayer(0, (0, 1), Tiling(1, 1, 2, 2, 1, 1, ((0, 1),)), segments, words, 0, 0, 0)


@pytest.mark.verifies("strips-window-once-order-most")
def test_strips_are_all_of_each_window_in_order(rng: np.random.Generator) -> None:
    for _ in range(200):
        rows = rng.integers(1, 60, rng.integers(1, 9)).tolist()
        loads = rng.choice([0.1, 0.5, 2.0, 5.0], len(rows)).tolist()
        planes = int(rng.integers(1, 4))
        found = strips(layer_of(rows, loads, planes=planes), [0.5] * len(rows))
        assert len(found) <= SEGMENTS
        for n, count in enumerate(rows):
            for span in range(planes):
                mine = [strip for strip in found if (strip.segment, strip.span) == (n, span)]
                at = 0
                for strip in mine:
                    assert (strip.first, strip.vectors) == (at, (at + span * count) * 3)
                    assert strip.rows > 0
                    at += strip.rows
                assert at == count


def test_only_windows_of_both_kinds_are_cut() -> None:
    assert strips(layer_of([9, 9], [2.0, 3.0]), HALF) == [Strip(0, 0, 9, 0), Strip(1, 0, 9, 0)]
    assert strips(layer_of([9, 9], [0.2, 0.3]), HALF) == [Strip(0, 0, 9, 0), Strip(1, 0, 9, 0)]
    assert [(s.segment, s.rows) for s in strips(layer_of([4, 2], [2.0, 0.3]), HALF)] == [
        (0, 1),
        (1, 1),
        (0, 2),
        (1, 1),
        (0, 1),
    ]
    assert strips(layer_of([1, 1], [2.0, 0.3]), HALF) == [Strip(0, 0, 1, 0), Strip(1, 0, 1, 0)]


def test_segments_that_wait_are_whole_and_last() -> None:
    found = strips(layer_of([4, 4, 2], [2.0, 3.0, 0.3]), [0.5] * 3, {0})
    assert found[-1] == Strip(0, 0, 4, 0)
    assert [(strip.segment, strip.rows) for strip in found[:-1]] == [(1, 1), (2, 1), (1, 2), (2, 1), (1, 1)]
    found = strips(layer_of([4, 2], [2.0, 0.3]), HALF, {0, 1})
    assert found == [Strip(0, 0, 4, 0), Strip(1, 0, 2, 0)]


def residual() -> Ran:
    net = Net(21, 16, 12, 13)
    first = net.conv("x", (16, 16, 3, 3), padding=(1, 1, 1, 1))
    net.add("Add", net.conv(first, (16, 16, 3, 3), padding=(1, 1, 1, 1), activation="none"), "x", activation="relu")
    graph = run_passes(Graph((*net.nodes, make("Output", "y", net.nodes[-1].output))))
    return run_float(graph, [net.data], PARAMS, DEFAULT)


@pytest.mark.verifies("strips-residual-layer-read-back")
def test_a_residual_layer_is_scanned_in_strips() -> None:
    ran = residual()
    assert not ran.wrong
    parts = ran.images[0].layers[-1].parts
    assert set(parts) == {0, 1}
    assert list(parts) != sorted(parts)
    assert max(len(steps) for steps in ran.images[0].steps) > 4


@pytest.mark.verifies("planted-faults-strip-another-row")
@pytest.mark.parametrize("fault", ["first", "vectors"])
def test_a_strip_at_the_wrong_place_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*args: Any) -> list[Strip]:
        found = strips(*args)
        last = found[-1]
        return [*found[:-1], dataclasses.replace(last, **{fault: getattr(last, fault) + 1})]

    monkeypatch.setattr(descriptors, "strips", wrong)
    with pytest.raises(ImageError, match=r"descriptor \d+: (y0|pointers) is"):
        residual()


@pytest.mark.verifies("planted-faults-strip-another-row")
def test_parts_that_lie_are_refused() -> None:
    image = residual().images[0]
    layer = image.layers[-1]
    lies: list[tuple[dict[str, Any], str]] = [
        (
            {"sources": (*layer.sources, layer.sources[0]), "windows": (*layer.windows, *layer.windows[:8])},
            "segment 2 has no descriptor",
        ),
        ({"parts": (0,) * len(layer.parts)}, r"descriptor \d+: (pointers|codebook) is"),
        ({"parts": (2, *layer.parts[1:])}, "its descriptors are of segments"),
        ({"parts": (*layer.parts[1:], layer.parts[0])}, r"descriptor \d+: (pointers|codebook) is"),
    ]
    for lie, message in lies:
        bad = dataclasses.replace(image, layers=(*image.layers[:-1], dataclasses.replace(layer, **lie)))
        with pytest.raises(ImageError, match=message):
            check(bad)


def test_strips_behind_an_operation_wait_for_it_in_hardware() -> None:
    net = Net(22, 8, 4, 4)
    window = {"shape": (8, 8, 3, 3), "padding": (1, 1, 1, 1), "density": 1.0, "activation": "none"}
    first = net.conv("x", **window)
    table = net.add("Activation", first, function="sigmoid")
    net.add("Add", net.conv(table, **window), first, activation="relu")
    graph = Graph((*net.nodes, make("Output", "y", net.nodes[-1].output)))
    params = Params(
        pes=16, rows=64, weight_words=256, pointer_blocks=256, act_lines=64, output_words=256, codebooks=4,
        descriptors=32, tables=1, queue_depth=8,
    )  # fmt: skip
    network = compile_graph(run_passes(graph), params, net.data)
    (image,) = network.images
    assert image.operations
    assert len(image.steps[-1]) > len(image.layers[-1].sources) > 1
    assert image.steps[-1][0].barrier
    model = run_network(network, net.data[:1], engine="cycles")
    for engine in ("golden", "amaranth"):
        found = run_network(network, net.data[:1], engine=engine)
        assert all(np.array_equal(found.values[name], raw) for name, raw in model.values.items())
        assert engine == "golden" or [ran.records for ran in found.runs] == [ran.records for ran in model.runs]


def test_steps_of_a_loop_are_scanned_before_states() -> None:
    rng = np.random.default_rng(23)
    graph, x = recurrent(rng, "lstm", steps=4, size=12)
    network = compile_graph(graph, small_array(rng), x)
    gates = [
        steps for image in network.images for steps in image.steps if any(step.barrier for step in steps)
    ]  # fmt: skip
    assert gates
    for steps in gates:
        assert [step.barrier for step in steps] == sorted(step.barrier for step in steps)
        assert [step.pointers for step in steps] == sorted(step.pointers for step in steps)
