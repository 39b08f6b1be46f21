"""What is known of a value while a graph is turned into integers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compiler.graph.ir import Node
from compiler.lower.weights import Shared
from hw.params import Params

__all__ = ["Context", "Made", "PerChannel", "Value"]

Int = NDArray[np.int64]
PerChannel = Literal["auto"] | bool


@dataclass(frozen=True, eq=False)
class Value:
    """A value in integers.

    Attributes
    ----------
    exponent : value = raw · 2**exponent; None for indices.
    low, high : int64 (shape), what each raw number can be.
    samples : int64 (batch, *shape), the raw numbers for the calibration data; None without.
    """

    exponent: int | None
    low: Int
    high: Int
    samples: Int | None = None

    @property
    def scale(self) -> int:
        """Exponent of a quantity."""
        assert self.exponent is not None
        return self.exponent

    @property
    def zero(self) -> bool:
        """Whether it is zero as far as is known, so that any exponent would do."""
        dead = self.samples is not None and not self.samples.any()
        return self.exponent is not None and (dead or not (self.low.any() or self.high.any()))

    def floats(self) -> NDArray[np.float64]:
        """The samples as quantities; indices as they are."""
        assert self.samples is not None
        return np.ldexp(self.samples.astype(np.float64), self.exponent or 0)


@dataclass(frozen=True, eq=False)
class Made:
    """What a rule makes of a node.

    Attributes
    ----------
    node : the integer node; None where it does nothing.
    value : its result.
    exact : weights and biases are represented without any rounding.
    halved : how often weights were halved so that no sum can overflow.
    clustered : weights had more distinct values than the codebook.
    per_channel : output channels have scales of their own.
    clipped : numbers of the calibration data that saturated.
    asked : the exponents that it would rather read at, in which case it is made again from such values; or nothing.
    """

    node: Node | None
    value: Value
    exact: bool = True
    halved: int = 0
    clustered: bool = False
    per_channel: bool = False
    clipped: int = 0
    asked: tuple[int, ...] = ()


@dataclass(frozen=True)
class Context:
    """What rules need beside the node and its values.

    Attributes
    ----------
    params : the array; code_bits and acc_bits.
    percentile : share of calibration values, in percent of magnitudes, that must not saturate.
    per_channel : whether channels of convolutions have scales of their own; "auto": where it helps.
    shared : shared weights of all segments by node, kept between runs; more than one way where a choice is still to
        be made.
    """

    params: Params
    percentile: float
    per_channel: PerChannel
    shared: dict[Node, list[tuple[Shared, ...]]] = field(default_factory=dict)
