"""Intrinsic sparse structures (ISS): hidden units of recurrent layers are pushed to zero as wholes, and removed.

All weights that come to an end, or begin, in one hidden unit are one group of a group lasso:

    penalty = strength · sum over units of sqrt(1e-8 + sum of the squares of the unit's weights)

without a factor for the size of a group, as published. After every optimizer step every weight below a small threshold
becomes zero, so that what hovers about zero stays there. A unit whose weights to others are all zero changes no output
and can be taken out (`iss_shrink`).

Source: Learning Intrinsic Sparse Structures within Long Short-Term Memory (Wen et al., ICLR 2018), and the authors'
code for what the paper leaves open.

The groups, in torch's layout and in the published one
------------------------------------------------------
The authors' LSTM has one matrix (in + hidden, 4 hidden) a layer with the gates i, j, f, o; torch has two, transposed:
``weight_ih`` (4 hidden, in) and ``weight_hh`` (4 hidden, hidden) with the gates i, f, g, o, of a GRU (3 hidden, …) with
r, z, n, of a plain RNN (hidden, …). The order of gates does not matter here. A group of unit k of layer l with H units
has

======================================================  ==========================================================
published (TensorFlow)                                  torch
======================================================  ==========================================================
columns k, k + H, k + 2H, k + 3H of W_l, all rows       rows k, k + H, … of weight_ih_l and of weight_hh_l
row in + k of W_l: the recurrent row                    column k of weight_hh_l
row k of W_{l+1} (its input half) or of softmax_w       column k of weight_ih_{l+1}, or of the output Linear layer
======================================================  ==========================================================

Weights of a unit's own rows in its own recurrent column belong to the group twice, as published. Biases (two vectors in
torch, one in the published code) and the embedding are in no group. A unit with zero weights and a bias is not silent,
but nothing hears it.

RHN: rows k of every h and t matrix of every depth, column k of every recurrent one, column k of the output. Published
is the network whose embedding and output are one matrix: then the columns k of that matrix and of the input matrix are
in the group as well, for which hidden and embedding width must be the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from compiler.errors import ModelError
from compiler.train.loop import Hook
from compiler.train.narrowed import Narrowed
from compiler.train.rhn import RHN
from compiler.train.stack import Stack, refuse_unsupported

__all__ = [
    "EPSILON",
    "ISS",
    "Part",
    "Units",
    "dead",
    "embedding_units",
    "gates_of",
    "hidden_units",
    "penalty",
    "threshold",
]

EPSILON = 1e-8
"""Under every root, so that the gradient at zero is finite (published)."""

Recurrent = nn.RNN | nn.LSTM | nn.GRU | RHN | Stack | Narrowed


@dataclass(frozen=True, eq=False)
class Part:
    """Where one slice of every unit lies: index ``start + k`` of dimension `dim` belongs to unit k.

    Attributes
    ----------
    module, name : parameter `name` of `module`.
    gives : whether it holds weights from the unit to others, rather than to the unit.
    """

    module: nn.Module
    name: str
    dim: int
    start: int = 0
    gives: bool = False

    @property
    def value(self) -> Tensor:
        """The parameter."""
        return cast(Tensor, getattr(self.module, self.name))


@dataclass(frozen=True, eq=False)
class Units:
    """The units of one layer.

    Attributes
    ----------
    key : for people: "layer 0", "embedding".
    size : how many.
    parts : their weights, one group for each unit.
    riders : what else has a slice for each unit (biases); in no group, but removed with the unit.
    """

    key: str
    size: int
    parts: tuple[Part, ...]
    riders: tuple[Part, ...] = ()

    def squares(self, parts: Iterable[Part]) -> Tensor:
        """Sum of the squares of some parts for each unit, (size,)."""
        total: Tensor | None = None
        sums: dict[tuple[int, str, int], Tensor] = {}  # one pass over a matrix for all of its gates
        for part in parts:
            key = (id(part.module), part.name, part.dim)
            if key not in sums:
                sums[key] = part.value.square().sum(1 - part.dim)
            each = sums[key].narrow(0, part.start, self.size)
            total = each if total is None else total + each
        if total is None:
            raise ModelError(f"{self.key} has no weights to judge its units by")
        return total


def hidden_units(rnn: Recurrent, outputs: Sequence[nn.Linear], tied: nn.Embedding | None = None) -> list[Units]:
    """The hidden units of every recurrent layer, first to last, with the groups described above.

    Parameters
    ----------
    rnn : torch's RNN, LSTM or GRU of one direction with any number of layers, an RHN, or what `iss_shrink` made of it.
    outputs : every layer that reads the last recurrent layer.
    tied : the embedding, if one of `outputs` has its matrix and `rnn` is one RHN.

    Raises
    ------
    ModelError
        `rnn` has two directions or a projection, the widths do not fit, or a tied embedding feeds other layers.
    """
    layers = list(_layers(rnn))
    if not outputs:
        raise ModelError("no layer reads the last recurrent layer; expected the Linear layers that do")
    for output in outputs:
        if output.in_features != layers[-1].size:
            raise ModelError(f"an output layer takes {output.in_features} values; the last layer has {layers[-1].size}")
    found = []
    for number, layer in enumerate(layers):
        if number + 1 < len(layers):
            readers = [Part(layers[number + 1].module, layers[number + 1].inputs, 1, gives=True)]
        else:
            readers = [Part(output, "weight", 1, gives=True) for output in outputs]
        own = layer.own + (_tied(layers, outputs, tied) if tied is not None else [])
        found.append(Units(f"layer {number}", layer.size, (*own, *readers), tuple(layer.biases)))
    return found


def embedding_units(embedding: nn.Embedding, rnn: Recurrent) -> Units:
    """The dimensions of an embedding of its own. Published groups leave them alone; a further group if wanted."""
    first = next(_layers(rnn))
    if cast(Tensor, getattr(first.module, first.inputs)).shape[1] != embedding.embedding_dim:
        raise ModelError(f"the embedding gives {embedding.embedding_dim} values; the first layer takes another number")
    gives = Part(first.module, first.inputs, 1, gives=True)
    return Units("embedding", embedding.embedding_dim, (Part(embedding, "weight", 1), gives))


def penalty(units: Iterable[Units], strength: float) -> Tensor:
    """The group lasso of all units, a scalar; the formula is above."""
    total = sum(torch.sqrt(each.squares(each.parts) + EPSILON).sum() for each in units)
    return strength * cast(Tensor, total)


def threshold(parameters: Iterable[Tensor], least: float) -> None:
    """Set every element of a magnitude below `least` to zero, in place."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.masked_fill_(parameter.abs() < least, 0)


