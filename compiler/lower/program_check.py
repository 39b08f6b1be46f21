"""What must hold in a program beside its layers: of maps that lie alike, of operations, of loops."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.errors import ModelError
from compiler.lower.program import MapForm, Operand, Operation, Program, ProgramLayer
from hw.params import Params

__all__ = ["check_program"]


def check_program(program: Program, params: Params) -> None:
    """Check a program as a whole. Raises `ModelError` listing every violation, here or in `Program.verify`."""
    wrong = [*_maps(program, params), *_loops(program, params)]  # what else is looked at relies on these
    wrong = wrong or [*_layouts(program), *_moves(program)]
    if wrong:
        raise ModelError("; ".join(wrong))
    program.verify(params)


def _maps(program: Program, params: Params) -> Iterator[str]:
    """A map has room for its channels, whole lines a part, and pixels at the distance of the loops."""
    groups = params.groups
    for form in program.maps:
        each = form.vectors // max(1, form.parts)
        if form.layout < 0 and (form.parts, form.vectors) != (1, 0):
            yield f"{form.name}: {form.parts} parts in {form.vectors} vectors, and no layout"
        elif form.layout >= 0 and (
            form.parts < 1 or form.channels % form.parts or form.vectors != each * form.parts or each % groups
            or each < params.act_vectors(form.units)
        ):  # fmt: skip
            yield f"{form.name}: {form.parts} parts of {form.channels} channels do not fill {form.vectors} vectors"
        least = max(form.vectors, params.act_vectors(form.channels))
        if form.pitch and (form.pitch != program.pitch * groups or form.pitch < least or form.height > 1):
            yield f"{form.name}: pixels {form.pitch} vectors apart; loops have {program.pitch} lines"
        if form.at < 0 or (form.block < 0 and form.at) or (form.at and not program.pitch):
            yield f"{form.name}: it begins at pixel {form.at} of block {form.block}"
        if form.at and (form.at + form.width) * program.pitch > params.act_lines:
            yield f"{form.name}: {form.at + form.width} pixels of its block do not fit activation memory"


def _loops(program: Program, params: Params) -> Iterator[str]:
    free = 0
    for loop in program.loops:
        if not free <= loop.first <= loop.last < len(program.order) or not 0 < loop.count <= params.act_lines:
            yield f"a loop of {loop.count} rounds over steps {loop.first} to {loop.last} of {len(program.order)}"
        free = loop.last + 1
    if program.loops and not program.pitch:
        yield "loops without a distance of pixels"


def _layouts(program: Program) -> Iterator[str]:
    """Maps of one layout have parts of one size."""
    sizes: dict[int, tuple[int, int]] = {}
    for form in program.maps:
        size = form.units, form.vectors // form.parts
        if form.layout >= 0 and sizes.setdefault(form.layout, size) != size:
            yield f"{form.name}: parts of {form.units} channels in a layout of others"


def _moves(program: Program) -> Iterator[str]:
    """What a step reads and makes lies in its map, or in the block of it, in all rounds."""
    pixels: dict[int, int] = {}  # of each block
    for form in program.maps:
        pixels[form.block] = max(pixels.get(form.block, 0), form.at + form.width)
    loops = {n: loop for loop in program.loops for n in range(loop.first, loop.last + 1)}
    for number, step in enumerate(program.steps):
        loop = loops.get(number)
        last = 0 if loop is None else 1 - loop.count if loop.reverse else loop.count - 1
        for each in _places(step):
            form, pixel, part = program.maps[each.map], each.pixel, each.part
            room = pixels[form.block] if form.block >= 0 else form.width
            first, end = sorted((form.at + pixel, form.at + pixel + last * each.moves))
            good = 0 <= part < form.parts and 0 <= pixel < form.width and 0 <= first and end < room
            if isinstance(step, ProgramLayer):
                good = good and step.pool == (1, 1)
            if not good or (each.moves and (loop is None or not form.pitch)):
                yield f"{step.name}: it reads or makes part {part} of pixel {pixel} of {form.name!r}"
        if isinstance(step, Operation):
            yield from _operation(step, program.maps)


def _places(step: ProgramLayer | Operation) -> list[Operand]:
    """What an operation reads and makes; what of a layer moves."""
    if isinstance(step, Operation):
        return [*step.reads.values(), step.result]
    found = [Operand(each.source, 0, each.origin[1], True) for each in step.segments if each.moves]
    return [*found, Operand(step.result, 0, step.pixel, True)] if step.moves else found


def _operation(operation: Operation, maps: tuple[MapForm, ...]) -> Iterator[str]:
    """All pixels of whole maps of one size, or one pixel of each."""
    every = [*operation.reads.values(), operation.result]
    result = maps[operation.result.map]
    one = operation.result.moves or result.height == result.width == 1
    for each in every:
        form = maps[each.map]
        if one:
            good = result.layout >= 0 and (each.moves or form.height == form.width == 1)
        else:
            same = (form.height, form.width, form.channels) == (result.height, result.width, result.channels)
            good = same and not (each.moves or each.pixel or each.part or form.pitch)
            good = good and (result.layout >= 0 or len(every) == 2)
        if not good:
            yield f"{operation.name}: {form.name!r} does not lie as {result.name!r}"
