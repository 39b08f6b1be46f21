"""Residual blocks whose branch gives nothing: what is left of them is the shortcut.

Source: Learning Structured Sparsity in Deep Neural Networks (Wen et al., NIPS 2016), section 3.2, depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from compiler.train.evaluating import evaluating

__all__ = ["Bypassed", "Residual", "blocks", "bypass", "replace"]


@runtime_checkable
class Residual(Protocol):
    """What a block of the user's own must have, so that it can be bypassed."""

    def branch(self) -> list[nn.Module]:
        """The layers with weights under the shortcut, in order; any of them giving zero makes the branch constant."""
        ...

    def bypassed(self) -> nn.Module:
        """What computes the block's outputs where its branch gives zero."""
        ...


class Bypassed(nn.Module):
    """A residual block without its branch: relu(shortcut(x))."""

    kind = "bypassed"

    def __init__(self, shortcut: nn.Module) -> None:
        super().__init__()
        self.shortcut = shortcut

    def describe(self) -> dict[str, str]:
        """What `structure.rebuild` needs to make the same module."""
        return {"kind": self.kind}

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the block."""
        return torch.relu(self.shortcut(x))


def blocks(module: nn.Module) -> Iterator[tuple[str, Residual]]:
    """Path and block of everything that can be bypassed."""
    for path, block in module.named_modules():
        if isinstance(block, Residual):
            yield path, block


def bypass(module: nn.Module, inputs: Tensor) -> list[str]:
    """Replace every block whose branch gives nothing by its shortcut, in place; the paths of those.

    A branch counts if a layer of it has no weight left and the block's outputs on `inputs` are those of the shortcut
    alone, to the last bit.
    """
    found = []
    for path, block in list(blocks(module)):
        if not any(_zero(layer) for layer in block.branch()):
            continue
        taken: list[tuple[Tensor, Tensor]] = []
        handle = cast(nn.Module, block).register_forward_hook(_keep(taken))
        with evaluating(module, [handle]):
            module(inputs)
            stand_in = block.bypassed().eval()
            same = all(torch.equal(stand_in(into), out) for into, out in taken)
        if taken and same:
            replace(module, path)
            found.append(path)
    return found


def replace(module: nn.Module, path: str) -> None:
    """Put what is left of the block at `path` in its place."""
    parent, _, name = path.rpartition(".")
    block = cast(Residual, module.get_submodule(path))
    setattr(module.get_submodule(parent), name, block.bypassed())


def _zero(layer: nn.Module) -> bool:
    weight = cast(Tensor, layer.weight)
    return not bool(weight.detach().any())


def _keep(taken: list[tuple[Tensor, Tensor]]) -> Any:
    def hook(block: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        taken.append((inputs[0], outputs))

    return hook
