"""`.net` files, the layout in which Deep Compression published its AlexNet: read and written.

The file has no header and names no layer: what reads it must know the shapes (`Form`). All numbers are little-endian::

    uint32 (layers,)                         entries of each layer, fillers included
    then for each layer:
      float32 (2**bits,)                     codebook; entry 0 is the value zero
      float32 (outputs,)                     biases
      codes, `bits` each                     8: one a byte; 4: two a byte, the first in the low half
      gaps, 4 bits each                      two a byte, the first in the low half

A gap says how many zeros of the row-major flattened tensor stand before the entry, 0 … 15; where there are more, a
filler with code 0 and gap 15 stands between. Source: the layout as Deep Compression (Han et al., ICLR 2016) and its
published AlexNet describe it; written from the description.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.coding.gaps import from_positions, to_positions
from compiler.coding.sizes import MAX_ELEMENTS
from compiler.coding.wire import Reader
from compiler.compressed import CompressedModel, CompressedTensor
from compiler.errors import CodingError, ModelError

__all__ = ["Form", "parse_form", "read_net", "write_net"]

_GAP_BITS = 4
_CODE_BITS = (4, 8)


@dataclass(frozen=True)
class Form:
    """What a `.net` file does not say of a layer.

    name : the tensors are NAME.weight and NAME.bias. shape : of the weight, outputs first. bits : of a code, 4 or 8.
    """

    name: str
    shape: tuple[int, ...]
    bits: int


def parse_form(text: str) -> Form:
    """A form from ``NAME=OUTxIN[xHxW][:BITS]``; without BITS, 8 for convolutions and 4 for others, as published.

    Raises
    ------
    CodingError
        The text is not of this form.
    """
    name, _, rest = text.partition("=")
    dimensions, _, bits = rest.partition(":")
    try:
        shape = tuple(int(size) for size in dimensions.lower().split("x"))
        width = int(bits) if bits else 8 if len(shape) > 2 else 4
    except ValueError:
        shape, width = (), 0
    if not name or len(shape) < 2 or min(shape, default=0) < 1 or width not in _CODE_BITS:
        raise CodingError(
            f"layer {text!r}; expected NAME=OUTxIN or NAME=OUTxINxHxW, then :4 or :8, as in fc6=4096x9216:4"
        )
    return Form(name, shape, width)


def read_net(data: bytes, forms: Sequence[Form]) -> CompressedModel:
    """The network of a `.net` file.

    Raises
    ------
    CodingError
        The file is longer or shorter than its layers, an entry stands behind the end of its tensor, or a codebook
        does not begin with zero.
    """
    if sum(math.prod(form.shape) for form in forms) > MAX_ELEMENTS:
        raise CodingError(f"layers of more than {MAX_ELEMENTS} weights")
    reader = Reader(data)
    counts = np.frombuffer(reader.raw(4 * len(forms), "the numbers of entries"), "<u4").astype(np.int64).tolist()
    tensors, biases = [], {}
    for form, count in zip(forms, counts, strict=True):
        size = math.prod(form.shape)
        if count > size:
            raise CodingError(f"{form.name}: {count} entries; a tensor of shape {form.shape} has at most {size}")
        codebook = _floats(reader, 1 << form.bits, f"{form.name}: codebook")
        if codebook[0] != 0:
            raise CodingError(f"{form.name}: code 0 is {codebook[0]}; expected 0")
        codebook[0] = 0.0  # not a negative zero
        biases[f"{form.name}.bias"] = _floats(reader, form.shape[0], f"{form.name}: biases")
        entry_codes = _small(reader, count, form.bits, f"{form.name}: codes")
        gaps = _small(reader, count, _GAP_BITS, f"{form.name}: gaps")
        codes = np.zeros((form.shape[0], size // form.shape[0]), np.uint8)
        codes.reshape(-1)[to_positions(gaps.astype(np.int64), size, form.name)] = entry_codes
        tensors.append(CompressedTensor(f"{form.name}.weight", form.shape, codes, codebook))
    if reader.left:
        raise CodingError(f"{reader.left} bytes behind the last layer; the layers given are not those of the file")
    model = CompressedModel(tuple(tensors), biases)
    try:
        model.verify()
    except ModelError as error:
        raise CodingError(str(error)) from None
    return model


def write_net(model: CompressedModel) -> tuple[bytes, tuple[Form, ...]]:
    """The `.net` file of a network, and the forms with which it is read.

    Raises
    ------
    ModelError
        The network does not verify, or is not made of NAME.weight with a codebook, each with its NAME.bias.
    """
    model.verify()
    values = model.state()
    weights = [tensor for tensor in model.tensors if tensor.name.endswith(".weight") and len(tensor.shape) > 1]
    forms, parts, counts = [], [], []
    for tensor in weights:
        name = tensor.name.removesuffix(".weight")
        bias = values.pop(f"{name}.bias", None)
        del values[tensor.name]
        if bias is None or bias.shape != tensor.shape[:1]:
            raise ModelError(f"{tensor.name}: a .net file needs {name}.bias with {tensor.shape[0]} values beside it")
        form = Form(name, tensor.shape, 4 if tensor.bits <= 4 else 8)
        codebook = np.zeros(1 << form.bits, "<f4")
        codebook[: len(tensor.codebook)] = tensor.codebook
        flat = tensor.codes.reshape(-1)
        positions = np.flatnonzero(flat)
        entry_codes, gaps = from_positions(positions, flat[positions], _GAP_BITS)
        parts += [
            codebook.tobytes(),
            bias.astype("<f4").tobytes(),
            _pack(entry_codes, form.bits),
            _pack(gaps, _GAP_BITS),
        ]
        counts.append(len(entry_codes))
        forms.append(form)
    if values:
        raise ModelError(
            f"a .net file holds weights with codebooks and their biases; it has no room for {', '.join(values)}"
        )
    return np.array(counts, "<u4").tobytes() + b"".join(parts), tuple(forms)


def _floats(reader: Reader, count: int, what: str) -> NDArray[np.float32]:
    return np.frombuffer(reader.raw(4 * count, what), "<f4").astype(np.float32)


def _small(reader: Reader, count: int, bits: int, what: str) -> NDArray[np.uint8]:
    """Numbers of 8 bits, or of 4 with the first in the low half of a byte."""
    data = np.frombuffer(reader.raw((count * bits + 7) // 8, what), np.uint8)
    if bits == 8:
        return data
    return np.stack([data & 15, data >> 4], axis=1).reshape(-1)[:count]


def _pack(values: NDArray[np.integer], bits: int) -> bytes:
    small = values.astype(np.uint8)
    if bits == 8:
        return small.tobytes()
    padded = np.concatenate([small, np.zeros(len(small) % 2, np.uint8)])
    packed: NDArray[np.uint8] = padded[::2] | padded[1::2] << 4
    return packed.tobytes()
