"""Deep deterministic policy gradient as HAQ and AMC use it: one action a layer, the same reward for a whole pass.

Sources: Continuous control with deep reinforcement learning (Lillicrap et al., ICLR 2016); HAQ (Wang et al., CVPR
2019), section 4; AMC (He et al., ECCV 2018), section 4. The constants are those that both published: two hidden layers
of 300, rates 1e-4 and 1e-3, tau 0.01, no discount, batches of 64, uniform actions during a warm-up, then truncated
normal noise whose width falls, and rewards less a moving average of those of the batches.
"""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

__all__ = ["Constants", "Ddpg"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Constants:
    """What HAQ has; AMC has a warm-up of 100, decay 0.95 and a memory of 100 passes.

    warmup : passes with uniform actions. sigma, decay : of the noise after it, and how it falls from pass to pass.
    memory : passes that are kept.
    """

    hidden: int = 300
    actor_rate: float = 1e-4
    critic_rate: float = 1e-3
    tau: float = 0.01
    discount: float = 1.0
    batch: int = 64
    warmup: int = 20
    sigma: float = 0.5
    decay: float = 0.99
    memory: int = 128
    baseline: float = 0.5


class _Actor(nn.Module):
    def __init__(self, states: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(states, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, state: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(state))


class _Critic(nn.Module):
    def __init__(self, states: int, hidden: int) -> None:
        super().__init__()
        self.state, self.action = nn.Linear(states, hidden), nn.Linear(1, hidden)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        value: Tensor = self.rest(self.state(state) + self.action(action))
        return value


class Ddpg:
    """An agent. All that is random in it follows from `seed`.

    Parameters
    ----------
    states : numbers of a state. layers : of a pass.
    """

    def __init__(self, states: int, layers: int, seed: int, constants: Constants | None = None) -> None:
        self.constants = constants or Constants()
        self.rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = _Actor(states, self.constants.hidden)
            self.critic = _Critic(states, self.constants.hidden)
        self.targets = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.optimizers = (
            torch.optim.Adam(self.actor.parameters(), self.constants.actor_rate),
            torch.optim.Adam(self.critic.parameters(), self.constants.critic_rate),
        )
        self.memory: deque[tuple[Floats, float, float, Floats, float]] = deque(maxlen=self.constants.memory * layers)
        self.passes = 0
        self.average: float | None = None

    def act(self, state: Floats) -> float:
        """An action, with noise."""
        if self.passes < self.constants.warmup:
            return float(self.rng.uniform())
        with torch.no_grad():
            mean = float(self.actor(torch.from_numpy(state).float()[None]))
        sigma = self.constants.sigma * self.constants.decay ** (self.passes - self.constants.warmup)
        low, high = -mean / sigma, (1 - mean) / sigma
        return float(stats.truncnorm.rvs(low, high, mean, sigma, random_state=self.rng))

    def learn(self, states: list[Floats], actions: list[float], reward: float) -> None:
        """A pass is through: remember its steps, each with the reward of all, and train a step for each."""
        for number, (state, action) in enumerate(zip(states, actions, strict=True)):
            last = number == len(states) - 1
            self.memory.append((state, action, reward, states[min(number + 1, len(states) - 1)], float(not last)))
        self.passes += 1
        if self.passes > self.constants.warmup:
            for _ in states:
                self._step()

    def _step(self) -> None:
        """One batch; a step that ends its pass has no value behind it."""
        chosen = self.rng.integers(len(self.memory), size=self.constants.batch)
        parts = zip(*(self.memory[int(n)] for n in chosen), strict=True)
        state, action, reward, after, goes_on = (torch.as_tensor(np.array(part)).float() for part in parts)
        action, reward, goes_on = action[:, None], reward[:, None], goes_on[:, None]
        mean = float(reward.mean())
        share = self.constants.baseline
        self.average = mean if self.average is None else self.average + share * (mean - self.average)
        with torch.no_grad():
            following = self.targets[1](after, self.targets[0](after))
            goal = reward - self.average + self.constants.discount * goes_on * following
        loss = nn.functional.mse_loss(self.critic(state, action), goal)
        self.optimizers[1].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers[1].step()
        gain = self.critic(state, self.actor(state)).mean()
        self.optimizers[0].zero_grad()
        (-gain).backward()
        self.optimizers[0].step()
        for target, source in zip(self.targets, (self.actor, self.critic), strict=True):
            for old, new in zip(target.parameters(), source.parameters(), strict=True):
                old.data.lerp_(new.data, self.constants.tau)
