"""Arrays whose memories are too small, or nearly: an image that holds what it should, or an error; never a hang."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.errors import ImageError
from compiler.lower.build import build
from compiler.lower.program import HIGH, LOW, MapForm, Program, ProgramLayer, segment_of
from hw.params import Params
from sim import run as engines
from sim.cases import random_network

TIGHT = Params(
    pes=4, rows=64, queue_depth=8, weight_words=64, pointer_blocks=48, act_lines=512, output_words=256, codebooks=4,
    descriptors=32,
)  # fmt: skip


@pytest.mark.verifies("memories-nearly-too-small-image")
@pytest.mark.parametrize("refill", [False, True])
def test_tight_memories_end_in_an_image_or_an_error(refill: bool, rng: np.random.Generator) -> None:
    """Layers give way in turn: more of one memory may mean less of another."""
    params = TIGHT.replace(refill=refill)
    built = refused = 0
    for _ in range(80):
        program = random_network(rng, params)
        try:
            image = build(program, params)
        except ImageError:
            refused += 1
            continue
        assert image.entries.shape[1] <= params.weight_words
        assert image.pointers.shape[1] <= params.pointer_blocks
        built += 1
    assert built > 10
    assert refused > 0 or refill


@pytest.mark.verifies("streamed-layers-tile-positions-map")
def test_a_streamed_segment_whose_window_lies_beside_its_map_adds_nothing() -> None:
    params = TIGHT.replace(weight_words=32)
    book = np.arange(16, dtype=np.int16)
    codes = np.ones((40, 1, 1, 40), np.uint8)
    segments = tuple(segment_of(0, codes, book, origin=origin) for origin in ((0, 0), (-1, 0)))
    bias = np.arange(40, dtype=np.int64) - 20
    layer = ProgramLayer("beside", 1, segments, bias, np.zeros(40, np.int64), LOW, HIGH)
    forms = (MapForm("x", 40, 1, 1, 0), MapForm("beside", 40, 1, 1, 0))
    image = build(Program(forms, (layer,), (0,), (1,)), params)
    assert all(step.refill for steps in image.steps for step in steps)
    for engine in ("golden", "cycles", "amaranth"):
        result = engines.run(image, np.full((2, 1, 1, 40), 77, np.int16), engine=engine)
        np.testing.assert_array_equal(result.raw, np.stack([40 * 77 + bias] * 2))
