"""The stages of a recipe: one file each, and a table of their kinds.

A stage changes the module at its start (`begin`), and hooks into the one training loop. A further algorithm is a
further file and a line in `KINDS`, or in `COMPOSED` if it is made of stages that are there.
"""

from __future__ import annotations

from collections.abc import Callable

from compiler.train.stages import dsd
from compiler.train.stages.base import Context, Distill, Stage, parse_stage
from compiler.train.stages.fold import Fold
from compiler.train.stages.group_lasso import GroupLasso
from compiler.train.stages.grow import Grow
from compiler.train.stages.iss import Iss
from compiler.train.stages.lift import Lift
from compiler.train.stages.low_rank import LowRank
from compiler.train.stages.penalize import L0Stage, L1Stage
from compiler.train.stages.prune import Prune
from compiler.train.stages.rewrite import Rewrite
from compiler.train.stages.scan import Scan
from compiler.train.stages.share import Share
from compiler.train.stages.shrink import Shrink
from compiler.train.stages.teach import Teach
from compiler.train.stages.terngrad import TernGrad
from compiler.train.stages.train import Train
from compiler.train.table import Table

__all__ = [
    "COMPOSED",
    "KINDS",
    "Context",
    "Distill",
    "Fold",
    "GroupLasso",
    "Grow",
    "Iss",
    "L0Stage",
    "L1Stage",
    "Lift",
    "LowRank",
    "Prune",
    "Rewrite",
    "Scan",
    "Share",
    "Shrink",
    "Stage",
    "Teach",
    "TernGrad",
    "Train",
    "parse",
]

KINDS: dict[str, type[Stage]] = {
    "teacher": Teach,
    "dense": Train,
    "finetune": Train,
    "terngrad": TernGrad,
    "low-rank": LowRank,
    "rewrite": Rewrite,
    "prune": Prune,
    "rigl": Grow,
    "set": Grow,
    "static": Grow,
    "l1": L1Stage,
    "l0": L0Stage,
    "lift": Lift,
    "group_lasso": GroupLasso,
    "iss": Iss,
    "shrink": Shrink,
    "fold": Fold,
    "sensitivity": Scan,
    "share": Share,
}
"""Kind, as recipes write it → class."""


COMPOSED: dict[str, Callable[[Table, list[str] | None], list[Table]]] = {"dsd": dsd.phases}
"""Kind that stands for several stages → what gives their tables."""


def parse(table: Table, layers: list[str] | None) -> list[Stage]:
    """The stage of a table, or the stages that it stands for.

    Parameters
    ----------
    layers : keys of the network's weights, or None where they are not known.
    """
    kind = table.content.get("kind")
    if isinstance(kind, str) and kind in COMPOSED:
        return [stage for part in COMPOSED[kind](table, layers) for stage in parse(part, layers)]
    return [parse_stage(KINDS, table, layers, also=COMPOSED)]
