"""numba's `njit`, imported once its cache has a folder that can be written.

numba keeps compiled code beside the source, or in the user's cache folder, and refuses to start if neither can be.
"""

from __future__ import annotations

import os
from pathlib import Path

from compiler.caches import cache_folder, settle, writable

if "NUMBA_CACHE_DIR" not in os.environ and not writable(Path(__file__).parent / "__pycache__"):
    settle()
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder() / "numba"))

from numba import njit

__all__ = ["njit"]
