"""Every kind of layer that multiplies is seen by pruning and sharing, and what is not is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compiler.train import group_lasso, prune, quantize
from compiler.train.layers import biases, density, make_plain, uncovered, weights
from compiler.train.rhn import RHN

WORDS = torch.arange(12).reshape(3, 4) % 7


def attend(layer: nn.MultiheadAttention, *others: int) -> Tensor:
    return layer(torch.ones(2, 3, 8), *(torch.ones(2, 3, width) for width in others or (8, 8)))[0]


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], Any], list[str]]] = {
    "conv3d": (lambda: nn.Conv3d(2, 4, 2), lambda m: m(torch.ones(1, 2, 3, 3, 3)), ["weight"]),
    "transposed 1d": (lambda: nn.ConvTranspose1d(2, 4, 3), lambda m: m(torch.ones(1, 2, 5)), ["weight"]),
    "transposed 2d": (lambda: nn.ConvTranspose2d(2, 4, 3), lambda m: m(torch.ones(1, 2, 5, 5)), ["weight"]),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 4, 2), lambda m: m(torch.ones(1, 2, 3, 3, 3)), ["weight"]),
    "bilinear": (lambda: nn.Bilinear(3, 4, 5), lambda m: m(torch.ones(2, 3), torch.ones(2, 4)), ["weight"]),
    "embedding bag": (lambda: nn.EmbeddingBag(7, 4), lambda m: m(WORDS), ["weight"]),
    "rnn": (lambda: nn.RNN(3, 4), lambda m: m(torch.ones(5, 2, 3))[0], ["weight_ih_l0", "weight_hh_l0"]),
    "rnn cell": (lambda: nn.RNNCell(3, 4), lambda m: m(torch.ones(2, 3)), ["weight_ih", "weight_hh"]),
    "lstm cell": (lambda: nn.LSTMCell(3, 4), lambda m: m(torch.ones(2, 3))[0], ["weight_ih", "weight_hh"]),
    "gru cell": (lambda: nn.GRUCell(3, 4), lambda m: m(torch.ones(2, 3)), ["weight_ih", "weight_hh"]),
    "rhn": (lambda: RHN(3, 4, 2), lambda m: m(torch.ones(2, 5, 3))[0], ["weight_ih", "weight_hh_0", "weight_hh_1"]),
    "attention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), attend, ["in_proj_weight", "out_proj"]),
    "attention of other widths": (
        lambda: nn.MultiheadAttention(8, 2, kdim=5, vdim=6, batch_first=True),
        lambda m: attend(m, 5, 6),
        ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj"],
    ),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        lambda m: m(torch.ones(2, 3, 8)),
        ["self_attn.in_proj_weight", "self_attn.out_proj", "linear1", "linear2"],
    ),
}


@pytest.mark.verifies("kind-layer-pruned-shared-trained")
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_pruned_and_shared(name: str) -> None:
    make, run, keys = LAYERS[name]
    module = make().eval()
    assert [site.key for site in weights(module)] == keys
    assert uncovered(module) == {}
    plain = {site.key: site.value.detach().clone() for site in weights(module)}
    prune.prune(module, 0.5)
    assert [site.key for site in weights(module)] == keys  # the same names, in the same order
    assert density(weights(module)) == pytest.approx(0.5, abs=0.05)
    pruned = {site.key: site.value.detach().clone() for site in weights(module)}
    for key, value in pruned.items():
        assert torch.equal(value, torch.where(value == 0, 0.0, plain[key]))
    outputs = run(module)
    outputs.sum().backward()  # and it learns
    assert all(value.grad is not None for value in module.parameters())
    quantize.share(module, 3)
    assert all(len(site.value.detach().unique()) <= 8 for site in weights(module))
    shared = run(module)
    with torch.no_grad():  # torch's fast way through attention reads the weights in C++
        torch.testing.assert_close(run(module), shared.detach(), rtol=1e-4, atol=1e-5)
    make_plain(module)
    torch.testing.assert_close(run(module), shared, rtol=1e-4, atol=1e-5)
    assert {type(value) for value in module.parameters()} == {nn.Parameter}


def test_biases_are_those_of_the_same_layers() -> None:
    module = nn.TransformerEncoderLayer(8, 2, 16)
    assert [site.key for site in biases(module)] == [
        "self_attn.in_proj_bias", "self_attn.out_proj.bias", "linear1.bias", "linear2.bias",
    ]  # fmt: skip
    assert [site.key for site in biases(nn.GRUCell(3, 4))] == ["bias_ih", "bias_hh"]


@pytest.mark.verifies("kind-layer-pruned-shared-trained")
def test_what_is_not_counted_is_named() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm((4, 2)), nn.PReLU(3))
    module.register_parameter("positions", nn.Parameter(torch.zeros(5, 4)))
    assert uncovered(module) == {"positions": 20, "1.weight": 8, "1.bias": 8}


@pytest.mark.verifies("kind-layer-pruned-shared-trained")
def test_filters_of_a_transposed_convolution_are_its_outputs() -> None:
    module = nn.Sequential(nn.ConvTranspose2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 1))
    terms = {by: group_lasso.terms(module, by, 0.1) for by in ("filter", "channel")}
    assert [each.count for each in terms["filter"]] == [5, 3]
    assert [each.count for each in terms["channel"]] == [2, 5]
    with torch.no_grad():
        module[0].weight[:, 4] = 0
        module[0].weight[0] = 0
    assert terms["filter"][0].dead().tolist() == [False] * 4 + [True]
    group_lasso.freeze(terms["filter"])  # its bias has as many values as it has outputs, not inputs
    assert module(torch.ones(1, 2, 4, 4)).shape == (1, 3, 6, 6)
