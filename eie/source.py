"""Find the network behind the INPUT of a command: a training run, a Python function, a .pt2 file or a layer."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError, ModelError

if TYPE_CHECKING:
    from compiler.ir import Graph

__all__ = ["Source", "load"]

_FORMS = "a RUN/ folder of `eie train`, module:function, a .pt2 file, or one layer as .npz"


@dataclass(frozen=True)
class Source:
    """A network to compile.

    graph : its layers.
    module : the torch module that they were read from, in evaluation mode, or None.
    calibration : float (n, inputs) that came with it, or None.
    """

    graph: Graph
    module: Any
    calibration: NDArray[np.float32] | None


def load(text: str, weights: Path | None = None, trust: bool = False) -> Source:
    """Read a network.

    Parameters
    ----------
    text : a RUN/ folder, ``module:function``, a ``.pt2`` file or an ``.npz`` layer.
    weights : safetensors file with the state of the module that the function returns.
    trust : permit what can run code of the file's author (``.pt2``: torch unpickles it).

    Raises
    ------
    EieError
        Nothing of the kind is there, or it cannot be read; says what was expected.
    """
    path = Path(text)
    looks_like_code = ":" in text and not path.exists()
    if weights is not None and not looks_like_code:
        raise InputError(f"--weights belongs to module:function; {text} brings its own weights")
    if path.is_dir():
        return _run_folder(path)
    if path.suffix == ".npz":
        from compiler.npz import load_layer

        return Source(load_layer(path), None, None)
    if path.suffix == ".pt2":
        return _exported(path, trust)
    if looks_like_code:
        return _function(text, weights)
    there = "" if path.exists() else " does not exist;"
    raise InputError(f"{text}:{there} expected {_FORMS}")


def _run_folder(path: Path) -> Source:
    for name in ("model.safetensors", "report.json"):
        if not (path / name).is_file():
            raise InputError(f"{path} has no {name}; expected the folder of a finished `eie train`")
    from compiler.frontend import from_torch
    from compiler.train.run import load_run

    module, example_inputs, calibration, _ = load_run(path)
    module.eval()
    return Source(from_torch(module, example_inputs), module, np.asarray(calibration))


def _exported(path: Path, trust: bool) -> Source:
    if not trust:
        raise InputError(
            f"{path}: torch unpickles .pt2 files, which can run any code that its author put there; "
            "give --trust if you trust where it comes from, or use module:function with --weights"
        )
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    import torch

    from compiler.frontend import from_torch

    try:
        program = torch.export.load(path)
    except Exception as error:  # torch raises whatever the file's contents make it raise
        raise ModelError(f"{path}: torch.export.load cannot read it: {error}") from error
    if program.example_inputs is None:
        raise ModelError(f"{path} holds no example inputs; export it again with torch.export.export(module, inputs)")
    arguments, _ = program.example_inputs
    module = program.module()
    return Source(from_torch(module, tuple(arguments)), module, None)


def _function(text: str, weights: Path | None) -> Source:
    module_name, _, function_name = text.rpartition(":")
    if weights is not None and not weights.is_file():
        raise InputError(f"--weights {weights}: no such file")
    here = os.getcwd()
    if here not in sys.path:  # a script's own folder is not on the path of an installed command
        sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a package that the user's module needs
        raise InputError(
            f"{text}: there is no module {error.name} in {here} or among the installed packages; expected {_FORMS}"
        ) from None
    except AttributeError:
        raise InputError(f"{text}: the module {module_name} has no {function_name}") from None
    except Exception as error:  # the user's own code, which may raise anything
        raise InputError(f"{text}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    try:
        made = function()
    except Exception as error:
        raise InputError(
            f"{text}: calling it without arguments failed: {type(error).__name__}: {error}; expected a function that "
            "returns a torch.nn.Module, or a module and its example inputs"
        ) from error

    import torch

    from compiler.frontend import from_torch

    module, example_inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"{text} returned a {type(module).__name__}; expected a torch.nn.Module")
    if weights is not None:
        _load_weights(module, weights)
    if example_inputs is None:
        example_inputs = _guess_inputs(text, module)
    module.eval()
    return Source(from_torch(module, example_inputs), module, None)


def _load_weights(module: Any, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        module.load_state_dict(load_file(path), strict=True)
    except SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file ({error})") from None
    except RuntimeError as error:  # torch lists missing, unexpected and misshapen tensors, one a line
        raise InputError(f"{path} does not fit the module: {error}") from None


def _guess_inputs(text: str, module: Any) -> Any:
    """Example inputs of a module that came without: a pair of vectors for its first Linear layer."""
    import torch

    for part in module.modules():
        if isinstance(part, torch.nn.Linear):
            return torch.zeros(2, part.in_features)
    raise InputError(f"{text}: has no Linear layer to take the inputs' shape from; return (module, example_inputs)")
