"""One form for all programs that mean the same to the array, so that an image says which program it was made of.

Nonzeros of an output channel stand in the order of its window, whichever order the graph had. Those that meet no pixel
of their map, wherever the window stands, are left out: they would be stored, and never multiplied. How dense a map is
is known to one part in 256.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from compiler.lower.program import MapForm, Program, ProgramLayer, Segment

__all__ = ["DENSITIES", "canonical"]

DENSITIES = 256
"""Densities of maps are whole numbers of these parts."""


def canonical(program: Program) -> Program:
    """The program in this form; what is in it already is not copied."""
    maps = program.maps
    layers = tuple(
        dataclasses.replace(
            layer,
            segments=tuple(
                _sorted(_met(segment, layer, maps[layer.result], maps[segment.source])) for segment in layer.segments
            ),
        )
        for layer in program.layers
    )
    return dataclasses.replace(program, maps=tuple(map(_rounded, maps)), layers=layers)


def _rounded(form: MapForm) -> MapForm:
    if form.density is None:
        return form
    return dataclasses.replace(form, density=min(max(round(form.density * DENSITIES), 0), DENSITIES) / DENSITIES)


def _met(segment: Segment, layer: ProgramLayer, made: MapForm, source: MapForm) -> Segment:
    rows, columns = (
        _axis(segment, layer, axis, count, size)
        for axis, (count, size) in enumerate(((made.height, source.height), (made.width, source.width)))
    )
    met = (rows[:, np.newaxis] & columns).reshape(-1)
    return segment if met.all() else _picked(segment, np.flatnonzero(met[segment.tap]))


def _axis(segment: Segment, layer: ProgramLayer, axis: int, count: int, size: int) -> NDArray[np.bool_]:
    """Places of the kernel along an axis that are in the map for one of the pixels that are computed."""
    within = np.arange(layer.pool[axis])[:, np.newaxis]
    pixels = np.arange(count) * layer.pool_stride[axis] + within
    first = segment.origin[axis] + pixels.reshape(-1) * segment.stride[axis]
    at = np.arange(segment.kernel[axis])[:, np.newaxis] * segment.dilation[axis] + first
    met: NDArray[np.bool_] = np.any((at >= 0) & (at < size), axis=1)
    return met


def _sorted(segment: Segment) -> Segment:
    if len(segment.code) < 2:
        return segment
    place = segment.tap * (int(segment.channel.max()) + 1) + segment.channel
    output = np.repeat(np.arange(len(segment.starts) - 1), segment.counts)
    if not ((np.diff(place) < 0) & (np.diff(output) == 0)).any():
        return segment
    return _picked(segment, np.lexsort((place, output)))


def _picked(segment: Segment, here: NDArray[np.int64]) -> Segment:
    """The nonzeros at some places; those of one output channel stay together."""
    output = np.repeat(np.arange(len(segment.starts) - 1), segment.counts)[here]
    return dataclasses.replace(
        segment, starts=np.searchsorted(output, np.arange(len(segment.starts))),
        tap=segment.tap[here], channel=segment.channel[here], code=segment.code[here],
    )  # fmt: skip
