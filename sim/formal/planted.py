"""Planted faults: a block that is wrong in one place, to show that a proof would find it."""

from __future__ import annotations

import inspect
import sys
import textwrap
from typing import Any

from compiler.errors import InputError

__all__ = ["planted"]


def planted(kind: type, right: str, wrong: str, method: str = "elaborate", times: int = 1, **names: Any) -> Any:
    """A subclass of `kind` in whose `method` the text `wrong` stands in the place of `right`.

    It may use `names` beside those of the block's module.

    Raises
    ------
    InputError
        The text is not there as many `times` as it is expected: the block has changed, and so must the fault.
    """
    source = textwrap.dedent(inspect.getsource(getattr(kind, method)))
    found = source.count(right)
    if found != times:
        raise InputError(
            f"planted fault: {kind.__name__}.{method} holds {right!r} {found} times; expected {times}: "
            "write the fault anew for the block as it is now"
        )
    space = {**vars(sys.modules[kind.__module__]), **names}
    exec(source.replace(right, wrong), space)
    return type(f"{kind.__name__}WithFault", (kind,), {method: space[method]})
