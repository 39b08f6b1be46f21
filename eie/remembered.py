"""What `sim.describe` said of a compiled file, kept, so that it is not computed again.

Its cycles come from the cycle model, whose compiler takes a second to load; a file that has not changed needs none of
it. Kept by the file's content and by the sources of the kit, in the user's cache; what cannot be kept or read is made
again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["described", "remember"]

MOST = 64
"""Files of which something is kept, those asked for last."""


def described(path: Path) -> dict[str, Any]:
    """What ``eie info --json`` says of a compiled network, but for the name of its file.

    Raises
    ------
    EieError
        As `compiler.network_file.load` and `sim.describe.describe`.
    """
    try:
        place = _place(path.read_bytes())
        kept: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        if isinstance(kept, dict) and kept.get("layers") is not None:
            with contextlib.suppress(OSError):
                os.utime(place)
            return kept
    except (OSError, ValueError):
        pass
    from compiler.network_file import load
    from sim.describe import describe

    facts = describe(load(path))
    remember(path, facts)
    return facts


def remember(path: Path, facts: dict[str, Any]) -> None:
    """Keep what was said of a compiled file, if it can be."""
    from compiler.files import is_stream, write_file

    with contextlib.suppress(OSError):
        if is_stream(path):
            return
        place = _place(path.read_bytes())
        place.parent.mkdir(parents=True, exist_ok=True)
        write_file(place, json.dumps(facts).encode())
        others = sorted(place.parent.glob("*.json"), key=lambda each: each.stat().st_mtime)
        for old in others[:-MOST]:
            old.unlink(missing_ok=True)


def _place(content: bytes) -> Path:
    from compiler.caches import cache_folder

    name = hashlib.sha256(content)
    for package in ("hw", "compiler", "sim"):
        found = find_spec(package)
        for folder in (found.submodule_search_locations or []) if found else []:
            for at, _, files in sorted(os.walk(folder)):
                for file in sorted(files):
                    if file.endswith(".py"):
                        state = os.stat(os.path.join(at, file))
                        name.update(f"{at}/{file} {state.st_size} {state.st_mtime_ns}\n".encode())
    return cache_folder() / "described" / f"{name.hexdigest()[:32]}.json"
