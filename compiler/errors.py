"""The one exception family of the kit.

A message says what was given, what was expected and what to do; the command line prints it without a
traceback and ends with the class's exit code.
"""

from __future__ import annotations

import re

__all__ = [
    "CodingError",
    "EieError",
    "ImageError",
    "InputError",
    "ModelError",
    "OptionsError",
    "RecipeError",
    "ToolError",
    "WorkerError",
]

_LONG = re.compile(r"\S{400,}")
_MOST = 5000


class EieError(Exception):
    """Base of all errors that a user can cause and mend.

    Attributes
    ----------
    exit_code : what a command ends with when this error reaches it (2: bad usage or input, 3: tool missing,
        4: another process is gone).
    """

    exit_code = 2

    def __str__(self) -> str:
        """The message; a name of thousands of signs, out of somebody's file, is cut, and so is a list without end."""
        text = _LONG.sub(lambda word: f"{word[0][:100]}… ({len(word[0])} signs)", super().__str__())
        return text if len(text) <= _MOST else f"{text[:_MOST]}… ({len(text)} signs in all)"


class ModelError(EieError):
    """The network cannot be compiled: unsupported, inconsistent or not finite."""


class ImageError(EieError):
    """An image is not one, is damaged, was made for another array, or does not fit."""


class CodingError(EieError):
    """A compressed file is not one, is damaged, contradicts itself, or is larger than this kit reads."""


class OptionsError(EieError):
    """An option of the compiler is unknown or has a value that it cannot have."""


class InputError(EieError):
    """Input data has the wrong width, type or content."""


class RecipeError(EieError):
    """A training recipe is wrong."""


class ToolError(EieError):
    """A tool that this step needs is missing or too old."""

    exit_code = 3


class WorkerError(EieError):
    """Another process, of a distributed training or of a cluster, is gone or does not answer."""

    exit_code = 4
