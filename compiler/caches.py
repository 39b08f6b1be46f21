"""Where things are kept that can be made again: builds of the simulator, compiled kernels, data sets.

On a machine without a home folder that may be written (containers, build servers) everything goes to a folder below
the system's temporary one, and nothing else changes.
"""

from __future__ import annotations

import os
import sys
import tempfile
from functools import cache
from pathlib import Path

__all__ = ["cache_folder", "settle", "writable"]


def cache_folder() -> Path:
    """``$EIE_CACHE``, else the kit's own in the user's cache folder, else in the temporary folder; absolute."""
    if given := os.environ.get("EIE_CACHE"):
        return Path(given).expanduser().absolute()
    return settle() / "eie"


def settle() -> Path:
    """The user's cache folder, or one below the temporary folder, which the tools started from here then use as well.

    Those are numba, and what runs WebAssembly (yosys): both fail, or compile for minutes, without a cache.
    """
    named = _users()
    if named is not None and writable(named):
        return named
    fallback = Path(tempfile.gettempdir()) / f"eie-cache-{os.getuid()}"
    fallback.mkdir(mode=0o700, exist_ok=True)
    if fallback.is_symlink() or fallback.stat().st_uid != os.getuid():  # somebody else's: compiled code is run from it
        fallback = Path(_private())
    os.environ["XDG_CACHE_HOME"] = str(fallback)
    os.environ.setdefault("NUMBA_CACHE_DIR", str(fallback / "numba"))
    os.environ.setdefault("YOWASP_CACHE_DIR", str(fallback / "yowasp"))
    return fallback


def writable(folder: Path) -> bool:
    """Whether a file can be made in `folder`, which may have to be made as well."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _users() -> Path | None:
    try:
        home = Path.home()
    except RuntimeError:  # neither HOME nor an entry of the user in the password file
        home = None
    if sys.platform == "darwin":
        return None if home is None else home / "Library" / "Caches"
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named)
    return None if home is None else home / ".cache"


@cache
def _private() -> str:
    return tempfile.mkdtemp(prefix="eie-cache-")
