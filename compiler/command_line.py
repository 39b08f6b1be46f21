"""The command that is running, as reports name it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

__all__ = ["command"]


def command() -> str:
    """The command line that is running, without the folders of this machine's programs."""
    program, *arguments = sys.argv
    name = Path(program).name
    return shlex.join(["eie" if name in ("__main__.py", "-m") else name, *arguments])
