"""From a program to its image: tiles, placement, encoding, packing."""

from __future__ import annotations

from compiler.image.image import Image
from compiler.lower.canonical import canonical
from compiler.lower.encode import Encoded, encode_layer
from compiler.lower.layout import Placement, input_placement, result_placement
from compiler.lower.pack import pack, sizes
from compiler.lower.program import Program
from compiler.lower.tiles import Plan, plan_tiles
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
    program.verify(params)
    program = canonical(program)
    scale = 1.0
    for _ in range(_TRIES):
        plan = plan_tiles(program, params, options, scale)
        encoded = _encode(program, plan, params, options)
        used = sizes(encoded, params)
        over = max(used[name] / getattr(params, name) for name in used)
        if over <= 1:
            break
        scale *= 0.95 / over
    return encoded


def _encode(program: Program, plan: Plan, params: Params, options: Options) -> Encoded:
    made: dict[int, Placement] = {n: input_placement(program.maps[n], params) for n in program.inputs}
    for layer, choice in zip(program.layers, plan.choices, strict=True):
        cut = choice.cut
        made[layer.result] = result_placement(program.maps[layer.result], layer, cut, params, options)
    placements = tuple(made[n] for n in range(len(program.maps)))
    layers = tuple(
        encode_layer(number, layer, choice.cut, block, placements, params, options)
        for number, (layer, choice) in enumerate(zip(program.layers, plan.choices, strict=True))
        for block in choice.cut.blocks
    )
    return Encoded(program, placements, layers, plan)
