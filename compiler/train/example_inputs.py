"""Example inputs of a module that comes without: from the data that is given with it, or a guess from its layers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compiler.errors import InputError, ModelError
from compiler.frontend.torch_module import call, prepare

__all__ = ["Data", "example_inputs"]

Data = Sequence[NDArray[Any]] | Mapping[str, NDArray[Any]]
"""An array (n, …) for each input of a module, in the order of its forward or by the names there."""


def example_inputs(text: str, module: nn.Module, data: Data | None) -> tuple[Tensor, ...]:
    """The first two samples of the data; where there is none or the module fails on it, a vector for its first Linear.

    Parameters
    ----------
    text : names the module in messages.
    module : in evaluation mode.

    Raises
    ------
    InputError
        The module runs on neither.
    """
    tried: list[str] = []
    for inputs in (*_from_data(module, data), *_from_layers(module)):
        ready = prepare(module, inputs)
        try:
            with torch.no_grad():
                call(*ready)
        except ModelError as error:
            tried.append(str(error).replace("the model fails on example_inputs", "the module fails on").splitlines()[0])
        else:
            return inputs
    remedy = "let the function return (module, example_inputs)"
    if not data:
        remedy = f"give --calibrate with real inputs, or {remedy}"
    if not tried:
        raise InputError(f"{text}: no Linear layer to take the length of an input from; {remedy}")
    what = "inputs of the right shape are needed" if data else "a vector for the first Linear layer is a wrong guess"
    raise InputError(f"{text} gives no example inputs, and {what}: {tried[0]}; {remedy}")


def _from_data(module: nn.Module, data: Data | None) -> Iterator[tuple[Tensor, ...]]:
    """As floats, and if it is whole numbers also as positions in a table."""
    arrays = _in_order(module, data) if isinstance(data, Mapping) else list(data or ())
    arrays = [np.asarray(array)[:2] for array in arrays]
    if not arrays or any(array.dtype.kind not in "fiu" or not array.size for array in arrays):
        return
    # What is wrong with the numbers themselves is found where they are calibrated on; here only shapes count.
    yield tuple(torch.from_numpy(np.nan_to_num(array).astype(np.float32)) for array in arrays)
    if any(array.dtype.kind in "iu" for array in arrays):
        yield tuple(
            torch.from_numpy(array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)) for array in arrays
        )


def _in_order(module: nn.Module, data: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    names = [name for name in inspect.signature(module.forward).parameters if name in data]
    return [data[name] for name in (names if len(names) == len(data) else data)]


def _from_layers(module: nn.Module) -> Iterator[tuple[Tensor, ...]]:
    for part in module.modules():
        if isinstance(part, nn.Linear):
            yield (torch.zeros(2, part.in_features),)
            return
