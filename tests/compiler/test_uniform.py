"""Windows whose positions share their weights: averages, maxima and depthwise layers with one weight a channel."""

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
from compiler.image.image import Image
from compiler.lower import descriptors, encode, tiles
from compiler.lower.build import build
from compiler.lower.pipeline import compile_graph
from compiler.lower.program import segment_of
from hw.params import Params
from sim.accesses import count
from sim.compare import compare_networks
from sim.network import run_network
from sim.programs import program_of
from tests.arrays import COMMON
from tests.compiler.test_array_graphs import Net
from tests.compiler.test_planes import prefer

PARAMS = Params(pes=16, rows=64, act_lines=1 << 12)
BOOK = np.arange(16).astype(np.int16)


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are computed pixel by pixel."""
    prefer(monkeypatch, lambda choice: float(choice.cut.fy * choice.cut.fx * choice.cut.planes) ** 4)


def average(seed: int, channels: int = 40, height: int = 5, width: int = 4, op: str = "AveragePool") -> Net:
    """A pointwise layer, and the average over the whole map."""
    net = Net(seed, 12, height, width)
    made = net.conv("x", (channels, 12, 1, 1))
    net.add(op, made, kernel=(height, width), stride=(1, 1), padding=(0,) * 4, dilation=(1, 1))
    return net


def uniform(image: Image) -> list[Any]:
    return [step for steps in image.steps for step in steps if step.uniform]


@pytest.mark.verifies("positions-share-weights-averages-maxima")
def test_segments_know_whether_their_places_are_alike() -> None:
    codes = np.zeros((3, 2, 2, 4), np.uint8)
    codes[0, :, :, 1], codes[2, :, :, 3], codes[2, :, :, 0] = 5, 7, 2
    segment = segment_of(0, codes, BOOK)
    assert segment.uniform
    narrow = segment_of(0, codes[:, :1, :1], BOOK)
    for name in ("starts", "tap", "channel", "code"):
        assert np.array_equal(getattr(segment.narrow, name), getattr(narrow, name)), name
    for wrong in ((0, 0, 1, 1, 6), (0, 1, 1, 1, 0), (1, 1, 0, 2, 3)):
        other = codes.copy()
        other[wrong[:4]] = wrong[4]
        assert not segment_of(0, other, BOOK).uniform
    assert not narrow.uniform


@pytest.mark.verifies("positions-share-weights-averages-maxima")
def test_an_average_stores_one_weight_a_channel(seed: int) -> None:
    ran = average(seed).run(PARAMS)
    (image,) = ran.images
    (step,) = uniform(image)
    assert not ran.wrong
    assert (step.wy, step.wx, step.pointer_blocks) == (5, 4, 5)
    assert image.layers[1].entries - image.layers[1].padding == 40
    assert image.layers[1].nonzeros == 40 * 20  # as the operator has them


@pytest.mark.verifies("positions-share-weights-averages-maxima")
@pytest.mark.usefixtures("single")
def test_random_windows(rng: np.random.Generator) -> None:
    found = 0
    for _ in range(10):
        channels, height, width = (int(rng.integers(low, 8)) for low in (1, 2, 2))
        net = Net(int(rng.integers(1 << 30)), channels, height, width)
        kernel = tuple(int(rng.integers(1, size + 1)) for size in (height, width))
        window: dict[str, Any] = {
            "padding": tuple(int(rng.integers(0, size)) for size in kernel * 2),
            "stride": tuple(int(n) for n in rng.integers(1, 4, 2)),
        }
        how = str(rng.choice(["AveragePool", "MaxPool", "depthwise", "concat"]))
        if how == "depthwise":
            weight = np.repeat(rng.normal(size=(channels, 1, 1)), kernel[0] * kernel[1], axis=2)
            tensors = {"weight": weight.reshape(channels, 1, *kernel).astype(np.float32)}
            net.add("Conv", "x", tensors=tensors, groups=channels, dilation=(1, 1), activation="none", **window)
        else:
            read = net.conv("x", (9, channels, 1, 1))
            read = net.add("Concat", read, "x", axis=0) if how == "concat" else read
            op = "AveragePool" if how == "concat" else how
            net.add(op, read, kernel=kernel, dilation=(1, 1), **window)
        ran = net.run(Params(pes=1 << int(rng.integers(0, 6)), rows=64, index_bits=int(rng.integers(4, 7))))
        assert not ran.wrong, (how, channels, height, width, kernel, window)
        found += sum(len(uniform(image)) for image in ran.images)
    assert found > 3


@pytest.mark.verifies("positions-share-weights-averages-maxima")
def test_streamed_weights_are_those_of_each_position() -> None:
    """A layer that is streamed has them once for each position, as its ranges are single positions."""
    params = Params(pes=2, rows=64, weight_words=20, pointer_blocks=14, act_lines=1 << 12)
    ran = average(1).run(params)
    assert not ran.wrong
    (image,) = ran.images
    assert not uniform(image)
    assert len({step.pointers for step in image.steps[1] if step.refill}) == 2


@pytest.mark.verifies("positions-share-weights-averages-maxima")
def test_an_image_says_its_program(seed: int) -> None:
    (image,) = average(seed).run(PARAMS).images
    again = build(program_of(image), PARAMS)
    for name in ("entries", "pointers", "table", "descriptors", "orders"):
        assert np.array_equal(getattr(again, name), getattr(image, name)), name
    assert again.layers == image.layers


@pytest.mark.verifies("positions-share-weights-array-makes")
@pytest.mark.rtl
def test_the_array_makes_what_the_models_say(seed: int) -> None:
    net = average(seed, 12, 3, 2)
    net.add("MaxPool", "n1", kernel=(2, 2), stride=(1, 1), padding=(0,) * 4, dilation=(1, 1))
    graph = run_passes(Graph((*net.nodes, make("Output", "y", "n2"), make("Output", "z", "n3"))))
    network = compile_graph(graph, COMMON, net.data)
    assert uniform(network.only)
    ran = [run_network(network, net.data[:2], engine=engine) for engine in ("rtl", "cycles")]
    compared = compare_networks(*ran)
    assert compared.equal
    assert compared.records > 2
    # What is counted for energy are the same entries.
    x = np.random.default_rng(seed).integers(-9, 9, (2, 3, 2, 12)).astype(np.int16)
    counts = count(network.only, x)
    assert all(one["entries"] == two["working_cycles"] for one, two in zip(counts.records, counts.layers, strict=True))


def changed(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    """The planted fault: some fields of the descriptors of shared windows are others."""
    strip_fields = descriptors._strip_fields

    def other(*args: Any) -> dict[str, int]:
        found = strip_fields(*args)
        return (
            {**found, **{name: change(found[name]) for name, change in fields.items()}} if found["uniform"] else found
        )

    monkeypatch.setattr(descriptors, "_strip_fields", other)


@pytest.mark.verifies("planted-faults-weights-shared-differ")
def test_weights_of_their_own_are_refused(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, uniform=lambda _: 0)
    with pytest.raises(ImageError, match="pointers have"):
        average(seed).run(PARAMS)


@pytest.mark.verifies("planted-faults-weights-shared-differ")
def test_a_window_that_is_not_the_kernel_is_refused(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, wy=lambda rows: rows - 1)
    with pytest.raises(ImageError, match="uniform, with 4 x 4 positions"):
        average(seed).run(PARAMS)


@pytest.mark.verifies("planted-faults-weights-shared-differ")
def test_a_tile_of_several_pixels_is_refused(seed: int) -> None:
    (image,) = average(seed).run(PARAMS).images
    layers = (image.layers[0], dataclasses.replace(image.layers[1], tile_x=2))
    with pytest.raises(ImageError, match=r"of 1 x 2 pixels|column_lines"):
        check(dataclasses.replace(image, layers=layers))


@pytest.mark.verifies("planted-faults-weights-shared-differ")
def test_shared_weights_in_a_tile_of_several_pixels_are_seen(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: the compiler lets positions share their weights although they differ."""

    def wrong(segment: Any, *_: Any) -> bool:
        return bool(segment.kernel == (2, 2))

    monkeypatch.setattr(encode, "shared", wrong)
    monkeypatch.setattr(tiles, "shared", wrong)
    prefer(monkeypatch, lambda choice: float(choice.cut.fy * choice.cut.fx * choice.cut.planes) ** 4)
    net = Net(seed, 6, 4, 4)
    net.conv("x", (8, 6, 2, 2), 1.0)
    assert net.run(PARAMS).wrong
