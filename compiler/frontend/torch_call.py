"""What a translation works with: one exported operation, its arguments by name, and the values of the new graph.

A torch tensor has the samples along some axis, a value of the graph leaves that axis out. `Value` says where it was,
so that moving the samples (``permute`` around a recurrent layer) is no operation at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Node

from compiler.frontend.builder import Builder

__all__ = [
    "Call",
    "Refused",
    "Result",
    "Translation",
    "Value",
    "array",
    "kind_of",
    "number",
    "path_of",
    "shape_of",
    "where",
]

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_NOT_THE_USERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
_LEAVES = ("torch.nn.", "torch.ao.nn.", "compiler.frontend.torch_module.")


class Refused(Exception):
    """Why an operation cannot be translated, in words.

    Attributes
    ----------
    quantization : it is about the scales of a quantization-aware module; all of these make one message.
    """

    def __init__(self, text: str, *, quantization: bool = False) -> None:
        super().__init__(text)
        self.quantization = quantization


@dataclass(frozen=True)
class Value:
    """A torch tensor that depends on the input.

    Attributes
    ----------
    name : of the value of the graph.
    samples : the axis of the tensor along which they lie.
    shape : of the tensor, samples included.
    tail, tail_axis : what the host makes of it (`functions.TAILS`), and along which axis of the graph's value.
    """

    name: str
    samples: int
    shape: tuple[int, ...]
    tail: str = ""
    tail_axis: int = 0

    @property
    def rank(self) -> int:
        """Of the tensor, samples included."""
        return len(self.shape)

    def dim(self, dim: int) -> int:
        """An axis of the tensor, counted from the front."""
        return dim % self.rank

    def axis(self, dim: int) -> int:
        """The axis of the graph's value that is an axis of the tensor."""
        dim = self.dim(dim)
        if dim == self.samples:
            raise Refused(f"it works along axis {dim}, which is the samples'; they must stay independent")
        return dim - (dim > self.samples)


Result: TypeAlias = "Value | tuple[Value, ...]"
Translation: TypeAlias = "Callable[[Call], Result]"


class Call:
    """One operation of the exported program.

    ``call["dim"]`` is an argument by its name in torch's schema: a `Value`, a tensor where it is constant, a number,
    a list of these, or its default.
    """

    def __init__(self, node: Node, builder: Builder, known: Callable[[Node], Any]) -> None:
        self.node = node
        self.builder = builder
        self.op = str(node.target).split(".")[1] if "." in str(node.target) else str(node.target)
        self._known = known
        self.arguments: dict[str, Any] = {}
        schema = getattr(node.target, "_schema", None)
        for position, argument in enumerate(schema.arguments if schema is not None else ()):
            if position < len(node.args):
                self.arguments[argument.name] = self._resolve(node.args[position])
            elif argument.name in node.kwargs:
                self.arguments[argument.name] = self._resolve(node.kwargs[argument.name])
            elif argument.has_default_value():
                self.arguments[argument.name] = argument.default_value

    def _resolve(self, argument: Any) -> Any:
        if isinstance(argument, Node):
            return self._known(argument)
        if isinstance(argument, list | tuple):
            return [self._resolve(item) for item in argument]
        return argument

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument that some overloads lack."""
        return self.arguments.get(name, default)

    @property
    def x(self) -> Value:
        """The first argument, which must depend on the input."""
        first = next(iter(self.arguments.values()))
        if not isinstance(first, Value):
            raise Refused("its first argument is constant and another one depends on the input")
        return first

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor that it makes."""
        return shape_of(self.node)

    @property
    def name(self) -> str:
        """Of its node: the module's path; with the operation behind it where the module does more than that."""
        path, kind = path_of(self.node), kind_of(self.node)
        own = kind.startswith(_LEAVES) and not kind.startswith("torch.nn.modules.container.")
        if kind == "torch.export.unflatten.InterpreterModule":  # what .pt2 files hold: it does not say what it was
            own = sum(path_of(other) == path for other in self.node.graph.nodes if other.op == "call_function") == 1
        op = self.op.strip("_")
        return path if path and own else f"{path}.{op}" if path else op

    def emit(self, op: str, *reads: str, suffix: str = "", tensors: dict[str, Any] | None = None, **more: Any) -> str:
        """Add a node to the graph; its value."""
        return self.builder.add(op, self.name + suffix, *reads, tensors=tensors, **more)

    def value(self, name: str, samples: int, index: int | None = None) -> Value:
        """The result, checked against the shape that torch gave it; of several, the one of that number."""
        shape = shape_of(self.node, index)
        found = self.builder.shape(name)
        if found != shape[:samples] + shape[samples + 1 :]:
            raise Refused(f"it makes a tensor of shape {shape}, for which the translation has {found} a sample")
        return Value(name, samples, shape)

    def constant(self, tensor: Tensor, shape: Sequence[int], samples: int, suffix: str = "") -> str:
        """A node for a constant that takes part like a value: broadcast to a tensor of that shape."""
        whole = array(tensor)
        fixed = np.broadcast_to(whole, tuple(shape))
        fixed = same_for_all(fixed, samples)
        value = np.ascontiguousarray(fixed.astype(np.float32 if tensor.dtype != torch.float64 else np.float64))
        return self.emit("Constant", suffix=suffix or ".constant", tensors={"value": value})


