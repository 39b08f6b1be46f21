"""What a compressed file may hold, and what each part of it takes, as the tables of Deep Compression count it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["MAX_DENSE", "MAX_ELEMENTS", "PARTS", "Sizes", "TensorSize"]

MAX_ELEMENTS = 1 << 28
"""Elements of all matrices of a file, one byte each when decoded. VGG-16 has 138 million weights."""

MAX_DENSE = 1 << 24
"""Elements of all tensors of a file that are stored value by value."""

PARTS = ("codes", "positions", "codebook", "values")


@dataclass(frozen=True)
class TensorSize:
    """One tensor's bits. Those of a range coder are shares of its stream, so they may be fractions.

    Attributes
    ----------
    name, shape : of the tensor.
    nonzeros : elements other than zero.
    code_bits : width of a code before entropy coding; 0 for a tensor without codebook.
    fillers, gap_bits : entries that only fill gaps, and the width of a gap before coding (huffman; else 0).
    codes, positions, codebook : bits of a shared tensor.
    values : bits of one that is stored value by value.
    """

    name: str
    shape: tuple[int, ...]
    nonzeros: int
    code_bits: int = 0
    fillers: int = 0
    gap_bits: int = 0
    codes: float = 0.0
    positions: float = 0.0
    codebook: float = 0.0
    values: float = 0.0

    @property
    def weights(self) -> int:
        """Elements of the tensor."""
        return math.prod(self.shape)

    @property
    def bits(self) -> float:
        """All bits of the tensor but those of its name and shape."""
        return self.codes + self.positions + self.codebook + self.values


@dataclass(frozen=True)
class Sizes:
    """A file's bits: of each tensor, and the rest (names, shapes, formats, checksum).

    Attributes
    ----------
    kind : "float" (trained model) or "fixed" (network of an array).
    coder : "huffman" or "context".
    file_bytes : all of the file.
    tensors : in the order of the file.
    """

    kind: str
    coder: str
    file_bytes: int
    tensors: tuple[TensorSize, ...]

    @property
    def dense_bytes(self) -> int:
        """Bytes of all values as float32."""
        return 4 * sum(tensor.weights for tensor in self.tensors)

    @property
    def ratio(self) -> float:
        """How many times smaller than float32 the file is, everything counted."""
        return self.dense_bytes / self.file_bytes

    @property
    def header(self) -> float:
        """Bits that belong to no tensor."""
        return 8.0 * self.file_bytes - sum(tensor.bits for tensor in self.tensors)

    def part(self, name: str) -> float:
        """Bits of one part, over all tensors."""
        return float(sum(getattr(tensor, name) for tensor in self.tensors))

    def asdict(self) -> dict[str, Any]:
        """All of it as plain numbers, for JSON."""
        return {
            "kind": self.kind,
            "coder": self.coder,
            "file_bytes": self.file_bytes,
            "dense_bytes": self.dense_bytes,
            "ratio": self.ratio,
            "bits": {**{part: self.part(part) for part in PARTS}, "header": self.header},
            "tensors": [
                {
                    "name": tensor.name, "shape": list(tensor.shape), "weights": tensor.weights,
                    "nonzeros": tensor.nonzeros, "code_bits": tensor.code_bits, "fillers": tensor.fillers,
                    "gap_bits": tensor.gap_bits, "bits": {part: getattr(tensor, part) for part in PARTS},
                    "bits_per_weight": tensor.bits / tensor.weights,
                    "bits_per_nonzero": tensor.bits / tensor.nonzeros if tensor.nonzeros else None,
                    "ratio": 32 * tensor.weights / tensor.bits if tensor.bits else None,
                }
                for tensor in self.tensors
            ],
        }  # fmt: skip
