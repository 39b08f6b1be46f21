"""Find the network behind the INPUT of a command: a training run, a function, a .pt2 or .onnx file, or a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.frontend.gate import check_outputs
from compiler.function_name import check_function_name
from compiler.graph.evaluate import outputs, tails
from compiler.graph.ir import Graph
from compiler.graph.operators import types
from compiler.graph.passes import run_passes
from compiler.pickled import refuse_pickled

if TYPE_CHECKING:
    from compiler.train.example_inputs import Data

__all__ = ["FORMS", "Source", "fit", "from_module", "load", "rewrite"]

FORMS = "a RUN/ folder of `eie train`, module:function, a .pt2 file, an .onnx file, or one layer as .npz"
"""What INPUT can be, for messages."""

Show = Callable[[str, Graph], None]


@dataclass(frozen=True)
class Source:
    """A network to compile.

    Attributes
    ----------
    graph : as floats, after all passes.
    module : the torch module that it was read from, in evaluation mode, or None.
    calibration : inputs that came with it, (n, *shape) for each input, or None.
    """

    graph: Graph
    module: Any = None
    calibration: tuple[NDArray[Any], ...] | None = None


def load(
    text: str, weights: Path | None = None, trust: bool = False, show: Show | None = None, data: Data | None = None
) -> Source:
    """Read a network.

    Parameters
    ----------
    text : one of `FORMS`.
    weights : safetensors file with the state of the module that the function returns.
    trust : permit what can run code of the file's author (``.pt2``: torch unpickles it).
    show : called with the name of each pass and the graph after it, and first with "read" and the graph as it was read.
    data : inputs (n, …) of the network; they show a module without example inputs what it is given.

    Raises
    ------
    EieError
        Nothing of the kind is there, or it cannot be read; says what was expected.
    """
    if not text:
        raise InputError(f"INPUT is an empty text; expected {FORMS}")
    path = Path(text)
    is_function = ":" in text and not path.exists()
    if weights is not None and not is_function:
        raise InputError(f"--weights belongs to module:function; {text} brings its own weights")
    if is_function:
        check_function_name(text)
    if path.suffix == ".npz":
        from compiler.frontend.npz import load_layer

        return Source(rewrite(load_layer(path), show))
    if path.suffix == ".onnx":
        from compiler.frontend.onnx import from_onnx

        return Source(rewrite(from_onnx(path), show))
    if path.suffix == ".pt2" and not trust:
        raise InputError(
            f"{path}: torch unpickles .pt2 files, which can run any code that its author put there; "
            "give --trust if you trust where it comes from, or use module:function with --weights"
        )
    if not path.is_dir() and path.suffix != ".pt2" and not is_function:
        refuse_pickled(path)
        if path.suffix == ".py" and path.exists():
            raise InputError(f"{text} is Python; name the function in it that returns the module: {path.stem}:FUNCTION")
        there = "is none of these" if path.exists() else "does not exist"
        raise InputError(f"{text} {there}: {FORMS}")
    return _torch_source(text, path, weights, show, data)


def rewrite(graph: Graph, show: Show | None = None) -> Graph:
    """The graph after all passes, once both are found to compute the same from random inputs."""
    if show is not None:
        show("read", graph)
    rewritten = run_passes(graph, show)
    found = types(graph)
    rng = np.random.default_rng(0)
    inputs = [
        np.zeros((1, *found[node.output].shape), np.int64)
        if node["kind"] == "index"
        else rng.uniform(-1, 1, (1, *found[node.output].shape))
        for node in graph.inputs
    ]
    check_outputs(rewritten, inputs, [(tails(graph, outputs(graph, inputs)), 1e-6)])
    return rewritten


def _torch_source(text: str, path: Path, weights: Path | None, show: Show | None, data: Data | None) -> Source:
    """The forms that need torch."""
    from compiler.train import foreign

    module: Any
    calibration = None
    if path.is_dir():
        from compiler.train.run import load_run

        run = load_run(path)
        module, inputs, calibration = run.module, run.example_inputs, (run.calibration,)
    elif path.suffix == ".pt2":
        module, inputs = foreign.from_exported(path)
    else:
        module, inputs = foreign.from_function(text, weights, data)
    return from_module(module, inputs, calibration, show)


def from_module(
    module: Any, inputs: tuple[Any, ...], calibration: tuple[NDArray[Any], ...] | None = None, show: Show | None = None
) -> Source:
    """A torch module; `inputs` are example tensors, batch first. Raises `ModelError` where it cannot be compiled."""
    from compiler.frontend.torch_export import from_torch

    return Source(rewrite(from_torch(module, inputs), show), module, calibration)


def fit(graph: Graph, arrays: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
    """Calibration arrays (n, *shape) from arrays that hold as many values for each sample.

    Whole numbers other than int16 become floats where they are quantities.

    Raises
    ------
    InputError
        They do not; says what was given and expected.
    """
    wanted, found = graph.inputs, types(graph)
    if len(arrays) != len(wanted):
        names = ", ".join(node.name for node in wanted)
        raise InputError(f"{len(arrays)} arrays of calibration data; the network has {len(wanted)} inputs ({names})")
    fitted = []
    for node, array in zip(wanted, arrays, strict=True):
        shape = found[node.output].shape
        if array.shape == shape:
            array = array[np.newaxis]
        if array.ndim < 1 or not len(array) or array.size != len(array) * int(np.prod(shape)):
            form = ", ".join(["n", *map(str, shape)])
            raise InputError(f"calibration data is {array.shape}; expected ({form}) with n at least 1")
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        if found[node.output].kind == "real" and native.dtype.kind in "iu" and native.dtype.itemsize != 2:
            native = native.astype(np.float64)  # quantities that happen to be whole; int16 alone says that they are raw
        fitted.append(native.reshape(len(array), *shape))
    return tuple(fitted)
