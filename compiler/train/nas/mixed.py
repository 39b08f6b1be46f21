"""A network in which every block is several operations at once, of which one is computed: binary gates.

Source: ProxylessNAS (Cai et al., ICLR 2019), section 3.2: path binarization, and the gradient of the gates.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compiler.train.nas.space import ZERO, Bottleneck, Choices, Op, Place, Residual, Space, network

__all__ = ["Mixed", "Supernet"]


class _Nothing(nn.Module):
    """Zeros that a gradient reaches, so that the gate of nothing has one."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.0


class Mixed(nn.Module):
    """A block that may be one of several operations; float32 (n, channels, height, width) as `Bottleneck`.

    Attributes
    ----------
    ops : the operations. residual : whether what comes in is added.
    alpha : logits of their probabilities, float32 (ops,). It takes part in no graph of torch: `gate_gradient` says its
        gradient.
    active : number of the one that is computed.
    gates : numbers of those whose gates the next backward pass finds gradients of; none: a plain pass.
    gate_gradients : of those, float32 (ops,), as the last backward pass left it.
    """

    def __init__(self, place: Place, ops: Sequence[Op]) -> None:
        super().__init__()
        self.ops = nn.ModuleList(_Nothing() if op == ZERO else Bottleneck(place, op) for op in ops)
        self.residual = place.residual
        self.alpha = nn.Parameter(torch.zeros(len(ops)), requires_grad=False)
        self.active = 0
        self.gates: tuple[int, ...] = ()
        self.gate_gradients = torch.zeros(len(ops))

    def forward(self, x: Tensor) -> Tensor:
        """The operation that is active, alone."""
        if self.gates and not x.requires_grad:  # nothing learns before this block, and its gates do
            x = x.detach().requires_grad_()
        made: Tensor = self.ops[self.active](x)
        if self.gates and torch.is_grad_enabled():
            inside, own = x.detach(), made.detach()
            # The other operations run when the gradient is there, one after the other, and leave nothing behind. So one
            # path is in memory at any time.
            made.register_hook(lambda gradient: self._find(gradient, inside, own))  # type: ignore[no-untyped-call]
        return made + x if self.residual else made

    def _find(self, gradient: Tensor, x: Tensor, own: Tensor) -> None:
        self.gate_gradients.zero_()
        with torch.no_grad():
            for number in self.gates:
                made = own if number == self.active else self.ops[number](x)
                self.gate_gradients[number] = (made * gradient).sum().item()

    @property
    def probabilities(self) -> Tensor:
        """Of the operations, float32 (ops,)."""
        return torch.softmax(self.alpha.detach(), 0)

    def gate_gradient(self) -> Tensor:
        """Gradient of the loss by `alpha`, from those of the gates, float32 (ops,); zero where there is no gate.

        With gates of all operations it is equation 4 of the source; with two of them the same over these two, whose
        probabilities are made to sum up to one.
        """
        numbers = torch.tensor(self.gates, dtype=torch.long)
        share = torch.softmax(self.alpha.detach()[numbers], 0)
        found = self.gate_gradients[numbers].to(share.dtype)
        gradient = torch.zeros_like(self.alpha)
        gradient[numbers] = share * (found - (share * found).sum())
        return gradient


class Supernet(nn.Module):
    """All networks of a space in one; it computes one of them at a time.

    Flat samples float32 (n, features) to scores (n, classes).

    Attributes
    ----------
    space : that it holds. mixed : its blocks. net : the whole.
    """

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space = space
        blocks = [Mixed(place, space.choices(number)) for number, place in enumerate(space.places)]
        self.net = network(space, blocks)

    @classmethod
    def make(cls, space: Space, seed: int) -> Supernet:
        """With the first weights that belong to a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(space)

    @property
    def mixed(self) -> list[Mixed]:
        """The blocks, in order."""
        return [module for module in self.net if isinstance(module, Mixed)]

    def forward(self, x: Tensor) -> Tensor:
        """The network that is active."""
        scores: Tensor = self.net(x)
        return scores

    def put(self, choices: Choices) -> None:
        """Compute this network from now on, without gates."""
        for block, choice in zip(self.mixed, choices, strict=True):
            block.active, block.gates = choice, ()

    def sample(self, generator: torch.Generator) -> Choices:
        """A network by the probabilities of its operations, which is computed from now on."""
        choices = tuple(int(torch.multinomial(block.probabilities, 1, generator=generator)) for block in self.mixed)
        self.put(choices)
        return choices

    def likeliest(self) -> Choices:
        """The network of the greatest probabilities."""
        return tuple(int(block.alpha.argmax()) for block in self.mixed)

    def extract(self, choices: Choices) -> nn.Sequential:
        """A copy of one network alone, with its weights as they are here."""
        blocks: list[nn.Module] = []
        for block, choice in zip(self.mixed, choices, strict=True):
            op = block.ops[choice]
            if isinstance(op, _Nothing):
                blocks.append(nn.Identity())
            else:
                made = copy.deepcopy(op)
                blocks.append(Residual(made) if block.residual else made)
        found = network(self.space, blocks)
        for name in ("stem", "norm", "fc"):
            found.get_submodule(name).load_state_dict(self.net.get_submodule(name).state_dict())
        return found.train(self.training)
