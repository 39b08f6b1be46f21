"""The frontend reads chains of Linear and ReLU exactly, and refuses everything else with all its reasons."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compiler.errors import ModelError
from compiler.frontend import torch_export
from compiler.frontend.torch_export import from_torch
from compiler.ir import Graph
from compiler.train import prune, quantize


def evaluate(graph: Graph, inputs: np.ndarray) -> np.ndarray:
    values = inputs.reshape(len(inputs), -1).astype(np.float64)
    for layer in graph.layers:
        values = values @ layer.weight.astype(np.float64).T
        if layer.bias is not None:
            values = values + layer.bias
        if layer.activation == "relu":
            values = np.maximum(values, 0)
    return values


def assert_same(module: nn.Module, graph: Graph, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = module.eval()(inputs).numpy()
    np.testing.assert_allclose(evaluate(graph, inputs.numpy()), expected.reshape(shape[0], -1), atol=1e-5)


def names(graph: Graph) -> list[tuple[str, str]]:
    return [(layer.name, layer.activation) for layer in graph.layers]


class Functional(nn.Module):
    """Functional calls, nested modules, and everything that leaves values alone."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, 5, bias=False))
        self.identity = nn.Identity()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu_(self.encoder(x)).clone().detach()
        hidden = F.dropout(self.identity(hidden), training=self.training).view(-1, 5, 1).squeeze(2)
        return self.head(hidden.unsqueeze(1).flatten(1)).reshape(x.shape[0], -1)


class Shared(nn.Module):
    """One layer under two names, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.inner = nn.ModuleDict({"b": self.a})

    def forward(self, x: Tensor) -> Tensor:
        return self.inner["b"](self.a(F.relu(self.a(x))))


class Matrices(nn.Module):
    """Linear algebra written out."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.arange(12.0).reshape(4, 3))
        self.c = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.c, x, self.w).relu() @ torch.eye(3).t()


def test_sequential_is_read_by_name() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2))
    graph = from_torch(module, torch.zeros(2, 4))
    assert names(graph) == [("0", "relu"), ("2", "none")]
    np.testing.assert_array_equal(graph.layers[0].weight, module[0].weight.detach().numpy())
    np.testing.assert_array_equal(graph.layers[1].bias, module[2].bias.detach().numpy().astype(np.float64))


def test_functional_nested_and_neutral_operations() -> None:
    module = Functional()
    graph = from_torch(module, torch.ones(2, 2, 3))
    assert names(graph) == [("encoder.2", "relu"), ("head", "none")]
    assert graph.layers[0].bias is None
    assert_same(module, graph, (2, 2, 3))


def test_shared_modules_and_repeated_calls() -> None:
    module = Shared()
    graph = from_torch(module, torch.ones(1, 4))
    assert [name for name, _ in names(graph)] == ["a", "a@2", "inner.b"]
    assert_same(module, graph, (3, 4))


def test_matrix_products_written_out() -> None:
    module = Matrices()
    graph = from_torch(module, torch.ones(2, 4))
    assert names(graph) == [("linear", "relu"), ("linear@2", "none")]
    assert_same(module, graph, (2, 4))


def test_parametrized_modules() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    prune.prune(module[0], 0.25)
    quantize.attach(module[2], 2)
    graph = from_torch(module, torch.ones(1, 8))
    assert names(graph) == [("0", "relu"), ("2", "none")]
    assert np.count_nonzero(graph.layers[0].weight) == 16
    assert len(np.unique(graph.layers[1].weight)) == 3
    assert_same(module, graph, (5, 8))


def test_modes_and_example_are_left_alone() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.ReLU())
    module[1].eval()
    example = torch.ones(1, 4)
    from_torch(module, (example,))
    assert [child.training for child in module.modules()] == [True, True, False, True]
    assert torch.equal(example, torch.ones(1, 4))


def test_half_precision_weights_become_float32() -> None:
    graph = from_torch(nn.Linear(4, 4).bfloat16(), torch.ones(1, 4, dtype=torch.bfloat16))
    assert graph.layers[0].weight.dtype == np.float32


