"""A trained, pruned, weight-shared float network: codes and codebooks, and what is stored as it is.

This is what `.eiez` files hold for networks that are floats (`compiler.coding`), convolutions included. Source:
Deep Compression (Han et al., ICLR 2016), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ModelError

__all__ = ["INTEGERS", "MAX_BITS", "CompressedModel", "CompressedTensor"]

MAX_BITS = 8
"""Widest code of a shared weight."""

INTEGERS = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
"""Types of tensors that are no weights: counters of batch normalization, indices, masks."""


@dataclass(frozen=True, eq=False)
class CompressedTensor:
    """A tensor whose values come from a codebook.

    Attributes
    ----------
    name : in the module's state, as "fc1.weight"; unique in the model.
    shape : of the tensor, at least one dimension.
    codes : uint8 (shape[0], product of the rest); 0 is the value zero.
    codebook : float32 (2**bits,), bits 1 … 8; ``codebook[0] == 0``. Entries that no code uses are zero.
    """

    name: str
    shape: tuple[int, ...]
    codes: NDArray[np.uint8]
    codebook: NDArray[np.float32]

    @property
    def bits(self) -> int:
        """Width of a code."""
        return max(len(self.codebook).bit_length() - 1, 0)

    @property
    def values(self) -> NDArray[np.float32]:
        """The tensor itself, float32 of `shape`."""
        return self.codebook[self.codes].reshape(self.shape)

    @property
    def nonzeros(self) -> int:
        """Codes other than 0."""
        return int(np.count_nonzero(self.codes))

    @classmethod
    def of(cls, name: str, codes: NDArray[np.uint8], codebook: NDArray[np.float32]) -> CompressedTensor:
        """From codes in the tensor's own shape; the codebook may leave its zeros at the end out."""
        size = 1 << min(max((len(codebook) - 1).bit_length(), 1), 62)
        full = np.zeros(size, np.float32)
        full[: len(codebook)] = codebook
        return cls(name, codes.shape, codes.reshape(codes.shape[0], -1), full)

    @classmethod
    def from_values(cls, name: str, values: NDArray[np.float32]) -> CompressedTensor | None:
        """Codes and codebook of a tensor that holds few distinct values; None if more than 255 beside zero.

        A negative zero becomes zero. The codebook ascends and is the smallest that holds the values.
        """
        found = np.unique(values[values != 0])
        if len(found) >= 1 << MAX_BITS or not values.ndim or not values.size:
            return None
        codes = (np.searchsorted(found, values) + 1).astype(np.uint8)
        codes[values == 0] = 0
        return cls.of(name, codes, np.concatenate([np.zeros(1, np.float32), found.astype(np.float32)]))

    def errors(self) -> list[str]:
        """What is wrong with it, in words."""
        wrong = []
        expected = (self.shape[0], math.prod(self.shape[1:])) if self.shape else ()
        if not expected or 0 in self.shape:
            wrong.append(f"{self.name}: shape {self.shape}; expected at least one dimension and none empty")
        elif self.codes.dtype != np.uint8 or self.codes.shape != expected:
            wrong.append(f"{self.name}: codes are {self.codes.dtype} {self.codes.shape}; expected uint8 {expected}")
        book = self.codebook
        if book.dtype != np.float32 or book.ndim != 1 or len(book) not in [1 << n for n in range(1, MAX_BITS + 1)]:
            wrong.append(f"{self.name}: codebook is {book.dtype} {book.shape}; expected float32 of 2 to 256 entries")
        elif not np.isfinite(book).all() or book[0] != 0 or np.signbit(book[0]):
            wrong.append(f"{self.name}: codebook holds {book[0]} as code 0 or a value that is not finite; expected 0")
        elif not wrong and int(self.codes.max()) >= len(book):
            wrong.append(f"{self.name}: code {int(self.codes.max())}; expected less than {len(book)}")
        return wrong


@dataclass(frozen=True, eq=False)
class CompressedModel:
    """A network of shared tensors, and others that are stored value by value.

    Attributes
    ----------
    tensors : those with a codebook, biases among them if they are shared as well.
    dense : name → float32 array, such as biases and normalization.
    metadata : short texts for the reader of the file; it takes room in it.
    integers : name → array of one of the types `INTEGERS`, such as the counter of a batch normalization.
    """

    tensors: tuple[CompressedTensor, ...]
    dense: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    integers: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def from_state(
        cls, state: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
    ) -> CompressedModel:
        """From plain values: tensors with few distinct values become shared, where that takes fewer bits.

        Parameters
        ----------
        state : name → float32 values or whole numbers, as a module's state. A negative zero becomes zero.
        """
        tensors, dense, integers = [], {}, {}
        for name, values in state.items():
            if values.dtype.name in INTEGERS:
                integers[name] = values
                continue
            shared = CompressedTensor.from_values(name, values)
            # A codebook of 32 bits a value, and codes, against 32 bits a value.
            if shared is not None and 32 * len(np.unique(shared.codes)) + shared.bits * values.size < 32 * values.size:
                tensors.append(shared)
            else:
                # Masks leave negative zeros, which would count as values. A sum of no dimensions is no array to numpy.
                dense[name] = np.asarray(values + np.float32(0))
        return cls(tuple(tensors), dense, dict(metadata or {}), integers)

    def state(self) -> dict[str, NDArray[Any]]:
        """Name → values of every tensor, float32 but for `integers`."""
        return {**{tensor.name: tensor.values for tensor in self.tensors}, **self.dense, **self.integers}

    def difference(self, other: CompressedModel) -> str | None:
        """Name of a tensor that is not the same in `other` bit for bit, or that only one of both has; None if equal."""
        mine, theirs = self.state(), other.state()
        for name in [*mine, *theirs]:
            if name not in mine or name not in theirs:
                return name
            if mine[name].dtype != theirs[name].dtype or mine[name].shape != theirs[name].shape:
                return name
            if mine[name].tobytes() != theirs[name].tobytes():
                return name
        return None

    @property
    def dense_bytes(self) -> int:
        """Bytes of all values as float32: what the paper's ratios compare with."""
        return 4 * (sum(t.codes.size for t in self.tensors) + sum(d.size for d in self.dense.values()))

    def verify(self) -> None:
        """Check all types, shapes and ranges.

        Raises
        ------
        ModelError
            Listing every violation.
        """
        wrong = [error for tensor in self.tensors for error in tensor.errors()]
        names = [*(tensor.name for tensor in self.tensors), *self.dense, *self.integers]
        wrong += [f"name {name!r} is used twice" for name in dict.fromkeys(names) if names.count(name) > 1]
        if not names:
            wrong.append("the model holds no tensors")
        for name, array in self.dense.items():
            if array.dtype != np.float32:
                wrong.append(f"{name}: values are {array.dtype}; expected float32, or whole numbers")
            elif not np.isfinite(array).all():
                wrong.append(f"{name}: a value is not finite")
        for name, array in self.integers.items():
            if array.dtype.name not in INTEGERS:
                wrong.append(f"{name}: values are {array.dtype}; expected float32 or one of {', '.join(INTEGERS)}")
        if wrong:
            raise ModelError("; ".join(wrong))
