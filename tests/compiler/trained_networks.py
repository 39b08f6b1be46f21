"""Networks that were trained, pruned and shared by the small recipes of recipes/networks, for tests that train nothing.

The files under trained/ are the model.eiez of ``eie train recipes/networks/small/NAME.toml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compiler.compressible import load_network
from compiler.train import data, fold, models, recipe

__all__ = ["FOLDER", "NAMES", "Trained", "load"]

FOLDER = Path(__file__).parent / "trained"
RECIPES = Path(__file__).parents[2] / "recipes" / "networks" / "small"
NAMES = sorted(path.stem for path in FOLDER.glob("*.eiez"))


@dataclass(frozen=True, eq=False)
class Trained:
    """A network and what it is tested on.

    Attributes
    ----------
    module : in evaluation mode.
    example : what it is traced with, (1, in).
    calibration : training samples, float32 (128, in).
    inputs, labels : the test set, float32 (n, in) and int64 (n,).
    """

    module: nn.Module
    example: tuple[torch.Tensor]
    calibration: NDArray[np.float32]
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]


def load(name: str) -> Trained:
    """The network `name`, one of `NAMES`."""
    made = recipe.load(RECIPES / f"{name}.toml")
    dataset = data.load(made.dataset, made.validation, samples=made.samples)
    module = models.build(made.model, dataset.shape, dataset.classes).eval()
    example = torch.zeros(1, dataset.features)
    if any(stage.kind == "fold" for stage in made.stages):
        fold.fold(module, example)
    state = load_network(FOLDER / f"{name}.eiez").state()
    module.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in state.items()})
    return Trained(module, (example,), dataset.train.inputs[:128], dataset.test.inputs, dataset.test.labels)
