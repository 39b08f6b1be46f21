"""L0 by hard concrete gates, L1 by soft thresholds: probabilities, gradients, exact zeros, recipes that resume."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compiler.errors import ModelError, RecipeError
from compiler.train import gates, prune, recipe, structure
from compiler.train.l1 import Proximal
from compiler.train.layers import density, weights
from compiler.train.run import train_recipe

SCORES = torch.linspace(-0.3, 0.3, 13, dtype=torch.float64)
POINTS = 100_000


def gate(scores: Tensor = SCORES, pace: float = 20.0) -> gates.Gate:
    """In training mode, in double precision."""
    made = gates.Gate(torch.ones_like(scores), pace=pace)
    with torch.no_grad():
        made.score.copy_(scores)
    return made.train()


@pytest.mark.verifies("l0-probability")
def test_the_probability_of_a_gate_is_the_share_of_draws_that_are_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    # Instead of draws, the middles of equal parts of 0 … 1: an integral over u.
    scores = SCORES.repeat(POINTS, 1)
    u = ((torch.arange(POINTS, dtype=torch.float64) + 0.5) / POINTS)[:, None].expand_as(scores)
    monkeypatch.setattr(torch, "rand_like", lambda like: u)
    made = gate(scores)
    drawn = made.sample()
    assert (drawn == 0).any()
    assert (drawn == 1).any()
    shares = (drawn > 0).double().mean(0)
    assert shares.tolist() == pytest.approx(made.probability()[0].tolist(), abs=2 / POINTS)
    assert 0.001 < float(shares.min()) < 0.1 < 0.9 < float(shares.max())


def test_planted_fault_a_probability_without_the_shift_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "_SHIFT", 0.0)
    with pytest.raises(AssertionError):
        test_the_probability_of_a_gate_is_the_share_of_draws_that_are_not_zero(monkeypatch)


@pytest.mark.verifies("l0-gradients")
def test_gradients_of_gates_and_of_the_penalty_are_those_of_finite_differences(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(13, generator=generator, dtype=torch.float64) * 0.9 + 0.05
    monkeypatch.setattr(torch, "rand_like", lambda like: u)
    linear = nn.Linear(13, 1, bias=False).double().train()
    gates.attach(list(weights(linear)))
    found = gates.find(linear)
    assert found is not None
    with torch.no_grad():
        found.score.copy_(SCORES[None] / 5)
    hook = gates.L0(list(weights(linear)), 0.3)
    x = torch.randn(13, generator=generator, dtype=torch.float64)

    def loss() -> Tensor:
        penalty = hook.penalty()
        assert penalty is not None
        return linear(x).square().sum() + penalty

    loss().backward()
    assert found.score.grad is not None
    with torch.no_grad():
        for place in range(13):
            ends = []
            for step in (1e-6, -1e-6):
                found.score[0, place] += step
                ends.append(float(loss()))
                found.score[0, place] -= step
            assert float(found.score.grad[0, place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4, abs=1e-6)


@pytest.mark.verifies("l0-closes")
def test_gates_begin_at_keep_and_close_to_masks_with_the_same_outputs() -> None:
    torch.manual_seed(5)
    module = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 5))
    prune.prune(module[0], 0.5)
    kept = prune.attach(module[0]).mask.clone()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    sites = list(weights(module))
    gates.attach(sites, keep=0.8)
    every = [gates.find(site.module) for site in sites]
    assert all(one is not None for one in every)
    first, second = (one.probability() for one in every if one is not None)
    assert second.flatten().tolist() == pytest.approx([0.8] * 100)
    assert not first[~kept].any()
    optimizer.step()  # takes the scores in
    held = {id(one) for group in optimizer.param_groups for one in group["params"]}
    assert all(id(one.score) in held for one in every if one is not None)
    with torch.no_grad():
        for one in every:
            assert one is not None
            one.score.copy_(torch.randn_like(one.score) / one.pace * 3)
    x = torch.randn(7, 30)
    twin = copy.deepcopy(module)
    with pytest.raises(ModelError, match="Gate"):
        prune.attach(module[0])
    before = module.eval()(x)
    module.train()  # gates are drawn now, and yet what is left is what evaluation has
    gates.close(sites)
    assert torch.equal(module(x), before)
    assert torch.equal(twin.eval()(x), before)
    for site in sites:
        mask = prune.attach(site.module).mask
        assert torch.equal(mask, site.value != 0)
        assert 0 < int(mask.sum()) < mask.numel()
    assert not (prune.attach(module[0]).mask & ~kept).any()


def test_planted_fault_gates_that_close_on_a_draw_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates.Gate, "eval", lambda self: self)
    with pytest.raises(AssertionError):
        test_gates_begin_at_keep_and_close_to_masks_with_the_same_outputs()


def test_a_module_with_gates_is_described_and_rebuilt() -> None:
    def fresh() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 2))

    one, two = fresh(), fresh()
    gates.attach(list(weights(one)), pace=7.0)
    structure.rebuild(two, structure.describe(one), one.state_dict(), "a state")
    assert {key: value.tolist() for key, value in one.state_dict().items()} == {
        key: value.tolist() for key, value in two.state_dict().items()
    }


def settle(hook: type[Proximal]) -> list[float]:
    """Where gradient descent on 1/2 · (weight - wanted)^2 and the penalty comes to rest, from weights of 1."""
    wanted = torch.tensor([-2.0, -0.5, -0.25, 0.0, 0.2, 0.5, 3.0])
    weight = nn.Parameter(torch.ones(7))
    optimizer = torch.optim.SGD([weight], 0.1)
    made = hook([weight], 0.4)
    made.begin(optimizer)
    for step in range(300):
        optimizer.zero_grad()
        (0.5 * (weight - wanted).square().sum()).backward()
        optimizer.step()
        made.after_step(step, 300)
    return [float(each) for each in weight.detach()]


@pytest.mark.verifies("l1-soft-threshold")
def test_l1_comes_to_rest_at_the_soft_threshold_with_exact_zeros() -> None:
    found = settle(Proximal)
    assert found == pytest.approx([-1.6, -0.1, 0, 0, 0, 0.1, 2.6], abs=1e-5)
    assert [index for index, each in enumerate(found) if each == 0] == [2, 3, 4]


def test_planted_fault_a_step_that_does_not_stop_at_zero_is_found() -> None:
    class Beyond(Proximal):
        def after_step(self, step: int, total: int) -> None:
            assert self.optimizer is not None
            with torch.no_grad():
                for parameter in self.parameters:
                    parameter.sub_(self.optimizer.param_groups[0]["lr"] * self.strength * parameter.sign())

    assert settle(Beyond) != settle(Proximal)
    assert sum(each == 0 for each in settle(Beyond)) < 3


def content(kind: str, **more: Any) -> dict[str, Any]:
    """A recipe that begins with a penalty, trims, and shares what is left."""
    return {
        "name": "penalized",
        "data": {"name": "digits", "validation": 0.2, "samples": 300},
        "model": {"name": "lenet-5", "channels": [3, 4], "hidden": 12, "padding": 2},
        "stages": [
            {"kind": kind, "epochs": 3, "learning_rate": 0.02, "batch": 24, **more},
            {"kind": "prune", "epochs": 1, "learning_rate": 0.01, "density": 0.2, "method": "oneshot",
             "scope": "global"},
            {"kind": "share", "epochs": 1, "learning_rate": 1e-3, "code_bits": 4},
        ],
    }  # fmt: skip


class Stop(Exception):
    """Ends a run."""


@pytest.mark.verifies("penalty-stages-resume")
@pytest.mark.parametrize(("kind", "strength", "stopped"), [("l1", 0.5, 2), ("l0", 1e-4, 3)])
def test_a_recipe_goes_to_zeros_resumes_to_the_same_bytes_and_is_shared(
    kind: str, strength: float, stopped: int, tmp_path: Path
) -> None:
    # Stopped within the stage, or after its last epoch, when gates are no masks yet.
    made = recipe.parse(content(kind, strength=strength), "penalized")
    assert recipe.parse(made.asdict(), "again") == made
    report = train_recipe(made, tmp_path / "one", plots=False)
    nonzeros = [sum(layer["nonzeros"] for layer in stage["layers"]) for stage in report["stages"]]
    total = 25 * 3 + 25 * 12 + 12 * 16 + 120
    assert 0.2 * total < nonzeros[0] < 0.95 * total
    assert nonzeros[1] == round(0.2 * total) >= nonzeros[2]

    def stop(stage: str, done: int, total: int, text: str) -> None:
        if stage == kind and done == stopped:
            raise Stop

    with pytest.raises(Stop):
        train_recipe(made, tmp_path / "two", progress=stop, plots=False)
    train_recipe(made, tmp_path / "two", resume=True, plots=False)
    for name in ("model.safetensors", "model.eiez"):
        one, two = (hashlib.sha256((tmp_path / run / name).read_bytes()).hexdigest() for run in ("one", "two"))
        assert one == two


def test_zeros_of_a_penalty_stay_in_the_stages_after_it() -> None:
    module = nn.Sequential(nn.Linear(6, 6))
    stage = recipe.parse(content("l1", strength=0.5), "penalized").stages[0]
    stage.begin(module, None)  # type: ignore[arg-type]
    with torch.no_grad():
        prune.trained(module[0])[:3] = 0
    stage.finish(module, None)  # type: ignore[arg-type]
    assert density(weights(module)) == 0.5
    module(torch.randn(4, 6)).sum().backward()
    torch.optim.SGD(module.parameters(), 0.1).step()
    assert density(weights(module)) == 0.5


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        ("l1", {}, "strength"),
        ("l1", {"strength": -1}, "strength"),
        ("l0", {"strength": 1, "keep": 1}, "keep"),
        ("l0", {"strength": 1, "pace": 0}, "pace"),
        ("l0", {"strength": 1, "ignore": ["nowhere"]}, "nowhere"),
    ],
)
def test_what_is_not_legal_is_refused(kind: str, more: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        recipe.parse(content(kind, **more), "wrong")


def test_a_penalty_after_sharing_is_refused() -> None:
    wrong = content("l1", strength=1)
    wrong["stages"] = [{"kind": "dense", "epochs": 1, "learning_rate": 0.1}, wrong["stages"][2], wrong["stages"][0]]
    with pytest.raises(RecipeError, match="before kind share"):
        recipe.parse(wrong, "wrong")
