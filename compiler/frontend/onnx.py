"""Read an ONNX model into the operator graph.

The nodes are walked once. What is known without the input (weights, the arithmetic on shapes) is worked out; the rest
becomes operators of the graph. Everything that cannot be is collected and reported together. Nothing of a model is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ModelError
from compiler.frontend.builder import Builder
from compiler.frontend.onnx_call import Call, Refused, Value
from compiler.frontend.onnx_constants import FOLDED, fold
from compiler.frontend.onnx_file import decode, load
from compiler.frontend.onnx_ops import SUPPORTED, TRANSLATIONS, unknown
from compiler.frontend.onnx_structure import LISTED, in_order, inlined, live
from compiler.graph.ir import Graph
from compiler.graph.operators import verify
from compiler.graph.shapes import Wrong

__all__ = ["from_onnx"]

Array = NDArray[Any]

SYMBOLIC_BATCH = 1009
"""Stands for the number of samples where the model leaves it open: a prime that no size of a network is."""

OLDEST = 7
"""Version of the operator set from which on arithmetic broadcasts as numpy does."""

_REAL = {1, 10, 11, 16, 2, 3}
_INDEX = {5, 6, 7, 12, 13}


def from_onnx(path_or_bytes: str | Path | bytes) -> Graph:
    """The operator graph of an ONNX model.

    The first axis of every input is that of the samples, whatever size the model gives it.

    Parameters
    ----------
    path_or_bytes : a file, beside which its external data lies, or its content.

    Raises
    ------
    ModelError
        It is no ONNX model, it is damaged, or it cannot be compiled; lists every problem with the node's name.
    ToolError
        The package onnx is not installed.
    """
    model, folder = load(path_or_bytes)
    return _Reader(inlined(model), folder).graph()


class _Reader:
    """Walks a model; builds the graph and gathers the problems."""

    def __init__(self, model: Any, folder: Path | None) -> None:
        self.model, self.folder = model, folder
        self.builder = Builder()
        self.known: dict[str, Value | Array] = {}
        self.lost: set[str] = set()  # what could not be read: what follows from it is not listed
        self.problems: list[str] = []
        self.quantization: list[str] = []
        self.homes: dict[str, str] = {}  # name of a tensor of weights → path of its module
        self.batch = SYMBOLIC_BATCH
        self.version = 0

    def graph(self) -> Graph:
        """The graph, or every problem."""
        self._check_versions()
        nodes = live(self.model.graph, in_order(self.model.graph, self.problems))
        self._raise()
        self._initializers({name for node in nodes for name in node.input})
        self._inputs({name for node in nodes for name in node.input})
        for number, node in enumerate(nodes):
            self._visit(node, node.name or f"node {number}")
        self.builder.source = ""
        for output in self.model.graph.output:
            self._output(output)
        self._raise()
        graph = self.builder.graph()
        verify(graph)
        return graph

    def _raise(self) -> None:
        if self.quantization:
            rest = f" (and {len(self.quantization) - 1} more)" if len(self.quantization) > 1 else ""
            self.problems.append(
                f"quantized model: {self.quantization[0]}{rest}; use scales that are powers of two, one for each "
                "activation, or compile the float model, which is quantized with scales of its own"
            )
        if not self.problems:
            return
        count = len(self.problems)
        more = f"  … and {count - LISTED} more\n" if count > LISTED else ""
        raise ModelError(
            f"the model cannot be compiled, {count} problem{'s' * (count > 1)}:\n"
            + "".join(f"  {problem}\n" for problem in self.problems[:LISTED])
            + more
            + f"supported is {SUPPORTED}"
        )

    def _check_versions(self) -> None:
        import onnx.defs

        newest = onnx.defs.onnx_opset_version()
        versions = {entry.domain: entry.version for entry in self.model.opset_import}
        self.version = versions.get("", versions.get("ai.onnx", 0))
        if not OLDEST <= self.version <= newest:
            self.problems.append(
                f"the model uses version {self.version} of ONNX's operators; expected {OLDEST} to {newest}: "
                "convert it with onnx.version_converter, or update the package onnx"
            )

    def _initializers(self, needed: set[str]) -> None:
        needed = needed | {output.name for output in self.model.graph.output}
        for tensor in self.model.graph.initializer:
            if tensor.name not in needed:
                continue
            try:
                self.known[tensor.name] = decode(tensor, self.folder)
            except ValueError as error:
                self._lose(f"initializer {tensor.name!r}: {error}", tensor.name)
            module, dot, kind = tensor.name.rpartition(".")
            if dot and kind == "weight":
                self.homes[tensor.name] = module

    def _lose(self, problem: str, *names: str) -> None:
        self.problems.append(problem)
        self.lost.update(names)

    def _inputs(self, needed: set[str]) -> None:
        """Inputs of the graph; the number of samples is that of the first which says one."""
        weights = {tensor.name for tensor in self.model.graph.initializer}
        given = [item for item in self.model.graph.input if item.name not in weights]
        if not given:
            self.problems.append("the model has no input")
        sizes = {}
        for item in given:
            kind = item.type.WhichOneof("value")
            if kind != "tensor_type":
                self._lose(f"input {item.name!r} is a {(kind or 'value without a type').removesuffix('_type')}; "
                           "expected a tensor", item.name)  # fmt: skip
                continue
            tensor = item.type.tensor_type
            if not tensor.HasField("shape") or not tensor.shape.dim:
                self._lose(f"input {item.name!r} has no shape; expected one whose first axis is that of the samples",
                           item.name)  # fmt: skip
                continue
            if tensor.elem_type not in _REAL | _INDEX:
                self._lose(f"input {item.name!r} is of type {tensor.elem_type}; expected floats or integers", item.name)
                continue
            open_axes = [n for n, dim in enumerate(tensor.shape.dim) if n and dim.dim_value < 1]
            if open_axes:
                dims = ", ".join(f"axis {n} ({tensor.shape.dim[n].dim_param or 'unknown'})" for n in open_axes)
                self._lose(f"input {item.name!r} leaves {dims} open; expected every size but the first: set it with "
                           "onnx.tools.update_model_dims", item.name)  # fmt: skip
                continue
            shape = tuple(dim.dim_value for dim in tensor.shape.dim[1:])
            sizes[item.name] = tensor.shape.dim[0].dim_value
            try:
                kind = "real" if tensor.elem_type in _REAL else "index"
                self.known[item.name] = Value(self.builder.add("Input", item.name, shape=shape, kind=kind))
            except Wrong as error:
                self._lose(f"input {item.name!r}: {error}", item.name)
        fixed = {size for size in sizes.values() if size > 0}
        if len(fixed) > 1:
            self.problems.append(f"the inputs have {sorted(fixed)} samples along their first axes; expected one number")
        self.batch = min(fixed, default=SYMBOLIC_BATCH)

    def _visit(self, node: Any, label: str) -> None:
        domain = "" if node.domain == "ai.onnx" else node.domain
        self.builder.source = f"{node.op_type} {node.name or label}"
        try:
            if domain or (node.op_type not in TRANSLATIONS and node.op_type not in FOLDED):
                raise unknown(node.op_type, domain)
            if self.lost.intersection(node.input):
                self.lost.update(node.output)
                return
            made = self._made(node)
        except Exception as error:  # a damaged model can have anything where a number is expected
            self.lost.update(node.output)
            known = isinstance(error, Refused | Wrong)
            text = str(error) if known else f"its attributes or inputs are malformed: {type(error).__name__}: {error}"
            quantized = isinstance(error, Refused) and error.quantization
            (self.quantization if quantized else self.problems).append(f"{label} ({node.op_type}): {text}")
            return
        for name, result in zip(node.output, made, strict=False):
            if name and result is not None:
                self.known[name] = result
        self.lost.update(name for name in node.output if name and name not in self.known)

    def _made(self, node: Any) -> Any:
        inputs = [self.known[name] if name else None for name in node.input]
        values = [item for item in inputs if isinstance(item, Value)]
        if node.op_type == "Constant":
            return [self._constant(node)]
        if not values:
            constants = [item for item in inputs if not isinstance(item, Value)]
            if node.op_type not in FOLDED:
                raise Refused("not supported: all that it reads is constant")
            return fold(node, constants, self.version)
        if node.op_type not in TRANSLATIONS:
            raise unknown(node.op_type, "")
        used = sum(1 for name in node.output if name)
        home = next((self.homes[name] for name in node.input[1:2] if name in self.homes), "")
        path = node.name.strip("/").removesuffix(f"/{node.op_type}").replace("/", ".")  # of the module
        name = home or path or node.output[0]
        call = Call(
            node.op_type, self.version, name, self.builder, inputs, self._attributes(node), self.batch, used
        )  # fmt: skip
        made = TRANSLATIONS[node.op_type](call)
        return made if isinstance(made, list | tuple) else [made]

    def _constant(self, node: Any) -> Array:
        attributes = self._attributes(node)
        for key in ("value", "value_float", "value_floats", "value_int", "value_ints"):
            if key in attributes:
                kind = np.float32 if "float" in key else np.int64
                value = attributes[key]
                return value if isinstance(value, np.ndarray) else np.array(value, kind)
        raise Refused("it has no numbers")

    def _attributes(self, node: Any) -> dict[str, Any]:
        """Numbers, texts, arrays, and lists of numbers."""
        found: dict[str, Any] = {}
        for attribute in node.attribute:
            kind = attribute.type
            if kind in (1, 2):
                found[attribute.name] = attribute.f if kind == 1 else attribute.i
            elif kind == 3:
                found[attribute.name] = attribute.s.decode("utf-8", "replace")
            elif kind == 4:
                try:
                    found[attribute.name] = decode(attribute.t, self.folder)
                except ValueError as error:
                    raise Refused(f"its {attribute.name}: {error}") from error
            elif kind in (6, 7):
                found[attribute.name] = list(attribute.floats if kind == 6 else attribute.ints)
            elif kind == 8:
                found[attribute.name] = [text.decode("utf-8", "replace") for text in attribute.strings]
            else:
                raise Refused(f"its attribute {attribute.name!r} is of a kind that is not supported")
        return found

    def _output(self, output: Any) -> None:
        if output.name in self.lost:
            return
        value = self.known.get(output.name)
        if value is None:
            self.problems.append(f"output {output.name!r}: nothing makes it")
        elif not isinstance(value, Value):
            self.problems.append(f"output {output.name!r} does not depend on the input")
        else:
            name = output.name if output.name not in self.builder.types else f"{output.name}.output"
            self.builder.add("Output", name, value.name, then=value.tail, axis=value.tail_axis)
