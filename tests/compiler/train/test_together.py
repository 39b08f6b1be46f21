"""Weights that have their values together: one codebook in the array, whatever trains them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from compiler.errors import RecipeError
from compiler.lower.pipeline import lower
from compiler.source import load
from compiler.train import quantize, recipe
from compiler.train.layers import weights
from compiler.train.run import load_run, train_recipe
from compiler.train.stages import share
from hw.params import Params
from tests.compiler.train.test_run import check_resumed_equals_unbroken

GATES = ("rnn.weight_ih_l0", "rnn.weight_hh_l0")


def with_share(**options: Any) -> recipe.Recipe:
    return recipe.parse(
        {
            "name": "together",
            "seed": 2,
            "data": {"name": "digits", "validation": 0.2, "samples": 300},
            "model": {"name": "lstm", "hidden": 6},
            "stages": [
                {"kind": "prune", "epochs": 1, "learning_rate": 0.01, "density": 0.6},
                {"kind": "share", "epochs": 2, "learning_rate": 0.01, "code_bits": 3, "together": ["rnn.weight_*"]}
                | options,
            ],
        },
        "together",
    )


def nonzero_values(folder: Path, *keys: str) -> set[float]:
    sites = {site.key: site.value.detach() for site in weights(load_run(folder).module)}
    return {float(value) for key in keys for value in sites[key].flatten() if value}


@pytest.mark.parametrize("labels", ["fixed", "free"])
@pytest.mark.parametrize("way", [{"grid": "uniform"}, {"start": "exact"}, {"start": "random"}], ids=str)
def test_trained_values_are_the_same_few(labels: str, way: dict[str, str], tmp_path: Path) -> None:
    train_recipe(with_share(labels=labels, **way), tmp_path)
    own = [nonzero_values(tmp_path, key) for key in GATES]
    assert len(own[0] | own[1]) <= 7
    assert len(own[0] & own[1]) > 3
    assert not own[0] & nonzero_values(tmp_path, "fc")


def test_planted_fault_gradients_of_each_alone_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share._Together, "after_backward", lambda *_: None)
    with pytest.raises(AssertionError):
        test_trained_values_are_the_same_few("fixed", {"start": "exact"}, tmp_path)


def test_the_compiler_takes_the_values_of_both_as_they_are(tmp_path: Path) -> None:
    # Input and state are two segments with a codebook each, so the compiler shares nothing anew in either way.
    for name, options in (("together", {}), ("apart", {"together": []})):
        train_recipe(with_share(code_bits=4, **options), tmp_path / name)
        source = load(str(tmp_path / name))
        _, reports = lower(source.graph, Params(pes=4, code_bits=4), source.calibration)
        assert reports
        assert [report.name for report in reports if report.clustered] == []


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    wanted = with_share(labels="free")
    train_recipe(wanted, tmp_path / "unbroken")
    check_resumed_equals_unbroken(tmp_path / "unbroken", tmp_path / "resumed", [("share", 1)], wanted)


def test_the_gradient_is_that_of_one_table(rng: Any) -> None:
    layers = [torch.nn.Linear(5, 4), torch.nn.Linear(3, 4)]
    before = [layer.weight.detach().clone() for layer in layers]
    for layer, other in zip(layers, before[::-1], strict=True):
        quantize.attach(layer, 2, among=[other])
    tables = [quantize.values_of(layer) for layer in layers]
    assert torch.equal(*tables)
    (layers[0].weight.sum() * 2 + layers[1].weight.sum()).backward()
    hook = share._Together([[site for layer in layers for site in weights(layer)]])
    hook.after_backward(0, 1)
    codes = [quantize.find(layer).codes for layer in layers]  # type: ignore[union-attr]
    wanted = [2.0 * int((codes[0] == n).sum()) + int((codes[1] == n).sum()) for n in (1, 2, 3)]
    assert [table.grad.tolist() for table in tables] == [wanted, wanted]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"together": ["no.*"]}, "together: 'no.*' matches no weight"),
        ({"together": ["rnn.*", "*hh*"]}, "together names rnn.weight_hh_l0 twice"),
        ({"together": "rnn"}, "a list of texts"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        with_share(**options)


def test_one_width_for_what_is_together(tmp_path: Path) -> None:
    bits = {GATES[0]: 3, GATES[1]: 2, "fc": 4}
    with pytest.raises(RecipeError, match="expected one code_bits"):
        train_recipe(with_share(code_bits=bits), tmp_path)
