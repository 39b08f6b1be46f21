"""Which parameters belong to a channel: the layers that make it, those that take it, across shortcuts and flattenings.

Layers whose outputs are added share their channels: one can be removed only from all of them. The dependency graph is
torch-pruning's (DepGraph: Towards Any Structural Pruning, Fang et al., CVPR 2023); this file says what of it the
kit uses. The network must have plain parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compiler.errors import ModelError, ToolError

__all__ = ["LAYERS", "Channels", "End", "find", "full_gradients"]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


@dataclass(frozen=True, eq=False)
class End:
    """A layer's side of some channels.

    Attributes
    ----------
    layer : that makes or takes them.
    channels : for each of its outputs (or inputs) the number of the channel, -1 for one that belongs to none.
    """

    layer: nn.Module
    channels: Tensor


@dataclass(frozen=True, eq=False)
class Channels:
    """Channels that can only be removed together from all layers that make and take them.

    Attributes
    ----------
    root : path of the first layer that makes them.
    count : how many.
    makers, takers : the layers at both ends.
    """

    root: str
    count: int
    makers: tuple[End, ...]
    takers: tuple[End, ...]
    graph: Any

    def remove(self, numbers: list[int]) -> None:
        """Take channels out of all parameters that belong to them, in place."""
        layer = self.makers[0].layer
        self.graph.get_pruning_group(layer, _cut(self.graph, layer), numbers).prune()


def find(module: nn.Module, inputs: Tensor) -> list[Channels]:
    """All channels that can be removed: those of the network's outputs are left out.

    Parameters
    ----------
    inputs : a few samples, for one run of the module.

    Raises
    ------
    ToolError
        torch-pruning is not installed.
    ModelError
        The network cannot be traced.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise ToolError(
            "removing structure from a network that is no chain needs torch-pruning, which is not installed; "
            "pip install 'eie-kit[torch]'"
        ) from error
    with full_gradients(module):
        try:
            graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=inputs, verbose=False)
        except Exception as error:  # the library raises what happens to come
            raise ModelError(f"the dependencies of {type(module).__name__} cannot be traced: {error}") from error
    names = {layer: name for name, layer in module.named_modules()}
    tied = _tied(module)
    seen: set[nn.Module] = set()
    found = []
    for layer in graph.module2node:
        if not isinstance(layer, LAYERS) or layer in seen or _grouped(layer) or layer not in names:
            continue
        count = len(layer.weight)
        group = graph.get_pruning_group(layer, _cut(graph, layer), list(range(count)))
        makers: list[End] = []
        takers: list[End] = []
        leaves = False
        for item in group:
            target = item.dep.target.module
            cut = graph.is_out_channel_pruning_fn(item.dep.handler)
            if isinstance(target, LAYERS):
                size = len(target.weight) if cut else target.weight.shape[1]
                channels = torch.full((size,), -1)
                channels[torch.tensor(item.idxs)] = torch.tensor(item.root_idxs)
                (makers if cut else takers).append(End(target, channels))
                leaves |= _grouped(target) or target in tied
                if cut:
                    seen.add(target)
            leaves |= type(target).__name__ == "_OutputOp" or _unknown(target)
        if takers and not leaves:
            found.append(Channels(names[layer], count, tuple(makers), tuple(takers), graph))
    return found


@contextmanager
def full_gradients(module: nn.Module) -> Iterator[None]:
    """The graph is traced by gradients: for as long as it takes, all parameters have them."""
    frozen = [parameter for parameter in module.parameters() if not parameter.requires_grad]
    training = module.training
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        module.train(training)
        for parameter in frozen:
            parameter.requires_grad_(False)


def _cut(graph: Any, layer: nn.Module) -> Any:
    return graph.get_pruner_of_module(layer).prune_out_channels


def _unknown(target: Any) -> bool:
    """Whether a member of a group has parameters that this kit does not know how to judge."""
    if isinstance(target, (*LAYERS, nn.BatchNorm1d, nn.BatchNorm2d)):
        return False
    return isinstance(target, nn.Parameter) or any(True for _ in target.parameters())


def _tied(module: nn.Module) -> set[nn.Module]:
    """Layers that have a parameter in common with another: the graph knows nothing of that."""
    holders: dict[int, set[nn.Module]] = {}
    for layer in module.modules():
        for parameter in layer.parameters(recurse=False):
            holders.setdefault(id(parameter), set()).add(layer)
    return {layer for each in holders.values() if len(each) > 1 for layer in each}


def _grouped(layer: nn.Module) -> bool:
    return getattr(layer, "groups", 1) != 1
