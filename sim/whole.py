"""Where the models hold the maps of an image: as the array does, and those off chip whole, behind the first frame.

Rings and the order in which rows come and go are of no concern to what is computed, so the golden model has none.
"""

from __future__ import annotations

from dataclasses import replace

from compiler.image.image import Image, MapInfo
from compiler.image.rings import ring_offsets
from compiler.image.steps import Step

__all__ = ["on_chip", "whole_lines", "whole_maps", "whole_steps"]

_WRAP = 1 << 24


def whole_lines(image: Image) -> int:
    """Lines of a sample: rings, which are not used, a frame, and the maps off chip."""
    return image.rings + image.frame + sum(each.lines for each in image.maps if each.off_chip)


def whole_maps(image: Image) -> tuple[MapInfo, ...]:
    """The maps, each with the line at which it begins."""
    found = []
    at = image.rings + image.frame
    for each in image.maps:
        found.append(replace(each, base=at) if each.off_chip else each)
        at += each.lines * each.off_chip
    return tuple(found)


def whole_steps(image: Image, number: int) -> list[Step]:
    """The segments of a layer as they would be if nothing streamed."""
    steps, info = image.steps[number], image.layers[number]
    if not any(step.stream_in or step.stream_out for step in steps):
        return steps
    maps, groups = whole_maps(image), image.params.groups
    found = []
    offsets, _ = ring_offsets(image, number)
    for step, part in zip(steps, info.parts, strict=True):
        source = maps[info.sources[part]]
        if step.ring:
            ring = step.ring_base * groups + offsets[info.sources[part]] + step.y0 % step.ring_rows * step.ring_row
            first = (source.base * groups + step.source - ring + step.y0 * source.row) % _WRAP
            step = replace(
                step, source=first, window_pitch=step.dy * source.row, tile_pitch_y=step.step_y * source.row
            )  # fmt: skip
        if step.stream_out:
            step = replace(step, destination=maps[info.result].base)
        found.append(on_chip(step))
    return found


def on_chip(step: Step) -> Step:
    """A segment that says nothing of rings."""
    return replace(
        step, ring=0, reach=0, stream_in=0, stream_out=0, out_rows=0, ring_base=0, ring_rows=0, ring_row=0,
        ring_size=0, ring_skip=0, ring_skip_size=0,
    )  # fmt: skip
