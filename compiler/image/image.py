"""What an image holds: the contents of the array's memories, and what a user wants to know of the layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compiler.image.steps import Step, parse_steps
from compiler.options import DEFAULT, Options
from compiler.short import few
from hw.layouts import identity
from hw.params import Params

__all__ = ["TENSORS", "Image", "LayerInfo", "row_orders"]

TENSORS: dict[str, tuple[str, int]] = {  # dtype in safetensors' spelling, dimensions
    "entries": ("U8", 3),
    "pointers": ("U8", 3),
    "tiles": ("U8", 2),
    "codebooks": ("I16", 2),
    "bias": ("I64", 2),
    "descriptors": ("U8", 2),
    "row_order": ("I32", 1),
}
"""The tensors of an image in a file."""


@dataclass(frozen=True)
class LayerInfo:
    """What a user of an image wants to know of a layer; the array itself needs only the descriptor.

    Attributes
    ----------
    name : unique in the network.
    inputs, outputs : neurons.
    columns : columns of the stored matrix: `inputs` in the first layer, the positions of the layer before otherwise.
    activation : "none" or "relu".
    input_exponent, weight_exponent, output_exponent : value = raw * 2**exponent.
    shift : ``output_exponent - input_exponent - weight_exponent``.
    exact : weights and bias are represented without any rounding.
    nonzeros, padding : entries of either kind.
    descriptors : how many it takes: one, or one for each tile.
    """

    name: str
    inputs: int
    outputs: int
    columns: int
    activation: Literal["none", "relu"]
    input_exponent: int
    weight_exponent: int
    shift: int
    output_exponent: int
    exact: bool
    nonzeros: int
    padding: int
    descriptors: int


@dataclass(frozen=True, eq=False)
class Image:
    """Memory contents of a network for one array.

    Attributes
    ----------
    params : the array.
    layers : one a layer.
    entries : uint8 (pes, words, word_bytes), weight memory as far as used.
    pointers : uint8 (pes, blocks, ceil(bits / 8)), pointer memory as far as used.
    tiles : uint8 (beats, 16), what the refill stream brings for each vector; empty if all layers stay on chip.
    codebooks : int16 (layers, 2**code_bits).
    bias : int64 (groups, words), bias memory as far as used.
    descriptors : uint8 (one for each layer or tile, and END; 32).
    row_order : int32 (sum of the layers' positions,), position → neuron or -1.
    options : what the compiler was told; packing the network again takes the same. The array does not know them.
    """

    params: Params
    layers: tuple[LayerInfo, ...]
    entries: NDArray[np.uint8]
    pointers: NDArray[np.uint8]
    tiles: NDArray[np.uint8]
    codebooks: NDArray[np.int16]
    bias: NDArray[np.int64]
    descriptors: NDArray[np.uint8]
    row_order: NDArray[np.int32]
    options: Options = DEFAULT

    def __repr__(self) -> str:
        layers = few(f"{layer.name} {layer.outputs}x{layer.inputs}" for layer in self.layers)
        size = sum(getattr(self, name).nbytes for name in TENSORS)
        return f"<Image: {self.params.pes} PEs, {size:,} bytes, layers {layers}>"

    @property
    def inputs(self) -> int:
        """Width of an input vector."""
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        """Width of an output vector."""
        return self.layers[-1].outputs

    @property
    def input_exponent(self) -> int:
        """Power of two of the raw inputs."""
        return self.layers[0].input_exponent

    @property
    def output_exponent(self) -> int:
        """Power of two of the raw outputs."""
        return self.layers[-1].output_exponent

    @cached_property
    def identity(self) -> str:
        """Hash of parameters and layouts; an array with another one cannot run this image."""
        return identity(self.params)

    @cached_property
    def steps(self) -> list[list[Step]]:
        """The descriptors of each layer."""
        return parse_steps(self.params, self.descriptors, [layer.descriptors for layer in self.layers])


def row_orders(image: Image) -> list[NDArray[np.int32]]:
    """For each layer, position → neuron (-1 for an unused position)."""
    params = image.params
    sizes = [sum(params.positions(step.outputs(params)) for step in steps if not step.keep) for steps in image.steps]
    return np.split(image.row_order, np.cumsum(sizes)[:-1])
