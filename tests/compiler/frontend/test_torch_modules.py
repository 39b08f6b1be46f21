"""What modules are made of: shared and parametrized layers, number formats, storage, fake quantization, names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compiler.errors import ModelError
from compiler.frontend.torch_export import from_torch
from compiler.graph.evaluate import outputs
from compiler.graph.ir import Graph
from compiler.train import prune, quantize
from tests.compiler.zoo import RECURRENT, Body, Case


def named(graph: Graph) -> list[tuple[str, str]]:
    return [(node.name, node.op) for node in graph if node.op not in ("Input", "Output")]


def assert_same(module: nn.Module, graph: Graph, *shape: int, bound: float = 1e-5) -> None:
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = module.eval()(inputs).numpy()
    np.testing.assert_allclose(outputs(graph, [inputs.numpy()])[0], expected, atol=bound)


def weight(graph: Graph, name: str) -> Any:
    return next(node for node in graph if node.name == name).tensors["weight"]


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


def test_sequential_is_read_by_name_and_weights_stay_as_they_are() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2))
    graph = from_torch(module, torch.zeros(2, 4))
    assert named(graph) == [("0", "Linear"), ("1", "Activation"), ("2", "Linear")]
    np.testing.assert_array_equal(weight(graph, "0"), module[0].weight.detach().numpy())
    assert weight(graph, "0").dtype == np.float32
    bias = graph.producer("2").tensors["bias"]
    np.testing.assert_array_equal(bias, module[2].bias.detach().numpy().astype(np.float64))
    assert graph.producer("0").source.startswith("aten.linear.default at ")


def test_functional_nested_and_neutral_operations() -> None:
    module = Functional()
    graph = from_torch(module, torch.ones(2, 2, 3))
    assert [(name, op) for name, op in named(graph) if op != "Reshape"] == [
        ("encoder.2", "Linear"),
        ("relu", "Activation"),
        ("head", "Linear"),
    ]
    assert "bias" not in graph.producer("encoder.2").tensors
    assert_same(module, graph, 2, 2, 3)


@pytest.mark.verifies("torch-frontend-shared-tied-parametrized")
def test_shared_modules_and_repeated_calls() -> None:
    module = Shared()
    graph = from_torch(module, torch.ones(1, 4))
    assert [name for name, op in named(graph) if op == "Linear"] == ["a", "a@2", "inner.b"]
    assert all(np.shares_memory(weight(graph, name), weight(graph, "a")) for name in ("a@2", "inner.b"))
    assert_same(module, graph, 3, 4)


@pytest.mark.verifies("torch-frontend-shared-tied-parametrized")
def test_tied_weights() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    module[2].weight = module[0].weight
    graph = from_torch(module, torch.ones(1, 4))
    assert np.shares_memory(weight(graph, "0"), weight(graph, "2"))
    assert_same(module, graph, 3, 4)


@pytest.mark.verifies("torch-frontend-shared-tied-parametrized")
def test_parametrized_modules() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    prune.prune(module[0], 0.25)
    quantize.attach(module[2], 2)
    graph = from_torch(module, torch.ones(1, 8))
    assert [name for name, op in named(graph) if op == "Linear"] == ["0", "2"]
    assert np.count_nonzero(weight(graph, "0")) == 16
    assert len(np.unique(weight(graph, "2"))) == 3
    assert_same(module, graph, 5, 8)


@pytest.mark.verifies("torch-frontend-shared-tied-parametrized")
def test_cells_of_a_loop_share_their_weights() -> None:
    case = next(case for case in RECURRENT if case.name == "lstm cell in a loop")
    graph = from_torch(*case.make())
    gates = [node.tensors["weight"] for node in graph if node.op == "Linear"]
    assert len(gates) == 4
    assert all(array is gates[0] for array in gates)


def test_modes_and_example_are_left_alone() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.ReLU())
    module[1].eval()
    example = torch.ones(1, 4)
    from_torch(module, (example,))
    assert [child.training for child in module.modules()] == [True, True, False, True]
    assert torch.equal(example, torch.ones(1, 4))


@pytest.mark.verifies("torch-frontend-half-double-precision")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("same", [True, False])
def test_other_precisions_are_read_exactly(dtype: torch.dtype, same: bool) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()).to(dtype)
    nn.init.uniform_(module[0].weight, -1, 1)
    graph = from_torch(module, torch.ones(2, 4, dtype=dtype if same else torch.float32))
    found = weight(graph, "0")
    assert found.dtype == (np.float64 if dtype is torch.float64 else np.float32)
    np.testing.assert_array_equal(found, module[0].weight.detach().double().numpy())
    assert module[0].weight.dtype is dtype


@pytest.mark.verifies("torch-frontend-half-double-precision")
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda w: w.to_sparse_csr(), r"0\.weight is stored as sparse_csr; make it dense"),
        (lambda w: w.to_sparse(), r"0\.weight is stored as sparse_coo; make it dense"),
        (lambda w: w.to("meta"), r"0\.weight has no data"),
        (lambda w: w.to(torch.complex64), r"0\.weight is torch\.complex64"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_storage_that_is_not_dense_floats(change: Any, text: str) -> None:
    module = nn.Sequential(nn.Linear(4, 4))
    module[0].weight = nn.Parameter(change(module[0].weight.detach()))
    with pytest.raises(ModelError, match=text):
        from_torch(module, torch.ones(1, 4))


@pytest.mark.verifies("torch-frontend-half-double-precision")
def test_weights_that_are_not_finite() -> None:
    module = nn.Sequential(nn.Linear(4, 4))
    with torch.no_grad():
        module[0].weight[1, 2] = torch.nan
    with pytest.raises(ModelError, match=r"0 \(Linear\) .*weight is not finite"):
        from_torch(module, torch.ones(1, 4))


class Faked(nn.Module):
    """Linear layers between fake quantization of given scales, as quantization-aware training leaves them."""

    def __init__(self, *scales: float, zero: int = 0) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.scales, self.zero = scales, zero

    def forward(self, x: Tensor) -> Tensor:
        for scale in self.scales:
            x = torch.fake_quantize_per_tensor_affine(x, scale, self.zero, -128, 127)
        return self.fc(x)


def test_fake_quantization_keeps_its_power_of_two() -> None:
    module = Faked(2.0**-5, 0.25)
    graph = from_torch(module, torch.ones(1, 4))
    found = [dict(node.attributes) for node in graph if node.op == "FakeQuantize"]
    assert found == [{"exponent": -5, "low": -128, "high": 127}, {"exponent": -2, "low": -128, "high": 127}]
    assert_same(module, graph, 50, 4)


def test_fake_quantization_of_weights_is_evaluated() -> None:
    module = Body(
        lambda m, x: F.linear(x, torch.fake_quantize_per_channel_affine(m.w, m.s, m.z, 0, -8, 7)), w=torch.randn(3, 4)
    )
    module.register_buffer("s", torch.tensor([0.5, 0.25, 0.3]))
    module.register_buffer("z", torch.zeros(3, dtype=torch.int32))
    graph = from_torch(module, torch.ones(1, 4))
    assert [op for _, op in named(graph)] == ["Linear"]
    assert len(np.unique(weight(graph, "linear")[0] / 0.5 % 1)) == 1


@pytest.mark.verifies("torch-frontend-quantization-aware-modules")
@pytest.mark.parametrize(
    ("module", "text"),
    [
        (Faked(0.0123, 0.3), "its scale 0.0123 is not a power of two (and 1 more); use observers"),
        (Faked(0.25, zero=3), "its zero point is 3, not 0; use observers"),
    ],
)
def test_other_fake_quantization_is_one_message(module: nn.Module, text: str) -> None:
    with pytest.raises(ModelError) as caught:
        from_torch(module, torch.ones(1, 4))
    assert "1 problem:\n  quantization-aware module: " in str(caught.value)
    assert text in str(caught.value)


@pytest.mark.verifies("torch-frontend-quantization-aware-modules")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantization_aware_module_of_torch() -> None:
    import torch.ao.quantization as ao

    fake = ao.FakeQuantize.with_args(
        observer=ao.MovingAverageMinMaxObserver, dtype=torch.qint8, qscheme=torch.per_tensor_symmetric,
        quant_min=-128, quant_max=127,
    )  # fmt: skip
    module = nn.Sequential(ao.QuantStub(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), ao.DeQuantStub()).train()
    module.qconfig = ao.QConfig(fake, fake)
    ao.prepare_qat(module, inplace=True)
    module(torch.randn(8, 4, generator=torch.Generator().manual_seed(1)))
    with pytest.raises(ModelError, match=r"quantization-aware module: 0\.activation_post_process .* \(and 2 more\)"):
        from_torch(module, torch.ones(2, 4))
    for child in module.modules():
        if isinstance(child, ao.FakeQuantize):
            child.scale.copy_(2.0 ** torch.ceil(torch.log2(child.scale)))
    graph = from_torch(module, torch.ones(2, 4))
    assert [op for _, op in named(graph)] == [
        "FakeQuantize", "Linear", "FakeQuantize", "Activation", "Linear", "FakeQuantize",
    ]  # fmt: skip
    module.apply(ao.disable_observer)
    assert_same(module, graph, 20, 4, bound=1e-6)
    with pytest.raises(ModelError, match=r"0 \(and \d more\) is a quantized module; .* before torch\.ao"):
        from_torch(ao.convert(module.eval()), torch.ones(2, 4))


def test_inputs_and_outputs_have_names() -> None:
    module = Body(lambda m, left, right: None)
    module.forward = lambda left, right: {"sum": left + right, "both": (left, [right * 2])}  # type: ignore[method-assign]
    graph = from_torch(module, (torch.ones(1, 4), torch.ones(1, 4)))
    assert [node.name for node in graph.inputs] == ["left", "right"]
    assert [node.name for node in graph.outputs] == ["sum", "both.0", "both.1.0"]


def test_kind_of_integer_inputs() -> None:
    for body, kind in [
        (lambda m, x: m.e(x), "index"),
        (lambda m, x: x.float() @ torch.ones(4, 2), "real"),
        (lambda m, x: x / 255, "real"),
    ]:
        graph = from_torch(Body(body, e=nn.Embedding(5, 2)), torch.ones(2, 4, dtype=torch.int64))
        assert [node["kind"] for node in graph.inputs] == [kind]


def test_what_is_left_to_the_host_is_named() -> None:
    case = Case("", lambda: Body(lambda m, x: (x.softmax(2), x.argmax(1), x.mean(1))), ((3, 4),))
    graph = from_torch(*case.make())
    assert [(node["then"], node["axis"]) for node in graph.outputs] == [("softmax", 1), ("argmax", 0), ("", 0)]


def test_relu_in_every_spelling_is_one_operator() -> None:
    for body in (
        lambda m, x: x.clamp(min=0), lambda m, x: torch.clamp_min(x, 0), lambda m, x: F.threshold(x, 0, 0),
        lambda m, x: torch.maximum(x, torch.tensor(0.0)), lambda m, x: torch.maximum(torch.zeros(4), x),
        lambda m, x: x.relu(), lambda m, x: F.hardtanh(x, 0.0, float("inf")),
    ):  # fmt: skip
        (node,) = (node for node in from_torch(Body(body), torch.ones(2, 4)) if node.op not in ("Input", "Output"))
        assert (node.op, node["function"]) == ("Activation", "relu")
