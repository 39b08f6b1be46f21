"""Pages that run: the blocks of a document, one after the other in one folder, and what is shown as their output."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of the fenced blocks of a page."""
    return BLOCK.findall(text)


def run_shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run shell lines in a folder, where `eie` is this kit, up to the first that fails."""
    lines = [
        "set -e",
        f'eie() {{ "{sys.executable}" -m eie "$@"; }}',
        f'python() {{ "{sys.executable}" "$@"; }}',
        script,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", "\n".join(lines)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def run_page(text: str, folder: Path) -> None:
    """Run the sh and python blocks of a page in their order.

    All python blocks are one session, as they are to a reader; it starts again where a shell block stands between two.
    Each line of a text block must be the beginning of a line that the block before it printed, in this order.

    Raises
    ------
    AssertionError
        A block fails, or does not print what is shown.
    """
    script: list[str] = []
    marks: list[tuple[int, str]] = []  # lines shown behind a block, by its number
    open_python = False
    number = -1
    for language, content in blocks(text):
        if language == "text":
            marks.append((number, content))
            continue
        if language not in ("sh", "python"):
            continue
        number += 1
        mark = f"=== block {number}"
        if language == "python":
            if not open_python:
                script.append("python - <<'END_OF_PYTHON'")
            script += [f"print({mark!r}, flush=True)", content]
        else:
            script += ["END_OF_PYTHON"] if open_python else []
            script += [f"echo '{mark}'", content]
        open_python = language == "python"
    script += ["END_OF_PYTHON"] if open_python else []
    done = run_shell("\n".join(script), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = re.split(r"^=== block \d+\n", done.stdout, flags=re.MULTILINE)[1:]
    for at, shown in marks:
        printed = iter(parts[at].splitlines())
        for line in shown.splitlines():
            assert any(each.startswith(line) for each in printed), f"not printed: {line}\n{parts[at]}"
