"""The networks of the ISS experiment: one kind of language model each, and what is tried on it."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.errors import RecipeError
from compiler.train.language import CELLS
from compiler.train.table import Table

__all__ = ["Network"]


@dataclass(frozen=True)
class Network:
    """One kind of language model and what is tried on it.

    Attributes
    ----------
    name : in tables.
    cell, width, hidden, depth, tied : see `language.LanguageModel`.
    dropout : of the dense model; dropout_sparse : of all others, which the penalty or their size regularizes already
        (published: 0.65 and 0.40).
    strengths : of the group lasso, ascending; least : its threshold.
    l1, l1_least : strengths and threshold of L1; may be empty.
    """

    name: str
    cell: str
    width: int
    hidden: tuple[int, ...]
    depth: int
    tied: bool
    dropout: float
    dropout_sparse: float
    strengths: tuple[float, ...]
    least: float
    l1: tuple[float, ...]
    l1_least: float

    @classmethod
    def parse(cls, table: Table) -> Network:
        """From a recipe. Raises `RecipeError`."""
        network = cls(
            name=table.text("name"),
            cell=table.choice("cell", CELLS),
            width=table.integer("width", 1, 1 << 14),
            hidden=table.integers("hidden", 1, 1 << 14),
            depth=table.integer("depth", 1, 100, default=3),
            tied=table.flag("tied", default=False),
            dropout=table.number("dropout", 0, 1, low_included=True),
            dropout_sparse=table.number("dropout_sparse", 0, 1, low_included=True),
            strengths=table.numbers("strengths", 0, 1),
            least=table.number("least", 0, 1, default=1e-4),
            l1=table.numbers("l1", 0, 1) if table.has("l1") else (),
            l1_least=table.number("l1_least", 0, 1, default=2e-4),
        )
        table.finish()
        if not network.strengths or not network.hidden:
            raise RecipeError(f"{table.source}: {table.where} has no strengths or no hidden layers")
        if network.tied and (network.cell != "rhn" or network.hidden != (network.width,)):
            raise RecipeError(
                f"{table.source}: {table.where} is tied; only one rhn layer as wide as the embedding has such groups"
            )
        return network
