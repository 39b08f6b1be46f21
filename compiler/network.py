"""A compiled network: the integer graph, and an image of the array's memories for each part that the array computes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from compiler.errors import ImageError
from compiler.graph.integer import integer_types
from compiler.graph.ir import Graph, Node, Type
from compiler.image.image import Image
from compiler.options import DEFAULT, Options
from compiler.short import few
from hw.layouts import identity
from hw.params import Params

__all__ = ["MOVES", "Network", "network_of"]

MOVES = frozenset({"Input", "Output", "Constant", "Reshape", "Transpose", "Slice", "Pad", "Concat"})
"""Operators that compute nothing: they name, move or repeat numbers."""


@dataclass(frozen=True, eq=False)
class Network:
    """What `eie.compile` returns and an ``.eie`` file holds.

    Attributes
    ----------
    params : the array.
    graph : the integer graph; a node `Array` stands for all layers of ``images[node["image"]]``.
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
    def chain(self) -> Image:
        """The image of a network that is one chain of Linear.

        Raises
        ------
        ImageError
            It has several images, none, or operators that the host executes.
        """
        if len(self.images) != 1 or self.host:
            host = ", ".join(node.name for node in self.host) or "nothing"
            raise ImageError(
                f"the network has {len(self.images)} images of the array, and the host executes {host}; "
                "expected one chain of fully connected layers"
            )
        return self.images[0]

    def image(self, node: Node) -> Image:
        """The image of an `Array` node."""
        image: Image = self.images[node["image"]]
        return image


def network_of(image: Image) -> Network:
    """The network that is one image and nothing else: its input, the array, its output."""
    source = Node(
        "input", "Input", (),
        {"shape": (image.inputs,), "layout": "C", "kind": "real", "exponent": image.input_exponent},
    )  # fmt: skip
    attributes = {
        "image": 0, "layers": len(image.layers), "width": image.outputs, "exponent": image.output_exponent,
    }  # fmt: skip
    array = Node("array", "Array", ("input",), attributes)
    output = Node("output", "Output", ("array",), {"then": "", "axis": 0})
    return Network(image.params, Graph((source, array, output)), (image,))
