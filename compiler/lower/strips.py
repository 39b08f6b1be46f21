"""In which order the windows of a tile are scanned: in strips of rows, those with much work between those with little.

A vector takes a cycle of the scan, and as many cycles of a PE as it has entries there. A segment that has fewer entries
than vectors, such as an identity, lets the PEs run dry if it is scanned alone; between the rows of one that
has more, it is scanned while the PEs still work on what stands in their queues.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from compiler.lower.encode import EncodedLayer
from hw.params import LANES, SEGMENTS

__all__ = ["Strip", "strips"]


@dataclass(frozen=True)
class Strip:
    """Rows of a segment's window, and the vectors of one span of each of their positions.

    segment : number of the segment in its layer. first, rows : of its window. vectors : before it in the segment.
    span : number of the span in the segment.
    """

    segment: int
    first: int
    rows: int
    vectors: int
    span: int = 0


def strips(layer: EncodedLayer, density: Sequence[float], late: Collection[int] = ()) -> list[Strip]:
    """The strips of a layer that is not streamed, in the order of the scan; together the whole of each window.

    density : for each segment the share of activations in its map that are not zero.
    late : segments that wait for what is made just before the layer: they are not cut, and come last.

    Only where some segments are bound by the scan and others by the PEs, they are cut: as finely as `SEGMENTS` allows.
    """
    of = [(n, span) for n, segment in enumerate(layer.segments) for span in range(len(segment.spans))]
    # Cycles of a PE for each vector of the scan.
    mean = [
        float(segment.counts.mean()) * LANES * share for segment, share in zip(layer.segments, density, strict=True)
    ]
    loads = [mean[n] for n, _ in of]
    rows = [layer.segments[n].window.wy for n, _ in of]
    vectors = [layer.segments[n].spans[span].vectors * layer.segments[n].window.wx for n, span in of]
    whole = {n for n, (segment, _) in enumerate(of) if layer.segments[segment].uniform}
    blocks = [
        layer.segments[segment].spans[span].vectors if n in whole else rows[n] * vectors[n]
        for n, (segment, span) in enumerate(of)
    ]  # fmt: skip
    before = [sum(blocks[k] for k in range(n) if of[k][0] == of[n][0]) for n in range(len(of))]
    free = [n for n in range(len(rows)) if of[n][0] not in late]
    behind = [(n, 0, rows[n]) for n in range(len(rows)) if of[n][0] in late]
    light, heavy = (any(sign * (loads[n] - 1) > 0 for n in free) for sign in (-1, 1))
    pieces = max(rows) if light and heavy else 1
    order = _interleaved(free, rows, loads, pieces, whole)
    while pieces > 1 and len(order) + len(behind) > SEGMENTS:
        pieces -= 1
        order = _interleaved(free, rows, loads, pieces, whole)
    return [
        Strip(of[n][0], first, count, before[n] + first * vectors[n], of[n][1]) for n, first, count in order + behind
    ]


def _interleaved(
    segments: Sequence[int], rows: Sequence[int], loads: Sequence[float], pieces: int, whole: Collection[int]
) -> list[tuple[int, int, int]]:
    """(segment, first row, rows): these windows in at most `pieces` even strips, in the order of their middles.

    whole : those that are not cut.
    """
    if pieces == 1:
        return [(n, 0, rows[n]) for n in segments]
    cut = []
    for n in segments:
        count = rows[n]
        mine = 1 if n in whole else min(pieces, count)
        ends = [count * k // mine for k in range(mine + 1)]
        cut += [((begin + end) / count, -loads[n], n, begin, end) for begin, end in pairwise(ends)]
    merged: list[tuple[int, int, int]] = []
    for *_, n, begin, end in sorted(cut):
        if merged and merged[-1][0] == n:
            merged[-1] = (n, merged[-1][1], merged[-1][2] + end - begin)
        else:
            merged.append((n, begin, end - begin))
    return merged
