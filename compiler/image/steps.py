"""The program of an image, read from its descriptors: segments of layers, elementwise operations, ends of loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw.layouts import Op, descriptor, elementwise, fields, loop
from hw.params import Params

__all__ = ["SIGNED", "AnyStep", "ElementwiseStep", "LoopStep", "Step", "executions", "parse_program"]

SIGNED = frozenset({"y0", "x0", "low", "high", "scale_a", "scale_c", "offset", "pitch"})
"""Fields of descriptors that are two's complement."""


@dataclass(frozen=True)
class Step:
    """One SEGMENT descriptor, its fields as `hw.layouts.descriptor` names them."""

    op: int
    first: int
    last: int
    chained: int
    dense: int
    maximum: int
    refill: int
    buffer: int
    barrier: int
    moves_source: int
    moves_result: int
    functions: int
    codebook: int
    source: int
    vectors: int
    dy: int
    dx: int
    wy: int
    wx: int
    height: int
    width: int
    y0: int
    x0: int
    step_y: int
    step_x: int
    position_pitch: int
    window_pitch: int
    tile_pitch_x: int
    tile_pitch_y: int
    pointers: int
    tiles_y: int
    tiles_x: int
    destination: int
    row_lines: int
    row_pitch: int
    tile_lines: int
    column_lines: int
    outputs: int
    words: int
    frame: int
    low: int
    high: int
    table_1: int
    left_1: int
    right_1: int
    table_2: int
    left_2: int
    right_2: int
    uniform: int = 0
    # A layer that streams nothing leaves these out.
    ring: int = 0
    reach: int = 0
    stream_in: int = 0
    stream_out: int = 0
    out_rows: int = 0
    ring_base: int = 0
    ring_rows: int = 0
    ring_row: int = 0
    ring_size: int = 0
    ring_skip: int = 0
    ring_skip_size: int = 0

    @property
    def tiles(self) -> int:
        """Tiles of the layer, for one sample."""
        return self.tiles_y * self.tiles_x

    @property
    def positions(self) -> int:
        """Positions of the window."""
        return self.wy * self.wx

    @property
    def pointer_blocks(self) -> int:
        """Words of pointer memory that describe the columns: one for each vector of the window, or of a position."""
        return self.vectors * (1 if self.uniform else self.positions)


@dataclass(frozen=True)
class ElementwiseStep:
    """One ELEMENTWISE descriptor, its fields as `hw.layouts.elementwise` names them."""

    op: int
    has_b: int
    has_c: int
    has_e: int
    moves_a: int
    moves_b: int
    moves_c: int
    moves_e: int
    moves_result: int
    functions: int
    shift: int
    a: int
    b: int
    c: int
    e: int
    result: int
    lines: int
    frame: int
    scale_a: int
    scale_c: int
    low: int
    high: int
    offset: int
    table_1: int
    left_1: int
    right_1: int

    @property
    def reads(self) -> int:
        """Lines that are read for each line of the result."""
        return 1 + self.has_b + self.has_c + self.has_e

    @property
    def products(self) -> int:
        """Products that make one number of the result."""
        return 1 + self.has_c


@dataclass(frozen=True)
class LoopStep:
    """One LOOP descriptor, its fields as `hw.layouts.loop` names them."""

    op: int
    first: int
    count: int
    pitch: int


AnyStep = Step | ElementwiseStep | LoopStep

_KINDS = {
    Op.SEGMENT.value: (Step, descriptor),
    Op.ELEMENTWISE.value: (ElementwiseStep, elementwise),
    Op.LOOP.value: (LoopStep, loop),
}


def parse_program(params: Params, descriptors: NDArray[np.uint8]) -> list[AnyStep]:
    """The steps in front of the first descriptor that is none of these kinds; reserved fields are not looked at."""
    steps: list[AnyStep] = []
    for row in descriptors:
        word = int.from_bytes(row.tobytes(), "little")
        if word & 15 not in _KINDS:
            break
        kind, layout = _KINDS[word & 15]
        steps.append(kind(**_values(kind, fields(layout(params)), word)))
    return steps


def executions(program: Sequence[AnyStep]) -> Iterator[tuple[int, int]]:
    """What runs, in order: the number of the first descriptor of a layer or of an operation, and the loop offset."""
    number = offset = 0
    rounds = 1
    while number < len(program):
        step = program[number]
        if isinstance(step, LoopStep):
            rounds, offset = (rounds + 1, offset + step.pitch) if rounds < step.count else (1, 0)
            number = step.first if rounds > 1 else number + 1
            continue
        yield number, offset
        while isinstance(step, Step) and not step.last and isinstance(program[number + 1], Step):
            number += 1
            step = program[number]
        number += 1


def _values(kind: type, where: list[tuple[str, int, int]], word: int) -> dict[str, int]:
    """The fields of a step out of its descriptor."""
    places = {name: (first, width) for name, first, width in where}
    values = {}
    for field in dataclasses.fields(kind):
        first, width = places[field.name]
        value = word >> first & ((1 << width) - 1)
        values[field.name] = value - (value >> (width - 1) << width if field.name in SIGNED else 0)
    return values
