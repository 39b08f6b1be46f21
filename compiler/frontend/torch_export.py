"""Read a torch module into the compiler's IR through `torch.export`.

The exported graph is walked once. What does not depend on the input (masks, shared weights, transposed
parameters) is evaluated; what does must be one unbranched chain of supported operations. Everything else
is collected and reported together, so that a model is judged in one go and never misread.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import operator
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node
from torch.fx.node import map_arg

from compiler.errors import ModelError
from compiler.ir import Graph, Linear

__all__ = ["from_torch"]

# Operations that hand the values on unchanged and in the same order.
_IDENTITY = {"aten.clone.default", "aten.detach.default", "aten.alias.default", "aten.contiguous.default"}

# Operations that only regroup values: harmless to a sample as long as the batch stays the first dimension,
# because all of them keep the row-major order.
_RESHAPE = {
    "aten.view.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.unsqueeze.default",
}

_SUPPORTED = (
    "a chain of Linear and ReLU, with Flatten or view that keep the batch dimension, Dropout in evaluation and Identity"
)

_HINTS = {
    "batch_norm": "fold it into the Linear before it (torch.nn.utils.fusion.fuse_linear_bn_eval)",
    "softmax": "leave it out of the module and apply it to the outputs; the largest stays the largest",
    "dropout": "pass training=self.training, so that evaluation switches it off",
    "conv": "convolutions are not supported",
    "layer_norm": "normalization at run time is not supported",
    "div": "scale the inputs before they enter the module",
    "sub": "shift the inputs before they enter the module",
    "mul": "scale the inputs before they enter the module, or fold the factor into a Linear",
    "add": "fold a constant into the bias of a Linear; residual connections are not supported",
    "cat": "joined branches are not supported",
    "sigmoid": "use ReLU, or apply it to the outputs outside the module",
    "tanh": "use ReLU, or apply it to the outputs outside the module",
    "gelu": "use ReLU and retrain",
    "silu": "use ReLU and retrain",
    "leaky_relu": "use ReLU and retrain",
    "permute": "reorder the inputs before they enter the module",
    "transpose": "reorder the inputs before they enter the module",
}

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def from_torch(module: nn.Module, example_inputs: torch.Tensor | tuple[Any, ...]) -> Graph:
    """The IR graph of a module that is a chain of Linear and ReLU.

    Layers are named by their module path ("encoder.fc1"); a module that is called again gets "@2", "@3", …
    The module is exported in evaluation mode; its own mode is left as it was.

    Parameters
    ----------
    module : the model; parametrized, nested and shared submodules are fine.
    example_inputs : what its forward takes: one tensor, batch first, shape (batch, ...).

    Raises
    ------
    ModelError
        The module cannot be exported, or is not such a chain. The message lists every operation that is not
        supported, with its module path and source line.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(f"the model is of type {type(module).__name__}; expected a torch.nn.Module")
    arguments = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    if len(arguments) != 1 or not isinstance(arguments[0], torch.Tensor) or arguments[0].dim() < 2:
        given = ", ".join(_describe(argument) for argument in arguments) or "nothing"
        raise ModelError(f"example_inputs is {given}; expected one tensor of shape (batch, ...)")
    with _evaluation(module), torch.no_grad():
        expected = _call(module, arguments)
        with _quiet():
            graph = _Reader(_export(module, arguments)).read()
        graph.verify()
        _compare(graph, arguments[0], expected)
    return graph


def _call(module: nn.Module, arguments: tuple[Any, ...]) -> Any:
    try:
        return module(*(argument.clone() for argument in arguments))  # a forward may write into its input
    except Exception as error:  # it is the user's code: anything can come
        raise ModelError(
            f"the model fails on example_inputs ({_describe(arguments[0])}): {type(error).__name__}: {error}"
        ) from error


def _export(module: nn.Module, arguments: tuple[Any, ...]) -> torch.export.ExportedProgram:
    try:
        # An empty table makes in-place operations functional and decomposes nothing else.
        program: torch.export.ExportedProgram = torch.export.export(module, arguments).run_decompositions({})
    except Exception as error:  # torch raises a dozen unrelated types here, all of them about the user's module
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"torch.export cannot read {type(module).__name__}: {reason}\n"
            f"supported is {_SUPPORTED}; control flow must not depend on values"
        ) from error
    return program


