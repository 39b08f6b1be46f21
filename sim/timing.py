"""From an image to what the cycle model takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.cycles.model import Work
from compiler.image.image import Image
from compiler.image.steps import ElementwiseStep, LoopStep, Step
from hw.layouts import fields, output_word
from sim.decode import columns
from sim.streams import transfers
from sim.whole import whole_steps

__all__ = ["Bounds", "bounds", "works"]


@dataclass(frozen=True)
class Bounds:
    """Cycles of a layer that its streams need at least, for one sample.

    stream : an activation vector a cycle, of the rows that come in or of those that go out, whichever are more.
    refill : the stream of its weights, a packet of n words in n + 2 cycles.
    """

    stream: int
    refill: int


def bounds(image: Image) -> list[Bounds]:
    """Those of each layer; zero where nothing streams.

    Raises
    ------
    ImageError
        The image contradicts itself.
    """
    beats = {each.layer: max(each.row * each.height, each.beats) for each in transfers(image)}
    found = iter(columns(image))
    return [
        Bounds(beats.get(number, 0), sum(words + 2 for _ in steps for words in next(found).packets))
        for number, steps in enumerate(image.steps)
    ]


def works(image: Image, *, resident: bool = False) -> list[Work | ElementwiseStep | LoopStep]:
    """What each descriptor but END is, in order; `resident`: as if all weights and maps were on chip from the start.

    Raises
    ------
    ImageError
        The image contradicts itself.
    """
    flush = _flushes(image)
    program: list[Work | ElementwiseStep | LoopStep] = []
    found = iter(columns(image))
    steps: dict[int, Step] = {n: step for n, step in enumerate(image.program) if isinstance(step, Step)}
    if resident:
        for place, first in enumerate(image.numbers):
            steps |= {first + n: step for n, step in enumerate(whole_steps(image, place))}
    for number, step in enumerate(image.program):
        if not isinstance(step, Step):
            program.append(step)
            continue
        own = next(found)
        flushes = np.flatnonzero(flush[step.outputs : step.outputs + step.words]).astype(np.int64)
        packets = [] if resident else own.packets
        program.append(Work(steps[number], own.counts, own.starts, own.padding, flushes, packets))
    return program


def _flushes(image: Image) -> NDArray[np.bool_]:
    """Which words of the output table flush; all groups do in the same."""
    (place,) = (first for name, first, _ in fields(output_word(image.params)) if name == "flush")
    bits = image.table[0, :, place >> 3].astype(np.int64) >> (place & 7) & 1
    return bits.astype(np.bool_)
