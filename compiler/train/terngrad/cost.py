"""How long an exchange of gradients takes: bytes over bandwidth, messages times latency, and computing.

The constants are fitted to measurements as non-negative least squares of relative errors:

- framing: bytes on the wire for a byte of contents;
- latency: seconds of a message that waits for the one before, beside what it computes;
- message, float_value, ternary_value: CPU seconds for a message, and for a value of a float and of a ternary exchange.

The last three are fitted to CPU seconds, which do not depend on who shares the cores. By the clock, workers that share
a machine compute longer, in proportion to their number; how much, `load`, is fitted with the first two, so that a busy
machine is not taken for a slow network.
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
_NETWORK = 2  # of them; the others compute

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
    """

    scheme: str
    workers: int
    mbit: float
    ternary: int
    floats: int

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
        return [
            self.bits / (self.mbit * 1e6), messages, messages, values if is_float else 0, 0 if is_float else values,
        ]  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What was fitted.

    Attributes
    ----------
    constants : in the order of their description: a factor, and seconds.
    load : seconds by the clock for a CPU second and a worker, where workers shared a machine; half a second if that
        had two cores and nothing else to do.
    """

    constants: tuple[float, ...]
    load: float

    def seconds(self, exchange: Exchanged, shared: bool = False) -> float:
        """Predicted.

        Parameters
        ----------
        shared : whether all workers are on one machine, as those that were measured, and not each on its own.
        """
        network, computing = exchange.row()[:_NETWORK], exchange.row()[_NETWORK:]
        crowd = self.load * exchange.workers if shared else 1.0
        return float(np.dot(network, self.constants[:_NETWORK]) + crowd * np.dot(computing, self.constants[_NETWORK:]))

    def asdict(self) -> dict[str, float]:
        """As JSON."""
        return {**dict(zip(_CONSTANTS, self.constants, strict=True)), "load": self.load}


def fit_cost(exchanges: Sequence[Exchanged], seconds: Sequence[float], cpu_seconds: Sequence[float]) -> Cost:
    """What fits measurements of workers on one machine best, each by its relative error.

    Parameters
    ----------
    seconds, cpu_seconds : of each exchange, by the clock and of one worker on the cores.
    """
    rows = np.array([exchange.row() for exchange in exchanges])
    workers = np.array([exchange.workers for exchange in exchanges])
    computing = _fitted(rows[:, _NETWORK:], np.asarray(cpu_seconds))
    shared = (rows[:, _NETWORK:] @ computing) * workers
    network = _fitted(np.column_stack([rows[:, :_NETWORK], shared]), np.asarray(seconds))
    return Cost((*network[:_NETWORK].tolist(), *computing.tolist()), float(network[_NETWORK]))


def _fitted(rows: NDArray[np.float64], measured: NDArray[np.float64]) -> NDArray[np.float64]:
    """Constants of rows · constants = measured, least squares of relative errors."""
    relative = rows / measured[:, None]
    scale = np.maximum(relative.max(0), 1e-300)  # the columns differ by many powers of ten
    found, _ = nnls(relative / scale, np.ones(len(measured)))
    return np.asarray(found / scale)
