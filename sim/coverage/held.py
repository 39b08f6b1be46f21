"""Cases that hold queues up: a vector of many entries, and behind it as many vectors with work as credit lets."""

from __future__ import annotations

import numpy as np

from compiler.lower.build import build
from compiler.lower.program import HIGH, LOW, MapForm, Program, ProgramLayer, segment_of
from compiler.options import DEFAULT
from hw.params import LANES, Params
from sim.cases import Case

__all__ = ["held_case"]

_VECTORS = 10
"""Vectors behind the first two: as many as are sent to the deepest queue of the campaign while credit lasts."""
_ROWS = 4
"""Rows of a PE."""


def held_case(seed: int, params: Params) -> Case:
    """A fully connected layer of inputs without a zero; it fits the memories of a given array, so that nothing streams.

    The first vector has entries for longer than all others take to come, and each of these has some in every PE, so
    queues go from one vector to as many as credit lets through.
    """
    rng = np.random.default_rng([seed, 23])
    width, height = LANES * (2 + _VECTORS), _ROWS * params.pes
    codes = rng.integers(1, 1 << params.code_bits, (height, 1, 1, width)).astype(np.uint8)
    rest = np.arange(width) >= LANES
    codes[..., rest & (np.arange(width) % LANES != 0)] = 0
    book = np.concatenate([[0], rng.integers(LOW, HIGH + 1, (1 << params.code_bits) - 1)]).astype(np.int16)
    maps = (MapForm("x", width, 1, 1, 0), MapForm("y", height, 1, 1, 0))
    layer = ProgramLayer(
        "held", 1, (segment_of(0, codes, book),), rng.integers(LOW, HIGH + 1, height), np.full(height, 20)
    )
    image = build(Program(maps, (layer,), (0,), (1,)), params, DEFAULT)
    x = rng.integers(1, HIGH + 1, (2, 1, 1, width)).astype(np.int16)
    return Case(seed, image, {"x": x})
