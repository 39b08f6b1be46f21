"""What cannot be translated is refused with all reasons at once: module path, operation, source line, what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compiler.errors import ModelError
from compiler.frontend.torch_export import from_torch
from tests.compiler.zoo import Body


class Unsupported(nn.Module):
    """Four operations that are not supported, at four places."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
        self.act = nn.ELU()
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.block(x))
        hidden = self.norm(hidden)
        return torch.softmax(hidden, -1) * 2


GOLDEN = """\
the model cannot be compiled, 4 problems:
  block.1 (LayerNorm) aten.layer_norm.default at test_torch_refusals.py:N: not supported: normalization at run time; \
use BatchNorm
  act (ELU) aten.elu.default at test_torch_refusals.py:N: not supported: use ReLU and retrain
  norm (GroupNorm) aten.group_norm.default at test_torch_refusals.py:N+1: not supported: normalization at run time; \
use BatchNorm
  (model) (Unsupported) aten.softmax.int at test_torch_refusals.py:N+2: not supported: softmax within the network; \
only at its very end, where the host computes it
supported is Linear and products with a constant matrix, convolution"""


@pytest.mark.verifies("torch-frontend-supported-listed-once")
def test_all_unsupported_operations_are_listed_with_their_places() -> None:
    with pytest.raises(ModelError) as caught:
        from_torch(Unsupported(), torch.zeros(2, 4))
    line = Unsupported.forward.__code__.co_firstlineno + 1
    wanted = GOLDEN.replace("N+1", str(line + 1)).replace("N+2", str(line + 2)).replace("py:N", f"py:{line}")
    assert str(caught.value).startswith(wanted)


def counting(module: Body, x: Tensor) -> Tensor:
    module.count += 1
    return module.fc(x)


def joined_samples(module: Body, x: Tensor) -> Tensor:
    return module.fc(x) @ module.fc(x).t()


REFUSED: dict[str, tuple[Callable[[Body, Tensor], Any], list[str]]] = {
    "constant": (lambda m, x: m.fc(torch.ones(1, 4)), ["does not depend on the input"]),
    "dropout left on": (lambda m, x: F.dropout(m.fc(x)), ["native_dropout", "training=self.training"]),
    "random weights": (lambda m, x: x @ torch.rand(4, 4), ["1 problem:", "rand", "not the same in every run"]),
    "samples summed": (lambda m, x: torch.ones(2, 2) @ m.fc(x), ["axis 0, which is the samples'"]),
    "mean of samples": (lambda m, x: x.mean(0), ["axis 0, which is the samples'"]),
    "everything summed": (lambda m, x: m.fc(x).sum(), ["name the axes"]),
    "some samples": (lambda m, x: m.fc(x[:1]), ["slice", "axis 0, which is the samples'"]),
    "products of values": (joined_samples, ["two values that both depend on the input"]),
    "quotient": (lambda m, x: x / m.fc(x), ["only division by a constant"]),
    "divided by zero": (lambda m, x: m.fc(x) / torch.zeros(4), ["constant is not finite"]),
    "scaled addmm": (lambda m, x: torch.addmm(m.fc.bias, x, m.fc.weight, beta=2), ["beta and alpha"]),
    "batch flattened": (lambda m, x: m.fc(x).flatten(0), ["(2, 4) into (8,)", "batch must stay"]),
    "batch moved": (lambda m, x: m.fc(x).reshape(4, 2), ["(2, 4) into (4, 2)"]),
    "other ranks": (lambda m, x: m.fc(x) * x[:, None], ["(2, 4) and (2, 1, 4)", "equal ranks"]),
    "samples repeated": (lambda m, x: m.fc(x[:, None]).expand(3, 2, 1, 4), ["(2, 1, 4) to (3, 2, 1, 4)"]),
    "widened by a constant": (lambda m, x: x + torch.ones(3, 1, 4), ["from shape (2, 4) to (3, 2, 4)"]),
    "constant for each sample": (lambda m, x: x + torch.arange(2.0)[:, None], ["other numbers for each sample"]),
    "softmax within": (lambda m, x: m.fc(x.softmax(-1)), ["softmax within the network"]),
    "softmax of samples": (lambda m, x: x.softmax(0), ["axis 0, which is the samples'"]),
    "choice by value": (lambda m, x: torch.where(x > 0, x, 0.0), ["2 problems", "gt.Scalar", "clamp or ReLU"]),
    "half precision within": (
        lambda m, x: m.fc(x.half().float()),
        ["1 problem:", "float32 into float16, which rounds"],
    ),
    "reflected": (lambda m, x: F.pad(x[:, None], (1, 1), mode="reflect"), ["pads reflect; only zeros"]),
    "padded with ones": (lambda m, x: F.pad(x, (1, 1), value=1.0), ["pads with 1.0; only zeros"]),
    "cube": (lambda m, x: m.fc(x) ** 3, ["a power of 3; only squares"]),
    "bounds by input": (lambda m, x: torch.maximum(x, m.fc(x)), ["two values that both depend"]),
    "threshold": (lambda m, x: F.threshold(x, 0.5, 0.0), ["threshold 0.5 with value 0.0"]),
    "einsum of two axes": (
        lambda m, x: torch.einsum("bij,ijk->bk", x.view(2, 2, 2), torch.ones(2, 2, 3)),
        ["a sum over one axis"],
    ),
    "number returned": (lambda m, x: (m.fc(x), 3), ["output.1: the module returns a value of type int"]),
    "nothing returned": (lambda m, x: None, ["returns no tensor"]),
    "buffer changed": (counting, ["count: the forward changes it"]),
    "input changed": (lambda m, x: m.fc(x.mul_(2)), ["the forward changes it"]),
    "control flow": (lambda m, x: m.fc(x) if x.sum() > 0 else x, ["torch.export cannot read Body", "control flow"]),
    "does not run": (lambda m, x: m.fc(x[:, :3]), ["fails on example_inputs (a tensor of shape (2, 4))"]),
}


