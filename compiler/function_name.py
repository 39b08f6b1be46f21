"""``module:function`` as users write it, and what they meant where it is something else."""

from __future__ import annotations

from pathlib import Path

from compiler.errors import InputError

__all__ = ["check_function_name"]


def check_function_name(text: str) -> None:
    """Refuse a file in the place of a module.

    Raises
    ------
    InputError
        The part before the colon is a path; says which module and folder it stands for.
    """
    before, _, function = text.rpartition(":")
    path = Path(before)
    if path.suffix != ".py" and not any(sign in before for sign in "/\\"):
        return
    dotted = ".".join([*(part for part in path.parent.parts if part not in (".", "/", "..")), path.stem])
    if path.is_absolute() or ".." in path.parts:
        meant = f"`{path.stem}:{function}`, given in the folder {path.parent}"
    else:
        meant = f"`{dotted}:{function}`"
    raise InputError(f"{text} names a file; expected module:function, as Python imports it: {meant}")
