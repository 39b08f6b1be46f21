"""The gate: a graph that computes something else than the module goes no further, and the message says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compiler.errors import ModelError
from compiler.frontend import torch_ops
from compiler.frontend.gate import check_outputs
from compiler.frontend.torch_call import Call, Value
from compiler.frontend.torch_export import check_against, from_torch
from compiler.graph.ir import Graph
from tests.compiler.zoo import ZOO, Body

CASES = {case.name: case for case in ZOO}


def identity(call: Call) -> Value:
    return call.x


def changed(name: str, **changes: Any) -> Any:
    """The translation of an operation, with arguments misread."""

    def translate(call: Call) -> Any:
        call.arguments.update(changes)
        return ORIGINAL[name](call)

    return translate


ORIGINAL = dict(torch_ops.TRANSLATIONS)

PLANTED = {
    "gelu": ("gelu", identity),
    "hardswish": ("hardswish", ORIGINAL["silu"]),
    "gelu tanh": ("gelu", changed("gelu", approximate="none")),
    "leaky relu": ("leaky_relu", changed("leaky_relu", negative_slope=0.1001)),
    "add two": ("add", changed("add", alpha=0.5)),
    "batch norm 2d": ("batch_norm", changed("batch_norm", eps=1e-3)),
    "batch norm, written in place": ("_native_batch_norm_legit_no_training", changed(
        "_native_batch_norm_legit_no_training", eps=1e-3)),
    "relu6": ("relu6", ORIGINAL["relu"]),
    "chunk": ("split", lambda call: tuple(reversed(ORIGINAL["split"](call)))),
    "log softmax of channels": ("log_softmax", ORIGINAL["softmax"]),
}  # fmt: skip
"""Case of the zoo → the operation whose translation is wrong, and how."""


@pytest.mark.verifies("gate-planted-translations-shapes-cells")
@pytest.mark.parametrize("name", PLANTED)
def test_planted_translation_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, wrong = PLANTED[name]
    module, inputs = CASES[name].make()
    from_torch(module, inputs)
    monkeypatch.setitem(torch_ops.TRANSLATIONS, op, wrong)
    with pytest.raises(ModelError, match=r"output '\S+' of the graph differs .* please report"):
        from_torch(module, inputs)


@pytest.mark.verifies("gate-planted-translations-shapes-cells")
def test_result_of_another_shape_is_caught_where_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def flat(call: Call) -> Value:
        return call.value(call.emit("Reshape", call.x.name, shape=(96,)), 0)

    monkeypatch.setitem(torch_ops.TRANSLATIONS, "relu", flat)
    with pytest.raises(ModelError, match=r"relu.* a tensor of shape \(3, 2, 6, 8\), .* has \(96,\) a sample"):
        from_torch(*CASES["relu"].make())


@pytest.mark.verifies("gate-planted-translations-shapes-cells")
def test_cells_of_a_recurrent_layer_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    from compiler.frontend import cells

    step, names = cells.CELLS["lstm"]
    swapped = lambda builder, name, x, states, weights: step(builder, name, x, states[::-1], weights)  # noqa: E731
    monkeypatch.setitem(cells.CELLS, "lstm", (swapped, names))
    # Both states begin at zero: only the second step tells them apart.
    with pytest.raises(ModelError, match="differs"):
        from_torch(*CASES["lstm"].make())


def graph_of(body: Any, x: torch.Tensor) -> Graph:
    return from_torch(Body(body), x)


@pytest.mark.verifies("gate-nan-overflow-float32-named")
def test_overflow_of_float32_is_named() -> None:
    with pytest.raises(ModelError, match=r"'output' of the model is infinite in 8 of 8 .* float32 overflows"):
        from_torch(Body(lambda m, x: x * 1e30 * 1e30), torch.ones(2, 4))
    with pytest.raises(ModelError, match=r"'output' of the model is NaN in 8 of 8 .* float32 overflows"):
        from_torch(Body(lambda m, x: x * 1e38 * 10 - x * 1e38 * 10), torch.ones(2, 4))


def test_graph_that_is_not_finite_is_named() -> None:
    graph = graph_of(lambda m, x: x * 1e38, torch.ones(2, 4))
    with pytest.raises(ModelError, match=r"'output' of the graph is infinite in 1 of 8 numbers"):
        check_outputs(graph, [np.array([[1.0] * 4, [1e300] + [1.0] * 3])], [(np.ones((1, 2, 4)) * 1e38, 1.0)])


def test_number_of_outputs_and_shapes() -> None:
    x = torch.ones(2, 4)
    graph = graph_of(lambda m, x: x * 2, x)
    check_against(graph, {"any": x * 2}, x)
    with pytest.raises(ModelError, match="the model returns 2 tensors; its graph has 1 output"):
        check_against(graph, (x * 2, x), x)
    with pytest.raises(ModelError, match=r"has shape \(2, 4\), the model's \(2, 5\)"):
        check_against(graph, torch.ones(2, 5), x)
    with pytest.raises(ModelError, match=r"up to 1 on example_inputs, where the largest number is 3"):
        check_against(graph, x * 3, x)


@pytest.mark.verifies("gate-nan-overflow-float32-named")
def test_argmax_may_differ_only_between_near_ties() -> None:
    x = torch.tensor([[1.0, 1.0 + 1e-7, 0.0]])
    graph = graph_of(lambda m, x: x.argmax(1), x)
    for place in (0, 1):
        check_against(graph, torch.tensor([place]), x)
    with pytest.raises(ModelError, match="differs"):
        check_against(graph, torch.tensor([2]), x)


def test_a_difference_below_float32s_rounding_needs_float64() -> None:
    x = torch.ones(2, 4)
    graph = graph_of(lambda m, x: x * 2, x)
    check_against(graph, x * 2.0002, x)
    with pytest.raises(ModelError, match="differs"):
        check_against(graph, x.double() * 2.0002, x.double(), 1e-5)


@pytest.mark.verifies("gate-misreading-example-inputs-do")
def test_a_misreading_that_the_examples_do_not_reach_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(torch_ops.TRANSLATIONS, "relu6", ORIGINAL["relu"])
    for examples in (torch.zeros(2, 16), torch.ones(2, 16)):
        with pytest.raises(ModelError, match="differs"):
            from_torch(Body(lambda m, x: torch.nn.functional.relu6(x)), examples)


def test_modules_that_cannot_run_in_float64_are_compared_in_float32() -> None:
    module = Body(lambda m, x: m.fc(x.float()), fc=nn.Linear(4, 4))
    assert from_torch(module, torch.ones(2, 4)).outputs