def same_for_all(values: NDArray[Any], samples: int) -> NDArray[Any]:
    """The constant of one sample: without the axis of the samples, along which nothing may change."""
    first = values.take([0], axis=samples)
    if not bool(np.all((values == first) | (np.isnan(values) & np.isnan(first)))):
        raise Refused("a constant has other numbers for each sample of the batch; they must be the same for all")
    return first.squeeze(samples)


def array(tensor: Tensor) -> NDArray[Any]:
    """A constant as float64."""
    return tensor.detach().to("cpu", torch.float64).numpy()


def number(value: Any) -> float | None:
    """The number that a constant is everywhere; None if it is not one number."""
    if isinstance(value, Tensor):
        first = value.flatten()[:1]
        return float(first) if value.numel() and bool((value == first).all()) else None
    return float(value) if isinstance(value, int | float) else None


def shape_of(node: Node, index: int | None = None) -> tuple[int, ...]:
    """Of the tensor that a node of the exported program makes."""
    made = node.meta.get("val")
    return tuple(getattr(made if index is None or made is None else made[index], "shape", ()))


def _module(node: Node) -> tuple[str, str]:
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return "", ""
    path, kind = list(stack.values())[-1][:2]
    return str(path), kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def path_of(node: Node) -> str:
    """Path of the innermost module that the operation belongs to; "" is the model itself."""
    return _module(node)[0]


def kind_of(node: Node) -> str:
    """Its class, with module."""
    return _module(node)[1]


def where(node: Node) -> str:
    """Module path, operation and source line, as far as they are known."""
    path, kind = _module(node)
    kind = kind.rsplit(".", 1)[-1]
    line = line_of(node)
    return f"{path or '(model)'}{f' ({kind})' if kind else ''} {operation(node)}{f' at {line}' if line else ''}"


def operation(node: Node) -> str:
    """What a node of the exported program applies."""
    target: Any = node.target
    return str(target if "." in str(target) and "built-in" not in str(target) else getattr(target, "__name__", target))


def line_of(node: Node) -> str:
    """File and line of the user's code; the innermost frame outside torch and the kit is what the user wrote."""
    frames = [match for match in _FRAME.finditer(node.meta.get("stack_trace") or "")]
    own = [match for match in frames if not match["file"].startswith(_NOT_THE_USERS)]
    return f"{Path(own[-1]['file']).name}:{own[-1]['line']}" if own else ""
