# ruff: noqa: RUF001
"""Words on a terminal that does not speak UTF-8: what it cannot show becomes the nearest ASCII, and never an error."""

from __future__ import annotations

import codecs
import sys

__all__ = ["encodable"]

_HANDLER = "eie.plain"
_PLAIN = {
    "─": "-", "│": "|", "━": "=", "→": "->", "←": "<-", "▶": ">", "×": "x", "·": "*", "−": "-", "–": "-", "—": "-",
    "…": "...", "µ": "u", "±": "+-", "≤": "<=", "≥": ">=", "²": "^2", "“": '"', "”": '"', "’": "'", "≈": "~",
}  # fmt: skip


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


codecs.register_error(_HANDLER, _plain)


def encodable() -> None:
    """Let standard output and standard error take any text."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=_HANDLER)
