"""Random layers and elementwise operations with functions of any tables and shifts; every case replays from its seed.

The compiler fits tables and shifts to ranges, so that networks from the graph on have few of them.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compiler.errors import EieError
from compiler.lower.build import build
from compiler.lower.chain import MAX_SHIFT
from compiler.lower.program import (
    HIGH,
    LOW,
    Function,
    MapForm,
    Operand,
    Operation,
    Program,
    ProgramLayer,
    segment_of,
)  # fmt: skip
from hw.params import PIECES, Params
from sim.cases import Case, random_input, random_network, random_options, random_params

__all__ = ["random_function_case"]

_TABLES = 4


def random_function_case(seed: int, params: Params | None = None, max_batch: int = 4) -> Case:
    """The case of a seed, on a random array or on a given one: layers with functions, and operations on two maps.

    What does not fit is drawn again.
    """
    rng = np.random.default_rng([seed, 19])
    array = params if params is not None else random_params(rng)
    while True:
        with contextlib.suppress(EieError):
            program = _with_operations(rng, array) if rng.random() < 0.5 else _with_functions(rng, array)
            image = build(program, array, random_options(rng))
            break
    batch = int(rng.integers(1, max_batch + 1))
    maps = [image.maps[number] for number in image.inputs]
    x = {info.name: random_input(rng, (info.height, info.width, info.channels), batch) for info in maps}
    return Case(seed, image, x)


def _tables(rng: np.random.Generator, params: Params) -> list[tuple[int, ...]]:
    """Tables of any numbers, of a line from corner to corner, and steps from one limit to the other."""
    ends = np.linspace(LOW, HIGH, PIECES + 1).astype(int)
    drawn = [rng.integers(LOW, HIGH + 1, PIECES + 1), ends, rng.choice([LOW, HIGH], PIECES + 1), ends[::-1]]
    rng.shuffle(drawn)
    return [tuple(int(value) for value in table) for table in drawn[: min(_TABLES, params.tables)]]


def _function(rng: np.random.Generator, tables: list[tuple[int, ...]]) -> Function:
    """Shifts that nearly cancel, so that something is left of a number, or any at all."""
    left = int(rng.integers(0, MAX_SHIFT + 1))
    near = int(np.clip(left + rng.integers(-17, 18), 0, MAX_SHIFT))
    return Function(
        tables[int(rng.integers(len(tables)))], left, near if rng.random() < 0.8 else int(rng.integers(MAX_SHIFT + 1))
    )


def _with_functions(rng: np.random.Generator, params: Params) -> Program:
    """A random network; most of its layers have one or two functions."""
    program = random_network(rng, params)
    tables = _tables(rng, params)
    layers = [_lookup(rng, layer, tables) if rng.random() < 0.8 else layer for layer in program.layers]
    return replace(program, layers=tuple(layers))


def _lookup(rng: np.random.Generator, layer: ProgramLayer, tables: list[tuple[int, ...]]) -> ProgramLayer:
    count = int(rng.integers(1, 3))
    which = rng.integers(0, count + 1, len(layer.bias))
    if len(which) < count:
        return layer
    which[rng.permutation(len(which))[:count]] = np.arange(1, count + 1)  # each is used
    return replace(layer, functions=tuple(_function(rng, tables) for _ in range(count)), which=which.astype(np.int64))


def _with_operations(rng: np.random.Generator, params: Params) -> Program:
    """Two or three layers that read one vector, and operations on what they make."""
    units = int(rng.integers(1, 41))
    vectors = params.act_vectors(units)
    one = random_network(rng, params)
    while len(one.maps[0].axes) > 1 or len(one.inputs) > 1:
        one = random_network(rng, params)
    form = MapForm("", units, 1, 1, 0, layout=0, vectors=-(-vectors // params.groups) * params.groups)
    book = one.layers[0].segments[0].codebook
    maps, layers = [one.maps[0]], []
    for n in range(int(rng.integers(2, 4))):
        layers.append(_connected(rng, f"layer{n}", len(maps), maps[0].channels, units, book))
        maps.append(replace(form, name=f"layer{n}"))
    tables = _tables(rng, params)
    operations = []
    for n in range(int(rng.integers(1, 4))):
        operations.append(_operation(rng, f"operation{n}", len(maps), tables))
        maps.append(replace(form, name=f"operation{n}"))
    order = (*range(len(layers)), *(-1 - n for n in range(len(operations))))
    return Program(tuple(maps), tuple(layers), (0,), (len(maps) - 1,), tuple(operations), order)


def _connected(
    rng: np.random.Generator, name: str, result: int, inputs: int, units: int, book: NDArray[np.int16]
) -> ProgramLayer:
    shape = (units, 1, 1, inputs)
    codes = rng.integers(1, len(book), shape) * (rng.random(shape) < 0.2)
    return ProgramLayer(
        name, result, (segment_of(0, codes.astype(np.uint8), book),), rng.integers(-(1 << 20), 1 << 20, units),
        np.full(units, int(rng.choice([8, 14, 16]))),
    )  # fmt: skip


def _operation(rng: np.random.Generator, name: str, made: int, tables: list[tuple[int, ...]]) -> Operation:
    def read() -> Operand:
        return Operand(int(rng.integers(1, made)))

    def scale() -> int:
        return int(rng.integers(LOW, HIGH + 1))

    second = rng.random() < 0.7
    low, high = sorted(int(rng.integers(LOW, HIGH + 1)) for _ in range(2)) if rng.random() < 0.4 else (LOW, HIGH)
    return Operation(
        name, Operand(made), read(), read() if rng.random() < 0.6 else None, read() if second else None,
        read() if second and rng.random() < 0.6 else None, scale(), scale(),
        int(rng.integers(-1, 2)) * int(rng.integers(0, 1 << int(rng.integers(1, 32)))),
        int(rng.integers(0, MAX_SHIFT + 1)) if rng.random() < 0.5 else int(rng.integers(12, 18)), low, high,
        _function(rng, tables) if rng.random() < 0.6 else None,
    )  # fmt: skip
