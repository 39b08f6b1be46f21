"""Dense-sparse-dense training in recipes: a table of kind ``dsd`` stands for stages ``prune`` and ``lift``.

    [[stages]]
    kind = "dsd"
    epochs = 10             # of the sparse phase, and of the dense one unless dense_epochs says otherwise
    learning_rate = 1e-3    # of the sparse phase
    sparsity = 0.3          # one number, or a table with a number for each layer
    ignore = ["head"]       # patterns of weights that stay dense; or only = [...], those that do not
    drop = 10               # the dense phase trains with learning_rate / drop
    rounds = 1              # how many times, one after the other

All other keys of a training stage (batch, weight_decay, distill, …) are those of both phases. Each phase is a stage of
its own, with a fresh optimizer, its own checkpoint, and its own record in the report: NAME-sparse and NAME-dense, with
the round's number behind where there are several.

Source: DSD: Dense-Sparse-Dense Training for Deep Neural Networks (Han et al., ICLR 2017), section 2.
"""

from __future__ import annotations

from typing import Any

from compiler.train.dsd import DROP, SPARSITY, factors
from compiler.train.stages.base import selection
from compiler.train.table import Table

__all__ = ["phases"]

_MOST_DROP = 1e6


def phases(table: Table, layers: list[str] | None) -> list[Table]:
    """The tables of the stages that a table of kind ``dsd`` stands for."""
    table.choice("kind", ("dsd",))
    name = table.text("name", default="dsd")
    epochs = table.integer("epochs", 1, 10_000)
    dense_epochs = table.integer("dense_epochs", 1, 10_000, default=epochs)
    learning_rate = table.number("learning_rate", 0, 100)
    drop = table.number("drop", 1, _MOST_DROP, default=DROP, low_included=True)
    rounds = table.integer("rounds", 1, 100, default=1)
    patterns, layers = selection(table, layers)
    density = _density(table, layers)
    both = dict(table.content)  # whatever else a training stage may be told
    found: list[Table] = []
    for number, factor in enumerate(factors(drop, rounds)):
        suffix = f"-{number // 2 + 1}" if rounds > 1 else ""
        sparse: dict[str, Any] = {
            "kind": "prune", "name": f"{name}-sparse{suffix}", "method": "oneshot", "density": density,
            "epochs": epochs, **{key: list(value) for key, value in patterns.items() if value},
        }  # fmt: skip
        dense: dict[str, Any] = {"kind": "lift", "name": f"{name}-dense{suffix}", "epochs": dense_epochs}
        content = {**both, **(dense if number % 2 else sparse), "learning_rate": learning_rate * factor}
        found.append(Table(content, table.source, table.where))
    return found


def _density(table: Table, layers: list[str] | None) -> Any:
    """What the sparse phase keeps; rounded, so that a recipe that says 0.9 is stored with 0.1."""

    def kept(inner: Table, key: str) -> float:
        return round(1.0 - inner.number(key, 0, 1, low_included=True), 12)

    return table.per_layer("sparsity", layers, kept) if table.has("sparsity") else round(1.0 - SPARSITY, 12)
