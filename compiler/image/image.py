"""The image of a network for one array, as the rest of the kit uses it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compiler.image import file
from compiler.image.check import check
from compiler.image.memory import MemoryImage
from hw.params import Params

__all__ = ["Image"]


@dataclass(frozen=True, eq=False)
class Image(MemoryImage):
    """Memory contents of a network for one array, which can be checked, written and read."""

    def verify(self) -> None:
        """Check that every size agrees with every other and every address lies within its memory.

        Raises
        ------
        ImageError
            Naming what is wrong.
        """
        check(self)

    def save(self, path: str | Path) -> None:
        """Write the image; `path` holds either the whole new file or what it held before.

        Raises
        ------
        ImageError
            The image does not verify, or the file cannot be written.
        """
        file.write(self, path)

    @classmethod
    def load(cls, path: str | Path, params: Params | None = None) -> Image:
        """Read and check an image.

        Parameters
        ----------
        path : a file that `save` wrote.
        params : the array that shall run it; None takes any.

        Raises
        ------
        ImageError
            The file is not an image, is damaged, contradicts itself, or was made for other parameters or layouts.
        """
        return file.read(cls, path, params)
