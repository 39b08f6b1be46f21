"""Removal of hidden units that nothing hears: smaller layers, embedding and output, the same function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compiler.train.iss import Part, Units, dead, embedding_units, hidden_units
from compiler.train.language import LanguageModel
from compiler.train.layers import make_plain
from compiler.train.rhn import RHN
from compiler.train.stack import Cell, Stack, split_layers

__all__ = ["shrink", "shrink_model"]


def shrink(
    rnn: nn.LSTM | nn.GRU | RHN | Stack,
    outputs: Sequence[nn.Linear],
    embedding: nn.Embedding | None = None,
    tied: bool = False,
) -> Stack:
    """Remove every unit whose weights to others are all zero; at least one of a layer stays.

    Parameters
    ----------
    rnn : torch's LSTM or GRU, of which a copy is cut; or an RHN or a stack, which are changed in place.
    outputs : every layer that reads the last recurrent layer; changed in place.
    embedding : that feeds the first one; if given, its dimensions that nothing hears are removed too, in place.
    tied : whether `embedding` is the matrix of an output layer as well, see `iss.hidden_units`.

    Returns
    -------
    What takes the place of `rnn`: one module for each layer, because torch's have one width for all.

    Raises
    ------
    ModelError
        As `iss.hidden_units`.
    """
    for module in (rnn, *outputs, *([] if embedding is None else [embedding])):
        make_plain(module)
    stack = rnn if isinstance(rnn, Stack) else Stack([rnn]) if isinstance(rnn, RHN) else split_layers(rnn)
    units = hidden_units(stack, outputs, embedding if tied else None)
    if embedding is not None and not tied:
        units.append(embedding_units(embedding, stack))
    shared = embedding if tied else None
    sharing = [] if shared is None else [output for output in outputs if output.weight is shared.weight]
    # All are judged before any is cut: a part lies in matrices whose other dimension belongs to another layer.
    kept = [_kept(each) for each in units]
    for each, keep in zip(units, kept, strict=True):
        _cut(each, keep)
    for cell in stack:
        _fit(cell)
    if shared is not None:
        shared.weight = sharing[0].weight
        for output in sharing:
            output.weight = shared.weight
    for output in outputs:
        output.in_features = output.weight.shape[1]
    if embedding is not None:
        embedding.embedding_dim = embedding.weight.shape[1]
    return stack


def shrink_model(model: LanguageModel) -> dict[str, list[int]]:
    """Shrink a language model in place; says how wide embedding and layers were before and are after."""
    before = model.widths
    model.rnn = shrink(model.rnn, [model.output], model.embedding, model.tied)
    return {"before": list(before), "after": list(model.widths)}


def _kept(units: Units) -> Tensor:
    """Numbers of the units that stay, ascending."""
    gone = dead(units)
    if bool(gone.all()):
        gone[0] = False  # torch has no layers of no units
    return torch.nonzero(~gone).flatten()


def _cut(units: Units, keep: Tensor) -> None:
    """Leave only the slices of units `keep` in every parameter that has one for each unit."""
    starts: dict[tuple[int, str, int], list[Part]] = {}
    for part in (*units.parts, *units.riders):
        starts.setdefault((id(part.module), part.name, part.dim), []).append(part)
    for parts in starts.values():
        first = parts[0]
        old = first.value.detach()
        assert old.shape[first.dim] == len(parts) * units.size  # the parts together are the whole dimension
        index = torch.cat([part.start + keep for part in sorted(parts, key=lambda part: part.start)])
        setattr(first.module, first.name, nn.Parameter(old.index_select(first.dim, index)))


def _fit(cell: Cell) -> None:
    """Set the widths that a recurrent layer states of itself to those of its weights."""
    name = "weight_ih" if isinstance(cell, RHN) else "weight_ih_l0"
    rows, inputs = cell.get_parameter(name).shape
    cell.input_size = inputs
    cell.hidden_size = rows // (2 if isinstance(cell, RHN) else 4 if isinstance(cell, nn.LSTM) else 3)
