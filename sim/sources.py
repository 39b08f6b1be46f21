"""A hash of the kit's own sources: what was made by other ones is not taken for theirs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib import resources

__all__ = ["sources_hash"]

_SUFFIXES = (".py", ".v", ".vlt", ".cpp")


def sources_hash(packages: Iterable[str]) -> str:
    """Of the contents and paths of all sources of these packages, as hexadecimal digits."""
    found = hashlib.sha256()
    for package in packages:
        with resources.as_file(resources.files(package)) as folder:
            for path in sorted(folder.rglob("*")):
                if path.suffix in _SUFFIXES:
                    found.update(f"{package}/{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    return found.hexdigest()
