"""What may be chosen: blocks of a network, and for each block one of several inverted bottlenecks, or none.

Source: the space of ProxylessNAS (Cai et al., ICLR 2019, section 4.2), whose blocks are those of MobileNetV2 (Sandler
et al., CVPR 2018). Here with ReLU, and expansion 1 as well.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from compiler.errors import RecipeError

__all__ = ["ZERO", "Bottleneck", "Choices", "Op", "Place", "Residual", "Space", "network", "operations", "plain"]

Choices = tuple[int, ...]
"""Of each block the number of its operation."""


@dataclass(frozen=True)
class Op:
    """An operation of a block: an inverted bottleneck, or nothing.

    Attributes
    ----------
    kernel : side of the depthwise window, odd; 0: the block computes nothing.
    expansion : channels inside, for each one that comes in.
    """

    kernel: int
    expansion: int

    @property
    def name(self) -> str:
        """Such as "3x3 e6", or "zero"."""
        return f"{self.kernel}x{self.kernel} e{self.expansion}" if self.kernel else "zero"


ZERO = Op(0, 0)
"""Nothing: what the block reads goes on by its residual connection."""


def operations(kernels: Sequence[int], expansions: Sequence[int]) -> tuple[Op, ...]:
    """Every kernel with every expansion, in the order in which a search numbers them."""
    return tuple(Op(kernel, expansion) for kernel in kernels for expansion in expansions)


@dataclass(frozen=True)
class Place:
    """A block: channels that come in and go out, and its stride."""

    inputs: int
    outputs: int
    stride: int

    @property
    def residual(self) -> bool:
        """Whether what comes in can be added to what goes out."""
        return self.stride == 1 and self.inputs == self.outputs


@dataclass(frozen=True)
class Space:
    """All networks that a search chooses from.

    Attributes
    ----------
    shape : (channels, height, width) of a sample. classes : that are told apart.
    stem : stride of the first convolution, 3x3. places : the blocks; the stem has the inputs of the first one.
    ops : that a block may be; one with a residual connection may be `ZERO` as well.
    """

    shape: tuple[int, ...]
    classes: int
    stem: int
    places: tuple[Place, ...]
    ops: tuple[Op, ...]

    @classmethod
    def make(
        cls, shape: tuple[int, ...], classes: int, widths: Sequence[int], strides: Sequence[int],
        kernels: Sequence[int], expansions: Sequence[int],
    ) -> Space:  # fmt: skip
        """From lists.

        Parameters
        ----------
        widths : channels behind the stem and behind each block. strides : of the stem and of each block.

        Raises
        ------
        RecipeError
            Samples are no images, the lists do not fit one another, or a kernel has no middle.
        """
        if len(shape) != 3:
            raise RecipeError(f"a search of architectures takes images; the data has samples of shape {shape}")
        if len(widths) != len(strides) or len(widths) < 2:
            raise RecipeError(
                f"{len(widths)} widths and {len(strides)} strides; expected one of each for the first convolution and "
                "for every block, two or more"
            )
        ops = operations(kernels, expansions)
        if not ops or any(op.kernel % 2 == 0 for op in ops):
            raise RecipeError(f"kernels are {list(kernels)}, expansions {list(expansions)}; expected odd kernels")
        places = tuple(Place(*pair, stride) for pair, stride in zip(pairwise(widths), strides[1:], strict=True))
        return cls(shape, classes, strides[0], places, ops)

    def choices(self, number: int) -> tuple[Op, ...]:
        """What block `number` may be."""
        return (*self.ops, ZERO) if self.places[number].residual else self.ops

    @property
    def counts(self) -> tuple[int, ...]:
        """How many operations each block may be."""
        return tuple(len(self.choices(number)) for number in range(len(self.places)))

    @property
    def size(self) -> int:
        """How many networks there are."""
        return prod(self.counts)

    def named(self, choices: Choices) -> list[str]:
        """The operations of a network."""
        return [self.choices(number)[choice].name for number, choice in enumerate(choices)]

    def same(self, op: Op) -> Choices:
        """The network in which every block is this operation."""
        return (self.ops.index(op),) * len(self.places)


class Bottleneck(nn.Module):
    """1x1 to more channels, a depthwise window, 1x1 to the outputs; expansion 1 has no first 1x1.

    float32 (n, inputs, height, width) to (n, outputs, height / stride, width / stride).
    """

    def __init__(self, place: Place, op: Op) -> None:
        super().__init__()
        inner = place.inputs * op.expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if op.expansion > 1:
            layers["expand"] = nn.Conv2d(place.inputs, inner, 1, bias=False)
            layers["norm1"] = nn.BatchNorm2d(inner)
            layers["relu1"] = nn.ReLU()
        layers["depthwise"] = nn.Conv2d(inner, inner, op.kernel, place.stride, op.kernel // 2, groups=inner, bias=False)
        layers["norm2"] = nn.BatchNorm2d(inner)
        layers["relu2"] = nn.ReLU()
        layers["project"] = nn.Conv2d(inner, place.outputs, 1, bias=False)
        layers["norm3"] = nn.BatchNorm2d(place.outputs)
        self.layers = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Without the residual connection."""
        made: Tensor = self.layers(x)
        return made


class Residual(nn.Module):
    """An operation with what it reads added to what it makes."""

    def __init__(self, op: nn.Module) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        made: Tensor = self.op(x) + x
        return made


def network(space: Space, blocks: Sequence[nn.Module]) -> nn.Sequential:
    """A network of blocks, with fresh first and last layers: convolution, blocks, mean over the image, Linear.

    Flat samples float32 (n, channels · height · width) to scores (n, classes).
    """
    first, last = space.places[0].inputs, space.places[-1].outputs
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        image=nn.Unflatten(1, space.shape),
        stem=nn.Conv2d(space.shape[0], first, 3, space.stem, 1, bias=False),
        norm=nn.BatchNorm2d(first),
        relu=nn.ReLU(),
    )
    layers.update({f"block{number}": block for number, block in enumerate(blocks, start=1)})
    layers.update(pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(last, space.classes))
    return nn.Sequential(layers)


def plain(space: Space, choices: Choices, seed: int) -> nn.Sequential:
    """The network of these choices alone, with the first weights that belong to a seed.

    A block that is `ZERO` is an Identity.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blocks: list[nn.Module] = []
        for number, choice in enumerate(choices):
            place, op = space.places[number], space.choices(number)[choice]
            made = nn.Identity() if op == ZERO else Bottleneck(place, op)
            blocks.append(Residual(made) if place.residual and op != ZERO else made)
        return network(space, blocks)
