"""The image of a network for one array, as the rest of the kit uses it."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.image.check import check
from compiler.image.memory import MemoryImage

__all__ = ["Image"]


@dataclass(frozen=True, eq=False)
class Image(MemoryImage):
    """Memory contents of a network for one array, which can be checked."""

    def verify(self) -> None:
        """Check that every size agrees with every other and every address lies within its memory.

        Raises
        ------
        ImageError
            Naming what is wrong.
        """
        check(self)
