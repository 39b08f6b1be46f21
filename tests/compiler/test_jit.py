"""Kernels in plain Python and compiled give the same; small work loads no numba."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compiler import jit

ROOT = Path(__file__).parents[2]

BOTH = """
import sys
from compiler.jit import interpreted
from tests.hw.programs import random_program
from tests.sim.test_cycles import modelled

programs = [random_program(1000 * int(sys.argv[1]) + number) for number in range(3)]
with interpreted():
    plain = [modelled(program) for program in programs]
assert "numba" not in sys.modules
compiled = [modelled(program) for program in programs]
assert "numba" in sys.modules
print([one == other for one, other in zip(plain, compiled)])
"""


@pytest.mark.verifies("kernels-plain-compiled")
def test_model_in_plain_python_is_the_compiled_one(seed: int) -> None:
    """Streams, loops, operations and tiles; a number that wraps in plain Python would warn, which is an error here."""
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", BOTH, str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([True] * 3)


@pytest.mark.verifies("kernels-plain-compiled")
def test_planted_narrow_number_is_seen() -> None:
    """What a kernel must not do: 200 + 100 in eight bits is 300 when compiled, and wraps in plain Python."""
    kernel = jit.njit()(_sum)
    values = np.array([200, 100], np.uint8)
    with pytest.warns(RuntimeWarning, match="overflow"), jit.interpreted():
        plain = kernel(values)
    assert plain == 44
    assert kernel(values) == 300
    with jit.interpreted():
        assert kernel(values) == 300  # compiled from now on


def _sum(values: np.ndarray) -> int:
    return values[0] + values[1]
