"""What the driver needs of a way to the accelerator, and the errors of both."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from compiler.errors import EieError
from hw.registers import EVERY_REGISTER

__all__ = ["DriverError", "Port", "PortError", "refused"]


class PortError(EieError):
    """A port cannot be opened: there is no such device, it may not be used, or its name says nothing."""


class DriverError(EieError):
    """The accelerator refused, ended with an error, does not answer, or answers wrongly."""

    exit_code = 1


class Port(ABC):
    """A way to the registers of an accelerator and to its streams.

    Every access is carried out before the call returns. Offsets are bytes, as in docs/registers.md; words have 32 bits.
    """

    @abstractmethod
    def read32(self, offset: int) -> int:
        """Read a register.

        Raises
        ------
        DriverError
            The accelerator answers with an error, or not in time.
        """

    @abstractmethod
    def write32(self, offset: int, value: int) -> None:
        """Write a register. Raises what `read32` raises."""

    def read_block(self, offset: int, count: int) -> list[int]:
        """Read one register `count` times: DATA moves on by itself."""
        return [self.read32(offset) for _ in range(count)]

    def write_block(self, offset: int, values: Sequence[int]) -> None:
        """Write successive values to one register."""
        for value in values:
            self.write32(offset, value)

    @abstractmethod
    def send(self, beats: NDArray[np.uint8], ends: NDArray[np.bool_]) -> int:
        """Offer beats (beats, 16) to the refill stream, those in `ends` with TLAST.

        Returns
        -------
        int
            How many from the first on were taken: fewer than there are, also none, while the stream is full. Those are
            offered again.
        """

    def give(self, beats: NDArray[np.uint8]) -> int:
        """Offer rows of maps, (beats, 16) activation vectors, to ``s_axis_acts``. Returns what `send` returns.

        Raises
        ------
        DriverError
            This port has no way to that stream.
        """
        raise DriverError(_no_streams(type(self).__name__))

    def take(self, most: int) -> NDArray[np.uint8]:
        """Rows of maps that came from ``m_axis_acts``, (beats, 16), at most so many, possibly none.

        Raises
        ------
        DriverError
            This port has no way to that stream.
        """
        raise DriverError(_no_streams(type(self).__name__))

    def forget(self) -> None:  # noqa: B027
        """Drop beats on their way to the accelerator or from it; called while it drops what it is given."""

    def pause(self) -> None:
        """Let a little time pass before the next look at a run."""
        time.sleep(0.001)

    def clock(self) -> float:
        """Seconds, of this port's own time."""
        return time.monotonic()

    def close(self) -> None:  # noqa: B027
        """Give the device back."""

    def __enter__(self) -> Port:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _no_streams(kind: str) -> str:
    return (
        f"maps of this network stream through the activation ports, to which {kind} has no way; use another port, or "
        "compile the network so that its maps stay on chip"
    )


def refused(way: str, offset: int) -> DriverError:
    """The accelerator answered an access ("read" or "write") with an error."""
    name = next((register.name for register in EVERY_REGISTER if register.offset == offset), "no register")
    return DriverError(
        f"the accelerator refuses a {way} at offset {offset:#04x} ({name}); expected an access that docs/registers.md "
        "allows"
    )
