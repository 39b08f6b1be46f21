"""From an image to what the cycle model takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.cycles.model import Work
from compiler.image.image import Image
from compiler.image.steps import ElementwiseStep, LoopStep, Step
from hw.layouts import fields, output_word
from sim.decode import columns

__all__ = ["works"]


def works(image: Image) -> list[Work | ElementwiseStep | LoopStep]:
    """What each descriptor but END is, in order.

    Raises
    ------
    ImageError
        The image contradicts itself.
    """
    flush = _flushes(image)
    program: list[Work | ElementwiseStep | LoopStep] = []
    found = iter(columns(image))
    for step in image.program:
        if not isinstance(step, Step):
            program.append(step)
            continue
        own = next(found)
        flushes = np.flatnonzero(flush[step.outputs : step.outputs + step.words]).astype(np.int64)
        program.append(Work(step, own.counts, own.starts, own.padding, flushes, own.packets))
    return program


def _flushes(image: Image) -> NDArray[np.bool_]:
    """Which words of the output table flush; all groups do in the same."""
    (place,) = (first for name, first, _ in fields(output_word(image.params)) if name == "flush")
    bits = image.table[0, :, place >> 3].astype(np.int64) >> (place & 7) & 1
    return bits.astype(np.bool_)
