"""Lines of activation memory: used again as soon as nobody reads what was there, and never before."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from compiler.errors import ImageError
from compiler.image.check import check
from compiler.lower import pack as packing
from compiler.lower.alloc import Blocks, Life, allocate, program_blocks
from compiler.lower.build import build
from compiler.lower.program import Program, chain_program
from hw.params import Params
from tests.compiler.networks import network

PARAMS = Params(pes=8, act_lines=2048)


@pytest.mark.verifies("lines-activation-memory-lives-meet")
def test_a_chain_needs_the_lines_of_its_largest_neighbours(rng: np.random.Generator) -> None:
    widths = [16, 200, 400, 160, 320, 560, 240, 80, 160, 400, 8]
    image = build(chain_program(network(rng, PARAMS, widths, 0.05)), PARAMS)
    check(image)
    lines = [each.lines for each in image.maps]
    inner = lines[1:-1]
    pairs = max(one + other for one, other in pairwise(inner))
    # The input and the output keep their lines during the run.
    assert image.frame == lines[0] + pairs
    assert image.frame < sum(lines) / 2


@pytest.mark.verifies("lines-activation-memory-lives-meet")
def test_lives_that_meet_share_no_line(rng: np.random.Generator) -> None:
    for _ in range(50):
        count = int(rng.integers(1, 20))
        first = rng.integers(0, 20, count)
        lives = [Life(int(f), int(f + rng.integers(0, 8))) for f in first]
        sizes = rng.integers(1, 30, count).tolist()
        bases, frame = allocate(sizes, lives)
        used = np.zeros((28, frame), np.int64)
        for base, size, life in zip(bases, sizes, lives, strict=True):
            used[life.first : life.last + 1, base : base + size] += 1
        assert used.max() == 1
        assert frame >= max(sizes)


@pytest.mark.verifies("lines-activation-memory-lives-meet")
def test_a_layer_writes_where_the_one_before_has_read(rng: np.random.Generator) -> None:
    program = chain_program(network(rng, PARAMS, [16, 24, 32, 24], 0.5))
    assert program_blocks(program, [1, 1, 1, 1]).lives == (Life(0, 3), Life(0, 1), Life(1, 2), Life(2, 3))


@pytest.mark.verifies("lines-activation-memory-lives-meet")
@pytest.mark.parametrize("early", [1, 2])
def test_lines_that_are_used_again_too_early_are_refused(
    early: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault: maps die `early` layers before their last reader has run."""
    blocks = packing.program_blocks

    def hasty(program: Program, lines: Sequence[int], keep_inputs: bool) -> Blocks:
        found = blocks(program, lines, keep_inputs)
        lives = tuple(
            dataclasses.replace(life, last=max(life.first, life.last - early)) for life in found.lives
        )  # fmt: skip
        return dataclasses.replace(found, lives=lives)

    program = chain_program(network(rng, PARAMS, [16, 200, 400, 160, 320], 0.05))
    check(build(program, PARAMS))
    monkeypatch.setattr(packing, "program_blocks", hasty)
    with pytest.raises(ImageError, match=r"maps \w+ and \w+ lie on the same lines at the same time"):
        check(build(program, PARAMS))
