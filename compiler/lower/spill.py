"""Which maps go off chip, and the rings through which their rows pass.

With the option `stream_io`, inputs and outputs go. Of the others the largest go first, until what is left fits beside
the rings. A map that an elementwise operation or a loop touches stays, and so does one of a layer whose weights are
streamed or that is computed in several blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from compiler.errors import ImageError
from compiler.image.rings import rows_needed
from compiler.lower.alloc import Life, allocate, program_blocks
from compiler.lower.layout import Placement, Tiling, window
from compiler.lower.program import Program, touched
from compiler.lower.tiles import Choice, Judging, Plan, advice, densities, plan_tiles, tile_choices
from compiler.options import Options
from hw.params import Params

__all__ = ["RESIDENT", "Ring", "Spill", "spilled_plan"]

_TRIES = 12
"""Plans with less and less room for the rings: other tiles change how large the maps are."""

_AHEAD = 2
"""Rows of tiles that the ring of a result holds at least: one is sent while the next one is written."""

_SLACK = 32
"""Share of the lines that a map may take beyond what it must, where lines are scarce: one in so many."""

_MOST_ROWS = (1 << 16) - 1
_MOST_REACH = (1 << 12) - 1
_MOST_VECTORS = (1 << 24) - 1


@dataclass(frozen=True)
class Ring:
    """The rings of a layer.

    Attributes
    ----------
    rows : of the ring of what it reads, 0 if nothing streams in. row_lines : lines of one.
    out_rows : rows of tiles of the ring of its result, 0 if that stays. tile_lines : lines of one.
    """

    rows: int = 0
    row_lines: int = 0
    out_rows: int = 0
    tile_lines: int = 0

    @property
    def in_lines(self) -> int:
        """Of the ring of what it reads, which is the first."""
        return self.rows * self.row_lines

    @property
    def lines(self) -> int:
        """Of both."""
        return self.in_lines + self.out_rows * self.tile_lines


@dataclass(frozen=True)
class Spill:
    """What goes off chip.

    Attributes
    ----------
    maps : their numbers. rings : of each layer of the program that reads or writes one.
    keep_inputs : what the host writes keeps its lines during the whole run.
    """

    maps: frozenset[int] = frozenset()
    rings: Mapping[int, Ring] = field(default_factory=dict)
    keep_inputs: bool = True

    @property
    def lines(self) -> int:
        """In front of the frames."""
        return max((ring.lines for ring in self.rings.values()), default=0)


RESIDENT = Spill()
"""All maps stay on chip."""

Placed = Callable[[Plan], tuple[Placement, ...]]


def spilled_plan(
    program: Program, params: Params, options: Options, scale: float, placed: Placed, judge: Judging | None = None
) -> tuple[Plan, Spill]:
    """Tiles, and what goes off chip: nothing, if all maps fit.

    If they do not fit although the inputs give their lines free, maps stream if the array has streams; if it has none,
    all stay, and the packer says what is too small. With `Options.stream_io`, inputs and outputs stream in any case.

    Parameters
    ----------
    scale, judge : see `plan_tiles`. placed : where maps lie with a plan.

    Raises
    ------
    ImageError
        They do not fit although all that can be is off chip; the message has the lines that are needed. Or an input or
        an output cannot stream, and the options want it to; the message has the reason.
    """
    plan = plan_tiles(program, params, options, scale, judge)
    placements = placed(plan)
    ends = frozenset((*program.inputs, *program.outputs)) if options.stream_io else frozenset[int]()
    for keep in (True, False):
        if not ends and frame_lines(program, placements, frozenset(), keep) <= params.act_lines:
            return plan, Spill(keep_inputs=keep)
    if ends:
        _check_ends(_Work(program, plan, placements, params, options, ends))
    elif not params.streams:
        return plan, RESIDENT
    room = params.act_lines
    maps = ends
    refine = _Work(program, plan, placements, params, options, ends).refine(maps, room, compact=not ends)
    plan = plan_tiles(program, params, options, scale, judge, refine)
    placements = placed(plan)
    for _ in range(_TRIES):
        work = _Work(program, plan, placements, params, options, ends)
        if maps:
            rings = work.rings(maps)
            lines = max(ring.lines for ring in rings.values())
            frame = work.frame(maps)
            if lines + frame <= params.act_lines:
                return plan, Spill(maps, _grown(rings, lines, frame, program, params), False)
        maps = work.more(maps)
        room = max(min(room - 1, params.act_lines - work.frame(maps)), work.least(maps) or 0)
        plan = plan_tiles(program, params, options, scale, judge, work.refine(maps, room))
        placements = placed(plan)
    raise ImageError(
        f"the network does not fit: activation memory has {params.act_lines} lines, and no tiles were found with which "
        f"the maps that must stay and the rings of {len(maps)} maps off chip take no more "
        f"({advice(params, 'act_lines', min(2 * params.act_lines, 1 << 16))})"
    )


def frame_lines(program: Program, placements: Sequence[Placement], maps: Collection[int], keep_inputs: bool) -> int:
    """Lines of a sample, without maps off chip; at least one."""
    lines = [0 if n in maps else each.lines for n, each in enumerate(placements)]
    blocks = program_blocks(program, lines, keep_inputs)
    return max(1, allocate(blocks.sizes, blocks.lives)[1])


def _check_ends(work: _Work) -> None:
    """Refuse inputs and outputs that cannot stream."""
    program = work.program
    wrong = [] if work.params.streams else ["the array has no streams for maps (--set streams=true)"]
    held = work.held()
    wrong += [f"{program.maps[n].name}: {held[n]}" for n in sorted(work.ends & held.keys())]
    if not work.together(work.ends):
        wrong.append("inputs that one layer reads have different heights or strides")
    for n, layer in enumerate(program.layers):
        reads = work.ends.intersection(segment.source for segment in layer.segments)
        if (reads or layer.result in work.ends) and not work.legal(n, work.ends):
            wrong.append(f"{layer.name}: no tiles of it leave in one block, or with rings that the array can hold")
    if wrong:
        raise ImageError(f"with stream_io, inputs and outputs must stream, but {'; '.join(wrong)}")


@dataclass(frozen=True, eq=False)
class _Work:
    """A plan, and what maps off chip would mean for it.

    ends : maps that go off chip in any case.
    """

    program: Program
    plan: Plan
    placements: tuple[Placement, ...]
    params: Params
    options: Options
    ends: frozenset[int] = frozenset()

    @cached_property
    def _cuts(self) -> dict[int, list[Tiling]]:
        return {}

    def cuts(self, n: int) -> list[Tiling]:
        """The tilings of a layer."""
        if n not in self._cuts:
            layer, density = self.program.layers[n], densities(self.program)
            found = tile_choices(layer, self.program.maps, self.params, self.options, density)
            self._cuts[n] = [each.cut for each in found]
        return self._cuts[n]

    def _result_lines(self, cut: Tiling) -> int:
        return cut.tiles_y * cut.fy * cut.tiles_x * cut.fx * cut.pitch // self.params.groups

    def _compact(self, n: int) -> int:
        """The most lines that the result of a layer may take: hardly more than with the tiles that waste the least."""
        least = min(self._result_lines(cut) for cut in self.cuts(n))
        return least + self.params.act_lines // _SLACK

    def frame(self, maps: frozenset[int]) -> int:
        """Lines of a sample."""
        return frame_lines(self.program, self.placements, maps, False)

    def rings(self, maps: frozenset[int]) -> dict[int, Ring]:
        """Of the layers that read or write these maps, with the tiles of the plan."""
        found = {}
        for n, layer in enumerate(self.program.layers):
            if layer.result in maps or any(segment.source in maps for segment in layer.segments):
                found[n] = self.ring(n, self.plan.choices[n].cut, maps)
        return found

    def ring(self, n: int, cut: Tiling, maps: Collection[int]) -> Ring:
        """The smallest rings of a layer with these tiles."""
        layer, groups = self.program.layers[n], self.params.groups
        ring = Ring()
        streaming = [segment for segment in layer.segments if segment.source in maps]
        if streaming:
            # Whichever of their strips comes first: as if one window read all rows that they read.
            seen = [window(segment, layer, cut, self.program.maps[segment.source]) for segment in streaming]
            begins = [segment.origin[0] + each.top * each.dy for segment, each in zip(streaming, seen, strict=True)]
            ends = [begin + (each.wy - 1) * each.dy + 1 for begin, each in zip(begins, seen, strict=True)]
            height = self.program.maps[streaming[0].source].height
            every = (min(begins), max(ends) - min(begins), 1)
            rows = rows_needed(height, [every], seen[0].step_y, cut.tiles_y)
            rows = max(rows, *(each.dy for each in seen), *map(abs, ends))
            sources = {segment.source for segment in streaming}
            ring = Ring(rows, sum(self.placements[source].row for source in sources) // groups)
        if layer.result in maps:
            row_lines = cut.tiles_x * cut.fx * cut.pitch // groups
            ring = replace(ring, out_rows=min(_AHEAD, cut.tiles_y), tile_lines=row_lines * cut.fy)
        return ring

    def fits(self, n: int, cut: Tiling, maps: Collection[int], room: int) -> bool:
        """Whether the array can compute a layer so, with rings of no more lines than there is room."""
        ring = self.ring(n, cut, maps)
        legal = ring.rows <= _MOST_REACH and ring.in_lines * self.params.groups <= _MOST_VECTORS
        legal = legal and (not ring.out_rows or len(cut.blocks) == 1)
        return legal and ring.lines <= room and ring.tile_lines < 1 << 16

    def refine(self, maps: frozenset[int], room: int, compact: bool = True) -> Callable[[int, Choice], Choice | None]:
        """For `plan_tiles`: choices whose rings take no more lines than there is room, if wanted only compact ones."""
        return lambda n, choice: self._refined(n, choice, maps, room, compact)

    def _refined(self, n: int, choice: Choice, maps: frozenset[int], room: int, compact: bool) -> Choice | None:
        """A choice with the cycles that its streams take at least; None if its rings or its result are too large."""
        layer = self.program.layers[n]
        if compact and not layer.moves and self._result_lines(choice.cut) > self._compact(n):
            return None
        reads = {segment.source for segment in layer.segments} & maps
        if not reads and layer.result not in maps:
            return choice
        if not self.fits(n, choice.cut, maps, room):
            return None
        ring, groups = self.ring(n, choice.cut, maps), self.params.groups
        beats = max(
            ring.row_lines * groups * max((self.program.maps[source].height for source in reads), default=0),
            ring.tile_lines * groups * choice.cut.tiles_y,
        )
        return replace(choice, cycles=max(choice.cycles, float(beats)))

    def least(self, maps: frozenset[int]) -> int | None:
        """Lines of rings with the smallest tiles of each layer.

        None if there are none for a layer, or none that hold less than the maps that pass through them.
        """
        most = 0
        for n, layer in enumerate(self.program.layers):
            if layer.result not in maps and not any(segment.source in maps for segment in layer.segments):
                continue
            rings, reads = self.legal(n, maps), {each.source for each in layer.segments} & maps
            whole = sum(self.placements[source].lines for source in reads)
            if not rings or (min(ring.in_lines for ring in rings) > whole and not reads & self.ends):
                return None
            most = max(most, min(ring.lines for ring in rings))
        return most

    def legal(self, n: int, maps: Collection[int]) -> list[Ring]:
        """The rings of a layer with all tiles that the array can compute."""
        return [self.ring(n, cut, maps) for cut in self.cuts(n) if self.fits(n, cut, maps, 1 << 16)]

    def more(self, maps: frozenset[int]) -> frozenset[int]:
        """These maps and the largest others, until the rest fits beside the smallest rings; at least one."""
        room, left = self.params.act_lines, self.candidates() - maps
        tried: list[tuple[int, int, int, int]] = []  # lines, those of the frame, those of rings, maps off chip
        while True:
            least, frame = self.least(maps) or 0, self.frame(maps)
            if maps and frame + least <= room:
                return maps
            tried.append((frame + least, frame, least, len(maps)))
            found = None
            for n in sorted(left & self.at_peak(maps), key=lambda n: (-self.placements[n].lines, n)):
                if self.together(maps | {n}) and self.least(maps | {n}) is not None:
                    found = n
                    break
            if found is None:
                lines, frame, least, count = min(tried)
                raise ImageError(
                    f"the network does not fit: activation memory needs {lines} lines, the array has {room}: {frame} "
                    f"for the maps that must stay on chip at one time, {least} for rows of the {count} maps off chip "
                    f"({advice(self.params, 'act_lines', lines)})"
                )
            maps, left = maps | {found}, left - {found}

    def held(self) -> dict[int, str]:
        """Maps that must stay on chip, whatever the tiles, and why."""
        program = self.program
        found: dict[int, str] = {}
        for operation in program.operations:
            reads, made = touched(operation)
            found |= {each.map: f"the elementwise operation {operation.name} touches it" for each in (*reads, made)}
        for n, layer in enumerate(program.layers):
            both = {layer.result, *(segment.source for segment in layer.segments)}
            if n in program.looped:
                found |= dict.fromkeys(both, f"{layer.name} is in a loop")
            elif n in self.plan.streamed:
                found |= dict.fromkeys(both, f"the weights of {layer.name} are streamed")
        for n, form in enumerate(program.maps):
            if form.layout >= 0 or form.block >= 0 or form.pitch > 0:
                found.setdefault(n, "it lies as the maps of an operation or a loop do")
        return found

    def candidates(self) -> frozenset[int]:
        """Maps that may go off chip because they are large."""
        stay = set(self.held())
        for n, layer in enumerate(self.program.layers):
            if len(self.plan.choices[n].cut.blocks) > 1:
                stay.add(layer.result)
        for n, (form, placement) in enumerate(zip(self.program.maps, self.placements, strict=True)):
            if form.height == 1 or placement.planes > 1 or placement.row % self.params.groups:
                stay.add(n)
        return frozenset(range(len(self.program.maps))) - stay

    def together(self, maps: frozenset[int]) -> bool:
        """Whether what each layer reads off chip can be rows of one ring: of one height, read with one stride."""
        for layer in self.program.layers:
            rows = {
                (self.program.maps[segment.source].height, segment.stride[0])
                for segment in layer.segments if segment.source in maps
            }  # fmt: skip
            if len(rows) > 1:
                return False
        return True

    def at_peak(self, maps: frozenset[int]) -> frozenset[int]:
        """The maps that are there when the most lines are in use."""
        lines = [0 if n in maps else each.lines for n, each in enumerate(self.placements)]
        blocks = program_blocks(self.program, lines, False)
        times = range(len(self.program.steps) + 1)
        used = [sum(size for size, life in zip(blocks.sizes, blocks.lives, strict=True) if _at(life, t)) for t in times]
        peak = used.index(max(used))
        return frozenset(n for n, block in enumerate(blocks.of) if lines[n] and _at(blocks.lives[block], peak))


def _at(life: Life, time: int) -> bool:
    return life.first <= time <= life.last


def _grown(rings: Mapping[int, Ring], lines: int, frame: int, program: Program, params: Params) -> dict[int, Ring]:
    """The rings with what is left beside the frames of as many samples as fit: up to twice the rows that they need.

    The more rows a ring holds, the less the array waits where work and stream are uneven.
    """
    samples = (params.act_lines - lines) // frame
    room = params.act_lines - samples * frame
    grown = {}
    for n, ring in rings.items():
        if ring.out_rows:
            free = room - ring.lines
            ring = replace(ring, out_rows=ring.out_rows + min(_AHEAD, free // (2 * ring.tile_lines)))
        if ring.rows:
            free = room - ring.lines
            ring = replace(ring, rows=min(ring.rows + min(ring.rows, free // ring.row_lines), _MOST_ROWS))
        grown[n] = ring
    return grown
