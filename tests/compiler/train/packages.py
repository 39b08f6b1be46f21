"""Packages of npm without a network: their archives, and a program called npm that gives one."""

from __future__ import annotations

import sys
import tarfile
from io import BytesIO
from pathlib import Path

__all__ = ["archive", "fake_npm"]


def archive(path: Path, files: dict[str, bytes]) -> Path:
    """Write the archive of a package with these files."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    return path


def fake_npm(folder: Path, code: str) -> None:
    """A program called npm that runs a few lines of Python."""
    folder.mkdir(exist_ok=True)
    (folder / "npm").write_text(f"#!{sys.executable}\nimport shutil, sys\n{code}\n")
    (folder / "npm").chmod(0o755)