class Unsupported(nn.Module):
    """Four operations that are not supported, at four places."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
        self.act = nn.GELU()
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.norm(self.act(self.block(x))), -1)


def test_all_unsupported_operations_are_listed_with_their_paths() -> None:
    with pytest.raises(ModelError) as caught:
        from_torch(Unsupported(), torch.zeros(2, 4))
    text = str(caught.value)
    assert "4 problems" in text
    for path, operation in [
        (r"block\.1 \(BatchNorm1d\)", "batch_norm"),
        (r"act \(GELU\)", "gelu"),
        (r"norm \(LayerNorm\)", "layer_norm"),
        (r"\(model\) \(Unsupported\)", "softmax"),
    ]:
        assert re.search(rf"^  {path} aten\S*{operation}.* at test_frontend\.py:\d+: ", text, re.MULTILINE), path
    assert "supported is a chain of Linear and ReLU" in text
    assert "fuse_linear_bn_eval" in text


class Body(nn.Module):
    """A module whose forward is a function given to it."""

    def __init__(self, body: Callable[[Body, Tensor], Any]) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.relu = nn.ReLU()
        self.register_buffer("count", torch.zeros(1))
        self.body = body

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def counting(module: Body, x: Tensor) -> Tensor:
    module.count += 1
    return module.fc(x)


def writing(module: Body, x: Tensor) -> Tensor:
    x.mul_(2)
    return module.fc(x)


REFUSED: dict[str, tuple[Callable[[Body, Tensor], Any], list[str]]] = {
    "residual": (lambda m, x: m.fc(x) + x, ["joins two values", "x: its value goes to 2 places"]),
    "reused layer output": (lambda m, x: m.fc(x) * m.fc(x), ["joins two values", "goes to 2 places"]),
    "two outputs": (lambda m, x: (m.fc(x), m.fc(x).relu()), ["returns 2 values", "fc (Linear)"]),
    "hidden value returned too": (lambda m, x: (lambda y: (y, m.fc(y)))(m.fc(x)), ["returns 2 values"]),
    "relu first": (lambda m, x: m.fc(m.relu(x)), ["relu (ReLU)", "there is no Linear before it"]),
    "relu only": (lambda m, x: m.relu(x), ["there is no Linear before it"]),
    "no linear": (lambda m, x: x.clone(), ["no Linear layer"]),
    "constant": (lambda m, x: m.fc(torch.ones(1, 4)), ["does not depend on the input"]),
    "bias by hand": (lambda m, x: m.fc(x) + 1, ["aten.add.Tensor", "fold a constant into the bias"]),
    "dropout left on": (lambda m, x: F.dropout(m.fc(x)), ["dropout", "training=self.training"]),
    "random weights": (lambda m, x: x @ torch.rand(4, 4), ["rand", "not the same in every run"]),
    "weights from input": (lambda m, x: torch.ones(2, 2) @ m.fc(x), ["weights depend on the input"]),
    "scaled addmm": (lambda m, x: torch.addmm(m.fc.bias, x, m.fc.weight, beta=2), ["beta and alpha"]),
    "batch flattened": (lambda m, x: m.fc(x).flatten(0), ["(2, 4) into (8,)", "batch must stay first"]),
    "batch moved": (lambda m, x: m.fc(x).reshape(4, 2), ["(2, 4) into (4, 2)"]),
    "transposed": (lambda m, x: m.fc(x).t(), ["not supported"]),
    "sequence": (lambda m, x: m.fc(x.view(2, 1, 4)), ["shape (2, 1, 4); expected (batch, 4)"]),
    "buffer changed": (counting, ["count: the forward changes it"]),
    "input changed": (writing, ["x: the forward changes it"]),
    "control flow": (lambda m, x: m.fc(x) if x.sum() > 0 else x, ["torch.export cannot read Body", "control flow"]),
    "does not run": (lambda m, x: m.fc(x[:, :3]), ["fails on example_inputs (a tensor of shape (2, 4))"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    body, expected = REFUSED[case]
    with pytest.raises(ModelError) as caught:
        from_torch(Body(body), torch.ones(2, 4))
    for text in expected:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("module", "example", "text"),
    [
        (3, torch.ones(1, 4), "of type int"),
        (nn.Linear(4, 4), torch.ones(4), r"shape \(4,\); expected one tensor"),
        (nn.Linear(4, 4), (), "nothing; expected one tensor"),
        (nn.Linear(4, 4), (torch.ones(1, 4), 2), "of type int; expected one tensor"),
    ],
)
def test_wrong_arguments(module: Any, example: Any, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        from_torch(module, example)


def test_weights_that_are_not_finite() -> None:
    module = nn.Linear(4, 4)
    with torch.no_grad():
        module.weight[1, 2] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        from_torch(module, torch.ones(1, 4))


def test_refusal_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for case in ("control flow", "residual"):
        with pytest.raises(ModelError):
            from_torch(Body(REFUSED[case][0]), torch.ones(2, 4))
    assert capfd.readouterr() == ("", "")


def test_planted_misreading_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    # If GELU were taken for an identity, the comparison with the module itself would catch it.
    monkeypatch.setattr(torch_export, "_IDENTITY", {*torch_export._IDENTITY, "aten.gelu.default"})
    with pytest.raises(ModelError, match="do not compute what the module computes"):
        from_torch(nn.Sequential(nn.Linear(4, 4), nn.GELU()), torch.ones(2, 4))
