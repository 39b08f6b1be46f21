"""Whether a folder holds a training already, and of which kind: each goes on in its own folder only."""

from __future__ import annotations

from pathlib import Path

from compiler.errors import InputError
from compiler.train.progress import CHECKPOINTS

__all__ = ["CHECKPOINT", "SHARDS", "check_free"]

CHECKPOINT = "checkpoint.safetensors"
"""File of a training on several processes; one over a parameter server has it in the end."""
SHARDS = "shards"
"""Folder of a training over a parameter server."""

_KINDS = {
    SHARDS: "over a parameter server (--parallel server)",
    CHECKPOINT: "on several processes (--workers)",
    CHECKPOINTS: "of one process",
}


def check_free(folder: Path, kind: str, resume: bool) -> None:
    """Raises `InputError` if a folder holds a training of another kind, or of this one and `resume` is not set.

    kind : what such a training leaves: `CHECKPOINTS`, `CHECKPOINT` or `SHARDS`.
    """
    found = next((each for each in _KINDS if (folder / each).exists()), None)
    if found is not None and found != kind:
        raise InputError(
            f"{folder} holds a run {_KINDS[found]}, and this is one {_KINDS[kind]}; train as it was begun, or choose "
            "another folder"
        )
    if found is not None and not resume:
        raise InputError(f"{folder} holds a run already; continue it with --resume or choose another folder")
