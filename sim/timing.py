"""From an image and its activations to what the cycle model takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compiler.image.image import Image, row_orders
from hw.params import LANES
from sim.cycles import Work
from sim.decode import columns

__all__ = ["active_columns", "layer_inputs", "works"]


def works(image: Image) -> list[Work]:
    """The descriptors of an image."""
    stored = iter(columns(image))
    program = []
    for steps in image.steps:
        for step in steps:
            own = next(stored)
            line = step.source - steps[0].source
            program.append(Work(
                own.counts, own.starts, own.counts.sum(axis=1, dtype=np.int64), own.padding.sum(axis=1, dtype=np.int64),
                step.act_vectors, bool(step.fold), step.slots, step.fragment_slots, step.split, bool(step.chained),
                line, bool(step.keep), step.buffer, own.packets,
            ))  # fmt: skip
    return program


def layer_inputs(
    image: Image, raw: NDArray[np.int16], layer_raw: Sequence[NDArray[np.int16]]
) -> list[NDArray[np.int16]]:
    """(batch, columns) activations that each layer reads: the inputs, then positions of the layer before."""
    placed = (np.where(order >= 0, out[:, order], 0) for order, out in zip(row_orders(image), layer_raw, strict=True))
    return [raw, *placed][: len(image.layers)]


def active_columns(image: Image, inputs: Sequence[NDArray[np.int16]]) -> list[NDArray[np.int64]]:
    """For each descriptor, the columns of a vector with a nonzero activation; `inputs`: what each layer reads."""
    active = []
    for steps, values in zip(image.steps, inputs, strict=True):
        padded = np.zeros(image.params.act_vectors(len(values)) * LANES, np.bool_)
        padded[: len(values)] = values != 0
        first = 0
        for step in steps:
            here = padded[first : first + step.act_vectors * LANES]
            active.append(np.flatnonzero(here.reshape(-1, 1 << step.fold).any(axis=1)).astype(np.int64))
            first = first + step.act_vectors * LANES if step.keep else 0
    return active
