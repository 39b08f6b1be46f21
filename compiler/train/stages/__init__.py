"""The stages of a recipe: one file each, and a table of their kinds.

A stage changes the module at its start (`begin`), and hooks into the one training loop. A further algorithm is a
further file and a line in `KINDS`.
"""

from __future__ import annotations

from compiler.train.stages.base import Context, Distill, Stage, parse_stage
from compiler.train.stages.group_lasso import GroupLasso
from compiler.train.stages.prune import Prune
from compiler.train.stages.scan import Scan
from compiler.train.stages.share import Share
from compiler.train.stages.shrink import Shrink
from compiler.train.stages.teach import Teach
from compiler.train.stages.train import Train
from compiler.train.table import Table

__all__ = [
    "KINDS",
    "Context",
    "Distill",
    "GroupLasso",
    "Prune",
    "Scan",
    "Share",
    "Shrink",
    "Stage",
    "Teach",
    "Train",
    "parse",
]

KINDS: dict[str, type[Stage]] = {
    "teacher": Teach,
    "dense": Train,
    "finetune": Train,
    "prune": Prune,
    "group_lasso": GroupLasso,
    "shrink": Shrink,
    "sensitivity": Scan,
    "share": Share,
}
"""Kind, as recipes write it → class."""


def parse(table: Table, layers: list[str] | None) -> Stage:
    """A stage from its table.

    Parameters
    ----------
    layers : keys of the network's weights, or None where they are not known.
    """
    return parse_stage(KINDS, table, layers)
