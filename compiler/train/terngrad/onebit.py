"""1-bit SGD: a gradient is sent as its signs, and what that loses is added to the next one.

For each output of a layer (a row of the weight as torch has it: one filter, or the weights of one neuron) two values go
with the signs: the mean of its elements from zero up, and the mean of those below. They are the values with the least
squared error for a threshold of zero. What is lost, the residual, stays with the worker:

    v = gradient + residual;   sent = mean of v's own sign, in its row;   residual = v - sent

in float32, so that sums of what was sent, and the last residual, are the sums of the gradients but for rounding.

A worker's message: low and high value of every row of every tensor, float32, then one bit for every element, eight to a
byte, the first in the lowest bit, tensors one behind the other, the last byte filled up with zeros. Everyone gets
everyone's message, (N - 1) bits a value, decodes all and adds them up in the order of the workers.

Source: 1-Bit Stochastic Gradient Descent and Application to Data-Parallel Distributed Training of Speech DNNs (Seide et
al., Interspeech 2014), section 3: threshold zero, two reconstruction values for each column of a weight matrix, error
feedback. There the sum is quantized a second time before it is sent back; here it is not, for there is no such sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compiler.errors import InputError, RecipeError
from compiler.train.table import Table
from compiler.train.terngrad.averaging import Averaging
from compiler.train.terngrad.channel import Channel

__all__ = ["OneBit", "OneBitSettings", "decode", "encode"]


@dataclass(frozen=True)
class OneBitSettings:
    """How gradients are sent by their signs.

    Attributes
    ----------
    feedback : whether what is lost is added to the next gradient. Without it training goes astray; that is for
        comparisons.
    smallest : tensors of fewer elements stay float32.
    seed : of what the module draws; nothing is random here.
    """

    feedback: bool = True
    smallest: int = 256
    seed: int = 1

    @classmethod
    def parse(cls, table: Table, seed: int) -> OneBitSettings:
        """From a recipe's table. Raises `RecipeError`."""
        settings = cls(
            feedback=table.flag("feedback", default=True),
            smallest=table.integer("smallest", 1, 1 << 30, default=256),
            seed=seed,
        )
        table.finish()
        return settings

    def asdict(self) -> dict[str, Any]:
        """As a recipe says it; the seed is the recipe's own."""
        return {key: value for key, value in asdict(self).items() if key != "seed"}


