"""How long an exchange of gradients takes: bytes over bandwidth, messages times latency, and computing.

The constants are fitted to measurements as non-negative least squares of relative errors:

- framing: bytes on the wire for a byte of contents;
- latency: seconds of a message that waits for the one before, beside what it computes;
- message, float_value, ternary_value: CPU seconds for a message, and for a value of a float and of a ternary exchange.

The last three are fitted to CPU seconds, which do not depend on who shares the cores; by the clock they take as many
times longer as the cores are shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from compiler.train.terngrad.bytes import float_bits, scheme_bits

__all__ = ["Cost", "Exchanged", "fit_cost"]

_CONSTANTS = ("framing", "latency", "message", "float_value", "ternary_value")
_BY_CLOCK = 2  # of them

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
    crowd : seconds by the clock for a second of computing, at least 1.
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
        values, messages = self.ternary + self.floats, _MESSAGES[self.scheme] * (self.workers - 1)
        is_float = self.scheme == "float"
        computing = [messages, values if is_float else 0, 0 if is_float else values]
        return [self.bits / (self.mbit * 1e6), messages, *(self.crowd * amount for amount in computing)]


@dataclass(frozen=True)
class Cost:
    """The constants, in the order of their description: a factor, and seconds."""

    constants: tuple[float, ...]

    def seconds(self, exchange: Exchanged) -> float:
        """Predicted."""
        return float(np.dot(exchange.row(), self.constants))

    def asdict(self) -> dict[str, float]:
        """As JSON."""
        return dict(zip(_CONSTANTS, self.constants, strict=True))


def fit_cost(exchanges: Sequence[Exchanged], seconds: Sequence[float], cpu_seconds: Sequence[float]) -> Cost:
    """The constants that fit measurements best, each by its relative error.

    Parameters
    ----------
    seconds, cpu_seconds : of each exchange, by the clock and of one worker on the cores.
    """
    rows = np.array([exchange.row() for exchange in exchanges])
    crowd = np.array([exchange.crowd for exchange in exchanges])
    computing = _fitted(rows[:, _BY_CLOCK:] / crowd[:, None], np.asarray(cpu_seconds), np.asarray(cpu_seconds))
    clock = np.asarray(seconds)
    rest = clock - rows[:, _BY_CLOCK:] @ computing
    return Cost((*_fitted(rows[:, :_BY_CLOCK], rest, clock).tolist(), *computing.tolist()))


def _fitted(rows: NDArray[np.float64], goal: NDArray[np.float64], unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares of rows · constants = goal, each equation in its own unit."""
    relative = rows / unit[:, None]
    scale = np.maximum(relative.max(0), 1e-300)  # the columns differ by many powers of ten
    found, _ = nnls(relative / scale, goal / unit)
    return np.asarray(found / scale)
