"""Models that torch exports: the suite of small modules, and the whole networks."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

import torch
from torch import nn
from torch.utils import _pytree as pytree

from compiler.errors import ModelError
from compiler.frontend.onnx import from_onnx
from compiler.graph import evaluate
from compiler.graph.ir import Graph
from compiler.graph.passes import run_passes
from compiler.train import zoo as networks
from tests.compiler.frontend.onnx_models import same
from tests.compiler.zoo import ZOO, Case

# The exporters warn about themselves, in words that change from version to version.
pytestmark = pytest.mark.filterwarnings("ignore")

LEFT_OUT = {
    "inner": "the exporter does not know it",
    "average pool divisor": "the exporter forgets the divisor",
    "softmax without checks": "the exporter does not know it",
    "fake quantize": "the exporter does not take its limits",
    "fake quantize channels": "the exporter does not take its limits",
    "written through a view": "the exporter forgets what is written",
    "tensordot": "it is exported as a product with the samples among the rows",
    "integers as numbers": "indices as quantities are not supported",
}


def exported(module: nn.Module, inputs: tuple[Any, ...], dynamo: bool) -> bytes:
    if dynamo:
        batch = tuple({0: torch.export.Dim("batch")} for _ in inputs)
        program = torch.onnx.export(module, inputs, dynamic_shapes=batch, verbose=False)
        assert program is not None
        return program.model_proto.SerializeToString()
    file = io.BytesIO()
    torch.onnx.export(module, inputs, file, dynamo=False)
    return file.getvalue()


def compare(content: bytes, module: nn.Module, inputs: tuple[Any, ...]) -> Graph:
    """The graph computes what the module does, before and after the passes; the latter."""
    graph = from_onnx(content)
    with torch.no_grad():
        wanted = [leaf.numpy() for leaf in pytree.tree_leaves(module(*inputs)) if isinstance(leaf, torch.Tensor)]
    rewritten = run_passes(graph)
    for version in (graph, rewritten):
        made = evaluate.tails(version, evaluate.outputs(version, [tensor.numpy() for tensor in inputs]))
        assert len(made) == len(wanted)
        for one, two in zip(made, wanted, strict=True):
            assert same(one, np.asarray(two), 1e-4), (one.shape, two.shape)
    return rewritten


@pytest.mark.verifies("onnx-small-modules-whole-networks")
@pytest.mark.parametrize("case", [case for case in ZOO if case.name not in LEFT_OUT], ids=str)
def test_small_modules(case: Case) -> None:
    module, inputs = case.make()
    compare(exported(module, inputs, dynamo=False), module, inputs)


@pytest.mark.verifies("onnx-known-supported-refused")
@pytest.mark.parametrize("name", ["tensordot", "integers as numbers"])
def test_what_is_left_out_is_refused(name: str) -> None:
    module, inputs = next(case for case in ZOO if case.name == name).make()
    with pytest.raises(ModelError, match="the model cannot be compiled"):
        from_onnx(exported(module, inputs, dynamo=False))


def network(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    entry = networks.NETWORKS[name]
    torch.manual_seed(0)
    shapes = {"images": (2, 1, 32, 32), "frames": (2, 640)}
    if entry.kind == "text":
        return entry.make().eval(), (torch.randint(0, len(networks.LETTERS), (2, networks.STEPS)),)
    return entry.make().eval(), (torch.randn(shapes[entry.kind]),)


@pytest.mark.verifies("onnx-small-modules-whole-networks")
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_whole_networks(name: str) -> None:
    module, inputs = network(name)
    compare(exported(module, inputs, dynamo=False), module, inputs)


@pytest.mark.verifies("onnx-small-modules-whole-networks")
@pytest.mark.slow
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_whole_networks_through_torch_export(name: str) -> None:
    module, inputs = network(name)
    compare(exported(module, inputs, dynamo=True), module, inputs)


@pytest.mark.verifies("onnx-open-number-samples-names")
def test_batch_left_open(rng: np.random.Generator) -> None:
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5)).eval()
    inputs = (torch.from_numpy(rng.normal(size=(2, 1, 6, 6)).astype(np.float32)),)
    graph = compare(exported(module, inputs, dynamo=True), module, inputs)
    assert [node.op for node in graph] == ["Input", "Conv", "Reshape", "Linear", "Output"]
    assert [node.name for node in graph if node.op in ("Conv", "Linear")] == ["0", "4"]


@pytest.mark.verifies("onnx-open-number-samples-names")
def test_autoencoder_is_one_chain() -> None:
    module, inputs = network("autoencoder")
    graph = compare(exported(module, inputs, dynamo=False), module, inputs)
    assert {node.op for node in graph.nodes[1:-1]} == {"Linear"}
    assert len(graph.nodes) == 12


@pytest.mark.verifies("onnx-small-modules-whole-networks")
def test_rnn_of_relu(rng: np.random.Generator) -> None:
    module = nn.RNN(3, 4, nonlinearity="relu", batch_first=True, bidirectional=True).eval()
    inputs = (torch.from_numpy(rng.normal(size=(2, 5, 3)).astype(np.float32)),)
    compare(exported(module, inputs, dynamo=False), module, inputs)


@pytest.mark.verifies("onnx-open-number-samples-names")
def test_names_are_those_of_modules() -> None:
    module, inputs = network("resnet-8")
    graph = compare(exported(module, inputs, dynamo=False), module, inputs)
    names = [node.name for node in graph if node.op in ("Conv", "Linear")]
    assert names[0] == "stem.conv"
    assert names[-1] == "fc"
