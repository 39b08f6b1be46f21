"""A compiled network: the integer graph, and an image of the array's memories for each part that the array computes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from compiler.errors import ImageError
from compiler.graph.integer import integer_types
from compiler.graph.ir import Graph, Node, Type, unique
from compiler.image.image import Image
from compiler.options import DEFAULT, Options
from compiler.short import few
from hw.layouts import identity
from hw.params import Params

__all__ = ["MOVES", "Form", "Network", "array_graph", "network_of"]

MOVES = frozenset({"Input", "Output", "Constant", "Reshape", "Transpose", "Slice", "Pad", "Concat", "Indices"})
"""Operators that compute nothing: they name, move or repeat numbers."""


@dataclass(frozen=True, eq=False)
class Network:
    """What `eie.compile` returns and an ``.eie`` file holds.

    Attributes
    ----------
    params : the array.
    graph : the integer graph; a node `Array` stands for all layers of ``images[node["image"]]``,
        and reads and makes the maps that are the image's `inputs` and `outputs`, in their order.
    images : the memories of the array for each of them.
    """

    params: Params
    graph: Graph
    images: tuple[Image, ...]

    def __repr__(self) -> str:
        return f"<Network: {self.params.pes} PEs, {self.graph!r}, images {few(self.images) or 'none'}>"

    @cached_property
    def types(self) -> dict[str, Type]:
        """The type of every value of the graph."""
        return integer_types(self.graph)

    @cached_property
    def identity(self) -> str:
        """Hash of parameters and layouts; an array with another one cannot run these images."""
        return identity(self.params)

    @property
    def options(self) -> Options:
        """How the images are laid out; all of them in the same way."""
        return self.images[0].options if self.images else DEFAULT

    @property
    def inputs(self) -> tuple[Type, ...]:
        """What one sample of each input is."""
        return tuple(self.types[node.output] for node in self.graph.inputs)

    @property
    def outputs(self) -> tuple[Type, ...]:
        """What one sample of each output is."""
        return tuple(self.types[node.inputs[0]] for node in self.graph.outputs)

    @property
    def host(self) -> tuple[Node, ...]:
        """The nodes that compute and that the array does not run: those that the host executes."""
        return tuple(node for node in self.graph if node.op not in MOVES and node.op != "Array")

    @property
    def only(self) -> Image:
        """The image of a network that the array computes as a whole.

        Raises
        ------
        ImageError
            It has several images, none, or operators that the host executes.
        """
        if len(self.images) != 1 or self.host:
            host = ", ".join(node.name for node in self.host) or "nothing"
            raise ImageError(
                f"the network has {len(self.images)} images of the array, and the host executes {host}; "
                "expected one image and nothing else"
            )
        return self.images[0]

    def image(self, node: Node) -> Image:
        """The image of an `Array` node."""
        image: Image = self.images[node["image"]]
        return image


def network_of(image: Image) -> Network:
    """The network that is one image and nothing else: its inputs, the array, its outputs, all with channels first."""
    inputs, outputs = ([image.maps[n] for n in numbers] for numbers in (image.inputs, image.outputs))
    return Network(image.params, array_graph(inputs, outputs, {each.name for each in image.maps}), (image,))


class Form(Protocol):
    """What `MapInfo` says of a value, and `compiler.lower.program.MapForm`."""

    @property
    def name(self) -> str:
        """Of the value."""

    @property
    def channels(self) -> int:
        """Of a pixel."""

    @property
    def height(self) -> int:
        """Rows."""

    @property
    def width(self) -> int:
        """Pixels of a row."""

    @property
    def exponent(self) -> int:
        """Power of two."""


def array_graph(inputs: Sequence[Form], outputs: Sequence[Form], names: Collection[str] = ()) -> Graph:
    """Inputs, the array, outputs, and nothing else; all with channels first. `names`: of values within the array."""
    nodes = [
        Node(each.name, "Input", (), {"shape": _shape(each), "layout": _axes(each), "kind": "real",
                                      "exponent": each.exponent})
        for each in inputs
    ]  # fmt: skip
    attributes = {
        "image": 0,
        "reads": tuple(map(_axes, inputs)), "makes": tuple(map(_axes, outputs)),
        "shape": tuple(size for each in outputs for size in _shape(each)),
        "layouts": tuple(map(_axes, outputs)), "exponents": tuple(each.exponent for each in outputs),
    }  # fmt: skip
    made = tuple(each.name for each in outputs)
    taken = {*names, *(each.name for each in (*inputs, *outputs))}
    array = Node(unique("array", taken), "Array", tuple(each.name for each in inputs), attributes, outputs=made)
    taken.add(array.name)
    ends = []
    for name in made:
        ends.append(Node(unique("output", taken), "Output", (name,), {"then": "", "axis": 0}))
        taken.add(ends[-1].name)
    return Graph((*nodes, array, *ends))


def _axes(each: Form) -> str:
    return "C" if each.height == each.width == 1 else "CW" if each.height == 1 else "CHW"


def _shape(each: Form) -> tuple[int, ...]:
    sizes = {"C": each.channels, "H": each.height, "W": each.width}
    return tuple(sizes[axis] for axis in _axes(each))
