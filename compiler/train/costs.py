"""What a network costs to run: weights, multiplications, and how many of them meet a weight that is not zero."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from compiler.train.evaluating import evaluating

__all__ = ["LayerCost", "layer_costs", "totals"]


@dataclass(frozen=True)
class LayerCost:
    """One layer, for one sample.

    Attributes
    ----------
    name : its path; outputs, inputs : filters and input channels, or the sizes of a Linear.
    weights, nonzeros : of the weight, without the bias.
    multiplies, nonzero_multiplies : of the layer as it is, and those with a weight that is not zero.
    filters : outputs that have a weight left.
    """

    name: str
    outputs: int
    inputs: int
    filters: int
    weights: int
    nonzeros: int
    multiplies: int
    nonzero_multiplies: int

    def asdict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def layer_costs(module: nn.Module, sample: Tensor) -> list[LayerCost]:
    """Costs of every Linear and convolution that runs, in the module's order.

    sample : one or more samples; the costs are those of one.
    """
    places: dict[nn.Module, int] = {}

    def note(layer: nn.Module, taken: tuple[Tensor, ...], given: Tensor) -> None:
        each = math.prod(given.shape[:-1]) if isinstance(layer, nn.Linear) else given.numel() // given.shape[1]
        places[layer] = places.get(layer, 0) + each // len(given)

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    named = [(path, layer) for path, layer in module.named_modules() if isinstance(layer, kinds)]
    handles = [layer.register_forward_hook(note) for _, layer in named]
    with evaluating(module, handles):
        module(sample)
    found = []
    for path, layer in named:
        weight = layer.weight.detach()
        nonzeros = int((weight != 0).sum())
        filters = int((weight.flatten(1) != 0).any(1).sum())
        each = places.get(layer, 0)
        found.append(
            LayerCost(
                path or "weight", weight.shape[0], weight.shape[1], filters, weight.numel(), nonzeros,
                each * weight.numel(), each * nonzeros,
            )
        )  # fmt: skip
    return found


def totals(costs: list[LayerCost]) -> dict[str, int]:
    """Sums over the layers, and their number."""
    keys = ("outputs", "filters", "weights", "nonzeros", "multiplies", "nonzero_multiplies")
    return {"layers": len(costs), **{key: sum(int(getattr(cost, key)) for cost in costs) for key in keys}}
