"""Functions of one number, and what an output may leave to the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FUNCTIONS", "TAILS"]


def _special() -> Any:
    """`scipy.special`, which takes a third of a second to import and is seldom asked for."""
    import scipy.special

    return scipy.special


Array = NDArray[Any]

FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "sigmoid": lambda x: _special().expit(x),
    "tanh": np.tanh,
    "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0.0, 1.0),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0.0, 1.0),
    "silu": lambda x: x * _special().expit(x),
    "gelu": lambda x: x * _special().ndtr(x),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "softplus": lambda x: np.logaddexp(x, 0.0),
}
"""Of these, `relu` is exact in integers; the others are tables there."""

TAILS: Mapping[str, Callable[[Array, int], Array]] = {
    "": lambda x, axis: x,
    "softmax": lambda x, axis: _special().softmax(x, axis=axis),
    "log_softmax": lambda x, axis: _special().log_softmax(x, axis=axis),
    "argmax": lambda x, axis: np.argmax(x, axis=axis),
}
"""What an Output names and leaves to the host: its values are those before it."""
