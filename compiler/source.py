"""Find the network behind the INPUT of a command: a training run, a Python function, a .pt2 file or a layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.ir import Graph

__all__ = ["Source", "load"]


@dataclass(frozen=True)
class Source:
    """A network to compile.

    graph : its layers.
    module : the torch module that they were read from, in evaluation mode, or None.
    sample_shape : shape of one input of the module, () if there is none.
    calibration : float (n, inputs) that came with it, or None.
    """

    graph: Graph
    module: Any = None
    sample_shape: tuple[int, ...] = ()
    calibration: NDArray[np.float32] | None = None


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
    is_function = ":" in text and not path.exists()
    if weights is not None and not is_function:
        raise InputError(f"--weights belongs to module:function; {text} brings its own weights")
    if path.suffix == ".npz":
        from compiler.frontend.npz import load_layer

        return Source(load_layer(path))
    if path.suffix == ".pt2" and not trust:
        raise InputError(
            f"{path}: torch unpickles .pt2 files, which can run any code that its author put there; "
            "give --trust if you trust where it comes from, or use module:function with --weights"
        )
    if not path.is_dir() and path.suffix != ".pt2" and not is_function:
        there = "is none of these" if path.exists() else "does not exist"
        raise InputError(
            f"{text} {there}: a RUN/ folder of `eie train`, module:function, a .pt2 file, or one layer as .npz"
        )
    return _torch_source(text, path, weights)


def _torch_source(text: str, path: Path, weights: Path | None) -> Source:
    """The forms that need torch."""
    from compiler.frontend.torch_export import from_torch
    from compiler.train import foreign

    module: Any
    calibration = None
    if path.is_dir():
        from compiler.train.run import load_run

        run = load_run(path)
        module, inputs, calibration = run.module, run.example_inputs, run.calibration
    elif path.suffix == ".pt2":
        module, inputs = foreign.from_exported(path)
    else:
        module, inputs = foreign.from_function(text, weights)
    return Source(from_torch(module, inputs), module, tuple(inputs[0].shape[1:]), calibration)
