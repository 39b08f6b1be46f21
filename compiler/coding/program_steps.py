"""Programs of an array in a file, what only some have: operations, loops, functions, and maps that lie alike.

A program without any of it says so in one byte. What stands here says how much else is to be read, so that all numbers
are checked as they come; whether they make a program is `Program.verify`'s question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.coding.names import read_name, write_name
from compiler.coding.wire import Reader, Writer, pack_bits, unpack_bits
from compiler.errors import CodingError
from compiler.lower.chain import MAX_SHIFT
from compiler.lower.program import HIGH, LOW, Function, Loop, MapForm, Operand, Operation, Program, ProgramLayer
from hw.params import FUNCTIONS

__all__ = [
    "FunctionHead", "LayerSteps", "Steps", "read_layer_steps", "read_steps", "special", "with_tables",
    "write_layer_steps", "write_steps",
]  # fmt: skip

FunctionHead = tuple[int, int, int]
"""Number of a table, and the shifts of what is looked up."""

_MAX_TABLES = 8
_MAX_OPERATIONS = 1 << 12
_MAX_SIZE = 1 << 16
_MAX_OFFSET = 1 << 47
_B, _C, _E, _FUNCTION = 1, 2, 4, 8
_LAYOUT, _WALKED, _BLOCK = 1, 2, 4
_MOVES = 1


@dataclass(frozen=True)
class Steps:
    """What is not of layers.

    Attributes
    ----------
    tables : how many the functions have. maps : as far as they are read. operations : without their functions, and
        these for each, or None. order, loops, pitch : as of a `Program`.
    """

    tables: int = 0
    maps: tuple[MapForm, ...] = ()
    operations: tuple[tuple[Operation, FunctionHead | None], ...] = ()
    order: tuple[int, ...] = ()
    loops: tuple[Loop, ...] = ()
    pitch: int = 0


@dataclass(frozen=True)
class LayerSteps:
    """What a layer has of it; `segments` : which of them move."""

    moves: bool = False
    pixel: int = 0
    functions: tuple[FunctionHead, ...] = ()
    segments: tuple[bool, ...] = ()


def special(program: Program) -> bool:
    """Whether a program has anything of this."""
    plain = all((each.layout, each.parts, each.vectors, each.pitch, each.block, each.at) == (-1, 1, 0, 0, -1, 0)
                for each in program.maps)  # fmt: skip
    return not plain or bool(program.operations or program.loops or program.tables)


def write_steps(writer: Writer, program: Program) -> None:
    """Append what is not of layers."""
    tables = program.tables
    writer.varint(len(tables))
    for each in program.maps:
        writer.byte(_LAYOUT * (each.layout >= 0) | _WALKED * (each.pitch > 0) | _BLOCK * (each.block >= 0))
        if each.layout >= 0:
            for number in (each.layout, each.parts, each.vectors):
                writer.varint(number)
        if each.pitch:
            writer.varint(each.pitch)
        if each.block >= 0:
            writer.varint(each.block)
            writer.varint(each.at)
    writer.varint(program.pitch)
    writer.varint(len(program.operations))
    for operation in program.operations:
        _write_operation(writer, operation, program.maps, tables)
    if program.operations:
        writer.raw(pack_bits(np.array([number < 0 for number in program.order], np.int64), 1))
    writer.varint(len(program.loops))
    for loop in program.loops:
        writer.varint(loop.first)
        writer.varint(loop.last - loop.first)
        writer.varint(loop.count << 1 | loop.reverse)


def _write_operation(
    writer: Writer, each: Operation, maps: Sequence[MapForm], tables: Sequence[tuple[int, ...]]
) -> None:
    there = (each.b is not None, each.c is not None, each.e is not None, each.function is not None)
    writer.byte(sum(flag * bit for flag, bit in zip(there, (_B, _C, _E, _FUNCTION), strict=True)))
    for operand in (each.result, *each.reads.values()):
        writer.varint(operand.map << 1 | operand.moves)
        writer.varint(operand.part)
        writer.varint(operand.pixel)
    write_name(writer, each.name, maps[each.result.map].name)
    for number in (each.scale_a, each.scale_c, each.offset, each.low, each.high):
        writer.signed(number)
    writer.byte(each.shift)
    if each.function is not None:
        _write_function(writer, each.function, tables)


def _write_function(writer: Writer, function: Function, tables: Sequence[tuple[int, ...]]) -> None:
    for number in (tables.index(function.table), function.left, function.right):
        writer.byte(number)


def write_layer_steps(writer: Writer, layer: ProgramLayer, program: Program) -> None:
    """Append what a layer has of it."""
    writer.byte(len(layer.functions) << 1 | layer.moves)
    if layer.moves:
        writer.varint(layer.pixel)
    for function in layer.functions:
        _write_function(writer, function, program.tables)
    if program.loops:
        writer.raw(pack_bits(np.array([segment.moves for segment in layer.segments], np.int64), 1))


def read_steps(reader: Reader, maps: Sequence[MapForm], inputs: Sequence[int]) -> Steps:
    """What `write_steps` appended."""
    tables = reader.varint("function tables", _MAX_TABLES)
    found = []
    for each in maps:
        flags = reader.byte(f"{each.name}: how it lies", _LAYOUT | _WALKED | _BLOCK)
        changes: dict[str, Any] = {}
        if flags & _LAYOUT:
            changes["layout"] = reader.varint(f"{each.name}: layout", len(maps) - 1)
            changes["parts"] = reader.varint(f"{each.name}: parts", each.channels, 1)
            changes["vectors"] = reader.varint(f"{each.name}: vectors", _MAX_SIZE, 1)
        if flags & _WALKED:
            changes["pitch"] = reader.varint(f"{each.name}: pitch", _MAX_SIZE, 1)
        if flags & _BLOCK:
            changes["block"] = reader.varint(f"{each.name}: block", len(maps) - 1)
            changes["at"] = reader.varint(f"{each.name}: place in its block", _MAX_SIZE)
        found.append(replace(each, **changes))
    pitch = reader.varint("lines from pixel to pixel", _MAX_SIZE)
    count = reader.varint("operations", _MAX_OPERATIONS)
    operations = tuple(_read_operation(reader, maps, tables) for _ in range(count))
    made = {each.result.map for each, _ in operations}
    if len(made) < count or made & set(inputs):
        raise CodingError("an operation makes a value that is made before")
    order: tuple[int, ...] = ()
    total = len(maps) - len(inputs)
    if count or pitch:
        order = _order(reader, total, count)
    loops = []
    for _ in range(reader.varint("loops", _MAX_OPERATIONS)):
        first = reader.varint("first step of a loop", max(0, total - 1))
        last = first + reader.varint("steps of a loop", max(0, total - 1 - first))
        rounds = reader.varint("rounds of a loop", _MAX_SIZE << 1 | 1, 2)
        loops.append(Loop(first, last, rounds >> 1, bool(rounds & 1)))
    return Steps(tables, tuple(found), operations, order, tuple(loops), pitch)


def _order(reader: Reader, total: int, count: int) -> tuple[int, ...]:
    """All steps: layers and operations, each in their order."""
    which = unpack_bits(reader.raw((total + 7) // 8, "the order of steps"), total, 1) if count else np.zeros(total, int)
    if int(which.sum()) != count:
        raise CodingError(f"the order of steps has {int(which.sum())} operations; there are {count}")
    layers, operations = np.cumsum(which == 0) - 1, np.cumsum(which)
    return tuple(np.where(which > 0, -operations, layers).tolist())


def _read_operation(reader: Reader, maps: Sequence[MapForm], tables: int) -> tuple[Operation, FunctionHead | None]:
    flags = reader.byte("an operation", _B | _C | _E | _FUNCTION)
    names = ["result", "a", *(name for name, bit in (("b", _B), ("c", _C), ("e", _E)) if flags & bit)]
    operands: dict[str, Any] = {}
    for which in names:
        head = reader.varint(f"{which} of an operation", len(maps) - 1 << 1 | 1)
        form = maps[head >> 1]
        part = reader.varint(f"part of {form.name}", form.channels - 1)
        pixel = reader.varint(f"pixel of {form.name}", _MAX_SIZE)
        operands[which] = Operand(head >> 1, part, pixel, bool(head & 1))
    name = read_name(reader, maps[operands["result"].map].name)
    scales = [reader.signed(f"{name}: factor", -LOW) for _ in range(2)]
    offset = reader.signed(f"{name}: offset", _MAX_OFFSET)
    low, high = (reader.signed(f"{name}: limit", -LOW) for _ in range(2))
    if max(*scales, high) > HIGH:
        raise CodingError(f"{name}: a factor or limit beyond {HIGH}")
    shift = reader.byte(f"{name}: shift", MAX_SHIFT)
    function = _read_function(reader, name, tables) if flags & _FUNCTION else None
    return Operation(
        name, **operands, scale_a=scales[0], scale_c=scales[1], offset=offset, shift=shift, low=low, high=high
    ), function  # fmt: skip


def _read_function(reader: Reader, name: str, tables: int) -> FunctionHead:
    if not tables:
        raise CodingError(f"{name}: a function, and there is no table")
    table = reader.byte(f"{name}: table", tables - 1)
    return table, reader.byte(f"{name}: left", MAX_SHIFT), reader.byte(f"{name}: right", MAX_SHIFT)


def read_layer_steps(reader: Reader, name: str, segments: int, steps: Steps) -> LayerSteps:
    """What `write_layer_steps` appended."""
    head = reader.byte(f"{name}: functions", FUNCTIONS << 1 | _MOVES)
    pixel = reader.varint(f"{name}: pixel", _MAX_SIZE) if head & _MOVES else 0
    functions = tuple(_read_function(reader, name, steps.tables) for _ in range(head >> 1))
    moves: NDArray[np.int64] = np.zeros(segments, np.int64)
    if steps.loops:
        moves = unpack_bits(reader.raw((segments + 7) // 8, f"{name}: segments"), segments, 1)
    return LayerSteps(bool(head & _MOVES), pixel, functions, tuple((moves > 0).tolist()))


def with_tables(head: FunctionHead | None, tables: Sequence[tuple[int, ...]]) -> Function | None:
    """A function with its table."""
    return None if head is None else Function(tables[head[0]], head[1], head[2])
