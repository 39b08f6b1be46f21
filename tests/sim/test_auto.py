"""Compression to a target: the chooser against brute force, limits that hold, weights found in blocks, reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.errors import InputError, RecipeError
from compiler.experiments import load
from compiler.experiments.policy.descent import descend, envelope
from sim.auto.curves import GRID, Curve, by_layer, curves_of, same
from sim.auto.experiment import AutoTrial
from sim.auto.settle import settle
from sim.auto.target import Target, parse
from sim.search.kinds import KINDS

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]


def random_layers(rng: np.random.Generator, layers: int, levels: int) -> tuple[Any, Any]:
    """Costs that ascend, and convex losses that fall to 0."""
    costs = rng.uniform(1, 10, (layers, levels)).cumsum(axis=1)
    slopes = np.sort(rng.uniform(0.01, 5, (layers, levels - 1)), axis=1)[:, ::-1] * np.diff(costs, axis=1)
    falls = np.concatenate([slopes[:, ::-1].cumsum(axis=1)[:, ::-1], np.zeros((layers, 1))], axis=1)
    return costs, falls


def best(costs: Any, losses: Any, budget: float) -> float:
    """The least loss of all policies that fit, by trying each."""
    found = np.inf
    for policy in product(*(range(len(each)) for each in costs)):
        taken = sum(costs[layer][level] for layer, level in enumerate(policy))
        if taken <= budget + 1e-9:
            found = min(found, sum(losses[layer][level] for layer, level in enumerate(policy)))
    return found


@pytest.mark.verifies("auto-chooser")
def test_no_policy_that_costs_as_little_loses_less(rng: np.random.Generator) -> None:
    for _ in range(12):
        costs, losses = random_layers(rng, 3, 5)
        limit = rng.uniform(costs[:, 0].sum(), costs[:, -1].sum())
        policy = descend(costs.tolist(), losses.tolist(), limit)
        taken, lost = (sum(each[n] for each, n in zip(table, policy, strict=True)) for table in (costs, losses))
        assert taken <= limit
        assert lost == pytest.approx(best(costs, losses, taken))
        if any(policy):  # planted: one step further loses more than the best at its cost
            down = next(n for n, level in enumerate(policy) if level)
            dearer = lost + losses[down][policy[down] - 1] - losses[down][policy[down]]
            assert dearer > best(costs, losses, taken)


@pytest.mark.verifies("auto-chooser")
def test_a_bump_in_a_measurement_hides_nothing(rng: np.random.Generator) -> None:
    costs = [[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]]
    bumpy, plain = [0.2, 0.1, 3.0, 0.0], [3.0, 2.0, 1.0, 0.0]  # the first layer thinned to 2 loses next to nothing
    assert descend(costs, [bumpy, plain], 6.0) != (1, 3)
    flat = [envelope(cost, loss).tolist() for cost, loss in zip(costs, (bumpy, plain), strict=True)]
    assert descend(costs, flat, 6.0) == (1, 3)
    noisy = rng.uniform(0, 1, 9)
    x = rng.uniform(0.1, 1, 9).cumsum()
    below = envelope(x.tolist(), noisy.tolist())
    assert (below <= noisy + 1e-12).all()
    assert (below[0], below[-1]) == (noisy[0], noisy[-1])
    assert (np.diff(np.diff(below) / np.diff(x)) >= -1e-9).all()


def curves(losses: Sequence[float]) -> list[Curve]:
    """Layers that cost 100 dense and lose so much at the least density."""
    densities = np.array(GRID)
    shapes = np.log(densities) / np.log(GRID[0])
    return [Curve(str(n), (f"w{n}",), 100 * densities, loss * shapes**2) for n, loss in enumerate(losses)]


@pytest.mark.verifies("auto-target")
def test_the_whole_network_meets_the_limit_where_the_sum_over_blocks_does_not() -> None:
    layers = curves([1.0, 3.0])

    def exact(densities: Mapping[str, float]) -> float:
        assert set(densities) == {"w0", "w1"}
        return 7.0 + 130.0 * sum(densities.values())  # overlap and fixed parts, which no table knows

    for choose in (by_layer, same):
        found = settle(layers, choose, exact, 100.0, "cycles")
        assert 98.0 < found.cost <= 100.0
        assert found.cost == exact(found.densities)
    one = settle(layers, same, exact, 100.0, "cycles").densities
    each = settle(layers, by_layer, exact, 100.0, "cycles").densities
    assert len(set(one.values())) == 1
    assert each["w0"] < one["w0"] < each["w1"]  # who loses little gives more
    with pytest.raises(InputError, match=r"takes 15, the least that is possible"):
        settle(layers, by_layer, exact, 12.0, "cycles")


@pytest.mark.verifies("auto-target")
@pytest.mark.parametrize("text", ["cycles", "cycles=", "cycles=x", "area=3", "cycles=-1", "cycles=100%", "bytes=nan"])
def test_targets_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--target"):
        parse(text)


@pytest.mark.verifies("auto-target")
def test_targets_have_units() -> None:
    assert parse("cycles=40%") == Target("cycles", 0.4, True)
    assert parse("energy=2.5e6") == Target("energy", 2.5e6)
    assert str(parse("bytes=60_000")) == "bytes=60000"
    with pytest.raises(InputError, match="does not fit the array; give a number"):
        parse("cycles=40%").limit(None)
    assert parse("bytes=60000").limit(None) == 60000


@pytest.mark.verifies("auto-chooser")
def test_weights_are_found_in_their_blocks_by_what_they_are() -> None:
    from compiler.experiments.policy.network import marked
    from compiler.source import from_module
    from compiler.train.layers import weights
    from sim.auto.blocks import members

    class Residual(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(1, 4, 3, padding=1)
            self.norm = torch.nn.BatchNorm2d(4)
            self.inner = torch.nn.Conv2d(4, 6, 3, padding=1)
            self.around = torch.nn.Conv2d(4, 6, 1)
            self.last = torch.nn.Linear(6 * 16, 3)

        def forward(self, x: Any) -> Any:
            x = torch.relu(self.norm(self.first(x)))
            return self.last(torch.relu(self.inner(x) + self.around(x)).flatten(1))

    module = Residual().eval()
    keys = [site.key for site in weights(module)]
    sample = (torch.zeros(1, 1, 4, 4),)
    graphs = [from_module(each, sample).graph for each in (module, marked(module))]
    found = {name: [keys[n] for n in numbers] for name, numbers in members(*graphs).items()}
    assert sorted(found.values()) == [["first"], ["inner", "around"], ["last"]]
    assert members(graphs[0], graphs[0]) == {}  # planted: weights without marks are nowhere


@pytest.mark.verifies("auto-chooser")
def test_curves_add_up_what_is_in_a_block() -> None:
    measured = GRID[1:-1]  # at the ends nothing could be compiled
    costs = {density: {"a": 100 * density, "b": 5.0} for density in measured}
    losses = {key: [(density, -1.0 + density) for density in GRID] for key in ("x", "y", "z")}
    (found,) = curves_of({"a": ["x", "y"], "b": ["z"]}, costs, losses)  # b costs the same whatever is left of it
    assert found.keys == ("x", "y")
    assert found.losses[0] == pytest.approx(2 * (1 - GRID[0]))
    assert found.losses[-1] == 0
    assert found.costs.tolist() == pytest.approx([100 * measured[0], *(100 * density for density in measured), 100])


def result(found: float, uniform: float, taken: float) -> dict[str, Any]:
    """Of one seed: test errors, and cycles of what was found."""

    def arm(error: float, cycles: float) -> dict[str, Any]:
        return {"errors": {"test": error}, "taken": cycles, "trainings": 1, "epochs": 6}

    arms = {"dense": arm(10.0, 400.0), "found": arm(found, taken), "uniform x1": arm(uniform + 1, 100.0),
            "uniform x1.4": arm(uniform, 120.0)}  # fmt: skip
    return {"limit": 100.0, "arms": arms}


@pytest.mark.verifies("auto-report")
def test_the_findings_of_the_experiment_follow_from_its_numbers() -> None:
    experiment = load(ROOT / "recipes/experiments/auto.toml", KINDS)
    assert isinstance(experiment, AutoTrial)
    assert [trial.key for trial in experiment.trials()] == ["1", "2", "3"]
    results = {str(n): result(12.0 + n, 12.6 + n + n / 10, 100.0) for n in range(3)}
    said = "\n".join(experiment.summarize(results).findings)
    assert "Found makes no more errors than one density with 1.20 times its cycles: +0.70 points" in said
    assert "The target held in 3 of 3" in said
    planted = results | {"2": result(15.0, 12.6, 101.0)}
    said = "\n".join(experiment.summarize(planted).findings)
    assert "Found makes more errors than one density with 1.20 times" in said
    assert "The target held in 2 of 3" in said


@pytest.mark.verifies("auto-report")
def test_experiments_that_are_wrong_are_refused(tmp_path: Path) -> None:
    text = (ROOT / "recipes/experiments/auto.toml").read_text()
    for old, new, words in (
        ("more = [1.4]", "more = []", "more is empty"),
        ("cycles=25%", "cycles=", "expected cycles=N"),
        ('kind = "prune"', 'kind = "finetune"', "unknown key"),
    ):
        path = tmp_path / "wrong.toml"
        path.write_text(text.replace(old, new))
        with pytest.raises((RecipeError, InputError), match=words):
            load(path, KINDS)
