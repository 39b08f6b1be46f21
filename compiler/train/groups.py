"""How the weights of a parameter fall into groups: by filter, channel, filter shape, block, or as the user says.

A weight has the shape (out, in, *kernel): a Linear's (out, in), a Conv2d's (out, in, height, width). A partition says
for every weight in which group it is, or that it is in none; `cover` shows it.

Source: Learning Structured Sparsity in Deep Neural Networks (Wen et al., NIPS 2016), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "SHAPES",
    "Partition",
    "along",
    "blocks",
    "by_channel",
    "by_element",
    "by_filter",
    "by_labels",
    "by_shape",
    "whole",
]

_NONE = -1
"""Label of what is in no group."""


@dataclass(frozen=True, eq=False)
class Partition:
    """Groups of one parameter.

    Attributes
    ----------
    shape : of the parameter.
    keep : dimensions whose places tell the groups apart; all other dimensions lie within one group.
    labels : int64 of the kept dimensions' shape, the group of each place, -1 for none; None if each place is a group.
    count : number of groups.
    """

    shape: tuple[int, ...]
    keep: tuple[int, ...]
    labels: Tensor | None
    count: int

    def squares(self, value: Tensor) -> Tensor:
        """Sum of the squares of each group, float (count,); differentiable."""
        others = [dim for dim in range(len(self.shape)) if dim not in self.keep]
        if not others:
            return self._add_up(value.square())
        # Squares and sums in one pass.
        return self._add_up(torch.linalg.vector_norm(value, dim=others, keepdim=True).square())

    def nonzeros(self, value: Tensor) -> Tensor:
        """Number of weights of each group that are not zero, float (count,)."""
        return self._add_up((value != 0).float())

    def sizes(self) -> Tensor:
        """Number of weights of each group, float (count,)."""
        return self._add_up(torch.ones(self.shape))

    def spread(self, of_groups: Tensor, rest: float | bool = False) -> Tensor:
        """A value of each group, given to all its weights; shape of the parameter.

        Parameters
        ----------
        of_groups : (count,).
        rest : what weights in no group get.
        """
        kept = tuple(self.shape[dim] for dim in self.keep)
        if self.labels is None:
            places = of_groups.reshape(kept)
        else:
            extended = torch.cat((of_groups, of_groups.new_full((1,), rest)))
            places = extended[self.labels.flatten()].reshape(kept)  # label -1 is the last one
        view = [self.shape[dim] if dim in self.keep else 1 for dim in range(len(self.shape))]
        return places.reshape(view).expand(self.shape)

    def cover(self) -> Tensor:
        """How many groups each weight is in, 0 or 1; int64 of the parameter's shape."""
        return self.spread(torch.ones(self.count, dtype=torch.int64), 0)

    def _add_up(self, values: Tensor) -> Tensor:
        others = [dim for dim in range(len(self.shape)) if dim not in self.keep]
        places = (values.sum(others) if others else values).flatten()  # what is summed already has size 1 there
        if self.labels is None:
            return places
        sums = places.new_zeros(self.count + 1)
        return sums.index_add(0, self.labels.flatten() % (self.count + 1), places)[:-1]


def by_filter(shape: Sequence[int]) -> Partition:
    """One group for each output: a row of a Linear, a filter of a convolution."""
    return _dims(shape, (0,))


def by_channel(shape: Sequence[int]) -> Partition:
    """One group for each input: a column of a Linear, an input channel of a convolution."""
    return _dims(shape, (1,))


def by_shape(shape: Sequence[int]) -> Partition:
    """One group for each place of a filter, over all filters: a column of the matrix of a lowered convolution."""
    return _dims(shape, tuple(range(1, len(shape))))


def by_element(shape: Sequence[int]) -> Partition:
    """Every weight a group of its own: the norms' sum is then the L1 norm."""
    return _dims(shape, tuple(range(len(shape))))


def whole(shape: Sequence[int]) -> Partition:
    """All weights in one group."""
    return _dims(shape, ())


def blocks(shape: Sequence[int], rows: int, columns: int) -> Partition:
    """Tiles of `rows` x `columns` of the matrix (out, in · kernel); those at the edges may be smaller."""
    if rows < 1 or columns < 1:
        raise ValueError(f"tiles of {rows} x {columns} were asked for; expected at least 1 x 1")
    height, width = shape[0], math.prod(shape[1:])
    across = -(-width // columns)
    labels = (torch.arange(height) // rows)[:, None] * across + (torch.arange(width) // columns)[None]
    return by_labels(labels.reshape(tuple(shape)))


def by_labels(labels: Tensor) -> Partition:
    """Groups that the user says: integers of the parameter's shape, group 0, 1, … of each weight, -1 for none.

    A bool mask is one group.
    """
    if labels.dtype is torch.bool:
        labels = labels.long() - 1
    return along(labels.shape, tuple(range(labels.dim())), labels)


def along(shape: Sequence[int], keep: tuple[int, ...], labels: Tensor, count: int | None = None) -> Partition:
    """Groups by labels of the places along some dimensions, such as one for each output.

    Parameters
    ----------
    count : number of groups, if more than the labels name.

    Raises
    ------
    ValueError
        The labels have another shape, are no whole numbers, or lie outside of -1 … count - 1.
    """
    kept = tuple(shape[dim] for dim in keep)
    if tuple(labels.shape) != kept or labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels are {labels.dtype} {tuple(labels.shape)}; expected whole numbers {kept}")
    least, most = (int(labels.min()), int(labels.max())) if labels.numel() else (_NONE, _NONE)
    count = most + 1 if count is None else count
    if least < _NONE or most >= count:
        raise ValueError(f"labels go from {least} to {most}; expected {_NONE} (no group) to {count - 1}")
    return Partition(tuple(shape), keep, labels.long(), count)


def _dims(shape: Sequence[int], keep: tuple[int, ...]) -> Partition:
    return Partition(tuple(shape), keep, None, math.prod(shape[dim] for dim in keep))


SHAPES = {
    "filter": by_filter,
    "channel": by_channel,
    "shape": by_shape,
    "element": by_element,
    "whole": whole,
}
"""Name, as recipes write it → groups of a parameter of a shape."""
