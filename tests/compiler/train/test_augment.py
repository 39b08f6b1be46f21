"""Warped images, and copies of them that are kept: what is drawn, what stays, and what a teacher says once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compiler.train.augment import Copies, Warp
from compiler.train.data import Split
from compiler.train.distill import Teacher
from compiler.train.images import Images
from compiler.train.loop import fit
from compiler.train.schedule import Schedule

SHAPE = (1, 12, 12)
STILL = {"rotate": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0}


def images(count: int, seed: int = 1) -> torch.Tensor:
    """A bright block of 4x4 pixels in the middle, on black, with noise within the block."""
    found = torch.zeros(count, *SHAPE)
    found[:, :, 4:8, 4:8] = 0.5 + 0.5 * torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return found.flatten(1)


def generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_no_warp_is_the_image_itself() -> None:
    x = images(5)
    assert torch.allclose(Warp(**STILL)(x, SHAPE, generator()), x, atol=1e-6)


@pytest.mark.verifies("augmentation-generator-decides-image-itself")
@pytest.mark.parametrize(("option", "least"), [("rotate", 20.0), ("scale", 0.3), ("shear", 0.3), ("shift", 2.0)])
def test_each_amount_warps_and_every_image_by_itself(option: str, least: float) -> None:
    x = images(1).repeat(6, 1)
    warped = Warp(**{**STILL, option: least})(x, SHAPE, generator())
    assert not torch.allclose(warped, x, atol=1e-2)
    assert len(np.unique(warped.numpy().round(4), axis=0)) == 6


def test_a_shift_moves_the_centre_of_mass_by_at_most_its_pixels() -> None:
    x = images(200)
    warped = Warp(**{**STILL, "shift": 2.0})(x, SHAPE, generator()).view(-1, 12, 12)
    places = torch.arange(12.0)
    for axis in (1, 2):
        before = (x.view(-1, 12, 12).sum(3 - axis) * places).sum(1) / x.sum(1)
        after = (warped.sum(3 - axis) * places).sum(1) / warped.sum((1, 2))
        moved = (after - before).abs()
        assert moved.max() <= 2.001
        assert moved.max() > 1.5  # of 200 draws some come near the limit


def test_the_generator_decides() -> None:
    x = images(4)
    warp = Warp()
    assert torch.equal(warp(x, SHAPE, generator(1)), warp(x, SHAPE, generator(1)))
    assert not torch.equal(warp(x, SHAPE, generator(1)), warp(x, SHAPE, generator(2)))


def test_copies_are_made_once_and_differ() -> None:
    copies = Copies(Warp(), images(7), SHAPE, [1, 2, 3])
    assert len(copies) == 3
    assert copies[1] is copies[1]
    assert not torch.equal(copies[0], copies[2])
    again = Copies(Warp(), images(7), SHAPE, [1, 2, 3])
    assert torch.equal(again[2], copies[2])  # whichever is made first


class Counting(nn.Module):
    """A linear network that counts how many samples it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.fc = nn.Linear(144, 3)
        self.asked = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += len(x)
        out: torch.Tensor = self.fc(x)
        return out


def lesson(copies: int, teacher: nn.Module, augment: bool = True) -> Images:
    inputs = images(20)
    made = Copies(Warp(), inputs, SHAPE, list(range(copies))) if copies else None
    split = Split(inputs.numpy(), np.arange(20) % 3)
    return Images(split, SHAPE, augment=Warp() if augment else None, copies=made, teacher=Teacher(teacher, 2.0, 0.7))


@pytest.mark.verifies("distillation-teacher-answers-once-does")
@pytest.mark.parametrize(("copies", "augment", "asked"), [(0, True, 6 * 20), (2, True, 2 * 20), (0, False, 20)])
def test_a_teacher_answers_what_does_not_change_once(copies: int, augment: bool, asked: int) -> None:
    teacher = Counting()
    fit(Counting(), lesson(copies, teacher, augment), Schedule(6, 8, 0.01), (1,))
    assert teacher.asked == asked


def test_remembered_answers_train_as_fresh_ones_do() -> None:
    trained = []
    for remember in (True, False):
        made = lesson(1, Counting())
        if not remember:
            object.__setattr__(made, "samples", lambda epoch, made=made: (made.copies[epoch % 1], None))
        module = Counting()
        fit(module, made, Schedule(2, 8, 0.01), (1,))
        trained.append(module.fc.weight.detach())
    assert torch.allclose(*trained, atol=1e-6)


@pytest.mark.verifies("planted-fault-teacher-s-answers")
def test_planted_fault_answers_to_another_copy_are_seen() -> None:
    right, wrong = lesson(2, Counting()), lesson(2, Counting())
    assert wrong.teacher is not None
    wrong.teacher.known.update({0: right.samples(1)[1], 1: right.samples(0)[1]})  # type: ignore[dict-item]
    assert not torch.allclose(right.samples(0)[1], wrong.samples(0)[1], atol=1e-4)  # type: ignore[arg-type]