class _Reader:
    """Walks an exported program and gathers layers and problems."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.program = program
        self.constants: dict[Node, Any] = {}
        self.data: set[Node] = set()
        self.opaque: set[Node] = set()  # values that could not be read; what follows from them is not listed
        self.layers: list[Linear] = []
        self.problems: list[str] = []
        self.calls: dict[str, int] = {}
        self.seen_linear = False

    def read(self) -> Graph:
        output = next(node for node in self.program.graph.nodes if node.op == "output")
        result = self._result(output)
        live = _ancestors(result)
        self._inputs(live)
        for node in self.program.graph.nodes:
            if node in live and node.op != "placeholder":
                self._visit(node)
        for node in self.program.graph.nodes:
            uses = [user for user in node.users if user in live] + [node] * (node is result)
            if node in self.data and len(uses) > 1:
                self._problem(node, f"its value goes to {len(uses)} places; branches are not supported")
        if not self.problems and not self.layers:
            self.problems.append("the module has no Linear layer between its input and its output")
        if self.problems:
            raise ModelError(
                f"the model cannot be compiled, {len(self.problems)} problem{'s' * (len(self.problems) > 1)}:\n"
                + "".join(f"  {problem}\n" for problem in self.problems)
                + f"supported is {_SUPPORTED}"
            )
        return Graph(layers=tuple(self.layers))

    def _result(self, output: Node) -> Node | None:
        """The node that is the module's only output."""
        arguments: tuple[Any, ...] = tuple(output.args[0])  # type: ignore[arg-type]
        results: list[Any] = []
        for spec, argument in zip(self.program.graph_signature.output_specs, arguments, strict=True):
            if spec.kind is OutputKind.USER_OUTPUT:
                results.append(argument)
            else:
                self.problems.append(f"{spec.target}: the forward changes it ({spec.kind.name.lower()})")
        if len(results) == 1 and isinstance(results[0], Node):
            return results[0]
        self.problems.append(f"the module returns {len(results)} values; expected one tensor")
        for extra in results[:-1]:
            if isinstance(extra, Node) and extra is not results[-1]:
                self.problems.append(f"{_where(extra)}: output besides the last one")
        return results[-1] if results and isinstance(results[-1], Node) else None

    def _inputs(self, live: set[Node]) -> None:
        """Give every placeholder its constant value, or mark it as data."""
        tensors = {**self.program.state_dict, **self.program.constants}
        placeholders = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, self.program.graph_signature.input_specs, strict=True):
            if spec.kind is InputKind.USER_INPUT:
                self.data.add(node)
            elif spec.target in tensors:
                self.constants[node] = tensors[spec.target]
            elif node in live:
                self.problems.append(f"{spec.target}: {spec.kind.name.lower()} inputs are not supported")
                self.opaque.add(node)
        if not self.data & live:
            self.problems.append("the output does not depend on the input")

    def _visit(self, node: Node) -> None:
        sources = [source for source in node.all_input_nodes if source in self.data]
        if not sources:
            self._evaluate(node)
            return
        self.data.add(node)
        name = str(node.target)
        if len(sources) > 1:
            self._problem(node, "it joins two values that both depend on the input")
        elif name in ("aten.linear.default", "aten.addmm.default", "aten.mm.default", "aten.matmul.default"):
            self._linear(node, sources[0], name)
        elif name == "aten.relu.default":
            self._relu(node)
        elif name in _RESHAPE:
            if _shape(sources[0])[:1] != _shape(node)[:1]:
                self._problem(node, f"it turns {_shape(sources[0])} into {_shape(node)}; the batch must stay first")
        elif name == "aten._to_copy.default" and _dtype(sources[0]) == _dtype(node):
            pass
        elif name == "aten.dropout.default" and not _argument(node, 2, "train"):
            pass
        elif name not in _IDENTITY:
            self._unsupported(node, sources[0])

    def _evaluate(self, node: Node) -> None:
        """Work out a value that does not depend on the input."""
        if node.op == "get_attr":
            self.constants[node] = operator.attrgetter(str(node.target))(self.program.graph_module)
            return
        if self.opaque.intersection(node.all_input_nodes):
            self.opaque.add(node)
            return
        tags = getattr(node.target, "tags", ())
        if node.op != "call_function" or torch.Tag.nondeterministic_seeded in tags:
            self._problem(node, "its result is not the same in every run")
            self.opaque.add(node)
            return
        try:
            arguments = map_arg(node.args, lambda source: self.constants[source])
            keywords = map_arg(dict(node.kwargs), lambda source: self.constants[source])
            function: Any = node.target
            self.constants[node] = function(*arguments, **keywords)
        except Exception as error:  # whatever torch raises here belongs in the list with the other problems
            self._problem(node, f"its constant value cannot be computed: {error}")
            self.opaque.add(node)

    def _linear(self, node: Node, source: Node, name: str) -> None:
        """Append one layer: y = x W^T + b, with W and b constant and x of shape (batch, in)."""
        self.seen_linear = True
        if self.opaque.intersection(node.all_input_nodes) - {source}:
            return
        if name == "aten.addmm.default":
            bias, x, weight = (self._value(argument) for argument in node.args[:3])
            if (node.kwargs.get("beta", 1), node.kwargs.get("alpha", 1)) != (1, 1):
                self._problem(node, "beta and alpha must be 1")
        else:
            x, weight = (self._value(argument) for argument in node.args[:2])
            bias = self._value(_argument(node, 2, "bias"))
        if x is not source or not isinstance(weight, torch.Tensor) or weight.dim() != 2:
            self._problem(node, "its weights depend on the input or are not a matrix")
            return
        if len(_shape(source)) != 2:
            self._problem(node, f"its input has shape {_shape(source)}; expected (batch, {weight.shape[-1]})")
            return
        matrix = weight if name == "aten.linear.default" else weight.t()
        outputs = matrix.shape[0]
        if bias is not None and bias.numel() != outputs:
            self._problem(node, f"its bias has shape {tuple(bias.shape)}; expected ({outputs},)")
            return
        self.layers.append(
            Linear(
                name=self._name(node),
                weight=np.ascontiguousarray(matrix.detach().to("cpu", torch.float32).numpy()),
                bias=None if bias is None else bias.detach().to("cpu", torch.float64).reshape(-1).numpy(),
                activation="none",
            )
        )

    def _value(self, argument: Any) -> Any:
        """What an argument is: a constant where it is known, else as it stands."""
        return self.constants[argument] if isinstance(argument, Node) and argument in self.constants else argument

    def _relu(self, node: Node) -> None:
        if not self.layers:
            # After something that could not be read, the layer is only missing because of that.
            if not self.seen_linear and not self.opaque:
                self._problem(node, "there is no Linear before it; apply it to the inputs outside the module")
            return
        self.layers[-1] = dataclasses.replace(self.layers[-1], activation="relu")

    def _name(self, node: Node) -> str:
        path = _path(node) or "linear"
        self.calls[path] = self.calls.get(path, 0) + 1
        return path if self.calls[path] == 1 else f"{path}@{self.calls[path]}"

    def _unsupported(self, node: Node, source: Node) -> None:
        self.opaque.add(node)
        if node.target is operator.getitem and source in self.opaque:
            return  # one of several results of an operation that is already in the list
        hint = next((hint for word, hint in _HINTS.items() if word in str(node.target)), None)
        self._problem(node, f"not supported{': ' + hint if hint else ''}")

    def _problem(self, node: Node, text: str) -> None:
        self.problems.append(f"{_where(node)}: {text}")


