"""Runs of the largest extents, the edges of port and headers, and functions of any shifts."""

from __future__ import annotations

import numpy as np
import pytest

from sim.extent_cases import EXTENTS, FEW, MOST, observe_edges, observe_extents, wrong_extents
from sim.function_cases import random_function_case
from sim.rtl.build import build
from sim.suites import SUITES
from sim.verify import verify

pytestmark = [pytest.mark.rtl, pytest.mark.slow]

PARAMS = SUITES["ends"].arrays[0]
SOME = 303
"""As far as extents go here; `make mutation` records them up to MOST."""


@pytest.fixture(scope="module")
def built():
    return build(PARAMS)


@pytest.mark.verifies("extents")
def test_times_and_counters_of_long_runs_lie_on_the_line_through_short_ones(built, tmp_path):
    assert (MOST - FEW[0]) % 6 == (SOME - FEW[0]) % 6 == 0
    observed = observe_extents(built, PARAMS, tmp_path, most=SOME)
    assert len(observed) == 3 * len(EXTENTS)
    assert wrong_extents(PARAMS, observed, most=SOME) == []
    longest = max(observed[2::3], key=lambda run: run["cycles"])
    assert longest["cycles"] > 10 * SOME
    # Planted: one cycle more, and another sum.
    longest["cycles"] += 1
    observed[3 * EXTENTS.index("products")]["line"] = "0x1"
    wrong = wrong_extents(PARAMS, observed, most=SOME)
    assert len(wrong) == 2
    assert any("cycles is" in each for each in wrong)
    assert any("the sums come to" in each for each in wrong)


@pytest.mark.verifies("edges")
def test_every_offset_bit_and_header_is_answered_as_the_map_says(built, tmp_path):
    found = observe_edges(built, PARAMS, tmp_path)
    assert found["wrong"] is None
    assert found["seen"]["reads"] == 1024
    assert all(found["seen"][kind] > 9 for kind in ("writes", "bits", "strobes", "words", "interrupts", "headers"))
    assert found["seen"]["faults"] == 13
    assert found["seen"]["firsts"] > 5
    assert found["seen"]["settles"] == 2


@pytest.mark.verifies("edges")
def test_a_memory_of_another_size_is_noticed(built, tmp_path):
    """Planted: the array has one descriptor less than is said."""
    found = observe_edges(built, PARAMS.replace(descriptors=PARAMS.descriptors + 1), tmp_path)
    assert found["wrong"].startswith("words: ")


@pytest.mark.verifies("functions-any-shifts")
def test_functions_and_operations_of_any_shifts_equal_the_models(seed):
    report = verify("functions", seed, trials=SUITES["functions"].sample)
    assert report.failures == []
    assert report.values > 0


@pytest.mark.verifies("functions-any-shifts")
def test_shifts_of_functions_are_drawn_in_all_their_range(seed):
    shifts, operations = [], 0
    for n in range(30):
        image = random_function_case(1000 * seed + n, SUITES["functions"].arrays[0]).image
        operations += len(image.operations)
        for steps in image.steps:
            shifts += [(step.left_1, step.right_1) for step in steps if getattr(step, "functions", 0)]
    apart = np.array([left - right for left, right in shifts])
    assert operations > 8
    assert apart.min() < -16
    assert apart.max() > 15
