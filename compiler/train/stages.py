"""What each kind of stage does to a network: plain weights in, weights under a parametrization out."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import torch
from torch import Tensor, nn

from compiler.errors import InputError
from compiler.train import prune, quantize
from compiler.train.data import Split
from compiler.train.loop import fit
from compiler.train.models import linears
from compiler.train.recipe import Dense, Prune, Share, Stage

__all__ = ["apply", "restore"]

_PRUNINGS_PER_EPOCH = 5


def apply(
    stage: Stage,
    module: nn.Module,
    split: Split,
    generator: torch.Generator,
    after_epoch: Callable[[int, float], None],
) -> None:
    """Run one stage on `module`, whose weights are plain, in place."""
    if isinstance(stage, Dense):
        fit(module, split, stage.schedule, generator, after_epoch=after_epoch)
    elif isinstance(stage, Prune):
        _attach(stage, module)
        fit(module, split, stage.schedule, generator, _pruner(stage, module, len(split)), after_epoch)
    elif isinstance(stage, Share):
        _attach(stage, module)
        fit(module, split, stage.schedule, generator, after_epoch=after_epoch)
    else:
        assert_never(stage)


def restore(stage: Stage, module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Give `module`, fresh and plain, the state that it had after `stage`.

    Raises
    ------
    InputError
        The state is not that of this network after this stage.
    """
    with torch.no_grad():
        for _, layer in linears(module):
            layer.weight.zero_()  # nothing to cluster: codes and centroids come from the state
    _attach(stage, module)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{source} does not hold this network after stage {stage.kind}: {error}") from error
    module.eval()


def _attach(stage: Stage, module: nn.Module) -> None:
    for _, layer in list(linears(module)):
        if isinstance(stage, Prune):
            prune.attach(layer)
        elif isinstance(stage, Share):
            quantize.attach(layer, stage.code_bits)


def _pruner(stage: Prune, module: nn.Module, samples: int) -> Callable[[int, int], None]:
    """Before a step: lower the densities along the cubic ramp, a few times an epoch."""
    layers = list(linears(module))
    steps_per_epoch = -(-samples // stage.schedule.batch)
    every = max(1, steps_per_epoch // _PRUNINGS_PER_EPOCH)

    def before_step(step: int, total: int) -> None:
        ramp = round(stage.ramp * (total - 1))
        if step == ramp or (step < ramp and step % every == 0):
            progress = step / ramp if ramp else 1.0
            for name, layer in layers:
                prune.prune(layer, prune.cubic(progress, 1.0, stage.density[name]))

    return before_step