@pytest.mark.verifies("torch-frontend-supported-listed-once")
@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    body, expected = REFUSED[case]
    module = Body(body, fc=nn.Linear(4, 4))
    module.register_buffer("count", torch.zeros(1))
    with pytest.raises(ModelError) as caught:
        from_torch(module, torch.ones(2, 4))
    for text in expected:
        assert text in str(caught.value)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "statistics of the batch": (
        lambda: nn.BatchNorm2d(2, track_running_stats=False), (2, 3, 3), ["set track_running_stats=True"],
    ),
    "transposed convolution": (lambda: nn.ConvTranspose2d(2, 2, 2), (2, 3, 3), ["upsample outside the module"]),
    "circular convolution": (
        lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), (2, 3, 3), ["pads circular"],
    ),
    "average over the edge": (
        lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), (2, 3, 3), ["count_include_pad=True"],
    ),
    "average of parts": (lambda: nn.AvgPool2d(2, ceil_mode=True), (2, 3, 3), ["windows over the edge"]),
    "uneven windows": (lambda: nn.AdaptiveAvgPool2d(2), (2, 3, 3), ["(3, 3) into (2, 2) windows"]),
    "attention": (
        lambda: nn.TransformerEncoderLayer(8, 2, batch_first=True), (3, 8),
        ["3 problems", "self_attn (MultiheadAttention): not supported", "norm1 (LayerNorm)", "norm2 (LayerNorm)"],
    ),
    "projected lstm": (lambda: nn.LSTM(4, 5, proj_size=3, batch_first=True), (3, 4), ["proj_size; apply a Linear"]),
    "steps first": (lambda: nn.LSTM(4, 5), (3, 4), ["samples first; build it with batch_first=True, or permute"]),
}  # fmt: skip


@pytest.mark.verifies("torch-frontend-supported-listed-once")
@pytest.mark.parametrize("case", LAYERS)
def test_refused_layer(case: str) -> None:
    build, shape, expected = LAYERS[case]
    with pytest.raises(ModelError) as caught:
        from_torch(build(), torch.ones(2, *shape))
    for text in expected:
        assert text in str(caught.value)


@pytest.mark.verifies("torch-frontend-wrong-arguments-example")
@pytest.mark.parametrize(
    ("module", "example", "text"),
    [
        (3, torch.ones(1, 4), "of type int; expected a torch.nn.Module"),
        (nn.Linear(4, 4), torch.ones(4), r"shape \(4,\); expected one tensor"),
        (nn.Linear(4, 4), (), "nothing; expected one tensor"),
        (nn.Linear(4, 4), (torch.ones(1, 4), 2), "of type int; expected one tensor"),
        (nn.Linear(4, 4), torch.ones(0, 4), "at least one"),
        (nn.Bilinear(4, 4, 4), (torch.ones(1, 4), torch.ones(2, 4)), "equally many samples"),
        (nn.Linear(4, 4), torch.full((2, 4), torch.nan), "example input 0 has NaN"),
        (nn.Linear(4, 4), torch.ones(2, 4) > 0, r"torch\.bool; expected floats"),
    ],
)
def test_wrong_arguments(module: Any, example: Any, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        from_torch(module, example)


def test_refusal_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for case in ("control flow", "other ranks"):
        with pytest.raises(ModelError):
            from_torch(Body(REFUSED[case][0], fc=nn.Linear(4, 4)), torch.ones(2, 4))
    assert capfd.readouterr() == ("", "")


def test_names_of_operations_in_messages_are_torchs() -> None:
    with pytest.raises(ModelError) as caught:
        from_torch(Body(lambda m, x: x.topk(2)[0]), torch.ones(2, 4))
    assert re.search(r"\(model\) \(Body\) aten\.topk\.default at zoo\.py:\d+: not supported: apply", str(caught.value))
