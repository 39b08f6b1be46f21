"""From a program to its image: tiles, placement, encoding, packing."""

from __future__ import annotations

import dataclasses

from compiler.image.image import Image
from compiler.lower.canonical import canonical
from compiler.lower.encode import Encoded, encode_layer
from compiler.lower.judge import Judge
from compiler.lower.layout import Placement, fixed_placement, input_placement, result_placement, shared_orders, spread
from compiler.lower.pack import pack, sizes
from compiler.lower.program import Program
from compiler.lower.program_check import check_program
from compiler.lower.tiles import Plan, densities, plan_tiles
from compiler.options import DEFAULT, Options
from hw.params import Params

__all__ = ["build", "encode"]

_TRIES = 4
"""Plans with less and less of the memories, until what was estimated fits."""


def build(program: Program, params: Params, options: Options = DEFAULT) -> Image:
    """The image of a program.

    Raises
    ------
    ModelError
        The program does not verify.
    ImageError
        It does not fit the array; the message says what is needed and what there is.
    """
    return pack(encode(program, params, options), params, options)


def encode(program: Program, params: Params, options: Options = DEFAULT) -> Encoded:
    """A program with tiles, places and entries, as `build` packs it."""
    check_program(program, params)
    program = canonical(program)
    judge = Judge(program, params, options, densities(program)) if options.judged else None
    scale = 1.0
    for _ in range(_TRIES):
        plan = plan_tiles(program, params, options, scale, judge)
        encoded = _encode(program, plan, params, options)
        used = sizes(encoded, params)
        over = max(used[name] / getattr(params, name) for name in used)
        if over <= 1:
            break
        scale *= 0.95 / over
    return encoded


def _encode(program: Program, plan: Plan, params: Params, options: Options) -> Encoded:
    orders = shared_orders(program, params, options)
    made: dict[int, Placement] = {n: input_placement(program.maps[n], params) for n in program.inputs}
    for layer, choice in zip(program.layers, plan.choices, strict=True):
        form = program.maps[layer.result]
        source = made.get(layer.segments[0].source)
        made[layer.result] = result_placement(form, layer, choice.cut, orders.get(form.layout), source, params, options)
    for n in (*program.inputs, *(operation.result.map for operation in program.operations)):
        form = program.maps[n]
        if form.layout >= 0:
            made[n] = fixed_placement(form, orders[form.layout], params)
    for operation in program.operations:  # those of maps of several pixels lie as what they read
        n = operation.result.map
        if n not in made:
            made[n] = dataclasses.replace(made[operation.a.map], form=program.maps[n])
    for layout in orders:  # operations go from line to line: rows of pixels are equally far apart
        same = [n for n, form in enumerate(program.maps) if form.layout == layout]
        made |= {n: spread(made[n], max(made[other].row for other in same)) for n in same}
    placements = tuple(made[n] for n in range(len(program.maps)))
    layers = tuple(
        encode_layer(number, layer, choice.cut, block, placements, params, options)
        for number, (layer, choice) in enumerate(zip(program.layers, plan.choices, strict=True))
        for block in choice.cut.blocks
    )
    return Encoded(program, placements, layers, plan)
