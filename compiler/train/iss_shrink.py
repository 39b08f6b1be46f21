"""Removal of hidden units that nothing hears: smaller layers, embedding and output, the same function."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast, overload

import torch
from torch import Tensor, nn

from compiler.errors import ModelError
from compiler.train.iss import Part, Units, dead, embedding_units, gates_of, hidden_units
from compiler.train.language import LanguageModel
from compiler.train.layers import make_plain, weights
from compiler.train.narrowed import Narrowed
from compiler.train.optimizers import changed
from compiler.train.prune import attach, find
from compiler.train.removal import same_tensors, tensors
from compiler.train.rhn import RHN
from compiler.train.stack import Cell, Stack, refuse_unsupported, split_layers

__all__ = ["cut_units", "shrink", "shrink_model"]


@overload
def shrink(
    rnn: RHN | Stack, outputs: Sequence[nn.Linear], embedding: nn.Embedding | None = None, tied: bool = False
) -> Stack: ...


@overload
def shrink(
    rnn: nn.RNN | nn.LSTM | nn.GRU | Narrowed,
    outputs: Sequence[nn.Linear],
    embedding: nn.Embedding | None = None,
    tied: bool = False,
) -> Narrowed: ...


def shrink(
    rnn: nn.RNN | nn.LSTM | nn.GRU | RHN | Stack | Narrowed,
    outputs: Sequence[nn.Linear],
    embedding: nn.Embedding | None = None,
    tied: bool = False,
) -> Stack | Narrowed:
    """Remove every unit whose weights to others are all zero; at least one of a layer stays.

    Parameters
    ----------
    rnn : torch's RNN, LSTM or GRU, of which a copy is cut; or an RHN or a stack, which are changed in place.
    outputs : every layer that reads the last recurrent layer; changed in place.
    embedding : that feeds the first one; if given, its dimensions that nothing hears are removed too, in place.
    tied : whether `embedding` is the matrix of an output layer as well, see `iss.hidden_units`.

    Returns
    -------
    What takes the place of `rnn`: of torch's own modules one that is called in the same way, else a stack. Optimizers
    that hold the parameters of `rnn` train those of what takes its place as well.

    Raises
    ------
    ModelError
        As `iss.hidden_units`.
    """
    if not isinstance(rnn, RHN | Stack | Narrowed):
        refuse_unsupported(rnn)
    for module in (rnn, *outputs, *([] if embedding is None else [embedding])):
        make_plain(module)
    if isinstance(rnn, Narrowed):
        stack = rnn.stack
    else:
        stack = rnn if isinstance(rnn, Stack) else Stack([rnn]) if isinstance(rnn, RHN) else split_layers(rnn)
    kept = _cut_all(stack, outputs, embedding, tied)
    if isinstance(rnn, Narrowed):
        left = [before[units] for before, units in zip(rnn.kept, kept, strict=True)]
        return Narrowed(stack, left, rnn.full, rnn.batch_first).train(rnn.training)
    if isinstance(rnn, RHN | Stack):
        return stack
    for layer, cell in enumerate(stack):
        for name, parameter in cell.named_parameters():
            changed(rnn.get_parameter(name.replace("_l0", f"_l{layer}")), beside=(parameter,))
    return Narrowed(stack, kept, rnn.hidden_size, rnn.batch_first).train(rnn.training)


def _cut_all(stack: Stack, outputs: Sequence[nn.Linear], embedding: nn.Embedding | None, tied: bool) -> list[Tensor]:
    """Cut layers, outputs and embedding in place; of each layer, the numbers of the units that stay."""
    units = hidden_units(stack, outputs, embedding if tied else None)
    if embedding is not None and not tied:
        units.append(embedding_units(embedding, stack))
    # All are judged before any is cut: a part lies in matrices whose other dimension belongs to another layer.
    kept = [_kept(each) for each in units]
    for each, keep in zip(units, kept, strict=True):
        _cut(each, keep)
    for cell in stack:
        _fit(cell)
    for output in outputs:
        output.in_features = output.weight.shape[1]
    if embedding is not None:
        embedding.embedding_dim = embedding.weight.shape[1]
    return kept[: len(stack.widths)]


def shrink_model(model: LanguageModel) -> dict[str, list[int]]:
    """Shrink a language model in place; says how wide embedding and layers were before and are after."""
    before = model.widths
    model.rnn = shrink(model.rnn, [model.output], model.embedding, model.tied)
    return {"before": list(before), "after": list(model.widths)}


def cut_units(module: nn.Module, path: str, readers: Sequence[str], inputs: Tensor) -> dict[str, list[int]]:
    """Shrink the recurrent module at `path` of any network in place; widths of its layers before and after.

    Parameters
    ----------
    readers : paths of the Linear layers that read it, see `readers.readers`.
    inputs : some samples, to compare outputs on.

    Raises
    ------
    ModelError
        Something else reads the units that are to go; the network is then as before.
    """
    trial = copy.deepcopy(module).eval()
    with torch.no_grad():
        before = tensors(trial(inputs))
        _cut_at(trial, path, readers)
        try:
            same = same_tensors(before, tensors(trial(inputs)))
        except RuntimeError:
            same = False
    if not same:
        raise ModelError(
            f"removing units of {path} would change the outputs of {type(module).__name__}: something besides "
            f"{', '.join(readers)} reads them; the network is left as it was"
        )
    return _cut_at(module, path, readers)


def _cut_at(module: nn.Module, path: str, readers: Sequence[str]) -> dict[str, list[int]]:
    """Shrink at `path`; masks are put on again in the smaller shape."""
    parent, _, name = path.rpartition(".")
    owner = module.get_submodule(parent)
    rnn: Any = getattr(owner, name)
    outputs = [cast(nn.Linear, module.get_submodule(reader)) for reader in readers]
    masked = any(find(site.module, site.name) for layer in (rnn, *outputs) for site in weights(layer))
    units = hidden_units(rnn, outputs)
    before = [each.size for each in units]
    if not any(bool(dead(each).any()) for each in units):
        return {"before": before, "after": before}
    small = shrink(rnn, outputs)
    setattr(owner, name, small)
    if masked:
        for layer in (small, *outputs):
            for site in weights(layer):
                attach(site.module, site.name).mask.copy_(site.value.detach() != 0)
    return {"before": before, "after": list(small.widths)}


def _kept(units: Units) -> Tensor:
    """Numbers of the units that stay, ascending."""
    gone = dead(units)
    if bool(gone.all()):
        gone[0] = False  # torch has no layers of no units
    return torch.nonzero(~gone).flatten()


def _cut(units: Units, keep: Tensor) -> None:
    """Leave only the slices of units `keep` in every parameter that has one for each unit."""
    starts: dict[tuple[int, int], dict[int, Part]] = {}
    for part in (*units.parts, *units.riders):
        same = starts.setdefault((id(part.value), part.dim), {})  # tied layers name one matrix twice
        same.setdefault(part.start, part)
    for by_start in starts.values():
        parts = [by_start[start] for start in sorted(by_start)]
        first = parts[0]
        old = first.value.detach()
        assert old.shape[first.dim] == len(parts) * units.size  # the parts together are the whole dimension
        index = torch.cat([part.start + keep for part in parts])
        # The object stays, so that tied layers stay tied and optimizers go on.
        changed(cast(nn.Parameter, first.value), old.index_select(first.dim, index))


def _fit(cell: Cell) -> None:
    """Set the widths that a recurrent layer states of itself to those of its weights."""
    name = "weight_ih" if isinstance(cell, RHN) else "weight_ih_l0"
    rows, inputs = cell.get_parameter(name).shape
    cell.input_size = inputs
    cell.hidden_size = rows // (2 if isinstance(cell, RHN) else gates_of(cell))
