"""`verify` of both forms of a network names everything that is wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from compiler.errors import EieError, ModelError, ToolError
from compiler.graph.dense import Dense
from compiler.graph.ir import Graph
from compiler.graph.operators import make, verify
from compiler.lower.chain import Chain
from tests.compiler.networks import SMALL, network


def graph(*layers: Dense) -> Graph:
    """Without the check that `dense_graph` makes."""
    nodes = [make("Input", "x", shape=(4,))]
    for layer in layers:
        tensors = {"weight": layer.weight} | ({} if layer.bias is None else {"bias": layer.bias})
        nodes.append(make("Linear", layer.name, nodes[-1].name, tensors=tensors, activation=layer.activation))
    return Graph((*nodes, make("Output", "y", nodes[-1].name)))


def layer(name: str = "a", shape: tuple[int, ...] = (3, 4), **changes: Any) -> Dense:
    return dataclasses.replace(Dense(name, np.ones(shape, np.float32)), **changes)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([layer(), layer(shape=(2, 3))], "a: the name 'a' is used twice"),
        ([layer(), layer("b", (2, 4))], r"b: it reads \(3,\); its weight \(2, 4\) takes"),
        ([layer(shape=(0, 4))], r"a: weight is float32 \(0, 4\)"),
        ([layer(shape=(4,))], r"a: weight is float32 \(4,\)"),
        ([layer(weight=np.ones((3, 4), np.int64))], "a: weight is int64"),
        ([layer(weight=np.full((3, 4), np.nan, np.float32))], "a: weight is not finite"),
        ([layer(bias=np.zeros(4))], r"a: bias is float64 \(4,\); expected float \(3,\)"),
        ([layer(bias=np.zeros(3, np.int64))], "a: bias is int64"),
        ([layer(bias=np.array([0, np.inf, 0]))], "a: bias is not finite"),
        ([layer(activation="tanh")], "a: activation 'tanh'"),
    ],
)
def test_a_bad_graph_is_refused(layers: list[Dense], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        verify(graph(*layers))


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ModelError, match=r"activation 'tanh'.*takes \(…, 5\)"):
        verify(
            Graph(
                (
                    *graph(layer(activation="tanh")).nodes,
                    make("Linear", "b", "x", tensors={"weight": np.ones((2, 5), np.float32)}),
                )
            )
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": np.full((6, 9), 16, np.uint8)}, "code 16; expected less than 16"),
        ({"codes": np.zeros((6, 9), np.int64)}, "codes are int64"),
        ({"codes": np.zeros((6, 8), np.uint8)}, "takes 8 inputs; the layer before has 9 outputs"),
        ({"codebook": np.zeros(8, np.int16)}, r"codebook is int16 \(8,\)"),
        ({"codebook": np.ones(16, np.int16)}, "code 0 is 1"),
        ({"bias": np.zeros(5, np.int64)}, r"bias is int64 \(5,\)"),
        ({"bias": np.full(6, 1 << 39)}, "bias does not fit 40 bits"),
        ({"bias": np.full(6, -(1 << 39) - 1)}, "bias does not fit 40 bits"),
        ({"shift": 32}, "shift is 32"),
        ({"shift": -1}, "shift is -1"),
        ({"activation": "tanh"}, "activation 'tanh'"),
        ({"weight_exponent": 5}, "output exponent .* is not input"),
        ({"input_exponent": 77}, "input exponent 77; the layer before puts out"),
    ],
)
def test_a_bad_fixed_point_graph_is_refused(change: dict[str, Any], message: str, rng: np.random.Generator) -> None:
    first, second = network(rng, SMALL, [5, 9, 6], 0.5).layers
    Chain((first, second), SMALL).verify()
    with pytest.raises(ModelError, match=message):
        Chain((first, dataclasses.replace(second, **change)), SMALL).verify()


def test_errors_are_one_family_with_exit_codes() -> None:
    assert (EieError.exit_code, ModelError.exit_code, ToolError.exit_code) == (2, 2, 3)
    assert issubclass(ModelError, EieError)
    assert issubclass(ToolError, EieError)
