"""What takes the place of torch's RNN, LSTM or GRU whose layers lost units: called as before, with a width for each.

torch's modules have one width for all layers, so each layer is a module of its own here. Callers see no difference but
in the states, of which there is one of another width for each layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from compiler.errors import ModelError
from compiler.train.stack import Stack, refuse_unsupported

__all__ = ["Narrowed"]

State = Tensor | Sequence[Tensor]
"""Of all layers: (layers, batch, units), or a tensor (batch, units) for each where their widths differ."""


class Narrowed(nn.Module):
    """Recurrent layers with fewer units than the module had that they come from.

    Inputs are (batch, time, in), (time, batch, in) without `batch_first`, (time, in), or a PackedSequence. The state
    before, if given, has the units of the module before, of which those that are left are taken, or is one that this
    module returned. The state after is (layers, batch, units), or a tuple with a tensor (batch, units) for each layer
    where these differ in width: ``h[-1]`` is the last layer's either way. An LSTM has two such states, h and c.

    Parameters
    ----------
    stack : the layers.
    kept : for each layer the numbers of the units that are left.
    full : units of every layer before.
    batch_first : see above.
    """

    kind = "narrowed"

    def __init__(self, stack: Stack, kept: Sequence[Tensor], full: int, batch_first: bool) -> None:
        super().__init__()
        self.stack, self.full, self.batch_first = stack, full, batch_first
        for number, units in enumerate(kept):
            self.register_buffer(f"kept_{number}", units)

    @classmethod
    def described(cls, rnn: nn.RNNBase, entry: Mapping[str, Any]) -> Narrowed:
        """What `describe` said, with the kind and settings of `rnn`; its values are arbitrary.

        Raises
        ------
        ModelError
            The description does not fit such a module.
        """
        widths, inputs = entry["widths"], entry["inputs"]
        refuse_unsupported(cast(Any, rnn))
        legal = [type(width) is int and 1 <= width <= rnn.hidden_size for width in widths]
        if not isinstance(rnn, nn.RNNBase) or len(widths) != rnn.num_layers or not all(legal):
            raise ModelError(f"widths {widths}; expected {rnn.num_layers} from 1 to {rnn.hidden_size}")
        if type(inputs) is not int or not 1 <= inputs <= rnn.input_size:
            raise ModelError(f"inputs {inputs}; expected 1 to {rnn.input_size}")
        options: dict[str, Any] = {"nonlinearity": rnn.nonlinearity} if isinstance(rnn, nn.RNN) else {}
        cells = [
            cast(Any, type(rnn))(before, width, bias=rnn.bias, batch_first=True, **options)
            for before, width in zip([inputs, *widths[:-1]], widths, strict=True)
        ]
        kept = [torch.arange(width) for width in widths]
        return cls(Stack(cells, rnn.dropout), kept, rnn.hidden_size, rnn.batch_first).train(rnn.training)

    def describe(self) -> dict[str, Any]:
        """What `structure.rebuild` needs to make the same module."""
        return {"kind": self.kind, "widths": list(self.widths), "inputs": self.input_size}

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of every layer."""
        return self.stack.widths

    @property
    def kept(self) -> list[Tensor]:
        """Of every layer, the numbers of the units that are left."""
        return [self.get_buffer(f"kept_{number}") for number in range(len(self.widths))]

    @property
    def input_size(self) -> int:
        """Values of an input."""
        return next(iter(self.stack)).input_size

    @property
    def hidden_size(self) -> int:
        """Units of the last layer."""
        return self.widths[-1]

    @property
    def num_layers(self) -> int:
        """How many there are."""
        return len(self.widths)

    def forward(self, inputs: Any, state: Any = None) -> tuple[Any, Any]:
        """Outputs of the last layer in the form of the inputs, and the state after them."""
        alone = isinstance(inputs, Tensor) and inputs.dim() == 2
        swapped = isinstance(inputs, Tensor) and not alone and not self.batch_first
        values = inputs.unsqueeze(0) if alone else inputs.transpose(0, 1) if swapped else inputs
        before = self._states(state, alone)
        after = []
        for number, cell in enumerate(self.stack):
            if number:
                values = self._dropout(values)
            values, one = cast(Any, cell)(values, before[number])
            after.append(one if isinstance(one, tuple) else (one,))
        outputs = values[0] if alone else values.transpose(0, 1) if swapped else values
        states = tuple(
            _together([each[0, 0] if alone else each[0] for each in part]) for part in zip(*after, strict=True)
        )
        return outputs, states if len(states) > 1 else states[0]

    def _states(self, state: Any, alone: bool) -> list[Any]:
        """Of each layer, what its module takes."""
        if state is None:
            return [None] * len(self.widths)
        parts = state if isinstance(next(iter(self.stack)), nn.LSTM) else (state,)
        layers = zip(*(self._layers(part, alone) for part in parts), strict=True)
        return [tuple(each) if len(each) > 1 else each[0] for each in layers]

    def _layers(self, part: State, alone: bool) -> list[Tensor]:
        if len(part) != len(self.widths):
            raise ModelError(f"the state has {len(part)} layers; expected {len(self.widths)}")
        found = []
        for number, (value, width, kept) in enumerate(zip(part, self.widths, self.kept, strict=True)):
            if value.shape[-1] not in (width, self.full):
                raise ModelError(
                    f"the state of layer {number} has {value.shape[-1]} units; expected {width}, or {self.full} as "
                    "before units were removed"
                )
            left = value if value.shape[-1] == width else value.index_select(-1, kept)
            found.append(left[None, None] if alone else left[None])
        return found

    def _dropout(self, values: Any) -> Any:
        share = self.stack.dropout
        if isinstance(values, PackedSequence):
            return values._replace(data=nn.functional.dropout(values.data, share, self.training))
        return nn.functional.dropout(values, share, self.training)


def _together(states: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
    return torch.stack(states) if len({state.shape for state in states}) == 1 else tuple(states)
