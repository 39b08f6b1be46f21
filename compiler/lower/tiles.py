"""How large the tiles of each layer are, and which layers are streamed, so that all of them fit the memories."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from compiler.errors import ImageError
from compiler.lower.layout import Tiling, Window, plane_tiling, shared, tiling, window
from compiler.lower.program import MapForm, Operation, Program, ProgramLayer, Segment, touched
from compiler.options import Options
from hw.params import LANES, SEGMENTS, Params, ParamsError

__all__ = ["Choice", "Plan", "advice", "densities", "estimate", "most_planes", "plan_tiles", "tile_choices"]

OVERHEAD = 24
"""Cycles from the first vector of a layer to its first product, and from its last to the first output."""

BEHIND = 30
"""Cycles from the last vector of a tile to the accept of the tile after the next, beside its words of write-back."""

BETWEEN = 11
"""Cycles from the last word of a tile to the first one of the next, if that is finished by then."""

UNEVEN = 3.0
"""How much more the PEs of an array take than one of them on average: by this, over the entries in a full queue. A
vector has now more, now fewer entries than average in each PE, and the scan waits for the fullest queue."""

PADDING = 1.1
"""Stored entries for each weight that is not zero, where nothing is known."""

MEMORIES = ("weight_words", "pointer_blocks", "output_words")
"""What tiles take of; names of `Params`."""


@dataclass(frozen=True)
class Choice:
    """A way to tile a layer, its estimated cycles for one sample, and what it takes of each of `MEMORIES`."""

    cut: Tiling
    cycles: float
    needs: Mapping[str, float]


@dataclass(frozen=True)
class Plan:
    """A tiling for each layer, the next best one if there is another, and the layers whose weights are streamed."""

    choices: tuple[Choice, ...]
    others: tuple[Choice | None, ...]
    streamed: frozenset[int]


def densities(program: Program) -> list[float]:
    """For each map the share of numbers that are not zero; where it is not known, half behind a ReLU, otherwise all."""
    found = [1.0 if form.density is None else form.density for form in program.maps]
    for step in program.steps:
        result = touched(step)[1].map
        if program.maps[result].density is not None:
            continue
        function = step.function if isinstance(step, Operation) else step.functions
        if isinstance(step, ProgramLayer) and step.maximum:
            found[result] = max(found[segment.source] for segment in step.segments)
        elif step.low >= 0 and not function:
            found[result] = 0.5
    return found


def most_planes(program: Program) -> list[int]:
    """For each layer, the planes that its result may lie in.

    Only a depthwise layer reads the channels of a plane alone, and only where it makes several pixels do they gain by
    it. Each plane takes a descriptor of those that read it; operations and loops know nothing of planes.
    """
    operated = {each.map for operation in program.operations for each in (*operation.reads.values(), operation.result)}
    made = {*program.inputs, *(layer.result for layer in program.layers)} - operated
    most = []
    for n, layer in enumerate(program.layers):
        form = program.maps[layer.result]
        readers = [(k, each) for k, each in enumerate(program.layers)
                   if any(segment.source == layer.result for segment in each.segments)]  # fmt: skip
        good = (
            layer.channelwise and not layer.maximum and layer.result in made and layer.segments[0].source in made
            and n not in program.looped and not any(k in program.looped for k, _ in readers)
            and form.layout < 0 and form.block < 0 and not form.pitch and not form.vectors
            and form.height * form.width > 1
        )  # fmt: skip
        most.append(min((SEGMENTS // len(each.segments) for _, each in readers), default=SEGMENTS) if good else 1)
    return most


def tile_choices(
    layer: ProgramLayer, forms: Sequence[MapForm], params: Params, options: Options, density: Sequence[float],
    leaves: bool = True, planes: int = 1,
) -> list[Choice]:  # fmt: skip
    """The legal tilings of a layer, the fastest first.

    density : of each map. leaves : the run ends with the layer, so that nothing hides the write-back of its last tile.
    planes : in which the result may lie.
    """
    form = layer.made(forms[layer.result])
    cuts = [
        tiling(form, layer, fy, fx, params, options)
        for fy in _sizes(form.height, 1) for fx in _sizes(form.width, params.groups)
    ]  # fmt: skip
    vectors = params.act_vectors(form.channels)
    for number in range(2, min(planes, vectors) + 1):
        if vectors % number == 0:
            cuts += [plane_tiling(form, fy, number, params) for fy in _sizes(form.height, 1)]
    found = (estimate(layer, forms, cut, params, options, density, leaves) for cut in dict.fromkeys(cuts))
    return sorted(
        (choice for choice in found if choice is not None),
        key=lambda choice: (choice.cycles, choice.cut.fy * choice.cut.fx, choice.cut.planes),
    )


def _sizes(size: int, groups: int) -> list[int]:
    """Tile sizes worth trying: the least for each number of tiles, and those that make whole lines."""
    each = {-(-size // count) for count in range(1, size + 1)}
    whole = {-(-n // step) * step for n in each for step in (groups, groups // 2, groups // 4) if step > 1}
    return sorted(each | {n for n in whole if n < 2 * size})


def estimate(
    layer: ProgramLayer, forms: Sequence[MapForm], cut: Tiling, params: Params, options: Options,
    density: Sequence[float], leaves: bool,
) -> Choice | None:  # fmt: skip
    """A way to tile a layer; None if the array cannot compute it so. The arguments are those of `tile_choices`."""
    form, area = layer.made(forms[layer.result]), math.prod(layer.pool)
    if cut.tiles > 1 and len(layer.segments) > SEGMENTS:
        return None
    lanes = min(LANES, -(-form.channels // cut.vectors)) if cut.planes == 1 else LANES
    blocks = len(cut.blocks)
    # Vectors of each group in a row of a tile; a layer in several blocks has them all evenly.
    height, width, own_vectors = (1, cut.fy * cut.fx, cut.vectors // blocks) if cut.planes > 1 \
        else (cut.fy, cut.fx, cut.vectors)  # fmt: skip
    at = (np.arange(width)[:, np.newaxis] * cut.pitch + np.arange(own_vectors)).reshape(-1)
    by_group = np.bincount(at % params.groups, minlength=params.groups)
    rows = int(by_group.max()) * lanes * height * area // (1 if cut.planes > 1 else blocks)
    busy = float(by_group.max() * params.groups / by_group.sum())
    most = min(params.rows, 1 << params.index_bits) if layer.maximum else params.rows
    if -(-rows // params.group) > most:
        return None
    used_lines = len(np.unique(at // params.groups))
    lines = -(-width * cut.pitch // params.groups)
    # A group with less to do than another lets it wait; one word of a group is kept for that.
    kept = params.group if options.balanced and cut.planes == 1 else 0
    words = height * (used_lines * lanes * area + lines - used_lines) + kept
    scan = pointers = entries = stored = 0.0
    loads = []
    for segment in layer.segments:
        source = forms[segment.source]
        seen = window(segment, layer, cut, source)
        padding = _padding(segment, layer, cut, seen, rows / params.group, params) * (blocks if cut.planes > 1 else 1)
        share = 1.0 if layer.maximum else density[segment.source]
        own = (_products(segment, layer, cut, source) / params.pes * busy + padding * cut.tiles) * share
        entries += own
        alike = seen.positions if shared(segment, layer, cut) else 1  # positions that have the same weights
        stored += (len(segment.code) * area * cut.fy * cut.fx / params.pes * busy + padding) / alike
        vectors = params.act_vectors(source.channels) / cut.planes
        if seen.dy > 255 or seen.dx > 255 or max(seen.wy, seen.wx, seen.step_y, seen.step_x) >= 1 << 16:
            return None
        sides = (
            _inside(seen.wy, seen.dy, seen.step_y, segment.origin[0] + seen.top * seen.dy, cut.tiles_y, source.height),
            _inside(seen.wx, seen.dx, seen.step_x, segment.origin[1] + seen.left * seen.dx, cut.tiles_x, source.width),
        )
        inside = math.prod(sides)
        scanned = inside * vectors + (seen.positions * cut.tiles - inside)
        # While a segment is scanned, the descriptor of the next one is fetched.
        scan += max(scanned, params.fetch * cut.tiles) * blocks
        loads.append(_Load(scanned * blocks, own, seen.wy))
        pointers += seen.positions * vectors * blocks / alike
    entries += UNEVEN * scan / (params.queue_depth - params.round_trip) + _dry(loads, cut.tiles * blocks, params)
    tiles = cut.tiles * (blocks if cut.planes > 1 else 1)
    cycles = max(scan, entries) + OVERHEAD * (1 if cut.planes > 1 else blocks)
    cycles += len(layer.segments) * cut.tiles * blocks
    if tiles > 1:
        behind = max(words + BETWEEN, (words + BEHIND + cycles / tiles) / 2)
        cycles = max(cycles, behind * tiles)
    if leaves or tiles == 1:
        cycles += words
    table = words * (blocks if cut.planes > 1 else 1)  # each plane has words of its own
    needs = {"weight_words": stored * PADDING / LANES, "pointer_blocks": pointers, "output_words": float(table)}
    return Choice(cut, cycles, needs)


class _Load(NamedTuple):
    """A segment in all tiles: vectors and positions scanned, entries of a PE, and the rows of its window."""

    scanned: float
    entries: float
    rows: int


def _dry(loads: Sequence[_Load], tiles: int, params: Params) -> float:
    """Cycles in which the PEs have nothing to do, since a strip with few entries lasts longer than what is queued."""
    light = [load for load in loads if load.entries < load.scanned]
    heavy = [load for load in loads if load.entries >= load.scanned]
    if not light or not heavy:
        return 0.0
    queued = (params.queue_depth - params.round_trip) * sum(n.entries for n in heavy) / sum(n.scanned for n in heavy)
    pieces = min(max(load.rows for load in heavy), SEGMENTS // len(loads))
    lost = 0.0
    for load in light:
        strips = min(load.rows, pieces) * tiles
        lost += strips * max(0.0, (load.scanned - load.entries) / strips - queued)
    return lost


def _products(segment: Segment, layer: ProgramLayer, cut: Tiling, source: MapForm) -> float:
    """Products of a sample without zeros: each weight times the pixels it meets, those beyond the result included."""
    pairs = 1
    for axis, (tile, tiles, size) in enumerate(
        ((cut.fy, cut.tiles_y, source.height), (cut.fx, cut.tiles_x, source.width))
    ):
        pixel = np.arange(tile * tiles)[:, np.newaxis] * layer.pool_stride[axis] + np.arange(layer.pool[axis])
        taps = np.arange(segment.kernel[axis]) * segment.dilation[axis]
        at = segment.origin[axis] + pixel[..., np.newaxis] * segment.stride[axis] + taps
        pairs *= int(((at >= 0) & (at < size)).sum())
    return len(segment.code) / math.prod(segment.kernel) * pairs


def _padding(segment: Segment, layer: ProgramLayer, cut: Tiling, seen: Window, slots: float, params: Params) -> float:
    """Padding entries of a PE in a tile: where the rows that a column meets begin far from the top, or lie far apart.

    slots : accumulators of a PE that the tile takes, in the order of its pixels.
    """
    height, width = cut.fy * layer.pool[0], cut.fx * layer.pool[1]
    pixel = slots / (height * width)  # accumulators of a PE for a pixel
    if (1 << params.index_bits) >= slots:
        return 0.0
    sides = []
    axes = ((seen.wy, seen.dy, seen.top, height), (seen.wx, seen.dx, seen.left, width))
    for axis, (count, distance, left_out, size) in enumerate(axes):
        at, stride = (left_out + np.arange(count)) * distance, segment.stride[axis]
        reach = (segment.kernel[axis] - 1) * segment.dilation[axis]
        first = np.clip(-(-(at - reach) // stride), 0, size - 1)
        sides.append((first, np.clip(at // stride, first, size - 1) - first + 1))
    (top, rows), (left, columns) = sides
    begin = np.floor((top[:, np.newaxis] * width + left) * pixel) // (1 << params.index_bits)
    between = np.floor((width - columns) * pixel) // (1 << params.index_bits)
    pads = begin + (rows[:, np.newaxis] - 1) * between
    # Columns that have entries in a PE: of each position, its channels with weights for the rows of the PE.
    channels = segment.channels_read
    if layer.channelwise:  # all rows of a channel in a group are in one PE
        met = np.minimum(columns, params.groups // math.gcd(cut.pitch, params.groups)) / params.pes
        return float((pads * met).sum()) * channels / cut.planes
    each = len(segment.code) / max(1, math.prod(segment.kernel) * channels) / params.pes
    return float((pads * (1 - np.exp(-each * rows[:, np.newaxis] * columns))).sum()) * channels


def _inside(count: int, distance: int, step: int, origin: int, tiles: int, size: int) -> int:
    """Positions of all tiles along one axis that lie in the map."""
    at = origin + np.arange(tiles)[:, np.newaxis] * step + np.arange(count) * distance
    return int(((at >= 0) & (at < size)).sum())


class Judging(Protocol):
    """What knows better than the estimate which of the best tilings of a layer is the fastest."""

    def judged(self, number: int, choices: Sequence[Choice], leaves: bool) -> list[Choice]:
        """The tilings of a layer, the fastest first, with the cycles of one sample."""


def plan_tiles(
    program: Program, params: Params, options: Options, scale: float = 1.0, judge: Judging | None = None,
    refine: Callable[[int, Choice], Choice | None] | None = None,
) -> Plan:  # fmt: skip
    """Tiles for all layers.

    Each layer gets the fastest tiles; while the memories are too small for all of them, the change that costs the
    fewest cycles for what it frees is made. Where not even the smallest tiles fit, layers of one tile are streamed, the
    largest first.

    Parameters
    ----------
    scale : share of the memories to be used: estimates may be too low.
    refine : what a choice for a layer costs beyond its tiles, or None if it must not be taken.
    judge : decides among the tilings that seem best, where there is one.
    """
    density, planes = densities(program), most_planes(program)
    rounds = {n: each.count for each in program.loops for n in program.order[each.first : each.last + 1]}
    choices = []
    for n, layer in enumerate(program.layers):
        leaves = layer is program.layers[-1]
        own = tile_choices(layer, program.maps, params, options, density, leaves, planes[n])
        if judge is not None and len(own) > 1:
            own = judge.judged(n, own, leaves)
        choices.append([replace(each, cycles=each.cycles * rounds.get(n, 1)) for each in own])
    for layer, found in zip(program.layers, choices, strict=True):
        if not found:
            raise _impossible(layer, params)
    if refine is not None:
        refined = [[refine(n, each) for each in found] for n, found in enumerate(choices)]
        choices = [sorted((each for each in found if each), key=lambda each: each.cycles) for found in refined]
    limits = {name: getattr(params, name) * scale for name in MEMORIES}
    streamed = _streamed(choices, limits, params, program.looped)
    choices = [
        [each for each in found if each.cut.tiles == 1] if n in streamed else found for n, found in enumerate(choices)
    ]
    if streamed:  # half of the memories for two buffers
        limits = {name: limit / 2 if name != "output_words" else limit for name, limit in limits.items()}
    at = [0] * len(choices)
    left: set[tuple[int, int]] = set()  # a choice that was left is not taken again, or two memories could take turns
    least: set[str] = set()  # memories of which no other choice frees anything
    while True:
        used = {name: sum(_needs(choices[n][k], n in streamed)[name] for n, k in enumerate(at)) for name in MEMORIES}
        over = [name for name in MEMORIES if used[name] > limits[name] and name not in least]
        if not over:
            break
        name = max(over, key=lambda memory: used[memory] / limits[memory])
        best: tuple[float, int, int] | None = None
        for n, found in enumerate(choices):
            if n in streamed and name != "output_words":
                continue
            now = found[at[n]]
            for k, other in enumerate(found):
                freed = now.needs[name] - other.needs[name]
                if freed > 0 and (n, k) not in left:
                    price = (other.cycles - now.cycles) / freed
                    best = min(best, (price, n, k)) if best is not None else (price, n, k)
        if best is None:
            least.add(name)  # what is really needed is known once the layers are encoded
            continue
        left.add((best[1], at[best[1]]))
        at[best[1]] = best[2]
    taken = tuple(found[k] for found, k in zip(choices, at, strict=True))
    others = tuple(
        next((found[n] for n in range(len(found)) if n != k), None) for found, k in zip(choices, at, strict=True)
    )
    return Plan(taken, others, streamed)


def _needs(choice: Choice, streamed: bool) -> Mapping[str, float]:
    return {"weight_words": 0.0, "pointer_blocks": 0.0, "output_words": choice.needs["output_words"]} if streamed \
        else choice.needs  # fmt: skip


def _streamed(
    choices: Sequence[Sequence[Choice]], limits: Mapping[str, float], params: Params, looped: frozenset[int]
) -> frozenset[int]:
    """Layers to stream so that the rest fits, in the smallest tiles that there are; what is in a loop stays."""
    streamed: set[int] = set()
    for name in ("weight_words", "pointer_blocks"):
        least = [min(choice.needs[name] for choice in found) for found in choices]
        one_tile = [
            n for n, found in enumerate(choices)
            if n not in looped and any(choice.cut.tiles == 1 for choice in found)
        ]  # fmt: skip
        for n in sorted(one_tile, key=lambda n: -least[n]):
            left = sum(size for k, size in enumerate(least) if k not in streamed)
            if left <= limits[name] / (2 if streamed else 1) or not params.refill:
                break
            streamed.add(n)
    return frozenset(streamed)


def _impossible(layer: ProgramLayer, params: Params) -> ImageError:
    area = math.prod(layer.pool)
    rows = LANES // params.group * area  # a vector of the result is written at once
    if params.rows < rows:
        return ImageError(
            f"{layer.name}: a vector of {LANES} channels ({area} pixels each) needs {rows} accumulators in each of "
            f"{params.pes} PEs at once, there are {params.rows}: {advice(params, 'rows', rows)}"
        )
    return ImageError(
        f"{layer.name}: a tile of one pixel ({len(layer.bias)} channels, {area} pixels each, {len(layer.segments)} "
        f"segments) does not fit an array of {params.pes} PEs with {params.rows} accumulators: split the layer"
    )


def advice(params: Params, name: str, needed: int) -> str:
    """How to get a memory of `needed` words, if there is a way."""
    try:
        params.replace(**{name: needed})
    except ParamsError as e:
        return f"{e}: split the network"
    return f"--set {name}={needed}"
