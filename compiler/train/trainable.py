"""Whether a network of the user's own can be trained on a data set: it is run once, before anything else."""

from __future__ import annotations

import torch

from compiler.errors import InputError
from compiler.train import structure
from compiler.train.data import Dataset, is_own
from compiler.train.images import Images
from compiler.train.models import ModelSpec
from compiler.train.progress import fresh

__all__ = ["check_outputs"]


def check_outputs(spec: ModelSpec, dataset: Dataset) -> None:
    """Run a network on two samples, if it or the data are the user's own.

    Raises
    ------
    InputError
        It fails, or returns anything but a tensor (samples, classes).
    ModelError
        Others parametrize its weights.
    """
    if not spec.foreign and not is_own(dataset.name):
        return
    module = fresh(spec, dataset, 0).eval()
    structure.describe(module)  # what others parametrize
    few = dataset.train.take(slice(0, 2))
    inputs = Images(few, dataset.shape, spec.flat).arrange(torch.from_numpy(few.inputs))
    expected = f"a tensor (samples, classes) with {dataset.classes} classes or more"
    try:
        with torch.no_grad():
            outputs = module(inputs)
    except Exception as error:  # the user's own code, which may raise anything
        raise InputError(
            f"{spec.name} fails on inputs of shape {tuple(inputs.shape)}: {type(error).__name__}: {error}; model.flat "
            f"is {str(spec.flat).lower()}, and samples have shape {dataset.shape}"
        ) from error
    if not isinstance(outputs, torch.Tensor):
        raise InputError(f"{spec.name} returns a {type(outputs).__name__} in its forward; expected {expected}")
    if outputs.dim() != 2 or len(outputs) != len(few) or outputs.shape[1] < dataset.classes:
        raise InputError(f"{spec.name} gives {tuple(outputs.shape)} for {len(few)} samples; expected {expected}")
