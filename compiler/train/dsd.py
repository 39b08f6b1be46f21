"""Dense, sparse, dense training: weights are pruned, the rest is trained, and the pruned ones come back as zeros.

The end is a dense network of the size that it had. The sparse phase is a regularizer: it trains a smaller network
from where the dense one stood; the pruned weights then restart from zero, at a lower learning rate.

`dense_sparse_dense` is the whole of it for any module and any way of training. In recipes it is a stage of kind
``dsd``, or ``prune`` and ``lift`` by themselves, see `compiler.train.stages.dsd`.

Each phase should begin with a fresh optimizer. In the sparse phase a pruned weight has no gradient, so that its
running mean of squares in Adam decays towards zero, while the count of steps, which corrects for that at the start
of training, goes on: the first steps after the lift would be up to (1 - b1) / sqrt(1 - b2) = 3.2 times as long for
those weights as the learning rate says, for the default b1 = 0.9 and b2 = 0.999.

Source: DSD: Dense-Sparse-Dense Training for Deep Neural Networks (Han et al., ICLR 2017), section 2. Its defaults
are here as well: the same sparsity, 30 %, in every layer, and a tenth of the learning rate after the lift.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from compiler.train import prune
from compiler.train.layers import weights
from compiler.train.select import Patterns

__all__ = ["DROP", "SPARSITY", "dense_sparse_dense", "factors", "lift", "sparsify"]

SPARSITY = 0.3
"""Share of each layer's weights that the sparse phase does without."""

DROP = 10.0
"""By how much the learning rate is lower in the dense phase than in the sparse one."""


def sparsify(
    module: nn.Module,
    sparsity: float | Mapping[str, float] = SPARSITY,
    only: Patterns | None = None,
    ignore: Patterns = (),
) -> None:
    """Mask the smallest magnitudes of every layer's weights.

    Parameters
    ----------
    sparsity : share of a layer's weights that is masked, 0 <= sparsity < 1; one for all layers or, by the keys of
        `layers.weights`, one for each.
    only, ignore : patterns of the weights that are masked, or left as they are, see `select.chosen`.

    Raises
    ------
    ModelError
        As `prune.prune`.
    """
    if isinstance(sparsity, Mapping):
        prune.prune(module, {key: 1.0 - share for key, share in sparsity.items()}, only, ignore)
    else:
        prune.prune(module, 1.0 - sparsity, only, ignore)


def lift(module: nn.Module) -> int:
    """Open every mask: pruned weights are zero now, exactly, and free to move; how many that are.

    The masks stay where they are, so that parameters keep their identity for an optimizer that holds them, and a
    later pruning finds them. `layers.make_plain` takes them away.
    """
    lifted = 0
    with torch.no_grad():
        for site in weights(module):
            mask = prune.find(site.module, site.name)
            if mask is None:
                continue
            # Momentum from before the pruning may have moved what lies under the mask.
            original = prune.trained(site.module, site.name)
            original.mul_(mask.mask)
            lifted += int((~mask.mask).sum())
            mask.mask.fill_(True)
    return lifted


def factors(drop: float = DROP, rounds: int = 1) -> list[float]:
    """What the learning rate is multiplied by in each phase: sparse, dense, and again for every further round."""
    return [1.0, 1.0 / drop] * rounds


def dense_sparse_dense(
    module: nn.Module,
    train: Callable[[float], None],
    *,
    sparsity: float | Mapping[str, float] = SPARSITY,
    drop: float = DROP,
    rounds: int = 1,
    only: Patterns | None = None,
    ignore: Patterns = (),
) -> nn.Module:
    """Train a module that was trained densely before through a sparse and a dense phase, `rounds` times, in place.

    Parameters
    ----------
    train : trains `module` for one phase, its learning rate multiplied by the number that it is given.
    sparsity, only, ignore : see `sparsify`.
    drop : by how much the learning rate is lower in the dense phases.
    """
    for number, factor in enumerate(factors(drop, rounds)):
        if number % 2 == 0:
            sparsify(module, sparsity, only, ignore)
        else:
            lift(module)
        train(factor)
    return module