def _compare(graph: Graph, inputs: torch.Tensor, expected: Any) -> None:
    """Refuse a graph that does not compute what the module computes: a misread model must never get further."""
    values = inputs.detach().to("cpu", torch.float64).reshape(inputs.shape[0], -1).numpy()
    for layer in graph.layers:
        values = values @ layer.weight.astype(np.float64).T + (0.0 if layer.bias is None else layer.bias)
        values = np.maximum(values, 0.0) if layer.activation == "relu" else values
    (tensor,) = (item for item in torch.utils._pytree.tree_leaves(expected) if isinstance(item, torch.Tensor))
    reference = tensor.detach().to("cpu", torch.float64).reshape(tensor.shape[0], -1).numpy()
    single = tensor.dtype in (torch.float32, torch.float64)
    bound = (1e-3 if single else 5e-2) * max(float(np.abs(reference).max(initial=0.0)), 1e-3)
    if reference.shape != values.shape or not np.allclose(values, reference, rtol=0.0, atol=bound):
        raise ModelError(
            "the imported layers do not compute what the module computes on example_inputs; "
            "make the module a plain chain of Linear and ReLU, and please report this model"
        )


def _ancestors(result: Node | None) -> set[Node]:
    """Every node that `result` depends on, itself included."""
    found: set[Node] = set()
    todo = [] if result is None else [result]
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo.extend(node.all_input_nodes)
    return found


def _argument(node: Node, position: int, name: str) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(getattr(node.meta.get("val"), "shape", ()))


def _dtype(node: Node) -> Any:
    return getattr(node.meta.get("val"), "dtype", None)


def _describe(value: Any) -> str:
    return (
        f"a tensor of shape {tuple(value.shape)}"
        if isinstance(value, torch.Tensor)
        else f"of type {type(value).__name__}"
    )


def _path(node: Node) -> str:
    """Path of the innermost module that the operation belongs to; "" is the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def _where(node: Node) -> str:
    """Module path, operation and source line, as far as they are known."""
    stack = node.meta.get("nn_module_stack") or {}
    kind = list(stack.values())[-1][1] if stack else ""
    kind = (kind if isinstance(kind, str) else getattr(kind, "__name__", "")).rsplit(".", 1)[-1]
    target = getattr(node.target, "__name__", node.target) if node.target is operator.getitem else node.target
    # The innermost frame outside torch is the line the user wrote.
    frames = [match for match in _FRAME.finditer(node.meta.get("stack_trace") or "")]
    own = [match for match in frames if str(Path(torch.__file__).parent) not in match["file"]]
    line = f" at {Path(own[-1]['file']).name}:{own[-1]['line']}" if own else ""
    return f"{_path(node) or '(model)'}{f' ({kind})' if kind else ''} {target}{line}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing printed: what torch.export says is about its own internals, and our errors say the rest."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _evaluation(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for the time being; afterwards every submodule is back in the mode it had."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, training in modes.items():
            child.training = training