def dead(units: Units) -> Tensor:
    """Which units nothing hears: every weight from them to others is zero; bool (size,)."""
    with torch.no_grad():
        return units.squares(part for part in units.parts if part.gives) == 0


class ISS(Hook):
    """Penalty and threshold while a module trains.

    Parameters
    ----------
    units : whose groups are penalized, as `hidden_units` gives them.
    parameters : what the threshold applies to; published: all of the module (LSTM), all in groups (RHN).
    strength : of the penalty, beside a loss that is a mean over words. The authors' loss is the sum over the 35 words
        of a step, so that their strength of 0.00245 at learning rate 1 is 0.00007 at learning rate 35 here, and their
        gradient's greatest norm of 10 is 0.29.
    least : threshold; published: 0.0001 (LSTM), 0.0004 (RHN).
    """

    def __init__(
        self, units: Sequence[Units], parameters: Iterable[Tensor], strength: float, least: float = 1e-4
    ) -> None:
        if not (math.isfinite(strength) and strength >= 0 and math.isfinite(least) and least >= 0):
            raise ValueError(f"strength is {strength} and least {least}; expected numbers from 0")
        self.units, self.parameters = list(units), list(parameters)
        self.strength, self.least = strength, least

    def penalty(self) -> Tensor | None:
        """The group lasso."""
        return penalty(self.units, self.strength)

    def after_step(self, step: int, total: int) -> None:
        """The threshold."""
        threshold(self.parameters, self.least)


@dataclass(frozen=True, eq=False)
class _Layer:
    """One recurrent layer: its weights to itself, its biases, and the name of the matrix of its inputs."""

    module: nn.Module
    size: int
    inputs: str
    own: list[Part]
    biases: list[Part]


def _layers(rnn: Recurrent) -> Iterator[_Layer]:
    if isinstance(rnn, Stack | Narrowed):
        for cell in rnn.stack if isinstance(rnn, Narrowed) else rnn:
            yield from _layers(cell)
        return
    refuse_unsupported(rnn)
    size = rnn.hidden_size
    if isinstance(rnn, RHN):
        depths = range(rnn.depth)
        yield _layer(rnn, size, 2, "weight_ih", [f"weight_hh_{d}" for d in depths], [f"bias_{d}" for d in depths])
        return
    gates = gates_of(rnn)
    for number in range(rnn.num_layers):
        biases = [f"bias_ih_l{number}", f"bias_hh_l{number}"] if rnn.bias else []
        yield _layer(rnn, size, gates, f"weight_ih_l{number}", [f"weight_hh_l{number}"], biases)


def gates_of(rnn: nn.RNN | nn.LSTM | nn.GRU) -> int:
    """How many gates a unit has, each a row of every matrix: 4 of an LSTM, 3 of a GRU, 1 of a plain RNN."""
    return 4 if isinstance(rnn, nn.LSTM) else 3 if isinstance(rnn, nn.GRU) else 1


def _layer(
    module: nn.Module, size: int, gates: int, inputs: str, recurrent: Sequence[str], biases: Sequence[str]
) -> _Layer:
    starts = [gate * size for gate in range(gates)]
    rows = [Part(module, name, 0, start) for name in (inputs, *recurrent) for start in starts]
    columns = [Part(module, name, 1, gives=True) for name in recurrent]
    return _Layer(module, size, inputs, rows + columns, [Part(module, name, 0, s) for name in biases for s in starts])


def _tied(layers: Sequence[_Layer], outputs: Sequence[nn.Linear], tied: nn.Embedding) -> list[Part]:
    """The input columns that go with a tied embedding; its own columns are those of the output."""
    (first, *others) = layers
    if others or not isinstance(first.module, RHN) or first.module.input_size != first.size:
        raise ModelError("a tied embedding has groups only with one RHN as wide as itself; expected an untied one")
    if not any(output.weight is tied.weight for output in outputs):
        raise ModelError("no output layer shares the matrix of the embedding that is given as tied")
    return [Part(first.module, first.inputs, 1, gives=True)]
