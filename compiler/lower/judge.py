"""Which of a layer's best tilings is the fastest, by the exact cycle model on random activations of its densities.

The estimate of `tiles` ranks the tilings; it does not know how entries meet in the queues of the PEs. So the first few
of those that it finds nearly alike are encoded, and timed as the array would take them. Of a large layer, some rows of
tiles are timed, and the estimate of the whole is corrected by what they took.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from compiler.image.steps import Step, parse_program
from compiler.lower.descriptors import Places, descriptor_rows, pack_rows
from compiler.lower.encode import Encoded, EncodedLayer, encode_layer
from compiler.lower.layout import Placement, Tiling, input_placement, result_placement
from compiler.lower.program import MapForm, Program, ProgramLayer
from compiler.lower.stream import Buffers
from compiler.lower.tiles import Choice, Plan, estimate
from compiler.options import Options
from hw.params import LANES, Params

__all__ = ["Judge"]

NEAR = 1.12
"""Tilings whose estimate is at most by this over the best one are timed: the estimate is no better than that."""

MOST = 3
"""Tilings of a layer that are timed."""

SCANNED = 100_000
"""Vectors of a tiling that are scanned, about: more tiles are like those."""

ENTRIES = 400_000
"""Entries of a tiling that is encoded for this, at most: in larger ones, PEs are busy whatever the tile."""


@dataclass
class Judge:
    """Times tilings of the layers of a program; what it found is kept for the next plan.

    program : in its canonical form. density : of each map.
    """

    program: Program
    params: Params
    options: Options
    density: Sequence[float]
    found: dict[tuple[int, Tiling], float] = field(default_factory=dict)

    def judged(self, number: int, choices: Sequence[Choice], leaves: bool) -> list[Choice]:
        """The tilings of a layer, the fastest first; those that are not timed are corrected as the others were.

        choices : the fastest first, by their estimates. leaves : as for `tile_choices`.
        """
        near = [each for each in choices if each.cycles <= NEAR * choices[0].cycles and self.able(number, each)][:MOST]
        if len(near) < 2:
            return list(choices)
        timed = [replace(each, cycles=self.cycles(number, each, leaves)) for each in near]
        change = sum(each.cycles for each in timed) / sum(each.cycles for each in near)
        rest = [replace(each, cycles=each.cycles * change) for each in choices if each not in near]
        return sorted(timed + rest, key=lambda choice: choice.cycles)

    def able(self, number: int, choice: Choice) -> bool:
        """Whether a layer by itself is like the layer in its program, and small enough to be encoded several times."""
        layer = self.program.layers[number]
        forms = [self.program.maps[each.source] for each in layer.segments] + [self.program.maps[layer.result]]
        plain = all(form.layout < 0 and not form.pitch and not form.vectors for form in forms)
        fits = all(need <= getattr(self.params, name) for name, need in choice.needs.items())
        entries = choice.needs["weight_words"] * LANES * self.params.pes
        return plain and number not in self.program.looped and not layer.moves and fits and entries <= ENTRIES

    def cycles(self, number: int, choice: Choice, leaves: bool) -> float:
        """Cycles of a layer for one sample, begun on an idle array."""
        key = number, choice.cut
        if key not in self.found:
            self.found[key] = self._cycles(number, choice, leaves)
        return self.found[key]

    def _cycles(self, number: int, choice: Choice, leaves: bool) -> float:
        layer = self.program.layers[number]
        forms, cut = _part(layer, self.program.maps, choice.cut, self.params)
        estimated = choice
        if cut != choice.cut:
            of_part = estimate(layer, forms, cut, self.params, self.options, self.density, leaves)
            if of_part is None:
                return choice.cycles
            estimated = of_part
        return choice.cycles * self._timed(layer, number, forms, cut, leaves) / estimated.cycles

    def _timed(
        self, layer: ProgramLayer, number: int, forms: Sequence[MapForm], cut: Tiling, leaves: bool
    ) -> int:  # fmt: skip
        from compiler.cycles.model import Work, run  # numba is loaded only where it is needed

        params, options = self.params, self.options
        sources = list(dict.fromkeys(segment.source for segment in layer.segments))
        made = {n: input_placement(replace(forms[n], density=self.density[n]), params) for n in sources}
        first = made[layer.segments[0].source]
        result = result_placement(forms[layer.result], layer, cut, None, first, params, options)
        order = {n: k for k, n in enumerate([*sources, layer.result])}
        placements: list[Placement] = [*made.values(), result]
        # Random activations have no rates, and rows are assigned to suit what runs.
        alone = replace(
            layer, rates=None, result=order[layer.result],
            segments=tuple(replace(each, source=order[each.source]) for each in layer.segments),
        )  # fmt: skip
        program = Program(
            tuple(each.form for each in placements), (alone,), tuple(range(len(sources))), (len(sources),)
        )
        blocks = tuple(encode_layer(0, alone, cut, block, placements, params, options) for block in cut.blocks)
        choice = Choice(cut, 0.0, {})
        encoded = Encoded(program, tuple(placements), blocks, Plan((choice,), (None,), frozenset()))
        books, tables = ((0,) * len(layer.segments),), {table: n for n, table in enumerate(program.tables)}
        places = Places((0,) * len(placements), 0, books, Buffers(0, 0, 0, 0), tables)  # where maps lie costs nothing
        rows, parts = descriptor_rows(encoded, [[] for _ in blocks], places, params)
        steps = [step for step in parse_program(params, pack_rows(rows, params)) if isinstance(step, Step)]
        counts, starts = _stored(blocks, params)
        padding = np.zeros(counts.shape, np.uint16)  # costs nothing more than other entries
        works, masks = [], []
        rng = np.random.default_rng([1, number])
        maps = [_mask(rng, each, self.density[n]) for n, each in zip(sources, placements, strict=False)]
        flushes = [np.flatnonzero(block.outputs.flush[0]).astype(np.int64) for block in blocks]
        block = -1
        for step, segment in zip(steps, (n for own in parts for n in own), strict=True):
            block += step.first
            here = slice(step.pointers, step.pointers + step.pointer_blocks)
            works.append(Work(step, counts[here], starts[here], padding[here], flushes[block]))
            source = alone.segments[segment].source
            masks.append(_seen(maps[source], placements[source], step))
        times = run(params, works, masks)
        total = cut.tiles * len(cut.blocks)
        end = times[-1].written if leaves or total == 1 else max(each.finished for each in times)
        return end - times[0].accepted


def _part(
    layer: ProgramLayer, forms: Sequence[MapForm], cut: Tiling, params: Params
) -> tuple[list[MapForm], Tiling]:  # fmt: skip
    """Maps and tiling with as many rows of tiles, two at least, as scan about `SCANNED` vectors."""
    found = list(forms)
    vectors = sum(
        math.prod(
            (forms[each.source].height, forms[each.source].width, params.act_vectors(forms[each.source].channels))
        )
        for each in layer.segments
    )
    rows = max(2, math.ceil(cut.tiles_y * SCANNED / vectors))
    if rows >= cut.tiles_y:
        return found, cut
    height = rows * cut.fy
    last = (height - 1) * layer.pool_stride[0] + layer.pool[0] - 1
    for each in layer.segments:
        reach = each.origin[0] + last * each.stride[0] + (each.kernel[0] - 1) * each.dilation[0] + 1
        found[each.source] = replace(forms[each.source], height=min(forms[each.source].height, max(1, reach)))
    found[layer.result] = replace(forms[layer.result], height=height)
    return found, replace(cut, tiles_y=rows)


def _stored(blocks: Sequence[EncodedLayer], params: Params) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Entries of all columns, and the places of the first ones in their weight words, (pointer blocks, 8, pes)."""
    counts = np.concatenate([segment.counts for layer in blocks for segment in layer.segments], axis=1)
    starts = (np.cumsum(counts, axis=1) - counts) % LANES
    count, start = (np.ascontiguousarray(each.T.reshape(-1, LANES, params.pes)) for each in (counts, starts))
    return count.astype(np.uint16), start.astype(np.uint8)


def _mask(rng: np.random.Generator, placement: Placement, density: float) -> NDArray[np.uint8]:
    """(height, width, vectors): which activations of a map are not zero."""
    form = placement.form
    there = rng.random((form.height, form.width, placement.vectors * LANES)) < density
    there &= placement.order >= 0
    bits = np.packbits(there, axis=-1, bitorder="little")
    return bits.reshape(form.height, form.width, placement.vectors)


def _seen(mask: NDArray[np.uint8], placement: Placement, step: Step) -> NDArray[np.uint8]:
    """The vectors of each pixel that a descriptor reads, of one sample."""
    first = (step.source - step.y0 * placement.row - step.x0 * placement.pitch) & 0xFFFFFF
    return np.ascontiguousarray(mask[np.newaxis, :, :, first : first + step.vectors])
