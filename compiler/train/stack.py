"""Recurrent layers of different widths, one module each: torch's own have one width for all layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from compiler.errors import ModelError
from compiler.train.rhn import RHN

__all__ = ["Cell", "Stack", "State", "split_layers"]

Cell = nn.RNN | nn.LSTM | nn.GRU | RHN
"""One recurrent layer: batch_first, one direction, num_layers = 1."""

State = list[Tensor]
"""What is carried from step to step: tensors (1, batch, width), two of an LSTM layer (h, c), one of the others."""


class Stack(nn.Module):
    """Recurrent layers one after the other, with dropout between them as torch's multi-layer modules have it.

    Inputs (batch, time, in) and the state, a list or None for zeros, give outputs (batch, time, width of the last
    layer) and the state after them.

    Raises
    ------
    ModelError
        A layer is not of one direction, one layer, with batch_first and without projection, or their widths do not
        follow from each other.
    """

    def __init__(self, cells: Sequence[Cell], dropout: float = 0.0) -> None:
        super().__init__()
        if not cells:
            raise ModelError("a stack of no recurrent layers; expected at least one")
        for number, cell in enumerate(cells):
            if not isinstance(cell, RHN) and (cell.num_layers != 1 or not cell.batch_first):
                raise ModelError(
                    f"layer {number} has num_layers = {cell.num_layers} and batch_first = {cell.batch_first}; expected "
                    "1 and True, see split_layers"
                )
            refuse_unsupported(cell)
            if number and cell.input_size != cells[number - 1].hidden_size:
                raise ModelError(
                    f"layer {number} takes {cell.input_size} values; the layer before it gives "
                    f"{cells[number - 1].hidden_size}"
                )
        self.cells = nn.ModuleList(cells)
        self.dropout = dropout

    def __iter__(self) -> Iterator[Cell]:
        return iter(cast(Sequence[Cell], self.cells))

    @property
    def widths(self) -> tuple[int, ...]:
        """Hidden units of every layer."""
        return tuple(cell.hidden_size for cell in self)

    def start(self, batch: int) -> State:
        """The state before the first step: zeros."""
        like = next(self.parameters())
        return [like.new_zeros(1, batch, cell.hidden_size) for cell in self for _ in range(_tensors(cell))]

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Outputs and the state after them."""
        before = iter(self.start(len(inputs)) if state is None else state)
        after: State = []
        for number, cell in enumerate(self):
            if number:
                inputs = nn.functional.dropout(inputs, self.dropout, self.training)
            if isinstance(cell, nn.LSTM):
                inputs, pair = cell(inputs, (next(before), next(before)))
                after += pair
            else:
                inputs, one = cell(inputs, next(before))
                after.append(one)
        return inputs, after


def split_layers(rnn: nn.RNN | nn.LSTM | nn.GRU) -> Stack:
    """The same function as a stack: one module for each layer, with the values of `rnn`.

    Inputs are (batch, time, in) whether `rnn` has batch_first or not, and the state is a list, layer by layer, instead
    of tensors that hold all layers.

    Raises
    ------
    ModelError
        `rnn` has two directions or a projection.
    """
    refuse_unsupported(rnn)
    kind: Any = type(rnn)
    options = {"nonlinearity": rnn.nonlinearity} if isinstance(rnn, nn.RNN) else {}
    cells: list[Cell] = []
    for layer in range(rnn.num_layers):
        width = rnn.input_size if layer == 0 else rnn.hidden_size
        cell = kind(width, rnn.hidden_size, bias=rnn.bias, batch_first=True, **options)
        with torch.no_grad():
            for name, parameter in cell.named_parameters():
                old = rnn.get_parameter(name.replace("_l0", f"_l{layer}"))
                parameter.requires_grad_(old.requires_grad).copy_(old)
        cells.append(cell)
    return Stack(cells, rnn.dropout).to(next(rnn.parameters()).dtype).train(rnn.training)


def refuse_unsupported(rnn: Cell) -> None:
    """Raise `ModelError` for two directions or a projection, and for what is no such layer."""
    if not isinstance(rnn, Cell):
        raise ModelError(f"a {type(rnn).__name__}; expected an nn.RNN, nn.LSTM, nn.GRU or an RHN")
    if not isinstance(rnn, RHN) and (rnn.bidirectional or rnn.proj_size):
        raise ModelError(
            f"{type(rnn).__name__} with bidirectional = {rnn.bidirectional} and proj_size = {rnn.proj_size}; expected "
            "one direction and no projection"
        )


def _tensors(cell: Cell) -> int:
    return 2 if isinstance(cell, nn.LSTM) else 1
