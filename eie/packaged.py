"""The recipes that come with the kit, from an installed package or from a clone."""

from __future__ import annotations

from pathlib import Path

__all__ = ["recipe_folder", "recipes"]


def recipe_folder() -> Path:
    """Folder that holds them."""
    here = Path(__file__).parent
    installed = here / "recipes"
    return installed if installed.is_dir() else here.parent / "recipes"


def recipes() -> dict[str, str]:
    """File name below that folder → the comment that it begins with, on one line."""
    folder = recipe_folder()
    return {path.relative_to(folder).as_posix(): _comment(path) for path in sorted(folder.rglob("*.toml"))}


def _comment(path: Path) -> str:
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        words.append(line.lstrip("# "))
    return " ".join(words)
