"""One ONNX operation that is being translated: its inputs, its attributes, and how it makes nodes.

An ONNX tensor has an axis of samples, usually the first, which the values of the graph do not have. `Value` remembers
where it is; axes of tensors count it, axes of the graph do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.frontend.builder import Builder

__all__ = ["Call", "Refused", "Result", "Translation", "Value"]

Array = NDArray[Any]


class Refused(Exception):
    """Why an operation cannot be translated, in words.

    Attributes
    ----------
    quantization : it is about the scales of a quantized model; all of these make one message.
    """

    def __init__(self, text: str, *, quantization: bool = False) -> None:
        super().__init__(text)
        self.quantization = quantization


@dataclass(frozen=True)
class Value:
    """A tensor that depends on the input.

    Attributes
    ----------
    name : of the value of the graph.
    samples : the axis of the tensor along which they lie.
    tail, tail_axis : what the host makes of it (`functions.TAILS`), and along which axis of the graph's value.
    grid : scale and zero point, where a QuantizeLinear made it.
    """

    name: str
    samples: int = 0
    tail: str = ""
    tail_axis: int = 0
    grid: tuple[float, int] | None = None


Result = Value | Array | Sequence[Value | Array | None]


@dataclass
class Call:
    """What a translation gets.

    Attributes
    ----------
    op, version : operator, and version of its set.
    name : for the nodes that it becomes.
    builder : collects them.
    inputs : values, constants, or None where an input is left out.
    attributes : numbers, texts, arrays and lists of them.
    batch : how many samples the tensors have; what stands for them in shapes.
    results : how many results are used.
    """

    op: str
    version: int
    name: str
    builder: Builder
    inputs: Sequence[Value | Array | None]
    attributes: dict[str, Any]
    batch: int
    results: int = 1
    made: int = field(default=0, init=False)

    def get(self, place: int) -> Value | Array | None:
        """An input that may be left out."""
        return self.inputs[place] if place < len(self.inputs) else None

    def value(self, place: int = 0) -> Value:
        """An input that depends on the samples."""
        found = self.get(place)
        if not isinstance(found, Value):
            raise Refused(f"its input {place} is {'missing' if found is None else 'a constant'}; expected a value")
        if found.tail:
            raise Refused(f"it works on the result of a {found.tail}, which is only supported at the end of a model")
        return found

    def constant(self, place: int) -> Array | None:
        """An input that is known, or left out."""
        found = self.get(place)
        if isinstance(found, Value):
            raise Refused(f"its input {place} depends on the samples; expected a constant")
        return found

    def weight(self, place: int, *ranks: int) -> Array:
        """A constant of floats, as they are."""
        found = self.constant(place)
        if found is None:
            raise Refused(f"its input {place} is missing; expected a constant")
        if ranks and found.ndim not in ranks:
            raise Refused(f"its constant has shape {found.shape}; expected {' or '.join(map(str, ranks))} axes")
        return found if found.dtype.kind == "f" else found.astype(np.float32)

    def integers(self, key: str, place: int) -> list[int] | None:
        """Numbers that are an attribute in old versions and an input in new ones."""
        if key in self.attributes:
            given = self.attributes[key]
            return list(given) if isinstance(given, list) else [int(given)]
        found = self.constant(place)
        return None if found is None else [int(n) for n in np.asarray(found).reshape(-1)]

    def number(self, key: str, place: int) -> float | None:
        """One number, likewise."""
        if key in self.attributes:
            return float(self.attributes[key])
        found = self.constant(place)
        if found is None:
            return None
        if found.size == 0 or bool((found != found.reshape(-1)[0]).any()):
            raise Refused(f"its {key} differs from number to number; expected one number")
        return float(found.reshape(-1)[0])

    def shape(self, value: Value) -> tuple[int, ...]:
        """Of the tensor, with the samples."""
        given = self.builder.shape(value.name)
        return (*given[: value.samples], self.batch, *given[value.samples :])

    def rank(self, value: Value) -> int:
        """Axes of the tensor."""
        return len(self.builder.shape(value.name)) + 1

    def dim(self, axis: int, rank: int) -> int:
        """An axis that may count from the end."""
        if not -rank <= axis < rank:
            raise Refused(f"axis {axis} of a tensor with {rank} axes")
        return axis % rank

    def axis(self, value: Value, dim: int) -> int:
        """The axis of the graph's value for an axis of the tensor."""
        dim = self.dim(dim, self.rank(value))
        if dim == value.samples:
            raise Refused(f"it works along axis {dim}, on which the samples lie; they must not meet")
        return dim - (dim > value.samples)

    def emit(self, op: str, *reads: str, suffix: str = "", **given: Any) -> str:
        """Add a node: the one that does the work has the operation's name, those around it names behind that."""
        main = op in ("Linear", "Conv") or (self.made == 0 and self.op not in ("Gemm", "MatMul", "Einsum"))
        name = self.name + (suffix or ("" if main else f".{op.lower()}"))
        self.made += 1
        return self.builder.add(op, name, *reads, **given)

    def same_samples(self, array: Array, axis: int) -> Array:
        """A constant without one of its axes, along which nothing changes."""
        first: Array = array.take(0, axis=axis)
        if bool((array != np.expand_dims(first, axis)).any()):
            raise Refused("its constant differs from sample to sample")
        return first

    def per_sample(self, array: Array, rank: int, samples: int) -> Array:
        """A constant that broadcasts to a tensor, for one sample."""
        place = samples - (rank - array.ndim)
        return array if place < 0 else self.same_samples(array, place)


Translation = Callable[[Call], Result]
