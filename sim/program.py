"""A batch as the array sees it: relocated descriptors, input and output lines, in chunks that fit on chip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.image.image import Image, row_orders
from hw.layouts import ACT_BITS, descriptor, fields
from hw.params import LANES, Params

__all__ = [
    "Chunk", "chunks", "layer_outputs", "layer_records", "pack_lines", "record_numbers", "unpack_lines", "words",
]  # fmt: skip


@dataclass(frozen=True)
class Chunk:
    """Vectors `first` … `first + count` of the batch, run back to back by one start.

    descriptors : descriptor words (integers), END last.
    inputs : int16 (lines, groups, 8), activation lines from line 0 on.
    outputs : for each vector and layer, (first line, lines).
    """

    first: int
    count: int
    descriptors: list[int]
    inputs: NDArray[np.int16]
    outputs: list[list[tuple[int, int]]]


def pack_lines(params: Params, vector: NDArray[np.int16]) -> NDArray[np.int16]:
    """Activations in position order to (lines, groups, 8), zeros after the end."""
    lines = params.lines(len(vector))
    padded = np.zeros(lines * params.line, np.int16)
    padded[: len(vector)] = vector
    return padded.reshape(lines, params.groups, LANES)


def unpack_lines(lines: NDArray[np.int16], row_order: NDArray[np.int32], outputs: int) -> NDArray[np.int16]:
    """(lines, groups, 8) to the neurons' own order; `row_order` gives the neuron at each position, or -1."""
    positions = lines.reshape(-1)[: len(row_order)]
    result = np.zeros(outputs, np.int16)
    used = row_order >= 0
    result[row_order[used]] = positions[used]
    return result


def words(lines: NDArray[np.int16]) -> NDArray[np.uint8]:
    """(lines, groups, 8) int16 to memory words, as bytes (groups, lines, 16), lowest first."""
    ordered = np.ascontiguousarray(lines.transpose(1, 0, 2)).astype("<i2")
    return ordered.view(np.uint8).reshape(*ordered.shape[:2], LANES * ACT_BITS // 8)


def chunks(image: Image, x: NDArray[np.int16]) -> Iterator[Chunk]:
    """Split a batch (batch, inputs) into runs that fit descriptor and activation memory.

    Raises
    ------
    InputError
        Not even one vector fits.
    """
    params = image.params
    places = {name: first for name, first, _ in fields(descriptor(params))}
    program = [int.from_bytes(bytes(row), "little") for row in image.descriptors]
    steps, end = program[:-1], program[-1]
    results = [
        (
            next(step.destination for step in layer if not step.keep),
            sum(step.lines(params) for step in layer if not step.keep),
        )
        for layer in image.steps
    ]
    stride = max(params.lines(image.inputs), *(first + lines for first, lines in results))
    fit = min(params.act_lines // stride, (params.descriptors - 1) // len(steps))
    if fit < 1:
        raise InputError(
            f"one vector needs {stride} activation lines and {len(steps) + 1} descriptors; the array has "
            f"{params.act_lines} and {params.descriptors}: compile with larger --set act_lines=… or descriptors=…"
        )
    moved = (1 << places["source"]) + (1 << places["destination"])
    for first in range(0, len(x), fit):
        count = min(fit, len(x) - first)
        inputs = np.zeros((count * stride, params.groups, LANES), np.int16)
        for n in range(count):
            inputs[n * stride : n * stride + params.lines(image.inputs)] = pack_lines(params, x[first + n])
        yield Chunk(
            first,
            count,
            [word + n * stride * moved for n in range(count) for word in steps] + [end],
            inputs,
            [[(n * stride + start, lines) for start, lines in results] for n in range(count)],
        )


def layer_records(image: Image, records: Sequence[dict[str, int]]) -> list[list[dict[str, int]]]:
    """Records of descriptors, in order, to one for each vector and layer.

    Only the last descriptor of a block of rows has one. A layer of several blocks is accepted with the first, finished
    and written with the last, and counts what all of them count.
    """
    blocks = [sum(not step.keep for step in steps) for steps in image.steps]
    merged, at = [], 0
    while at < len(records):
        vector = []
        for count in blocks:
            parts = records[at : at + count]
            at += count
            vector.append({
                name: parts[0][name] if name == "accepted"
                else parts[-1][name] if name in ("finished", "written")
                else sum(part[name] for part in parts)
                for name in parts[0]
            })  # fmt: skip
        merged.append(vector)
    return merged


def record_numbers(image: Image, count: int) -> list[int]:
    """Descriptors that get a record, in a run of `count` vectors."""
    ends = [n for n, step in enumerate(step for steps in image.steps for step in steps) if not step.keep]
    total = sum(len(steps) for steps in image.steps)
    return [vector * total + n for vector in range(count) for n in ends]


def layer_outputs(image: Image, memory: NDArray[np.int16], chunk: Chunk) -> list[NDArray[np.int16]]:
    """Outputs of every layer in neuron order, (count, outputs) each, from all activation lines of a chunk."""
    orders = row_orders(image)
    return [
        np.stack([
            unpack_lines(memory[first : first + lines], order, layer.outputs)
            for first, lines in (chunk.outputs[n][number] for n in range(chunk.count))
        ])
        for number, (layer, order) in enumerate(zip(image.layers, orders, strict=True))
    ]  # fmt: skip
