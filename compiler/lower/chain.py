"""A chain of fully connected layers in integers: the simplest network of the array.

`Chain.verify` is its specification; it runs after every step that makes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ModelError
from hw.params import Params

__all__ = ["ACTIVATIONS", "MAX_SHIFT", "Activation", "Chain", "QuantizedLayer"]

Activation = Literal["none", "relu"]
ACTIVATIONS: tuple[Activation, ...] = ("none", "relu")

MAX_SHIFT = 31
"""Largest right shift of write-back: the descriptor has five bits for it."""


@dataclass(frozen=True, eq=False)
class QuantizedLayer:
    """One layer in the integers that the array computes with.

    Attributes
    ----------
    name : unique within the network.
    codes : uint8 (out, in); 0 is the weight zero.
    codebook : int16 (2**code_bits,); ``codebook[codes] * 2**weight_exponent`` are the weights.
    weight_exponent : power of two of the codebook.
    bias : int64 (out,) at 2**(input_exponent + weight_exponent).
    shift : right shift of write-back, 0 … 31.
    activation : "none" or "relu".
    input_exponent, output_exponent : powers of two of the int16 activations.
    exact : weights and bias are represented without any rounding.
    """

    name: str
    codes: NDArray[np.uint8]
    codebook: NDArray[np.int16]
    weight_exponent: int
    bias: NDArray[np.int64]
    shift: int
    activation: Activation
    input_exponent: int
    output_exponent: int
    exact: bool


@dataclass(frozen=True, eq=False)
class Chain:
    """Fixed-point layers, each fed by the one before, for one parameter set."""

    layers: tuple[QuantizedLayer, ...]
    params: Params

    def verify(self) -> None:
        """Check the whole chain.

        Raises
        ------
        ModelError
            Listing every violation of the stated types, shapes and ranges, of
            ``output_exponent == input_exponent + weight_exponent + shift``, and of the chain of widths
            and exponents.
        """
        wrong = _name_errors(self.layers)
        size, limit = 1 << self.params.code_bits, 1 << (self.params.acc_bits - 1)
        before: QuantizedLayer | None = None
        for layer in self.layers:
            name, codes, codebook, bias = layer.name, layer.codes, layer.codebook, layer.bias
            if codes.dtype != np.uint8 or codes.ndim != 2 or 0 in codes.shape:
                wrong.append(f"{name}: codes are {codes.dtype} {codes.shape}; expected uint8 (out, in)")
                before = None
                continue
            if int(codes.max()) >= size:
                wrong.append(f"{name}: code {int(codes.max())}; expected less than {size}")
            if codebook.dtype != np.int16 or codebook.shape != (size,):
                wrong.append(f"{name}: codebook is {codebook.dtype} {codebook.shape}; expected int16 ({size},)")
            elif codebook[0]:
                wrong.append(f"{name}: code 0 is {codebook[0]}; expected 0")
            if bias.dtype != np.int64 or bias.shape != codes.shape[:1]:
                wrong.append(f"{name}: bias is {bias.dtype} {bias.shape}; expected int64 {codes.shape[:1]}")
            elif int(bias.min()) < -limit or int(bias.max()) >= limit:
                wrong.append(f"{name}: bias does not fit {self.params.acc_bits} bits")
            if not 0 <= layer.shift <= MAX_SHIFT:
                wrong.append(f"{name}: shift is {layer.shift}; expected 0 to {MAX_SHIFT}")
            if layer.activation not in ACTIVATIONS:
                wrong.append(f"{name}: activation {layer.activation!r}; expected one of {ACTIVATIONS}")
            if layer.output_exponent != layer.input_exponent + layer.weight_exponent + layer.shift:
                wrong.append(f"{name}: output exponent {layer.output_exponent} is not input + weight exponent + shift")
            outputs = codes.shape[1] if before is None else before.codes.shape[0]
            exponent = layer.input_exponent if before is None else before.output_exponent
            if codes.shape[1] != outputs:
                wrong.append(f"{name}: takes {codes.shape[1]} inputs; the layer before has {outputs} outputs")
            if layer.input_exponent != exponent:
                wrong.append(f"{name}: input exponent {layer.input_exponent}; the layer before puts out {exponent}")
            before = layer
        _raise(wrong)


def _name_errors(layers: Sequence[QuantizedLayer]) -> list[str]:
    if not layers:
        return ["the chain has no layers"]
    names = [layer.name for layer in layers]
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    return [f"layer name {name!r} is used {names.count(name)} times" for name in repeated]


def _raise(wrong: list[str]) -> None:
    if wrong:
        raise ModelError("; ".join(wrong))
