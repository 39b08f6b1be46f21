"""Functions that numba compiles, from the first call on that is worth it.

Importing numba takes half a second, longer than a small network takes in plain Python. So a decorated function is a
`Kernel`: under `interpreted` it runs as it stands, else its first call imports numba and compiles. Both compute the
same, for what is decorated holds to integers of 64 bits and says where it widens narrower ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import update_wrapper
from pathlib import Path
from threading import Lock
from typing import Any

from compiler.caches import cache_folder, settle, writable

__all__ = ["interpreted", "njit"]

_interpreting: ContextVar[bool] = ContextVar("interpreting", default=False)
_kernels: list[Kernel] = []
_lock = Lock()


class Kernel:
    """A function that is compiled when it is first called outside of `interpreted`."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.function, self.options = function, options
        self.compiled: Callable[..., Any] | None = None
        update_wrapper(self, function)
        _kernels.append(self)

    def __call__(self, *values: Any) -> Any:
        """Call the compiled function, or the function itself under `interpreted` as long as nothing is compiled."""
        if self.compiled is None:
            if _interpreting.get():
                return self.function(*values)
            _compile()
            assert self.compiled is not None
        return self.compiled(*values)


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with these options, later. Called with a function's arguments in their order, without names."""
    return lambda function: Kernel(function, options)


@contextmanager
def interpreted(wanted: bool = True) -> Iterator[None]:
    """Within, functions run in plain Python if numba has not been needed yet and `wanted`: for little work."""
    token = _interpreting.set(wanted)
    try:
        yield
    finally:
        _interpreting.reset(token)


def _compile() -> None:
    """Import numba and give every kernel its compiled form, by which the others call it."""
    with _lock:
        # numba keeps compiled code beside the source, or in the user's cache folder, and refuses to start if neither
        # can be written.
        if "NUMBA_CACHE_DIR" not in os.environ and not writable(Path(__file__).parent / "__pycache__"):
            settle()
            os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder() / "numba"))
        import numba

        made = {each: numba.njit(**each.options)(each.function) for each in _kernels if each.compiled is None}
        for kernel in _kernels:  # numba knows its own functions only
            names = kernel.function.__globals__
            known = {name: each for name, each in names.items() if isinstance(each, Kernel)}
            names.update({name: made.get(each) or each.compiled for name, each in known.items()})
        for kernel, compiled in made.items():  # last: from here on other threads call it
            kernel.compiled = compiled
