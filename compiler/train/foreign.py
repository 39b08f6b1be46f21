"""Torch modules that were not trained here: a function of the user's own code, or an exported program."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from compiler.errors import InputError, ModelError
from compiler.function_name import check_function_name
from compiler.pickled import refuse_pickled
from compiler.train.example_inputs import Data, example_inputs
from compiler.train.state_names import unwrapped

__all__ = ["all_outputs", "call", "find", "from_exported", "from_function", "outputs", "returned", "tensors"]


def from_function(
    text: str, weights: Path | None = None, data: Data | None = None
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module that ``module:function`` returns, in evaluation mode, and its example inputs.

    The function takes no arguments and returns a module, or a module and its example inputs; without those the
    module is given the first samples of the data, or vectors as long as its first Linear takes. Modules of the
    current folder are found.

    Parameters
    ----------
    weights : safetensors file with the state of the module; without it the module is taken as it comes. Prefixes of
        torch.compile and DataParallel are dropped (`state_names`).
    data : inputs that the network will be calibrated or run on, if there are any.

    Raises
    ------
    InputError
        There is no such function, it fails, or it returns something else; the weights do not fit the module.
    """
    if weights is not None and not weights.is_file():
        raise InputError(f"--weights {weights}: no such file")
    module, inputs = call(text)
    if weights is not None:
        _load_state(module, weights)
    module.eval()
    if inputs is None:
        inputs = example_inputs(text, module, data)
    return module, inputs if isinstance(inputs, tuple) else (inputs,)


def call(text: str) -> tuple[nn.Module, Any]:
    """What ``module:function`` returns: a module, and its example inputs or None.

    Raises
    ------
    InputError
        There is no such function, it fails, or it returns something else.
    """
    expected = "expected a function that returns a torch.nn.Module, or a module and its example inputs"
    made = returned(text, expected)
    module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise InputError(f"{text} returned something of type {type(module).__name__}; expected a torch.nn.Module")
    return module, inputs


def returned(text: str, expected: str) -> Any:
    """What ``module:function`` of the user's own code returns; `expected` ends the message if it fails.

    Raises
    ------
    InputError
        There is no such function, or it fails.
    """
    function = find(text)
    try:
        return function()
    except Exception as error:  # the user's own code, which may raise anything
        raise InputError(
            f"{text}: calling it without arguments failed: {type(error).__name__}: {error}; {expected}"
        ) from error


def from_exported(path: Path) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module of a ``.pt2`` file, its parts under the names they had, and its example inputs.

    Torch unpickles such files: call this only for a file whose origin the user trusts.

    Raises
    ------
    InputError, ModelError
        There is no such file, torch cannot read it, or it holds no example inputs.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own internals
            program = torch.export.load(path)
            module = torch.export.unflatten(program)
    except Exception as error:  # torch raises whatever the contents of the file make it raise
        raise ModelError(f"{path}: torch.export.load cannot read it: {error}") from error
    if program.example_inputs is None:
        raise ModelError(f"{path} holds no example inputs; export it again with torch.export.export(module, inputs)")
    return module.eval(), tuple(program.example_inputs[0])


def outputs(module: nn.Module, inputs: NDArray[Any], sample_shape: tuple[int, ...]) -> NDArray[np.float64]:
    """What the module itself computes, float64 (batch, out), from inputs (batch, in)."""
    with torch.no_grad():
        result = module(torch.from_numpy(inputs.astype(np.float32)).reshape(len(inputs), *sample_shape))
    array: NDArray[np.float64] = result.flatten(1).to(torch.float64).numpy()
    return array


def find(text: str) -> Callable[[], Any]:
    """The function that ``module:function`` names; importing its module runs it. Raises `InputError`."""
    check_function_name(text)
    module_name, _, function_name = text.rpartition(":")
    here = os.getcwd()
    if here not in sys.path:  # an installed command does not look in the current folder by itself
        sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a package that the user's module needs
        raise InputError(f"{text}: there is no module {error.name} in {here} or among the installed packages") from None
    except AttributeError as error:
        if function_name not in str(error):
            raise InputError(f"{text}: importing {module_name} failed: AttributeError: {error}") from error
        raise InputError(f"{text}: the module {module_name} has no {function_name}") from None
    except Exception as error:
        raise InputError(f"{text}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise InputError(f"{text} is a {type(function).__name__}; expected a function")
    found: Callable[[], Any] = function
    return found


def _load_state(module: nn.Module, path: Path) -> None:
    refuse_pickled(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, TypeError) as error:  # TypeError: an axis longer than torch counts, in many lines
        raise InputError(f"{path}: not a safetensors file ({str(error).splitlines()[0]})") from None
    try:
        state = unwrapped(tensors, module.state_dict().keys())
        _check_kinds(module, state)
        module.load_state_dict(_with_ties(module, state), strict=True)
    except InputError as error:
        raise InputError(f"{path} does not fit the module: {error}") from None
    except RuntimeError as error:  # torch lists missing, unexpected and misshapen tensors, one a line
        raise InputError(f"{path} does not fit the module: {error}") from None


def _check_kinds(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Refuse whole numbers where the module has floats: torch would take quantized weights without their scale."""
    floats = {name for name, value in module.state_dict().items() if value.is_floating_point()}
    wrong = [
        f"{name} is {str(value.dtype).removeprefix('torch.')}"
        for name, value in state.items()
        if name in floats and not value.is_floating_point()
    ]
    if wrong:
        rest = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise InputError(
            f"{', '.join(wrong[:3])}{rest}; expected floats. Of quantized weights, save (weight - zero_point) * scale"
        )


def _with_ties(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state in which each tensor of tied layers has all of its names: safetensors' `save_model` stores one."""
    names: dict[int, list[str]] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        names.setdefault(id(value), []).append(name)
    for tied in names.values():
        stored = next((name for name in tied if name in state), None)
        if stored is not None:
            state.update({name: state[stored] for name in tied if name not in state})
    return state


def all_outputs(module: nn.Module, inputs: Sequence[NDArray[Any]]) -> list[NDArray[np.float64]]:
    """Every tensor that the module itself computes, float64 (batch, …), from an array for each input."""
    given = [torch.from_numpy(x if x.dtype.kind in "iu" else x.astype(np.float32)) for x in inputs]
    with torch.no_grad():
        result = module(*given)
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
    return [leaf.to(torch.float64).numpy() for leaf in leaves]


def tensors(arrays: Sequence[NDArray[Any]]) -> tuple[Tensor, ...]:
    """Arrays as a module takes them."""
    return tuple(torch.from_numpy(array) for array in arrays)
