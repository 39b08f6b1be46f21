"""The sensitivity scan measures what pruning one layer does, and its proposal takes most where it costs least."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compiler.train import prune, quantize, recipe, sensitivity
from compiler.train.layers import weights
from compiler.train.run import train_recipe


def network(seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 4))


def measure_of(module: nn.Module, seed: int) -> Callable[[], float]:
    """Share of samples on which the module still answers what the network of this seed answers."""
    inputs = torch.from_numpy(np.random.default_rng(seed).normal(size=(400, 12)).astype(np.float32))
    with torch.no_grad():
        answers = network(seed)(inputs).argmax(1)

    def measure() -> float:
        with torch.no_grad():
            return float((module(inputs).argmax(1) == answers).double().mean())

    return measure


@pytest.mark.verifies("sensitivity-scan-point-plain-masked")
@pytest.mark.parametrize("form", ["plain", "masked", "shared"])
def test_each_point_is_the_accuracy_with_that_layer_pruned(form: str, seed: int) -> None:
    module = network(seed)
    if form == "masked":
        prune.prune_sites(list(weights(module)), 0.6)
    if form == "shared":
        for site in weights(module):
            quantize.attach(site.module, 8, site.name)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    curves = sensitivity.scan(module, measure_of(module, seed), (0.1, 0.4, 1.0))
    assert list(curves) == ["0", "2", "4"]
    for key in curves:
        for density, accuracy in curves[key]:
            pruned = network(seed)
            for site in weights(module):
                with torch.no_grad():
                    pruned.get_parameter(f"{site.key}.weight").copy_(site.value)
            prune.prune(pruned.get_submodule(key), density)
            assert accuracy == measure_of(pruned, seed)(), (key, density)
    assert len({accuracy for curve in curves.values() for _, accuracy in curve}) > 3
    after = module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())  # the module is left as it was
    values = {site.key: site.value.detach().clone() for site in weights(module)}
    with torch.no_grad():  # and nothing of the scan stands between the parameters and what the layers compute with
        for parameter in module.parameters():
            parameter.mul_(2)
    assert all(torch.equal(site.value, 2 * values[site.key]) for site in weights(module))


CURVES = {
    "tough": [(0.01, 0.80), (0.1, 0.98), (0.5, 0.99), (1.0, 0.99)],
    "even": [(0.01, 0.50), (0.1, 0.90), (0.5, 0.98), (1.0, 0.99)],
    "frail": [(0.01, 0.20), (0.1, 0.40), (0.5, 0.80), (1.0, 0.99)],
}


@pytest.mark.verifies("sensitivity-proposal-density-kept-loss")
@pytest.mark.parametrize("target", [0.05, 0.1, 0.3, 0.7])
def test_a_proposal_keeps_what_is_wanted_and_more_where_pruning_costs_more(target: float) -> None:
    counts = {"tough": 5000, "even": 3000, "frail": 2000}
    found = sensitivity.propose(CURVES, counts, target)
    left = sum(found[key] * counts[key] for key in counts) / sum(counts.values())
    assert left == pytest.approx(target, rel=0.01)
    assert found["tough"] < found["even"] < found["frail"] <= 1
    # All lose the same accuracy, but for those at the least density that was measured.
    losses = []
    for key in counts:
        if found[key] > 0.0101:
            densities, accuracy = zip(*CURVES[key], strict=True)
            losses.append(accuracy[-1] - np.interp(np.log(found[key]), np.log(densities), accuracy))
    assert losses
    assert max(losses) - min(losses) < 1e-4


def test_what_costs_nothing_goes_even_if_more_was_wanted() -> None:
    found = sensitivity.propose(CURVES, {"tough": 5000, "even": 3000, "frail": 2000}, 0.99)
    assert found == {"tough": pytest.approx(0.5), "even": pytest.approx(1), "frail": pytest.approx(1)}


def test_all_layers_shrink_alike_below_what_was_measured() -> None:
    counts = {"tough": 1000, "even": 1000, "frail": 1000}
    found = sensitivity.propose({key: CURVES["tough"] for key in counts}, counts, 0.006)
    assert all(density == pytest.approx(0.006) for density in found.values())


def test_a_bump_in_a_curve_does_not_lower_the_density() -> None:
    bump = {"a": [(0.01, 0.99), (0.1, 0.5), (1.0, 0.99)]}
    assert sensitivity.propose(bump, {"a": 100}, 0.5)["a"] == pytest.approx(0.5, rel=0.01)


def check_recipe(folder: Path) -> None:
    parsed = recipe.parse(
        {
            "name": "scanned",
            "data": {"name": "digits", "validation": 0.3, "samples": 600},
            "model": {"name": "mlp", "hidden": [30, 20]},
            "stages": [
                {"kind": "dense", "epochs": 6, "learning_rate": 0.01},
                {"kind": "sensitivity", "density": 0.2},
                {"kind": "prune", "epochs": 3, "learning_rate": 0.01, "density": "sensitivity", "ramp": 0.4},
            ],
        },
        "scanned",
    )
    train_recipe(parsed, folder)
    dense, scan, pruned = json.loads((folder / "report.json").read_text())["stages"]
    proposal = scan["proposal"]
    assert set(scan["curves"]) == set(proposal) == {"fc1", "fc2", "fc3"}
    assert all(curve[-1] == [1.0, dense["accuracy"]["validation"]] for curve in scan["curves"].values())
    assert len(set(proposal.values())) == 3
    counts = {layer["name"]: layer["weights"] for layer in pruned["layers"]}
    assert sum(proposal[key] * counts[key] for key in counts) == pytest.approx(0.2 * sum(counts.values()), rel=0.01)
    for layer in pruned["layers"]:
        assert layer["nonzeros"] == round(proposal[layer["name"]] * layer["weights"])
    assert (folder / "plots" / "sensitivity.svg").exists()


def test_a_recipe_prunes_to_the_proposal(tmp_path: Path) -> None:
    check_recipe(tmp_path / "run")


@pytest.mark.verifies("planted-fault-layers-scan-exchanged")
def test_planted_fault_layers_exchanged_is_caught(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sensitivity.scan

    def scan(*arguments: object) -> dict[str, list[tuple[float, float]]]:
        curves = real(*arguments)  # type: ignore[arg-type]
        return dict(zip(curves, [*list(curves.values())[1:], curves["0"]], strict=True))

    monkeypatch.setattr(sensitivity, "scan", scan)
    with pytest.raises(AssertionError):
        test_each_point_is_the_accuracy_with_that_layer_pruned("plain", seed)


def test_scan_of_a_copy_is_the_same(seed: int) -> None:
    module = network(seed)
    again = copy.deepcopy(module)
    first, second = (sensitivity.scan(each, measure_of(each, seed), (0.3, 1.0)) for each in (module, again))
    assert first == second
