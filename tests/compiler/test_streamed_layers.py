"""Layers whose weights are streamed: one tile each, and only what lies inside their map."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.image.check import check
from compiler.image.image import Image
from compiler.lower import tiles
from compiler.lower.build import build
from compiler.lower.program import HIGH, LOW, MapForm, Pair, Program, ProgramLayer, segment_of
from compiler.lower.rows import assign_rows
from compiler.options import DEFAULT
from hw.params import Params
from tests.compiler.array_reader import Reader

PARAMS = Params(pes=2, rows=64, weight_words=48, pointer_blocks=96, act_lines=256, output_words=512, acc_bits=40)
BOOK = np.concatenate([[0], np.arange(1, 16)]).astype(np.int16)


def program(rng: np.random.Generator, size: Pair, result: Pair, kernel: Pair, origin: Pair) -> Program:
    """One dense layer of 16 channels on 24."""
    codes = rng.integers(1, 16, (16, *kernel, 24)).astype(np.uint8)
    segment = segment_of(0, codes, BOOK, origin=origin)
    layer = ProgramLayer("layer", 1, (segment,), rng.integers(-999, 999, 16), np.full(16, 4), LOW, HIGH)
    return Program((MapForm("x", 24, *size, 0), MapForm("layer", 16, *result, 0)), (layer,), (0,), (1,))


def expected(of: Program, x: NDArray[np.int64]) -> NDArray[np.int64]:
    """The layer from its definition; x is (channels, height, width)."""
    (layer,) = of.layers
    (segment,) = layer.segments
    form = of.maps[1]
    out = np.zeros((form.channels, form.height, form.width), np.int64)
    for channel in range(form.channels):
        for y in range(form.height):
            for column in range(form.width):
                total = int(layer.bias[channel])
                for n in range(segment.starts[channel], segment.starts[channel + 1]):
                    ky, kx = divmod(int(segment.tap[n]), segment.kernel[1])
                    at = segment.origin[0] + y + ky, segment.origin[1] + column + kx
                    if 0 <= at[0] < x.shape[1] and 0 <= at[1] < x.shape[2]:
                        total += int(segment.codebook[segment.code[n]]) * int(x[(segment.channel[n], *at)])
                out[channel, y, column] = min(max(total + 8 >> 4, LOW), HIGH)
    return out


def run(of: Program, image: Image, x: NDArray[np.int64]) -> NDArray[np.int64]:
    check(image)
    reader = Reader(image)
    reader.put(0, x)
    return reader.run()[-1]


@pytest.mark.verifies("streamed-layers-tile-positions-map")
@pytest.mark.parametrize(
    ("size", "result", "kernel", "origin"),
    [
        ((3, 3), (1, 1), (3, 3), (0, 0)),
        ((1, 1), (1, 1), (3, 3), (-1, -1)),  # one position of nine is inside
        ((2, 3), (1, 1), (2, 2), (-3, -3)),  # none is
        ((3, 3), (1, 1), (3, 3), (1, 1)),
        ((4, 4), (2, 2), (3, 3), (-1, 0)),  # four pixels in one tile
    ],
)
def test_a_streamed_layer_is_one_tile_of_what_is_inside(
    size: Pair, result: Pair, kernel: Pair, origin: Pair, rng: np.random.Generator
) -> None:
    of = program(rng, size, result, kernel, origin)
    image = build(of, PARAMS.replace(weight_words=20 if max(size) < 4 else 72))
    (steps,) = image.steps
    x = rng.integers(-300, 300, (24, *size))
    assert np.array_equal(run(of, image, x), expected(of, x))
    inside = any(0 <= origin[0] + y < size[0] and 0 <= origin[1] + c < size[1] for y, c in np.ndindex(kernel))
    assert (image.layers[0].entries > 0) == inside
    if inside and kernel == (3, 3) and origin == (0, 0):
        assert all(step.refill for step in steps)
        assert len(steps) > 1


@pytest.mark.verifies("streamed-layers-tile-positions-map")
def test_a_layer_that_would_be_faster_in_several_tiles_is_streamed_in_one(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = program(rng, (4, 4), (2, 2), (3, 3), (-1, 0))
    choices = tiles.tile_choices
    monkeypatch.setattr(tiles, "tile_choices", lambda *args: sorted(choices(*args), key=lambda each: -each.cut.tiles))
    monkeypatch.setattr(tiles, "_streamed", lambda *_: frozenset({0}))
    image = build(of, PARAMS.replace(weight_words=72))
    (steps,) = image.steps
    assert all(step.refill and step.tiles == 1 for step in steps)
    x = rng.integers(-300, 300, (24, 4, 4))
    assert np.array_equal(run(of, image, x), expected(of, x))


@pytest.mark.parametrize("channels", [9, 3])
def test_uneven_pixels_fill_the_accumulators_of_all_pes(channels: int, rng: np.random.Generator) -> None:
    """Rows of few channels for each pixel, as many as there are accumulators."""
    count = 8 * 8 // channels
    pixel = np.repeat(np.arange(count), channels)
    work = rng.integers(0, 2, len(pixel)) * 100
    for channelwise in (False, True):
        found = assign_rows(
            work, np.zeros_like(pixel), pixel, np.arange(len(pixel)) % channels, Params(pes=8, rows=8), DEFAULT,
            hidden=True, most=8, channelwise=channelwise,
        )  # fmt: skip
        assert found.slot.max() < 8
        assert len(set(zip(found.pe.tolist(), found.slot.tolist(), strict=True))) == len(pixel)


def test_too_few_accumulators_for_a_vector_say_how_many_it_takes(rng: np.random.Generator) -> None:
    of = program(rng, (3, 3), (1, 1), (3, 3), (0, 0))
    few = Params(pes=1, rows=4, acc_bits=40)
    with pytest.raises(ImageError, match=r"needs 8 accumulators in each of 1 PEs at once, there are 4: --set rows=8"):
        build(of, few)
    assert build(of, few.replace(rows=8)).layers
