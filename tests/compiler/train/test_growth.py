"""Sparse from the first step: how many weights there are, which go, which come, and what follows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compiler.errors import RecipeError
from compiler.train import growth, prune, recipe
from compiler.train.layers import weights
from compiler.train.run import train_recipe


def network() -> nn.Sequential:
    """Two layers, masked by half."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 4))
    growth.start(list(weights(module)), {"0": 0.5, "2": 0.5}, (1,))
    return module


def masks(module: nn.Module) -> dict[str, Tensor]:
    """By key."""
    return {site.key: prune.attach(site.module, site.name).mask.clone() for site in weights(module)}


def train(module: nn.Module, method: str, steps: int = 13, optimizer: str = "adam") -> dict[str, list[Any]]:
    """A loop of one's own; what was there at the moves of the first layer."""
    made: torch.optim.Optimizer = (
        torch.optim.AdamW(module.parameters(), 0.01)
        if optimizer == "adam"
        else torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    )
    hook = growth.Growth(list(weights(module)), method, (7,), every=4, end=0.9)
    hook.begin(made)
    seen: dict[str, list[Any]] = {"before": [], "after": [], "values": [], "dense": [], "state": []}
    x, y = torch.randn(16, 12), torch.randint(0, 4, (16,))
    for step in range(steps):
        hook.before_step(step, steps)
        made.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        hook.after_backward(step, steps)
        # The gradient of the weight itself, by hand: inputs and the gradient of outputs, with no mask anywhere.
        plain = nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 4))
        plain.load_state_dict({f"{k}.{n}": getattr(module[int(k)], n) for k in "02" for n in ("weight", "bias")})
        nn.functional.cross_entropy(plain(x), y).backward()
        made.step()
        before, values = masks(module), {site.key: site.value.detach().clone() for site in weights(module)}
        hook.after_step(step, steps)
        if hook.moves(step, steps):
            first = prune.trained(module[0])
            seen["before"].append(before)
            seen["after"].append(masks(module))
            seen["values"].append(values)
            seen["dense"].append({k: plain[int(k)].weight.grad for k in "02"})
            seen["state"].append([v.clone() for v in made.state[first].values() if v.shape == first.shape])
    return seen


@pytest.mark.verifies("growth-keeps-count")
@pytest.mark.parametrize("method", growth.METHODS)
def test_every_layer_keeps_its_number_of_weights(method: str) -> None:
    module = network()
    before = masks(module)
    seen = train(module, method)
    assert len(seen["after"]) == (0 if method == "static" else 2)
    for each in [*seen["after"], masks(module)]:
        assert {key: int(mask.sum()) for key, mask in each.items()} == {"0": 60, "2": 20}
    moved = any(bool((mask != before[key]).any()) for key, mask in masks(module).items())
    assert moved == (method != "static")


@pytest.mark.verifies("growth-rigl-drops-and-grows")
def test_rigl_drops_the_smallest_and_grows_the_steepest() -> None:
    seen = train(network(), "rigl")
    for move, step in enumerate((4, 8)):
        for key in "02":
            old, new = (seen[when][move][key].flatten().tolist() for when in ("before", "after"))
            value = seen["values"][move][key].abs().flatten().tolist()
            slope = seen["dense"][move][key].abs().flatten().tolist()
            count = int(growth.fraction(step, 13, end=0.9) * sum(old))
            assert count > 0
            kept = sorted((i for i, there in enumerate(old) if there), key=lambda i: value[i])[count:]
            free = sorted((i for i in range(len(old)) if i not in kept), key=lambda i: -slope[i])[:count]
            assert sorted(kept + free) == [i for i, there in enumerate(new) if there]


@pytest.mark.verifies("growth-state-reset")
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_grown_weights_are_zeros_that_the_optimizer_does_not_know(optimizer: str) -> None:
    module = network()
    seen = train(module, "set", steps=9, optimizer=optimizer)
    (state,), old, new = seen["state"][:1], seen["before"][0]["0"], seen["after"][0]["0"]
    assert (new & ~old).any()
    assert state
    for value in state:
        assert not value[~(new & old)].any()
        assert value[new & old].any()


