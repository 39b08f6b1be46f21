"""The list of functional bins in docs/coverage.md: ``python -m sim.coverage.document`` (``make docs``) writes it."""

from __future__ import annotations

from pathlib import Path

from sim.coverage.bins import every_bin

__all__ = ["PAGE", "document"]

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"
BEGIN, END = "<!-- made by make docs -->\n", "<!-- end -->\n"


def document(text: str) -> str:
    """docs/coverage.md with the bins as they are now."""
    rows = [f"| {name} | {sentence} |" for name, sentence in every_bin().items()]
    before, rest = text.split(BEGIN, 1)
    return before + BEGIN + "\n".join(["| bin | situation |", "|---|---|", *rows]) + "\n" + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    PAGE.write_text(document(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
