"""Data of the user's own: ``module:function``, which returns arrays of training and test samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError

__all__ = ["CONTRACT", "OwnData", "read"]

CONTRACT = (
    "expected (train inputs, train labels, test inputs, test labels): inputs are arrays of numbers (samples, …), "
    "labels whole numbers from 0 (samples,)"
)

_MOST_CLASSES = 1 << 16


@dataclass(frozen=True, eq=False)
class OwnData:
    """What a function returned, checked.

    Attributes
    ----------
    train, test : inputs float32 (n, in), and labels int64 (n,).
    shape : of a sample, as the function gave it; classes: one more than the greatest label.
    """

    train: tuple[NDArray[np.float32], NDArray[np.int64]]
    test: tuple[NDArray[np.float32], NDArray[np.int64]]
    shape: tuple[int, ...]
    classes: int


def read(text: str) -> OwnData:
    """Import the user's module and call its function, without arguments. This runs the user's own code.

    Raises
    ------
    InputError
        There is no such function, it fails, or it returns something else.
    """
    from compiler.train.foreign import returned

    made = returned(text, CONTRACT)
    if not isinstance(made, tuple | list) or len(made) != 4:
        raise InputError(f"{text} returned a {type(made).__name__}; {CONTRACT}")
    arrays = [_array(text, each) for each in made]
    train, test = _split(text, "train", *arrays[:2]), _split(text, "test", *arrays[2:])
    shape = arrays[0].shape[1:]
    if arrays[2].shape[1:] != shape:
        raise InputError(f"{text}: test samples have shape {arrays[2].shape[1:]}; those to train on have {shape}")
    return OwnData(train, test, shape, 1 + max(int(train[1].max()), int(test[1].max())))


def _array(text: str, value: Any) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists; tensors with gradients or on a device
        raise InputError(f"{text} returned what is no array: {error}; {CONTRACT}") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"{text} returned an array of {array.dtype}; {CONTRACT}")
    return array


def _split(
    text: str, part: str, inputs: NDArray[Any], labels: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    if inputs.ndim < 2 or not inputs.size or labels.shape != inputs.shape[:1]:
        raise InputError(f"{text}: {part} inputs have shape {inputs.shape} and labels {labels.shape}; {CONTRACT}")
    if labels.dtype.kind not in "iu" or int(labels.min()) < 0 or int(labels.max()) >= _MOST_CLASSES:
        found = f"{labels.dtype} from {labels.min()} to {labels.max()}"
        raise InputError(f"{text}: {part} labels are {found}; expected whole numbers from 0 to below {_MOST_CLASSES}")
    values = np.ascontiguousarray(inputs.reshape(len(inputs), -1), np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{text}: {part} inputs have values that are not finite; expected numbers")
    return values, labels.astype(np.int64)
