"""A random hardware program as an image: what the decoder and the golden model read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.image.image import Image, LayerInfo, MapInfo
from hw.layouts import Memory, fields, memory_shape, table_word
from hw.params import LANES, PIECES
from tests.hw.program_operators import Loop, Operation
from tests.hw.programs import Program

__all__ = ["frames_of", "program_image"]


def _bytes(program: Program, memory: Memory) -> NDArray[np.uint8]:
    """uint8 (units, words, bytes) as far as the fullest unit is used."""
    units = program.memories[memory]
    size = -(-memory_shape(program.params, memory)[2] // 8)
    words = np.zeros((len(units), max(map(len, units)), size), np.uint8)
    for unit, values in zip(words, units, strict=True):
        for word, value in zip(unit, values, strict=False):
            word[:] = np.frombuffer(value.to_bytes(size, "little"), np.uint8)
    return words


def program_image(program: Program) -> Image:
    """The image; one map stands for the whole frame, so inputs and results are compared there."""
    params, book = program.params, 1 << program.params.code_bits
    frame = program.layers[0][0].step["frame"]
    whole = MapInfo(
        "frame",
        params.line,
        frame,
        1,
        params.groups,
        params.groups,
        params.groups,
        0,
        frame,
        1,
        0,
        -1,
        "CHW",
        -1,
        1,
        -1,
        0,
        0,
    )
    layers = []
    for item in program.items:
        if not isinstance(item, Loop):
            count = 1 if isinstance(item, Operation) else len(item)
            layers.append(
                LayerInfo(
                    f"layer{len(layers)}", (0,) * count, 0, 1, 1, True, 1, 1, 1, 0, tuple(range(count)), 0, (),
                    (1, 1, 1, 1, 1, 1, 0, 0) * count, (1, 1, 1, 1),
                )
            )  # fmt: skip
    codebooks = np.array(program.memories[Memory.CODEBOOK][0], np.uint16).view(np.int16).reshape(-1, book)
    beats = b"".join(beat.to_bytes(16, "little") for beat in sample_beats(program))
    return Image(
        params, tuple(layers), (whole,), (0,), (0,), _bytes(program, Memory.WEIGHTS), _bytes(program, Memory.POINTERS),
        np.frombuffer(beats, np.uint8).reshape(-1, 16), codebooks, _bytes(program, Memory.OUTPUTS), _tables(program),
        _bytes(program, Memory.DESCRIPTORS)[0], np.arange(params.line, dtype=np.int32), frame,
    )  # fmt: skip


def _tables(program: Program) -> NDArray[np.int16]:
    """Function tables as far as the program has them."""
    words = program.memories.get(Memory.TABLES, [[]])[0]
    count = len(words) // PIECES
    value, step = (
        np.array([word >> first & (1 << width) - 1 for word in words], np.int64) - 0
        for _, first, width in fields(table_word(program.params))
    )
    value, step = value << 48 >> 48, step << 47 >> 47
    tables = np.zeros((count, PIECES + 1), np.int16)
    tables[:, :-1] = value.reshape(count, PIECES)
    tables[:, -1] = (value + step).reshape(count, PIECES)[:, -1]
    return tables


def sample_beats(program: Program) -> list[int]:
    """The beats of one sample: those of each layer once."""
    beats: list[int] = []
    at = 0
    for segments in program.layers:
        size = sum(words + 1 for segment in segments for words in segment.packets)
        beats += program.beats[at : at + size]
        at += size * program.batch
    return beats


def frames_of(program: Program, lines: NDArray[np.int16]) -> NDArray[np.int16]:
    """(groups, act_lines, 8) as (batch, frame, groups, 8)."""
    frame = program.layers[0][0].step["frame"]
    used = lines[:, : program.batch * frame].reshape(lines.shape[0], program.batch, frame, LANES)
    return np.ascontiguousarray(used.transpose(1, 2, 0, 3))
