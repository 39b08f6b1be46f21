"""ONNX models by hand, and the comparison with onnx's reference implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from compiler.frontend.onnx import from_onnx
from compiler.graph import evaluate
from compiler.graph.ir import Graph
from compiler.graph.operators import types
from compiler.graph.passes import run_passes

Array = NDArray[Any]
OPSET = 20


def node(op: str, reads: str, makes: str = "y", name: str = "", **attributes: Any) -> onnx.NodeProto:
    """`reads` and `makes` are names with spaces between; "-" leaves an input out."""
    inputs = ["" if name == "-" else name for name in reads.split()]
    return helper.make_node(op, inputs, makes.split(), name=name or f"the_{op}_{makes.split()[0]}", **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    shapes: Mapping[str, Sequence[int | str | None]],
    weights: Mapping[str, Array] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = OPSET,
    kinds: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    kinds = kinds or {}
    inputs = [
        helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape) for name, shape in shapes.items()
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "net", inputs, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def read(given: onnx.ModelProto) -> Graph:
    return from_onnx(given.SerializeToString())


def check(given: onnx.ModelProto, rng: np.random.Generator, batch: int = 3, rtol: float = 1e-5) -> Graph:
    """Graph, and graph after all passes, compute what onnx's reference implementation does; the graph."""
    graph = read(given)
    found = types(graph)
    arrays: dict[str, Array] = {}
    for item in graph.inputs:
        full = (batch, *found[item.output].shape)
        whole = item["kind"] == "index"
        arrays[item.name] = rng.integers(0, 3, full) if whole else rng.normal(size=full).astype(np.float32)
    wanted = ReferenceEvaluator(given).run(None, arrays)
    for version in (graph, run_passes(graph)):
        made = evaluate.tails(version, evaluate.outputs(version, list(arrays.values())))
        for one, two in zip(made, wanted, strict=True):
            assert same(one, np.asarray(two), rtol), (one.shape, two.shape)
    return graph


def same(sample_first: Array, tensor: Array, rtol: float) -> bool:
    """Whether they agree with the samples along any axis; an argmax may keep its axis."""
    for axis in range(tensor.ndim):
        moved = np.moveaxis(tensor, axis, 0)
        if moved.size == sample_first.size and moved.shape[0] == len(sample_first):
            near = np.abs(moved.reshape(sample_first.shape) - sample_first).max() <= rtol * max(
                1.0, np.abs(moved).max()
            )
            if near:
                return True
    return False
