"""Port to the Verilog of the accelerator in this process: Verilator's model as a shared library."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hw.accelerator import TOP_MODULE
from hw.params import Params
from sim.driver.port import DriverError, Port, refused
from sim.rtl.build import Build, build
from sim.streams import BEAT

__all__ = ["LibraryPort"]

CLOCK = 1e-6
"""Seconds of a cycle, for timeouts."""

PAUSE_CYCLES = 16


class LibraryPort(Port):
    """AXI4-Lite accesses and beats at the pins; time passes only while an access or a pause lasts.

    Parameters
    ----------
    params : the array; it is built if it is not in the cache.
    seed : of the random contents that all registers and memories start with.
    built : a build (``library``) to use instead (mutated arrays).

    Raises
    ------
    ToolError
        A tool is missing, or the compilation failed.
    """

    def __init__(self, params: Params, *, seed: int = 1, built: Build | None = None) -> None:
        built = built or build(params, library=True)
        self._library = ctypes.CDLL(str(built.folder / TOP_MODULE))
        for name, kind in (("pins_new", ctypes.c_void_p), ("pins_cycles", ctypes.c_uint64),
                           ("pins_failure", ctypes.c_char_p)):  # fmt: skip
            getattr(self._library, name).restype = kind
        self._pins = ctypes.c_void_p(self._library.pins_new(ctypes.c_uint32(seed)))

    @property
    def cycles(self) -> int:
        """Cycles since the beginning."""
        return int(self._library.pins_cycles(self._pins))

    @property
    def failure(self) -> str:
        """What an assertion of the design said first; empty if none did."""
        return str(self._library.pins_failure().decode())

    @property
    def interrupt(self) -> bool:
        """The interrupt line."""
        return bool(self._library.pins_irq(self._pins))

    def tick(self, cycles: int) -> None:
        """Let cycles pass."""
        self._library.pins_ticks(self._pins, cycles)

    def reset(self, cycles: int = 2) -> None:
        """Pull the reset line; beats that wait stay."""
        self._library.pins_reset(self._pins, cycles)

    def raw_write(self, offset: int, value: int, strobes: int = 15) -> int:
        """The response to a write, 0 or 2; -1 if there is none."""
        return int(self._library.pins_write(self._pins, ctypes.c_uint32(offset), ctypes.c_uint32(value), strobes))

    def raw_read(self, offset: int) -> tuple[int, int]:
        """The response to a read as of `raw_write`, and the word."""
        word = ctypes.c_uint32(0)
        response = self._library.pins_read(self._pins, ctypes.c_uint32(offset), ctypes.byref(word))
        return int(response), word.value

    def read32(self, offset: int) -> int:
        """Read a register."""
        response, word = self.raw_read(offset)
        self._answered(response, "read", offset)
        return word

    def write32(self, offset: int, value: int) -> None:
        """Write a register."""
        self._answered(self.raw_write(offset, value), "write", offset)

    def _answered(self, response: int, way: str, offset: int) -> None:
        if self.failure:
            raise DriverError(f"an assertion of the design failed: {self.failure}")
        if response < 0:
            raise DriverError("the accelerator gives no answer")
        if response:
            raise refused(way, offset)

    def read_block(self, offset: int, count: int) -> list[int]:
        """Read one register again and again."""
        words = (ctypes.c_uint32 * count)()
        if self._library.pins_read_block(self._pins, ctypes.c_uint32(offset), words, count) < count:
            self._answered(2, "read", offset)
        return list(words)

    def write_block(self, offset: int, values: Sequence[int]) -> None:
        """Write one register again and again."""
        words = (ctypes.c_uint32 * len(values))(*values)
        if self._library.pins_write_block(self._pins, ctypes.c_uint32(offset), words, len(values)) < len(values):
            self._answered(2, "write", offset)

    def send(self, beats: NDArray[np.uint8], ends: NDArray[np.bool_]) -> int:
        """Beats to wait in front of the pins."""
        self._library.pins_send(self._pins, _words(beats), np.asarray(ends, np.uint8).tobytes(), len(beats))
        return len(beats)

    def give(self, beats: NDArray[np.uint8]) -> int:
        """Rows of maps to wait in front of the pins."""
        self._library.pins_give(self._pins, _words(beats), len(beats))
        return len(beats)

    def take(self, most: int) -> NDArray[np.uint8]:
        """Rows of maps that came to the pins."""
        room = np.zeros((max(1, most), BEAT), np.uint8)
        count = self._library.pins_take(self._pins, room.ctypes.data_as(ctypes.c_void_p), most)
        return room[:count]

    def room(self, beats: int | None) -> None:
        """Rows of maps that may wait to be taken before the array is held back; None for any number."""
        self._library.pins_room(self._pins, ctypes.c_int64(-1 if beats is None else beats))

    def waiting(self) -> tuple[int, int]:
        """Beats that stand before the pins of the refill stream, and of the stream of maps."""
        return tuple(int(self._library.pins_waiting(self._pins, which)) for which in (0, 1))  # type: ignore[return-value]

    def forget(self) -> None:
        """Drop beats that wait."""
        self._library.pins_forget(self._pins)

    def pause(self) -> None:
        """Let a few cycles pass."""
        self.tick(PAUSE_CYCLES)

    def clock(self) -> float:
        """Seconds of a clock of 1 MHz."""
        return self.cycles * CLOCK

    def close(self) -> None:
        """Give the model back."""
        if self._pins:
            self._library.pins_free(self._pins)
            self._pins = ctypes.c_void_p(0)


def _words(beats: NDArray[np.uint8]) -> bytes:
    return np.ascontiguousarray(beats, np.uint8).tobytes()
