"""Language models: which word comes next, from an embedding, recurrent layers and a linear layer.

Source of where dropout goes: Recurrent Neural Network Regularization (Zaremba et al., 2014).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from compiler.errors import RecipeError
from compiler.train.rhn import RHN
from compiler.train.stack import Cell, Stack, State

__all__ = ["CELLS", "LanguageModel"]

CELLS = ("lstm", "gru", "rhn")
"""Kinds of recurrent layers."""


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, Linear: numbers of words in, a logit for every word of the vocabulary out.

    Words (batch, time), or (time, batch) without `batch_first`, and the state of `Stack` or None give logits with one
    dimension more, and the state after them.

    Parameters
    ----------
    vocabulary : words.
    width : of the embedding.
    hidden : units of every recurrent layer, which may differ: a shrunk model is built again from its widths.
    cell : one of `CELLS`.
    depth : of an RHN.
    dropout : share of the values after the embedding, between layers and after the last one that is zero while
        training. Within an RHN it is variational dropout of the state, and of what goes in.
    tied : embedding and Linear share one matrix; then the last layer is as wide as the embedding.
    batch_first : see above.

    Raises
    ------
    RecipeError
        There is no such cell, or the widths do not fit.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        hidden: Sequence[int],
        cell: str = "lstm",
        *,
        depth: int = 3,
        dropout: float = 0.0,
        tied: bool = False,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise RecipeError(f"cell is {cell!r}; expected one of {', '.join(CELLS)}")
        if not hidden or (tied and hidden[-1] != width):
            raise RecipeError(
                f"hidden is {list(hidden)} and the embedding has width {width}; expected at least one layer, and with "
                "tied = true a last one as wide as the embedding"
            )
        self.batch_first = batch_first
        self.embedding = nn.Embedding(vocabulary, width)
        inputs = [width, *hidden[:-1]]
        cells = [_cell(cell, i, h, depth, dropout) for i, h in zip(inputs, hidden, strict=True)]
        # Within an RHN dropout is of its own kind, and zeros its inputs already.
        outside = 0.0 if cell == "rhn" else dropout
        self.rnn = Stack(cells, outside)
        self.drop_in, self.drop_out = nn.Dropout(outside), nn.Dropout(dropout)
        self.output = nn.Linear(hidden[-1], vocabulary)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.uniform_(self.output.weight, -0.1, 0.1)
        nn.init.zeros_(self.output.bias)
        if tied:
            self.output.weight = self.embedding.weight

    @property
    def tied(self) -> bool:
        """Whether embedding and Linear share one matrix."""
        return self.output.weight is self.embedding.weight

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the embedding, then of every recurrent layer."""
        return (self.embedding.embedding_dim, *self.rnn.widths)

    def start(self, batch: int) -> State:
        """The state before the first word."""
        return self.rnn.start(batch)

    def forward(self, words: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits and the state after the last word."""
        rows = words if self.batch_first else words.t()
        outputs, after = self.rnn(self.drop_in(self.embedding(rows)), state)
        logits: Tensor = self.output(self.drop_out(outputs))
        return logits if self.batch_first else logits.transpose(0, 1), after

    def matrices(self) -> list[Tensor]:
        """Every matrix that a word is multiplied with: those of the recurrent layers and of the Linear layer."""
        return [*(value for value in self.rnn.parameters() if value.dim() == 2), self.output.weight]

    def multiplies(self) -> int:
        """Products of one word: every weight of those matrices once."""
        return sum(matrix.numel() for matrix in self.matrices())


def _cell(kind: str, inputs: int, hidden: int, depth: int, dropout: float) -> Cell:
    if kind == "rhn":
        return RHN(inputs, hidden, depth, dropout)
    kinds: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}
    return kinds[kind](inputs, hidden, batch_first=True)