class OneBit(Averaging):
    """Averages gradients that are sent by their signs.

    Attributes
    ----------
    settings : as they were given.
    residuals : for each worker of this process, number of a tensor → what it owes, float32 (rows, columns).

    Raises
    ------
    RecipeError
        No tensor of the module would be sent in one bit.
    """

    def __init__(self, module: nn.Module, settings: OneBitSettings, channel: Channel) -> None:
        super().__init__(module, channel, settings.seed)
        self.settings = settings
        self._sizes = [parameter.numel() for parameter in self._known.values()]
        if not any(size >= settings.smallest for size in self._sizes):
            raise RecipeError(
                f"no tensor would be sent in one bit: the largest of the network has {max(self._sizes, default=0)} "
                f"elements and onebit.smallest is {settings.smallest}; lower it"
            )
        self.residuals: list[dict[int, Tensor]] = [{} for _ in channel.here]

    def coded(self, numbers: Sequence[int]) -> list[int]:
        """Those that are large enough."""
        return [place for place, number in enumerate(numbers) if self._sizes[number] >= self.settings.smallest]

    def few_bits(self, gradients: list[list[Tensor]], numbers: list[int]) -> list[Tensor]:
        """Mean over the workers of what each one's message says."""
        messages = []
        for mine, owed in zip(gradients, self.residuals, strict=True):
            wanted = [_rows(tensor) + owed.get(number, 0.0) for tensor, number in zip(mine, numbers, strict=True)]
            message = encode(wanted)
            messages.append(message)
            if self.settings.feedback:
                sent = decode(message, [tuple(each.shape) for each in wanted])
                owed.update({n: v - q for n, v, q in zip(numbers, wanted, sent, strict=True)})
        shapes = [tuple(_rows(tensor).shape) for tensor in gradients[0]]
        sums: list[Tensor] = []
        for message in self.channel.everyone(messages):
            parts = decode(message, shapes)
            sums = [a + b for a, b in zip(sums, parts, strict=True)] if sums else parts
        return [
            (total / self.channel.workers).view(tensor.shape)
            for total, tensor in zip(sums, gradients[0], strict=True)
        ]  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        """Residuals of all workers, ``worker.parameter`` → (rows, columns); every worker must call it."""
        names = list(self._known)
        held = [number for number, size in enumerate(self._sizes) if size >= self.settings.smallest]
        shapes = [tuple(_rows(self._known[names[number]]).shape) for number in held]
        flat = [
            torch.cat([owed.get(n, torch.zeros(shape)).reshape(-1) for n, shape in zip(held, shapes, strict=True)])
            for owed in self.residuals
        ]
        found = {}
        for worker, values in enumerate(self.channel.everyone(flat)):
            parts = torch.split(values, [rows * columns for rows, columns in shapes])
            for number, shape, part in zip(held, shapes, parts, strict=True):
                found[f"{worker}.{names[number]}"] = part.view(shape).clone()
        return found

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the residuals of a `state` of as many workers. Raises `InputError`."""
        names = list(self._known)
        wanted = {
            f"{worker}.{name}"
            for worker in range(self.channel.workers)
            for name, size in zip(names, self._sizes, strict=True)
            if size >= self.settings.smallest
        }
        if wanted != set(state):
            workers = len({name.partition(".")[0] for name in state})
            raise InputError(
                f"the checkpoint holds residuals of {workers} workers, or of other tensors than this network's; "
                f"expected those of {self.channel.workers} workers: go on with as many as it was begun with"
            )
        for worker, owed in zip(self.channel.here, self.residuals, strict=True):
            for number, name in enumerate(names):
                if f"{worker}.{name}" in wanted:
                    owed[number] = state[f"{worker}.{name}"].clone()


def encode(values: Sequence[Tensor]) -> Tensor:
    """The message, uint8, of tensors float32 (rows, columns)."""
    levels, signs = [], []
    for each in values:
        up = each >= 0
        count = up.sum(1)
        high = torch.where(up, each, 0.0).sum(1) / count.clamp(min=1)
        low = torch.where(up, 0.0, each).sum(1) / (each.shape[1] - count).clamp(min=1)
        levels.append(torch.stack([low, high], 1).reshape(-1))
        signs.append(up.reshape(-1))
    packed = np.packbits(torch.cat(signs).numpy(), bitorder="little")
    return torch.cat([torch.cat(levels).view(torch.uint8), torch.from_numpy(packed)])


def decode(message: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """What a message says: a float32 tensor of each shape (rows, columns)."""
    cut = 8 * sum(rows for rows, _ in shapes)
    levels = message[:cut].clone().view(torch.float32).view(-1, 2)
    count = sum(rows * columns for rows, columns in shapes)
    signs = torch.from_numpy(np.unpackbits(message[cut:].numpy(), count=count, bitorder="little")).bool()
    found, row, place = [], 0, 0
    for rows, columns in shapes:
        low, high = levels[row : row + rows].unsqueeze(2).unbind(1)
        found.append(torch.where(signs[place : place + rows * columns].view(rows, columns), high, low))
        row, place = row + rows, place + rows * columns
    return found


def _rows(tensor: Tensor) -> Tensor:
    """A gradient as (outputs, weights of one output), float32; a vector is one row."""
    flat = tensor.detach().float()
    return flat.reshape(len(flat), -1) if flat.dim() > 1 else flat.reshape(1, -1)
