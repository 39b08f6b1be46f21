"""Policies: limits that nothing breaks, agents on problems whose optimum is known, DDPG's own parts, HAQ end to end."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from compiler.errors import InputError, RecipeError
from compiler.experiments import load
from compiler.experiments.base import Env
from compiler.experiments.haq import Haq, layer_bytes
from compiler.experiments.policy.agents import AGENTS
from compiler.experiments.policy.channel_variants import ChannelVariants
from compiler.experiments.policy.ddpg import Constants, Ddpg
from compiler.experiments.policy.network import gridded, pruned, shared
from compiler.experiments.policy.problem import LIMITS, Problem
from compiler.train import cluster
from compiler.train.data import Split
from compiler.train.images import Images
from compiler.train.models import resnet

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The networks of agents are small: threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@st.composite
def problems(draw: Any) -> Problem:
    """Layers of one to six levels whose costs ascend, and a limit between the least and more than all.

    Some have a layer in front that makes all others dearer or cheaper, as an array does.
    """
    number = st.floats(0, 1e6, allow_nan=False, allow_infinity=False)
    costs = draw(st.lists(st.lists(number, min_size=1, max_size=6).map(sorted), min_size=1, max_size=7))

    def coupled(policy: tuple[int, ...]) -> float:
        """What a layer costs grows with the level of the one before."""
        return sum((1 + before) * each[n] for before, each, n in zip((0, *policy), costs, policy, strict=False))

    def added(policy: tuple[int, ...]) -> float:
        return sum(each[n] for each, n in zip(costs, policy, strict=True))

    total = coupled if draw(st.booleans()) else added
    factors = draw(st.lists(st.floats(0.5, 2), max_size=3))
    least, most = total((0,) * len(costs)), total(tuple(len(each) - 1 for each in costs))
    least, most = max([least, *(factor * least for factor in factors)]), max([1.0, *factors]) * most
    budget = max(least, least + draw(st.floats(0, 1.1)) * (most - least))
    limit = draw(st.sampled_from(LIMITS))
    if factors:
        dearer = [[0.0] * len(factors), *costs]
        return Problem(dearer, budget, lambda policy: float(sum(policy[1:])), np.ones((len(dearer), 2)), limit,
                       lambda policy: factors[policy[0]] * total(policy[1:]), 1)  # fmt: skip
    return Problem(costs, budget, lambda policy: float(sum(policy)), np.ones((len(costs), 2)), limit,
                   coupled if total is coupled else None)  # fmt: skip


@pytest.mark.verifies("policy-limit")
@hypothesis_settings(max_examples=60)
@given(problems(), st.data())
def test_no_policy_breaks_the_limit(problem: Problem, data: Any) -> None:
    actions = data.draw(st.lists(st.floats(0, 1), min_size=len(problem), max_size=len(problem)))
    policy = problem.decode(actions)
    assert problem.fits(policy)
    assert all(0 <= level < len(costs) for level, costs in zip(policy, problem.costs, strict=True))
    for name in ("uniform", "greedy"):
        AGENTS[name](problem, 8, 0, 100.0)
    assert problem.best is not None
    assert problem.fits(problem.best)
    wished = [problem.level(layer, action) for layer, action in enumerate(actions)]
    assert list(policy[: problem.heads]) == wished[: problem.heads]
    assert all(got <= wish for got, wish in zip(policy, wished, strict=True))
    if problem.fits(wished) and problem.limit == "backwards":
        assert list(policy) == wished


@pytest.mark.verifies("policy-limit")
def test_a_policy_above_the_limit_is_never_the_best() -> None:
    problem = Problem([[1, 2], [1, 2]], 3, lambda policy: float(sum(policy)), np.zeros((2, 1)))
    with pytest.raises(InputError, match="costs 4, above the limit of 3"):  # planted
        problem.evaluate((1, 1))
    assert problem.measure((1, 1)) == 2
    assert problem.best is None
    problem.evaluate((1, 0))
    assert (problem.best, problem.best_score, problem.evaluations) == ((1, 0), 1, 2)
    with pytest.raises(InputError, match="the least that all layers cost is 2; expected a limit of that or more"):
        Problem([[1, 2], [1, 2]], 1.5, lambda policy: 0.0, np.zeros((2, 1)))
    with pytest.raises(InputError, match="do not ascend"):
        Problem([[2, 1]], 3, lambda policy: 0.0, np.zeros((1, 1)))


@pytest.mark.verifies("policy-limit")
def test_a_fresh_problem_knows_the_scores_of_the_other_and_nothing_else() -> None:
    asked: list[tuple[int, ...]] = []

    def score(policy: tuple[int, ...]) -> float:
        asked.append(policy)
        return float(sum(policy))

    first = Problem([[1, 2], [1, 2, 3]], 4, score, np.asarray([[1.0, 7.0], [3.0, 7.0]]), "ahead")
    assert (first.evaluate((1, 1)), first.evaluate((1, 1)), first.score(first.top)) == (2, 2, 3)
    second = dataclasses.replace(first)
    assert (second.best, second.best_score, second.evaluations, second.history) == (None, -np.inf, 0, [])
    assert (second.limit, second.features.tolist()) == ("ahead", first.features.tolist())
    assert (second.evaluate((1, 1)), second.measure(second.top)) == (2, 3)
    assert asked == [(1, 1), (1, 2)]
    assert first.evaluations == 2
    assert (first.reduced(first.top), first.reduced(first.top, 2.5), first.budget) == ((1, 1), (0, 0), 4)


@pytest.mark.verifies("policy-limit")
def test_limits_are_the_published_ones() -> None:
    """HAQ takes from the last layer first; AMC leaves the later layers their least."""
    costs = [[1, 2, 3], [1, 2, 3], [1, 2, 3]]
    haq = Problem(costs, 6, lambda policy: 0.0, np.zeros((3, 1)))
    assert haq.decode([0.9, 0.9, 0.9]) == (1, 1, 1)
    assert Problem(costs, 8, lambda policy: 0.0, np.zeros((3, 1))).decode([0.9, 0.9, 0.9]) == (2, 2, 1)
    amc = Problem(costs, 6, lambda policy: 0.0, np.zeros((3, 1)), "ahead")
    assert amc.decode([0.9, 0.9, 0.9]) == (2, 1, 0)
    eight = Problem([list(range(7))], 9, lambda policy: 0.0, np.zeros((1, 1)))  # 2 to 8 bits
    assert [eight.level(0, action) for action in (0.0, 0.0714, 0.5, 0.93, 1.0)] == [0, 0, 3, 6, 6]


def toy(layers: int, seed: int) -> tuple[Problem, float]:
    """Layers that lose unlike much for a level; and the least loss that fits, found by trying all."""
    rng = np.random.default_rng(seed)
    sizes, hurts = rng.uniform(1, 10, layers), np.exp(rng.normal(0, 1.5, layers))
    levels = 4
    costs = [[size * (level + 1) for level in range(levels)] for size in sizes]

    def score(policy: tuple[int, ...]) -> float:
        return 90 - float(sum(hurt * 4.0**-level for hurt, level in zip(hurts, policy, strict=True)))

    features = np.stack([sizes, hurts, np.arange(layers)], 1)
    problem = Problem(costs, 2.2 * float(sizes.sum()), score, features)
    every = itertools.product(range(levels), repeat=layers)
    return problem, max(score(policy) for policy in every if problem.fits(policy))


@pytest.mark.verifies("policy-agents")
@pytest.mark.parametrize("name", sorted(AGENTS))
def test_agents_come_near_a_known_optimum(name: str) -> None:
    """Uniform levels leave what they leave; the others close most of what is between those and the optimum."""
    if name in ("tpe", "cmaes"):
        pytest.importorskip("optuna")
        pytest.importorskip("cmaes")
    closed = []
    for seed in (1,) if name in ("ddpg", "amc") else (1, 2):  # these take seconds
        problem, optimum = toy(5, seed)
        AGENTS["uniform"](problem, 1, 0, 90.0)
        start = problem.best_score
        fresh, _ = toy(5, seed)
        AGENTS[name](fresh, 40, seed, 90.0)
        assert fresh.evaluations <= 40
        assert fresh.best is not None
        assert fresh.fits(fresh.best)
        assert len(fresh.history) == fresh.evaluations
        assert start < optimum
        closed.append((fresh.best_score - start) / (optimum - start))
        first, second = (toy(5, seed)[0] for _ in range(2))
        for each in (first, second):
            AGENTS[name](each, 23, seed, 90.0)
        assert first.history == second.history
    assert np.mean(closed) == 0 if name == "uniform" else np.mean(closed) > 0.6


@pytest.mark.verifies("policy-agents")
@pytest.mark.parametrize("learns", [True, False])
def test_the_actor_learns_what_is_rewarded(learns: bool) -> None:
    """One step a pass, the reward is greatest at an action of 0.7; planted: a critic that is never trained."""
    agent = Ddpg(1, 1, 1, Constants(warmup=100, hidden=64, actor_rate=1e-3, critic_rate=1e-2, tau=0.05))
    if not learns:
        agent.optimizers[1].step = lambda *_: None  # type: ignore[assignment,method-assign]
    for _ in range(400):
        state = np.ones(1)
        action = agent.act(state)
        agent.learn([state], [action], -10 * (action - 0.7) ** 2)
    with torch.no_grad():
        found = float(agent.actor(torch.ones(1, 1)))
    assert (abs(found - 0.7) < 0.05) == learns


@pytest.mark.verifies("policy-agents")
def test_a_step_that_ends_its_pass_has_no_value_behind_it() -> None:
    agent = Ddpg(2, 3, 1)
    states = [np.full(2, float(n)) for n in range(3)]
    agent.learn(states, [0.1, 0.2, 0.3], 5.0)
    assert [(step[2], step[4]) for step in agent.memory] == [(5.0, 1.0), (5.0, 1.0), (5.0, 0.0)]
    assert [float(step[3][0]) for step in agent.memory] == [1.0, 2.0, 2.0]


@pytest.mark.verifies("policy-haq")
def test_variants_hold_what_their_levels_say() -> None:
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(1))
    for bits in (2, 4, 7):
        found = shared(weight, bits)
        assert len(found.unique()) <= 2**bits - 1
        assert (found - weight).abs().max() < (weight.max() - weight.min()) / 2
    assert float(((shared(weight, 5) - weight) ** 2).sum()) < float(((shared(weight, 3) - weight) ** 2).sum())
    assert shared(torch.zeros(3, 3), 4).eq(0).all()
    assert gridded(torch.zeros(3, 3), 4).eq(0).all()
    zeros, errors = [], []
    for bits in (2, 3, 5):
        found = gridded(weight, bits)
        values = found.unique()
        step = values[values > 0].min()
        torch.testing.assert_close(values / step, (values / step).round(), rtol=0, atol=1e-4)
        assert len(values) <= 2**bits
        assert weight[found == 0].abs().max() <= step / 2 * 1.001
        zeros.append(int((found == 0).sum()))
        errors.append(float(((found - weight) ** 2).sum()))
    assert zeros[0] > 1.5 * zeros[1] > 2 * zeros[2] > 0  # few bits prune
    assert errors[0] > errors[1] > errors[2]
    step, levels = cluster.grid(weight.flatten().numpy(), 2)  # planted: a step that knows of no zero
    coarse = np.sort(np.append(step * levels, 0.0))
    near = coarse[cluster.nearest(weight.numpy(), coarse)]
    assert float(((near - weight.numpy()) ** 2).sum()) > 1.05 * errors[0]
    kept = pruned(weight, 0.25)
    assert int((kept != 0).sum()) == 150
    assert weight[kept != 0].abs().min() >= weight[kept == 0].abs().max()
    assert layer_bytes(1000, 4) == 500 + 30
    assert layer_bytes(1000, 4, "grid") == 500 + 2


@pytest.mark.verifies("policy-channels")
def test_a_network_without_channels_is_the_masked_one(seed: int) -> None:
    torch.manual_seed(seed)
    module = resnet((1, 8, 8), 10, (16, 32)).eval()
    with torch.no_grad():
        for norm in (each for each in module.modules() if isinstance(each, torch.nn.BatchNorm2d)):
            norm.bias.uniform_(-0.5, 0.5)  # so that a channel without weights is not zero
        module.block1.conv2.weight[:, 3] = 100.0  # what takes channel 3 inside the first block
    inputs = np.random.default_rng(seed).uniform(size=(20, 64)).astype(np.float32)
    split = Split(inputs, np.zeros(20, np.int64))
    variants = ChannelVariants.make(module, (0.3, 0.6, 0.9), Images(split, (1, 8, 8)), split)
    assert variants.roots == ("conv", "block1.conv1", "block2.conv1", "block2.conv2")
    assert [[variants.kept(n, level) for level in range(3)] for n in (1, 2)] == [[8, 16, 16], [16, 24, 32]]
    x = torch.from_numpy(inputs)
    with torch.no_grad():
        before = module(x)
        assert torch.equal(variants.put((2, 2, 2, 2))(x), before)  # all are left
        policy = (0, 0, 1, 0)
        masked, small = variants.put(policy)(x), variants.found(policy)
        torch.testing.assert_close(small(x), masked, rtol=1e-4, atol=1e-5)
        other = variants.found((0, 0, 0, 0))(x)
        assert not torch.allclose(other, masked, rtol=1e-4, atol=1e-5)  # planted: another policy is another network
    assert small.conv.weight.shape[0] == small.block1.conv2.weight.shape[0] == 8
    assert small.block2.conv1.weight.shape[:2] == (24, 8)
    assert variants.named(policy) == [0.5, 0.5, 0.75, 0.5]
    assert int(variants.ranked[1][0]) == 3


@pytest.mark.verifies("policy-haq")
def test_haq_end_to_end_small(tmp_path: Path) -> None:
    pytest.importorskip("cmaes")
    text = (ROOT / "recipes/experiments/small/haq.toml").read_text()
    recipe = tmp_path / "haq.toml"
    for old, new in (
        ("evaluations = 30", "evaluations = 6"), ("epochs = 12", "epochs = 2"), ("judged = 200", "judged = 100"),
        ('name = "mlp-digits"\n', 'name = "mlp-digits"\nsamples = 600\n'),
        ("seeds = [1, 2]", 'seeds = [1, 2]\nquantizers = ["shared", "grid"]'),
    ):  # fmt: skip
        text = text.replace(old, new)
    recipe.write_text(text)
    experiment = load(recipe)
    assert isinstance(experiment, Haq)
    first = experiment.run(experiment.trials()[0], Env(None, lambda word: None))
    results = {trial.key: copy.deepcopy(first) for trial in experiment.trials()}
    rows = results["mlp-digits.1"]["rows"]
    assert [row["agent"] for row in rows] == [*experiment.agents] * 2
    assert {row["budget"] for row in rows[:6]} != {row["budget"] for row in rows[6:]}  # tables, or steps
    for row in rows:
        assert row["cost"] == row["costs"]["bytes"] <= row["budget"]
        assert row["evaluations"] <= 6
        json.dumps(row, allow_nan=False)
        assert row["agent"] != "uniform" or row["levels"] == [3, 3, 3]
    summary = experiment.summarize(results)
    assert summary.findings[0] == "The limit held in all 24 searches."
    assert any("ddpg gains" in each for each in summary.findings)
    results["mlp-digits.1"]["rows"][3]["cost"] += 1e9  # planted
    assert "The limit was broken by mlp-digits.1 tpe" in experiment.summarize(results).findings[0]


@pytest.mark.verifies("policy-haq")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"ddpg"]', '"sarsa"]', "agents names sarsa; expected some of uniform"),
        ('"uniform", ', "", "uniform among them"),
        ("judged = 200", 'judged = 200\nquantizers = ["log"]', "expected some of shared, grid"),
        ("uniform = 3", "uniform = 7", "uniform is 7; expected an integer from 2 to 6"),
        ("judged = 200", "", "judged is missing"),
    ],
)
def test_recipes_that_are_wrong_are_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    recipe = tmp_path / "haq.toml"
    recipe.write_text((ROOT / "recipes/experiments/small/haq.toml").read_text().replace(old, new, 1))
    with pytest.raises(RecipeError) as caught:
        load(recipe)
    assert said in str(caught.value)
