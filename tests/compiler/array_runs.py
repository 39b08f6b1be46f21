"""Graphs cut, packed, and run from the bytes of their images by `Reader`, against the golden model's values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph.integer import verify_integer
from compiler.graph.ir import Graph
from compiler.image.check import check
from compiler.image.image import Image
from compiler.lower.build import build
from compiler.lower.partition import partition
from compiler.lower.quantize import quantize_graph
from compiler.options import Options
from hw.params import Params
from sim import golden
from tests.compiler.array_reader import Reader

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Ran:
    """What became of a graph: `wrong` names the values of the array that differ."""

    graph: Graph
    images: tuple[Image, ...]
    wrong: list[str]

    @property
    def host(self) -> list[str]:
        """Operators that stay on the host."""
        none = ("Input", "Output", "Constant", "Indices", "Array")
        return [node.op for node in self.graph if node.op not in none]


def as_map(value: Array, axes: str) -> Array:
    """A value as (channels, height, width)."""
    sizes = dict(zip(axes, value.shape, strict=True))
    turned = value.transpose([axes.index(axis) for axis in "CHW" if axis in axes])
    return turned.reshape(sizes["C"], sizes.get("H", 1), sizes.get("W", 1))


def run_float(graph: Graph, data: Sequence[Array], params: Params, options: Options, samples: int = 1) -> Ran:
    """A float graph, quantized with its data, of which the first `samples` are run."""
    made = quantize_graph(graph, params, data).graph
    inputs = []
    for node, given in zip(made.inputs, data, strict=True):
        part = given[:samples]
        if node["kind"] == "index":
            inputs.append(part.astype(np.int64))
        else:
            inputs.append(golden.quantize_input(part, node["exponent"])[0])
    return run_integer(made, inputs, params, options)


def run_integer(graph: Graph, inputs: Sequence[Array], params: Params, options: Options) -> Ran:
    """An integer graph: each image is given the golden model's values and must make them."""
    parts = partition(graph, params)
    verify_integer(parts.graph, params.acc_bits)
    images = tuple(build(program, params, options) for program in parts.programs)
    for image in images:
        check(image)
    right = dict(golden.run_graph(graph, inputs, params.acc_bits))
    wrong = []
    for node in parts.graph:
        if node.op == "Array":
            for sample in range(len(inputs[0])):
                reader = Reader(images[node["image"]])
                for name, number, axes in zip(node.inputs, reader.image.inputs, node["reads"], strict=True):
                    reader.put(number, as_map(right[name].raw[sample], axes))
                reader.run()
                for name, number, axes in zip(node.outputs, reader.image.outputs, node["makes"], strict=True):
                    if not np.array_equal(reader.get(number), as_map(right[name].raw[sample], axes)):
                        wrong.append(name)
        elif node.op == "Indices":  # in the place of a Gather that the array computes
            right |= golden.step(node, right, len(inputs[0]), params.acc_bits)
        elif node.op not in ("Input", "Output"):  # what the host still does, it does with values that are there
            made = golden.step(node, right, len(inputs[0]), params.acc_bits)
            wrong += [name for name in node.outputs if not np.array_equal(made[name].raw, right[name].raw)]
    return Ran(parts.graph, images, wrong)
