"""Read a torch module into the operator graph through `torch.export`.

The exported program is walked once. What does not depend on the input (masks, shared weights, transposed parameters) is
evaluated; each operation that does is translated by the table of `torch_ops`. What cannot be translated is collected
and reported together, so that a model is judged in one go; and the graph must compute what the module computes.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from compiler.errors import ModelError
from compiler.frontend import torch_module
from compiler.frontend.builder import Builder
from compiler.frontend.gate import check_outputs
from compiler.frontend.torch_call import Call, Refused, Value, kind_of, line_of, operation, path_of, shape_of, where
from compiler.frontend.torch_elementwise import ELEMENTWISE
from compiler.frontend.torch_ops import ATTENTION, SUPPORTED, TRANSLATIONS, hint
from compiler.graph.ir import Graph, Type
from compiler.graph.operators import verify
from compiler.graph.shapes import Wrong

__all__ = ["check_against", "from_torch"]


def from_torch(module: nn.Module, example_inputs: Tensor | tuple[Any, ...]) -> Graph:
    """The operator graph of a module.

    Nodes are named by module path ("encoder.fc1"); what is called again gets "@2", "@3", … The module is exported in
    evaluation mode; its own mode is left as it was. Fake quantization keeps its scales, its observers are off.

    Parameters
    ----------
    module : the model; parametrized, nested and shared submodules are fine, and half or double precision.
    example_inputs : what its forward takes: tensors of shape (batch, ...), integers where they are positions.

    Raises
    ------
    ModelError
        The module cannot be exported or has operations that are not supported: the message lists each with its module
        path and source line. Or it computes something that is not finite, or something else than its graph.
    """
    given = torch_module.check_inputs(module, example_inputs)
    ready, inputs = torch_module.prepare(module, given)
    with torch_module.evaluation(ready), torch.no_grad():
        expected = torch_module.call(ready, inputs)
        with torch_module.quiet():
            program = torch_module.export(ready, inputs, TRANSLATIONS, SUPPORTED)
            graph = _Translator(program, _output_names(expected)).graph()
        verify(graph)
        probed = torch_module.probe(ready, inputs) if _sharp(graph) else None
    check_against(graph, expected, inputs)
    if probed is not None:
        check_against(graph, probed[1], probed[0], 1e-5)
    return graph


def check_against(
    graph: Graph, module_outputs: Any, example_inputs: Tensor | tuple[Any, ...], bound: float | None = None
) -> None:
    """Refuse a graph that does not compute what the module computes: a misread model must never get further.

    Parameters
    ----------
    module_outputs : what the module returned for the example inputs: tensors, also in tuples or dictionaries.
    bound : largest difference, as a part of an output's largest number; without it, what float32 needs.

    Raises
    ------
    ModelError
        Saying which output is NaN, infinite or different, and how far.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    expected = [_array(leaf) for leaf in pytree.tree_leaves(module_outputs) if isinstance(leaf, Tensor)]
    bound = bound if bound is not None else 1e-3 if _sharp(graph) else 5e-2
    check_outputs(graph, [_array(tensor) for tensor in inputs], [(expected, bound)])


def _sharp(graph: Graph) -> bool:
    """Nothing rounds: where it does, float32 and float64 may fall to different sides."""
    return all(node.op != "FakeQuantize" for node in graph)


def _array(tensor: Tensor) -> Any:
    single = tensor.detach().cpu()
    return (single.to(torch.float64) if single.is_floating_point() else single).numpy()


def _output_names(expected: Any) -> list[str]:
    """Of each leaf of what the module returned: its key, or "output" with its place."""
    names = []
    for path, _ in pytree.tree_flatten_with_path(expected)[0]:
        keys = [getattr(key, "key", getattr(key, "idx", getattr(key, "name", ""))) for key in path]
        lead = [] if keys and isinstance(keys[0], str) else ["output"]
        names.append(".".join(map(str, [*lead, *keys])))
    return names


