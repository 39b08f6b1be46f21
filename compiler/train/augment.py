"""Augmentation: every image of a batch turned, scaled, sheared and shifted a little, each by its own random amounts.

Warps are drawn anew for every step, or, for speed, once for a few copies of all samples that epochs use in turn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Copies", "Warp"]

_AT_ONCE = 1000  # samples; bounds the memory of making copies


@dataclass(frozen=True)
class Warp:
    """Small affine warps; each amount is drawn evenly between minus and plus the limit.

    Attributes
    ----------
    rotate : degrees.
    scale : relative, of each axis by itself.
    shear : as the tangent of the angle.
    shift : pixels, along each axis.
    """

    rotate: float = 10.0
    scale: float = 0.1
    shear: float = 0.1
    shift: float = 1.5

    def __call__(self, inputs: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Warped copies of flat images.

        Parameters
        ----------
        inputs : float32 (n, channels · height · width).
        shape : (channels, height, width).
        generator : gives the amounts.
        """
        count, (_, height, width) = len(inputs), shape
        amounts = torch.rand(6, count, generator=generator) * 2 - 1
        angle = amounts[0] * (self.rotate * math.pi / 180)
        wide, high = 1 + amounts[1] * self.scale, 1 + amounts[2] * self.scale
        cosine, sine = torch.cos(angle), torch.sin(angle)
        # Rows of the affine matrices; positions run from -1 to 1, so half a side is one.
        across = (cosine * wide, amounts[3] * self.shear - sine * high, amounts[4] * (2 * self.shift / width))
        down = (sine * wide, cosine * high, amounts[5] * (2 * self.shift / height))
        matrices = torch.stack((torch.stack(across, 1), torch.stack(down, 1)), 1)
        field = nn.functional.affine_grid(matrices, [count, *shape], align_corners=False)
        images = inputs.view(count, *shape)
        warped = nn.functional.grid_sample(images, field, mode="bilinear", padding_mode="zeros", align_corners=False)
        return warped.flatten(1)


class Copies:
    """Warped copies of a data set, made when first asked for and kept, as float16.

    An epoch that takes a copy spares the warping, and the answers of a teacher to it (`distill.Teacher.recall`).

    Parameters
    ----------
    warp : how images are warped.
    inputs : float32 (n, channels · height · width); shape : of a sample.
    seeds : one for each copy.
    """

    def __init__(self, warp: Warp, inputs: Tensor, shape: tuple[int, ...], seeds: list[int]) -> None:
        self.warp, self.inputs, self.shape, self.seeds = warp, inputs, shape, seeds
        self._made: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, number: int) -> Tensor:
        """One copy, float16 of the shape of the inputs."""
        if number not in self._made:
            generator = torch.Generator().manual_seed(self.seeds[number])
            parts = [self.warp(part, self.shape, generator).half() for part in torch.split(self.inputs, _AT_ONCE)]
            self._made[number] = torch.cat(parts)
        return self._made[number]
