"""How long an exchange of gradients takes: bytes over bandwidth, messages times latency, values times computing.

Three kinds of constants, fitted to measurements as non-negative least squares of relative errors:

- framing: bytes on the wire for a byte of contents;
- latency: seconds of a message that waits for the one before;
- computing: seconds for a value, of float and of ternary exchanges.

Where workers share the cores of one machine, the last two are times the workers for each core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from compiler.train.terngrad.bytes import float_bits, scheme_bits

__all__ = ["Cost", "Exchanged", "fit_cost"]

_CONSTANTS = ("framing", "latency", "float_value", "ternary_value")

_MESSAGES = {"float": 2, "gather": 5, "sums": 6}
"""Messages of a worker that wait for one another, for every other worker: an all-reduce has two. Ternary exchanges
have one all-reduce of scalers, one for the float tensors, and their own: codes, and sums if there are any."""


@dataclass(frozen=True)
class Exchanged:
    """An exchange of one step.

    Attributes
    ----------
    scheme : "float", "gather" or "sums".
    workers : how many.
    mbit : bandwidth of each worker's link, Mbit/s each way; infinite where it is not limited.
    ternary, floats : values of tensors that are turned ternary, and of the others; all are float in scheme "float".
    crowd : workers for each core, at least 1.
    """

    scheme: str
    workers: int
    mbit: float
    ternary: int
    floats: int
    crowd: float = 1.0

    @property
    def bits(self) -> float:
        """That a worker sends."""
        whole = float_bits(self.workers)
        if self.scheme == "float":
            return whole * (self.ternary + self.floats)
        return scheme_bits(self.scheme, self.workers) * self.ternary + whole * self.floats

    def row(self) -> list[float]:
        """What each constant is multiplied with."""
        values = (self.ternary + self.floats) * self.crowd
        is_float = self.scheme == "float"
        return [
            self.bits / (self.mbit * 1e6),
            _MESSAGES[self.scheme] * (self.workers - 1) * self.crowd,
            values if is_float else 0,
            0 if is_float else values,
        ]


@dataclass(frozen=True)
class Cost:
    """The constants, in the order of `_CONSTANTS`: a factor, and seconds."""

    constants: tuple[float, ...]

    def seconds(self, exchange: Exchanged) -> float:
        """Predicted."""
        return float(np.dot(exchange.row(), self.constants))

    def asdict(self) -> dict[str, float]:
        """As JSON."""
        return dict(zip(_CONSTANTS, self.constants, strict=True))


def fit_cost(exchanges: Sequence[Exchanged], seconds: Sequence[float]) -> Cost:
    """The constants that fit measurements best, each by its relative error."""
    measured: NDArray[np.float64] = np.asarray(seconds, np.float64)
    rows = np.array([exchange.row() for exchange in exchanges]) / measured[:, None]
    scale = np.maximum(rows.max(0), 1e-300)  # the columns differ by many powers of ten
    found, _ = nnls(rows / scale, np.ones(len(measured)))
    return Cost(tuple(float(value) for value in found / scale))