class _Translator:
    """Walks an exported program; builds the graph and gathers the problems."""

    def __init__(self, program: torch.export.ExportedProgram, names: list[str]) -> None:
        self.program = program
        self.names = names
        self.builder = Builder()
        self.constants: dict[Node, Any] = {}
        self.values: dict[Node, Value | tuple[Value, ...]] = {}
        self.opaque: set[Node] = set()  # what could not be read: of what follows, only unknown operations are listed
        self.lost: set[Node] = set()  # of these, what depends on the input
        self.problems: list[str] = []
        self.quantization: list[str] = []

    def graph(self) -> Graph:
        """The graph, or every problem."""
        results = self._results()
        live = _ancestors([result for _, result in results])
        self._inputs(live)
        for node in self.program.graph.nodes:
            if node in live and node.op != "placeholder":
                self.builder.source = f"{operation(node)} at {line_of(node) or 'an unknown line'}"
                self._visit(node)
        self.builder.source = ""
        for name, result in results:
            self._output(name, result)
        if self.quantization:
            rest = f" (and {len(self.quantization) - 1} more)" if len(self.quantization) > 1 else ""
            self.problems.append(
                f"quantization-aware module: {self.quantization[0]}{rest}; use observers whose scales are powers of "
                "two and zero points are 0, or compile the float module, which is quantized with scales of its own"
            )
        if self.problems:
            raise ModelError(
                f"the model cannot be compiled, {len(self.problems)} problem{'s' * (len(self.problems) > 1)}:\n"
                + "".join(f"  {problem}\n" for problem in self.problems)
                + f"supported is {SUPPORTED}"
            )
        return self.builder.graph()

    def _results(self) -> list[tuple[str, Node]]:
        """The tensors that the module returns, with their names."""
        output = next(node for node in self.program.graph.nodes if node.op == "output")
        arguments: tuple[Any, ...] = tuple(output.args[0])
        returned: list[Any] = []
        for spec, argument in zip(self.program.graph_signature.output_specs, arguments, strict=True):
            if spec.kind is OutputKind.USER_OUTPUT:
                returned.append(argument)
            else:
                self.problems.append(f"{spec.target}: the forward changes it ({spec.kind.name.lower()})")
        found = []
        for name, argument in zip(self.names, returned, strict=True):
            if isinstance(argument, Node):
                found.append((name, argument))
            elif argument is not None:
                self.problems.append(f"{name}: the module returns a value of type {type(argument).__name__}")
        if not found:
            self.problems.append("the module returns no tensor")
        return found

    def _inputs(self, live: set[Node]) -> None:
        """Give every placeholder its constant value, or make it an input of the graph."""
        tensors = {**self.program.state_dict, **self.program.constants}
        placeholders = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, self.program.graph_signature.input_specs, strict=True):
            if spec.kind is InputKind.USER_INPUT:
                shape = shape_of(node)
                kind = "index" if _is_index(node, live) else "real"
                self.values[node] = Value(self.builder.add("Input", node.name, shape=shape[1:], kind=kind), 0, shape)
            elif spec.target in tensors:
                self.constants[node] = tensors[spec.target]
            elif node in live:
                self.problems.append(f"{spec.target}: {spec.kind.name.lower()} inputs are not supported")
                self.opaque.add(node)

    def _visit(self, node: Node) -> None:
        if not any(source in self.values or source in self.lost for source in node.all_input_nodes):
            self._evaluate(node)
        elif self.opaque.intersection(node.all_input_nodes):
            self._follow(node)
        else:
            try:
                self.values[node] = self._translate(node)
            except (Refused, Wrong) as error:
                self._refuse(node, error)
                self._stand_in(node)

    def _translate(self, node: Node) -> Value | tuple[Value, ...]:
        if node.target is operator.getitem:
            results, place = (self._known(argument) for argument in node.args)
            if place >= len(results):
                raise Refused(f"result {place} of {operation(node.all_input_nodes[0])} is not supported")
            chosen: Value = results[place]
            return chosen
        call = Call(node, self.builder, self._known)
        if call.op not in TRANSLATIONS and ("fake_quant" in call.op or "quantize" in call.op):
            raise Refused(f"{operation(node)} is not supported", quantization=True)
        if call.op not in TRANSLATIONS:
            raise _unknown(node)
        return TRANSLATIONS[call.op](call)

    def _known(self, argument: Any) -> Any:
        """What an argument is: a value of the graph, a constant where it is known, else as it stands."""
        if not isinstance(argument, Node):
            return argument
        return self.values[argument] if argument in self.values else self.constants[argument]

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

    def _follow(self, node: Node) -> None:
        """An operation on what could not be read: its name can still be judged."""
        self.opaque.add(node)
        self.lost.add(node)
        op = str(node.target).split(".")
        if node.target is not operator.getitem and op[1:2] and op[1] not in TRANSLATIONS:
            self._refuse(node, _unknown(node))

    def _refuse(self, node: Node, error: Exception) -> None:
        if isinstance(error, Refused) and error.quantization:
            self.quantization.append(f"{where(node)}: {error}")
        elif kind_of(node).endswith(".MultiheadAttention"):  # one problem, not one for each of its operations
            text = f"{path_of(node) or '(model)'} (MultiheadAttention): not supported: {ATTENTION}"
            self.problems += [text] * (text not in self.problems)
        else:
            self._problem(node, str(error))

    def _stand_in(self, node: Node) -> None:
        """After a problem: values of the right shape, so that what follows is judged too."""
        made = node.meta.get("val")
        source = next(source for source in node.all_input_nodes if source in self.values)
        given = self.values[source]
        before = given if isinstance(given, Value) else given[0]
        size = before.shape[before.samples]
        found = []
        for tensor in made if isinstance(made, tuple | list) else [made]:
            shape = tuple(getattr(tensor, "shape", ()))
            fits = [n for n, length in enumerate(shape) if length == size]
            if not fits:
                self.opaque.add(node)
                self.lost.add(node)
                return
            samples = before.samples if before.samples in fits else fits[0]
            kind = Type(shape[:samples] + shape[samples + 1 :])
            found.append(Value(self.builder.placeholder("?", kind), samples, shape))
        self.values[node] = tuple(found) if isinstance(made, tuple | list) else found[0]

    def _output(self, name: str, result: Node) -> None:
        if result in self.opaque:
            return
        value = self.values.get(result)
        if not isinstance(value, Value):
            self.problems.append(f"{name}: the output does not depend on the input")
            return
        self.builder.add("Output", name, value.name, then=value.tail, axis=value.tail_axis)

    def _problem(self, node: Node, text: str) -> None:
        self.problems.append(f"{where(node)}: {text}")


def _unknown(node: Node) -> Refused:
    advice = hint(node.target)
    return Refused(f"not supported{': ' + advice if advice else ''}")


def _is_index(node: Node, live: set[Node]) -> bool:
    """Integers are positions in a table, but for those that are turned into floats or calculated with at once."""
    value = node.meta.get("val")
    if value is None or value.is_floating_point():
        return False
    users = [str(user.target).split(".") for user in node.users if user in live]
    return not users or not all(user[1:2] == ["_to_copy"] or user[1] in ELEMENTWISE for user in users)


def _ancestors(results: list[Node]) -> set[Node]:
    """Every node that the results depend on, they included."""
    found: set[Node] = set()
    todo = list(results)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo.extend(node.all_input_nodes)
    return found
