"""The inputs of a network from one file: an ``.npy`` array, or an ``.npz`` with an array for each input by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compiler.arrays import read_arrays
from compiler.errors import InputError

if TYPE_CHECKING:
    from compiler.source import Show, Source

__all__ = ["assign_inputs", "read_inputs", "read_source"]


def read_inputs(path: Path, names: Sequence[str]) -> tuple[NDArray[Any], ...]:
    """An array for each of `names`, in their order; ``-`` reads standard input.

    Raises
    ------
    InputError
        There is no such file, it is none of both, or it does not have exactly these arrays.
    """
    return assign_inputs(path, read_arrays(path), names)


def assign_inputs(
    path: Path, content: NDArray[Any] | dict[str, NDArray[Any]], names: Sequence[str]
) -> tuple[NDArray[Any], ...]:
    """An array for each of `names`, from what `read_arrays` found in the file. Raises `InputError` as `read_inputs`."""
    if isinstance(content, dict):
        if sorted(content) != sorted(names):
            held = ", ".join(content) or "nothing"
            raise InputError(f"{path} holds {held}; expected an array for each input: {', '.join(names)}")
        return tuple(content[name] for name in names)
    if len(names) != 1:
        raise InputError(f"{path}: the network has inputs {', '.join(names)}; expected an .npz with an array for each")
    return (content[np.newaxis] if content.ndim == 1 else content,)


def read_source(
    given: str, weights: Path | None, trust: bool, calibrate: Path | None, show: Show | None = None
) -> tuple[Source, tuple[NDArray[Any], ...] | None]:
    """A network to compile (see `compiler.source.load`), and its calibration data: of a file, else its own, else None.

    Raises
    ------
    EieError
        One of both cannot be read, or they do not fit.
    """
    from compiler.source import fit, load

    content = None if calibrate is None else read_arrays(calibrate)
    data = (
        content if content is None or isinstance(content, dict) else [content[None] if content.ndim == 1 else content]
    )
    source = load(given, weights, trust, show, data)
    if calibrate is None or content is None:
        return source, source.calibration
    names = [node.name for node in source.graph.inputs]
    return source, fit(source.graph, assign_inputs(calibrate, content, names))
