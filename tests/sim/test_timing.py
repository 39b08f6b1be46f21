"""What the cycle model takes of an image, against what the drawing of a random program knows of it."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from compiler.cycles.model import run
from sim.decode import decode
from sim.golden_array import run_layers
from sim.timing import works
from tests.hw.programs import random_program
from tests.sim.program_image import frames_of, program_image
from tests.sim.test_cycles import modelled
from tests.sim.test_cycles import works as drawn


@pytest.mark.verifies("image-times-program")
@pytest.mark.parametrize("number", range(20))
def test_an_image_has_the_times_of_its_program(number: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.decode.check", lambda image: None)  # one map stands for all
    program = random_program(1000 * seed + number)
    image = program_image(program)
    found = works(image)
    for own, expected in zip(found, drawn(program), strict=True):
        assert own.step == expected.step
        assert own.packets == expected.packets
        for name in ("counts", "starts", "padding", "flushes"):
            assert np.array_equal(getattr(own, name), getattr(expected, name)), name
    memory = frames_of(program, program.initial).copy()
    masks = [mask for ran in run_layers(decode(image), memory, image.params.acc_bits, masks=True) for mask in ran.masks]
    times = run(image.params, found, masks)
    records, _ = modelled(program)
    assert [asdict(each) | {"saturated": n} for each, n in zip(times, program.saturated, strict=True)] == records
