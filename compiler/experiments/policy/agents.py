"""Ways to find a policy, each with at most as many evaluations: DDPG as published, and what it has to beat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.experiments.policy.ddpg import Constants, Ddpg
from compiler.experiments.policy.descent import descend
from compiler.experiments.policy.problem import Policy, Problem
from compiler.optuna_quiet import optuna_quiet

__all__ = ["AGENTS", "Agent", "same", "uniform"]

Agent = Callable[[Problem, int, int, float], None]
"""Leaves the best policy in the problem, after at most so many evaluations, with a seed; the last number is the
accuracy before anything is taken away, percent."""


def uniform(problem: Problem, evaluations: int, seed: int, dense: float) -> None:
    """The same level for all layers that have a choice, the highest that fits; one evaluation."""
    problem.evaluate(same(problem))


def same(problem: Problem) -> Policy:
    """The policy of the highest level that fits if all layers that have a choice have it; else the least of each."""
    behind = problem.costs[problem.heads :]
    for level in reversed(range(max(map(len, behind)))):
        for head in problem.alternatives:
            policy = (*head, *(min(level, len(costs) - 1) for costs in behind))
            if problem.fits(policy):
                return policy
    return (0,) * len(problem)


def _random(problem: Problem, evaluations: int, seed: int, dense: float) -> None:
    """Independent uniform actions."""
    rng = np.random.default_rng(seed)
    for _ in range(evaluations):
        problem.evaluate(problem.decode(rng.uniform(size=len(problem)).tolist()))


def _greedy(problem: Problem, evaluations: int, seed: int, dense: float) -> None:
    """Layer by layer what each level alone loses; then from the top, the step that loses least for what it saves.

    Where evaluations do not suffice for all levels, those between are taken on a straight line.
    """
    top, heads = problem.top, problem.heads
    behind = list(enumerate(problem.costs))[heads:]
    steps = [(layer, level) for layer, costs in behind for level in range(len(costs) - 1)]
    count = min(len(steps), evaluations - 1)
    measured = {steps[n] for n in np.linspace(0, len(steps) - 1, max(0, count)).round().astype(int)} if count else set()
    losses = []
    for layer, costs in behind:
        known = [len(costs) - 1]
        values = [0.0]
        for level in reversed(range(len(costs) - 1)):
            if (layer, level) in measured:
                known.append(level)
                values.append(dense - problem.measure((*top[:layer], level, *top[layer + 1 :])))
        losses.append(np.interp(range(len(costs)), known[::-1], values[::-1]).tolist())

    def descended(head: Policy) -> Policy:
        coupled = None if problem.coupled is None else lambda policy: problem.cost((*head, *policy))
        return (*head, *descend(problem.costs[heads:], losses, problem.budget, coupled))

    def lost(policy: Policy) -> float:
        return sum(own[level] for own, level in zip(losses, policy[heads:], strict=True))

    problem.evaluate(min(map(descended, problem.alternatives), key=lost))


def _haq_reward(accuracy: float, dense: float) -> float:
    """A tenth of the points gained."""
    return 0.1 * (accuracy - dense)


def _amc_reward(accuracy: float, dense: float) -> float:
    """The accuracy, 0 … 1, of what fits the limit: AMC's reward where resources are constrained."""
    return 0.01 * accuracy


def _ddpg(
    problem: Problem,
    evaluations: int,
    seed: int,
    dense: float,
    constants: Constants | None = None,
    reward: Callable[[float, float], float] = _haq_reward,
) -> None:
    """DDPG with HAQ's constants and reward."""
    states = len(problem.state(0, (), 1.0))
    agent = Ddpg(states, len(problem), seed, constants)
    for _ in range(evaluations):
        policy, seen, actions = problem.walk(lambda layer, state: agent.act(state))
        agent.learn(seen, actions, reward(problem.evaluate(policy), dense))


def _amc(problem: Problem, evaluations: int, seed: int, dense: float) -> None:
    """DDPG with AMC's constants and reward, for fewer evaluations than it had with a warm-up of an eighth, as there."""
    warmup = min(100, max(1, evaluations // 8))
    _ddpg(problem, evaluations, seed, dense, Constants(warmup=warmup, decay=0.95, memory=100), _amc_reward)


def _optuna(name: str, sampler: Callable[[Any, int], Any]) -> Agent:
    def run(problem: Problem, evaluations: int, seed: int, dense: float) -> None:
        with optuna_quiet(name) as optuna:
            study = optuna.create_study(direction="maximize", sampler=sampler(optuna.samplers, seed))
            space = {
                str(layer): optuna.distributions.FloatDistribution(0.0, 1.0)
                for layer, costs in enumerate(problem.costs)
                if len(costs) > 1
            }
            for _ in range(evaluations):
                trial = study.ask(space)
                actions = [trial.params.get(str(layer), 1.0) for layer in range(len(problem))]
                study.tell(trial, problem.evaluate(problem.decode(actions)))

    return run


AGENTS: dict[str, Agent] = {
    "uniform": uniform,
    "random": _random,
    "greedy": _greedy,
    "tpe": _optuna("tpe", lambda samplers, seed: samplers.TPESampler(seed=seed, multivariate=True)),
    "cmaes": _optuna("cmaes", lambda samplers, seed: samplers.CmaEsSampler(seed=seed)),
    "ddpg": _ddpg,
    "amc": _amc,
}
"""Name → what it does. "ddpg" has HAQ's constants, "amc" those of AMC."""