def test_planted_faults_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = growth.regrow

    def flat(value: Tensor, mask: Tensor, count: int, score: Tensor) -> Tensor:
        return right(value, mask, count, torch.ones_like(score))

    def largest(value: Tensor, mask: Tensor, count: int, score: Tensor) -> Tensor:
        return right(1 / value.abs().clamp(min=1e-9), mask, count, score)

    def more(value: Tensor, mask: Tensor, count: int, score: Tensor) -> Tensor:
        return mask | right(value, mask, count, score)

    for fault in (flat, largest):
        monkeypatch.setattr(growth, "regrow", fault)
        with pytest.raises(AssertionError):
            test_rigl_drops_the_smallest_and_grows_the_steepest()
    monkeypatch.setattr(growth, "regrow", more)
    with pytest.raises(AssertionError):
        test_every_layer_keeps_its_number_of_weights("set")


@pytest.mark.verifies("growth-densities")
def test_densities_add_up_and_small_layers_are_denser() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 64, 3), nn.Flatten(), nn.Linear(256, 300))
    sites = list(weights(module))
    sizes = {site.key: site.value.numel() for site in sites}
    for density in (0.1, 0.03, 0.02):
        for how in growth.DISTRIBUTIONS:
            found = growth.densities(sites, density, how)
            assert sum(found[key] * sizes[key] for key in sizes) == pytest.approx(density * sum(sizes.values()))
            assert all(0 < each <= 1 for each in found.values())
    # By hand at 3 %: conv1 is dense; the rest is 0.03 · 79,140 - 36 weights, by sums of sides.
    erk = growth.densities(sites, 0.03)
    scale = (0.03 * 79140 - 36) / (64 + 4 + 3 + 3 + 300 + 256)
    assert erk == pytest.approx({"0": 1.0, "1": scale * 74 / 2304, "3": scale * 556 / 76800})


def test_the_share_that_moves_falls_along_a_cosine() -> None:
    assert [growth.fraction(step, 100) for step in (0, 75, 99)] == [pytest.approx(0.3), 0.0, 0.0]
    assert growth.fraction(25, 100) == pytest.approx(0.3 / 2 * (1 + np.cos(np.pi / 3)))


def content(kind: str, **more: Any) -> dict[str, Any]:
    """A recipe that begins sparse and shares what is left."""
    return {
        "name": "grown",
        "data": {"name": "digits", "validation": 0.2, "samples": 300},
        "model": {"name": "mlp", "hidden": [16]},
        "stages": [
            {"kind": kind, "epochs": 3, "learning_rate": 0.01, "batch": 32, "density": 0.2, **more},
            {"kind": "share", "epochs": 1, "learning_rate": 1e-3, "code_bits": 4},
        ],
    }


class Stop(Exception):
    """Ends a run."""


@pytest.mark.verifies("growth-resume")
@pytest.mark.parametrize("kind", ["rigl", "set"])
def test_a_recipe_trains_sparse_resumes_to_the_same_bytes_and_goes_on_to_sharing(kind: str, tmp_path: Path) -> None:
    made = recipe.parse(content(kind, every=3), "grown")
    assert recipe.parse(made.asdict(), "again") == made
    report = train_recipe(made, tmp_path / "one")
    left = round(0.2 * (64 * 16 + 16 * 10))
    # A weight that came at a pixel which is blank in every image has no gradient and stays zero.
    assert 0.9 * left < sum(layer["nonzeros"] for layer in report["stages"][0]["layers"]) <= left + 2

    def stop(stage: str, done: int, total: int, text: str) -> None:
        if stage == kind and done == 2:
            raise Stop

    with pytest.raises(Stop):
        train_recipe(made, tmp_path / "two", progress=stop)
    train_recipe(made, tmp_path / "two", resume=True)
    for name in ("model.safetensors", "model.eiez"):
        one, two = (hashlib.sha256((tmp_path / run / name).read_bytes()).hexdigest() for run in ("one", "two"))
        assert one == two


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"density": 0}, "density"),
        ({"distribution": "round"}, "distribution"),
        ({"every": 0}, "every"),
        ({"ignore": ["nowhere"]}, "nowhere"),
    ],
)
def test_what_is_not_legal_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        recipe.parse(content("rigl", **more), "wrong")
