"""Port to registers in the address space of this processor: a UIO device, /dev/mem, or a file that stands for one."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sim.driver.port import DriverError, Port, PortError

__all__ = ["MappedPort"]

PAGE = 4096
"""Bytes that the registers take."""

Send = Callable[[NDArray[np.uint8], NDArray[np.bool_]], int]
Give = Callable[[NDArray[np.uint8]], int]
Take = Callable[[int], NDArray[np.uint8]]


_NO_MAPS = (
    "this network streams maps, and a mapped port has no way to the streams: give MappedPort functions give(beats) and "
    "take(most) that pass them to your DMA engine"
)


class MappedPort(Port):
    """Registers by loads and stores of 32 bits.

    What the bus answers with an error shows as the processor has it: it may be ignored, or end the process.

    Parameters
    ----------
    path : device or file. base : where in it the registers begin, a multiple of the page size.
    stream : gives beats to the refill stream as `Port.send` says, over a DMA engine or a FIFO of the system. There is
        no address to write them to, so without it networks with streamed layers cannot run. forget : see `Port.forget`.
    give, take : the same for streamed maps, as `Port.give` and `Port.take` say.

    Raises
    ------
    PortError
        It cannot be opened, or not be mapped.
    """

    def __init__(
        self, path: str, base: int = 0, stream: Send | None = None, forget: Callable[[], None] | None = None,
        give: Give | None = None, take: Take | None = None,
    ) -> None:  # fmt: skip
        self._stream, self._forget, self._give, self._take = stream, forget, give, take
        try:
            number = os.open(path, os.O_RDWR | getattr(os, "O_SYNC", 0))
        except OSError as error:
            raise PortError(f"{path}: cannot be opened ({error.strerror})") from None
        try:
            self._page = mmap.mmap(number, PAGE, offset=base)
        except (OSError, ValueError) as error:
            raise PortError(f"{path}: {PAGE} bytes from {base:#x} on cannot be mapped ({error})") from None
        finally:
            os.close(number)
        # Elements of an array of c_uint32 are read and written in one access.
        self._words = (ctypes.c_uint32 * (PAGE // 4)).from_buffer(self._page)

    def read32(self, offset: int) -> int:
        """Read a register."""
        return int(self._words[self._index(offset)])

    def write32(self, offset: int, value: int) -> None:
        """Write a register."""
        self._words[self._index(offset)] = value

    def _index(self, offset: int) -> int:
        if offset % 4 or not 0 <= offset < PAGE:
            raise DriverError(f"offset {offset:#x} is no word of the {PAGE} bytes of registers")
        return offset // 4

    def send(self, beats: NDArray[np.uint8], ends: NDArray[np.bool_]) -> int:
        """Offer beats by the function that was given for them."""
        if self._stream is None:
            raise DriverError(
                "this network streams weights, and a mapped port has no way to the stream: give MappedPort a function "
                "stream(beats, ends) that hands them to your DMA engine"
            )
        return self._stream(beats, ends)

    def give(self, beats: NDArray[np.uint8]) -> int:
        """Offer rows of maps by the function that was given for them."""
        if self._give is None:
            raise DriverError(_NO_MAPS)
        return self._give(beats)

    def take(self, most: int) -> NDArray[np.uint8]:
        """Take rows of maps by the function that was given for them."""
        if self._take is None:
            raise DriverError(_NO_MAPS)
        return self._take(most)

    def forget(self) -> None:
        """Drop beats by the function that was given for it."""
        if self._forget is not None:
            self._forget()

    def close(self) -> None:
        """Remove the mapping."""
        del self._words
        self._page.close()
