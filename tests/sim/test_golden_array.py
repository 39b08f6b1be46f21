"""Decoder and golden model of the array against random hardware programs, whose results come from plain numpy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.image.image import Image
from hw.layouts import Memory, fields, output_word
from hw.params import LANES
from sim import decode, golden_array
from sim.program import refill_stream
from tests.hw.programs import Program, random_program
from tests.sim.program_image import frames_of, program_image

NUMBER = 60


@pytest.fixture(autouse=True)
def no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs have gaps and rubbish that the compiler's images may not have."""
    monkeypatch.setattr(decode, "check", lambda image: None)


def before(program: Program) -> NDArray[np.int16]:
    lines = np.zeros_like(program.final)
    for bank, words in zip(lines, program.memories[Memory.ACTIVATIONS], strict=True):
        raw = b"".join(word.to_bytes(2 * LANES, "little") for word in words)
        bank[: len(words)] = np.frombuffer(raw, "<i2").reshape(-1, LANES)
    return frames_of(program, lines)


def equal(program: Program) -> bool:
    """Whether memory and saturations after a run are what they must be."""
    memory = before(program)
    decoded = decode.decode(program_image(program))
    counts = [0] * len(decoded.layers)
    runs = golden_array.run_layers(decoded, memory, program.params.acc_bits)
    for (number, _), ran in zip(decoded.rounds, runs, strict=True):
        counts[number] += int(ran.saturated.sum())
    return np.array_equal(memory, frames_of(program, program.final)) and counts == program.saturated


def drawn(number: int) -> Program:
    """Every other program has operations and loops; images never stream what is in a loop."""
    return random_program(number, operators=True, refill=False) if number % 2 else random_program(number)


def all_equal(seed: int) -> list[int]:
    return [n for n in range(NUMBER) if not equal(drawn(1000 * seed + n))]


@pytest.mark.verifies("decoder-golden-model-memories-saturations")
def test_memories_and_saturations_of_random_programs(seed: int) -> None:
    assert all_equal(seed) == []


@pytest.mark.verifies("decoder-golden-model-memories-saturations")
def test_small_chunks_change_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_array, "CHUNK", 64)
    assert all_equal(seed) == []


def wrong_shift(total: Any, shift: Any) -> Any:
    return total >> shift


def no_product(weight: Any, x: Any) -> Any:
    return golden_array._product(abs(weight), x)


def outside_counts(step: Any) -> Any:
    address, inside = golden_array.window_addresses(step)
    return address % 4, np.ones_like(inside)


def straight_lines(step: Any, lines: int) -> Any:
    return golden_array.word_lines(dataclasses.replace(step, tile_lines=step.column_lines), lines)


FAULTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "rounding": ("shifted", wrong_shift),
    "signs of weights": ("_product", no_product),
    "positions outside": ("window_addresses", outside_counts),
    "rows of tiles": ("word_lines", straight_lines),
    "maxima": ("_largest", lambda weight, x, dense: np.zeros((weight.shape[0], len(x[0])), np.int64)),
}


@pytest.mark.verifies("planted-faults-golden-model-array")
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_caught(fault: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    name, wrong = FAULTS[fault]
    right = getattr(golden_array, name)

    def planted(*args: Any) -> Any:
        with monkeypatch.context() as undone:
            undone.setattr(golden_array, name, right)
            return wrong(*args)

    monkeypatch.setattr(golden_array, name, planted)
    assert all_equal(seed)


@pytest.mark.verifies("decoder-golden-model-memories-saturations")
def test_columns_and_stream_of_random_programs(seed: int) -> None:
    for n in range(NUMBER):
        program = random_program(1000 * seed + n)
        image = program_image(program)
        segments = [segment for layer in program.layers for segment in layer]
        for found, right in zip(decode.columns(image), segments, strict=True):
            assert np.array_equal(found.counts, right.counts)
            assert np.array_equal(found.padding, right.padding)
            assert np.array_equal(found.starts[right.counts > 0], right.starts[right.counts > 0])
            assert found.packets == right.packets
        beats = b"".join(beat.to_bytes(16, "little") for beat in program.beats)
        assert refill_stream(image, program.batch).tobytes() == beats


@pytest.mark.verifies("decoder-golden-model-memories-saturations")
def test_masks_of_what_windows_read(seed: int) -> None:
    for n in range(20):
        program = random_program(1000 * seed + n)
        layers = decode.decode(program_image(program))
        runs = golden_array.run_layers(layers, before(program), program.params.acc_bits, masks=True)
        found = [mask for ran in runs for mask in ran.masks]
        for mask, right in zip(found, program.masks, strict=True):
            read = np.broadcast_to(mask.any(axis=(0, 3), keepdims=True), mask.shape)
            assert np.array_equal(mask[read], right[read])


def changed(image: Image, field: str, value: int) -> Image:
    """The image with one field of the first output word of each group set."""
    ((first, width),) = ((first, width) for name, first, width in fields(output_word(image.params)) if name == field)
    table = image.table.copy()
    for group in table:
        word = int.from_bytes(group[0].tobytes(), "little") & ~(((1 << width) - 1) << first)
        group[0] = np.frombuffer((word | value << first).to_bytes(group.shape[1], "little"), np.uint8)
    return dataclasses.replace(image, table=table)


@pytest.mark.verifies("planted-faults-golden-model-array")
def test_contradictions_are_refused() -> None:
    program = random_program(4, kind="window", layers=1, pes=2)
    image = program_image(program)
    decode.decode(image)
    with pytest.raises(ImageError, match="no beginning"):
        decode.decode(changed(image, "join", 1))
    with pytest.raises(ImageError, match="its frame has"):
        decode.decode(dataclasses.replace(image, frame=1))
    with pytest.raises(ImageError, match="are not all there"):
        decode.decode(dataclasses.replace(image, table=image.table[:, :1]))
    slots = {slot for slot in range(program.params.rows) if _refused(changed(image, "slot", slot))}
    assert slots  # an accumulator with entries that no output reads


def _refused(image: Image) -> bool:
    try:
        decode.decode(image)
    except ImageError:
        return True
    return False
