"""Dense, sparse, dense: masks on for one phase, off for the next, and what was pruned restarts from zero exactly."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compiler.errors import RecipeError
from compiler.train import dsd, prune, recipe
from compiler.train.layers import density, weights
from compiler.train.recipe import Recipe
from compiler.train.run import train_recipe
from compiler.train.schedule import Schedule


class Mixed(nn.Module):
    """One layer of each kind that can be pruned; takes indices (n, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.conv = nn.Conv1d(6, 7, 3, padding=1)
        self.lstm = nn.LSTM(7, 5, batch_first=True)
        self.gru = nn.GRU(5, 4, batch_first=True)
        self.fc = nn.Linear(4, 3)

    def forward(self, index: Tensor) -> Tensor:
        x = torch.relu(self.conv(self.embedding(index).transpose(1, 2))).transpose(1, 2)
        x, _ = self.lstm(x)
        x, _ = self.gru(x)
        return self.fc(x.flatten(1, 1)[:, -1])


def trained(seed: int, rounds: int, sparsity: float) -> list[dict[str, Any]]:
    """What was seen in each phase: factor, density and pruned places at its start, weights at its end."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = Mixed()
        index, goal = torch.randint(0, 11, (40, 5)), torch.randn(40, 3)
    parameters = {name: id(parameter) for name, parameter in module.named_parameters()}
    seen: list[dict[str, Any]] = []

    def train(factor: float) -> None:
        start = {site.key: site.value.detach().clone() for site in weights(module)}
        optimizer = torch.optim.SGD(module.parameters(), lr=0.5 * factor, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            (module(index) - goal).square().mean().backward()
            optimizer.step()
        for site in weights(module):  # as momentum from before a pruning may do
            mask = prune.find(site.module, site.name)
            if mask is not None and len(seen) % 2 == 0:
                with torch.no_grad():
                    getattr(site.module.parametrizations, site.name).original[~mask.mask] = 9.0
        end = {site.key: site.value.detach().clone() for site in weights(module)}
        seen.append({"factor": factor, "start": start, "end": end})

    assert dsd.dense_sparse_dense(module, train, sparsity=sparsity, drop=4, rounds=rounds) is module
    assert len(parameters) == len(list(module.parameters()))
    return seen


def check_phases(seed: int, rounds: int = 2, sparsity: float = 0.4) -> None:
    seen = trained(seed, rounds, sparsity)
    assert [phase["factor"] for phase in seen] == [1, 0.25] * rounds
    assert len(seen[0]["start"]) == 7
    for sparse, dense in zip(seen[::2], seen[1::2], strict=True):
        for key, start in sparse["start"].items():
            pruned = start == 0
            assert pruned.sum() == start.numel() - round((1 - sparsity) * start.numel()), key
            assert torch.equal(sparse["end"][key] == 0, pruned), key  # none comes back while training
            # At the lift they are zero, and the others as the sparse phase left them; then all move.
            assert torch.equal(dense["start"][key], sparse["end"][key]), key
            moved = dense["end"][key] != 0
            if not key.startswith("embedding"):  # rows of tokens that do not occur have no gradient
                assert moved[pruned].float().mean() > 0.9, key


@pytest.mark.verifies("dsd-pruned-weights-zero-until")
@pytest.mark.parametrize("rounds", [1, 2])
def test_pruned_weights_stay_zero_until_the_lift_and_move_after_it(rounds: int, seed: int) -> None:
    check_phases(seed, rounds)


@pytest.mark.verifies("planted-fault-mask-lifted")
def test_planted_fault_mask_not_lifted_is_caught(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dsd, "lift", lambda module: 0)
    with pytest.raises(AssertionError):
        check_phases(seed)


def test_planted_fault_restart_from_what_lay_under_the_mask_is_caught(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lift(module: nn.Module) -> int:
        for site in weights(module):
            mask = prune.find(site.module, site.name)
            assert mask is not None
            mask.mask.fill_(True)
        return 0

    monkeypatch.setattr(dsd, "lift", lift)
    with pytest.raises(AssertionError):
        check_phases(seed)


def test_lift_keeps_parameters_and_counts(seed: int) -> None:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 2))
    assert dsd.lift(module) == 0
    dsd.sparsify(module, {"0": 0.3, "2": 0.0})
    before = [id(parameter) for parameter in module.parameters()]
    assert density(weights(module)) == (70 + 20) / 120
    assert dsd.lift(module) == 30
    assert [id(parameter) for parameter in module.parameters()] == before
    assert dsd.lift(module) == 0


STAGE = {"kind": "dsd", "epochs": 2, "learning_rate": 0.01}


def parsed(*stages: dict[str, Any], model: dict[str, Any] | None = None) -> Recipe:
    content = {
        "name": "dsd",
        "seed": 4,
        "data": {"name": "digits", "validation": 0.2, "samples": 400},
        "model": model or {"name": "mlp", "hidden": [12]},
        "stages": [{"kind": "dense", "epochs": 2, "learning_rate": 0.01}, *stages],
    }
    found = recipe.parse(content, "dsd.toml")
    assert recipe.parse(found.asdict(), "again") == found
    return found


def test_a_stage_of_a_recipe_stands_for_its_phases() -> None:
    _, sparse, dense = parsed(STAGE).stages
    assert (sparse.kind, sparse.name, sparse.density, sparse.method) == ("prune", "dsd-sparse", 0.7, "oneshot")
    assert (dense.kind, dense.name) == ("lift", "dsd-dense")
    assert (sparse.schedule, dense.schedule) == (Schedule(2, 64, 0.01), Schedule(2, 64, 0.001))
    every = {
        **STAGE, "name": "more", "rounds": 2, "drop": 4, "dense_epochs": 3, "batch": 32, "weight_decay": 0.1,
        "optimizer": "sgd", "shape": "constant", "sparsity": {"fc1": 0.9, "fc2": 0},
    }  # fmt: skip
    stages = parsed(every).stages[1:]
    assert [stage.name for stage in stages] == ["more-sparse-1", "more-dense-1", "more-sparse-2", "more-dense-2"]
    assert stages[2].density == {"fc1": 0.1, "fc2": 1.0}
    for stage, epochs, rate in zip(stages, [2, 3] * 2, [0.01, 0.0025] * 2, strict=True):
        assert stage.schedule == Schedule(epochs, 32, rate, 0.1, optimizer="sgd", shape="constant")


BAD: list[tuple[dict[str, Any], str]] = [
    ({**STAGE, "sparsity": 1}, "stages[1].sparsity is 1; expected a number from 0 to below 1"),
    ({**STAGE, "sparsity": {"fc1": 0.3}}, "stages[1].sparsity.fc2 is missing; expected a number from 0 to below 1"),
    ({**STAGE, "drop": 0.5}, "stages[1].drop is 0.5; expected a number from 1 to below"),
    ({**STAGE, "rounds": 0}, "stages[1].rounds is 0; expected an integer from 1"),
    ({**STAGE, "epochs": 0}, "stages[1].epochs is 0; expected an integer from 1"),
    ({**STAGE, "batch": 0}, "stages[1].batch is 0; expected an integer from 1"),
    ({**STAGE, "code_bits": 4}, "unknown key stages[1].code_bits"),
    ({"kind": "lift", "epochs": 1, "learning_rate": 0.1}, "stages[1] is of kind lift, but no mask is there"),
    ({"kind": "dds", "epochs": 1}, "stages[1].kind is 'dds'; expected one of teacher, dense"),
    ({"kind": "dds", "epochs": 1}, ", dsd"),
]


@pytest.mark.parametrize(("stage", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_stages(stage: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parsed(copy.deepcopy(stage))
    assert message in str(caught.value)


def test_masks_do_not_outlive_sharing() -> None:
    share = {"kind": "share", "epochs": 0, "learning_rate": 0.1}
    with pytest.raises(RecipeError, match="no mask is there to lift"):
        parsed(STAGE, share, {"kind": "lift", "epochs": 1, "learning_rate": 0.1})


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_a_run_goes_sparse_and_dense_again(name: str, tmp_path: Path) -> None:
    train_recipe(parsed({**STAGE, "rounds": 2}, model={"name": name, "hidden": 6}), tmp_path / "run")
    _, *phases = json.loads((tmp_path / "run" / "report.json").read_text())["stages"]
    assert [phase["kind"] for phase in phases] == ["prune", "lift"] * 2
    for number, phase in enumerate(phases):
        for epoch in phase["history"]:
            assert epoch["density"] == (1 if number % 2 else pytest.approx(0.7, abs=0.01))
    sizes = [layer["weights"] for layer in phases[0]["layers"]]
    assert phases[1]["lifted"] == sum(sizes) - sum(round(0.7 * size) for size in sizes)


def test_plain_training_of_the_same_length_sees_the_same_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[tuple[int, int, float]] = []
    real = Schedule.rate

    def rate(self: Schedule, step: int, total: int) -> float:
        rates.append((step, total, real(self, step, total)))
        return rates[-1][2]

    monkeypatch.setattr(Schedule, "rate", rate)
    train_recipe(parsed(STAGE), tmp_path / "dsd")
    dsd_rates = list(rates)
    rates.clear()
    high = {"kind": "finetune", "name": "high", "epochs": 2, "learning_rate": 0.01}
    low = {"kind": "finetune", "name": "low", "epochs": 2, "learning_rate": 0.001}
    train_recipe(parsed(high, low), tmp_path / "plain")
    assert rates == dsd_rates
    assert len(rates) == 6 * 5
    assert np.isclose(max(rate for _, _, rate in rates[-10:]), 0.001)
