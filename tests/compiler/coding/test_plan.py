"""What the context coder's encoder finds out about a matrix."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.coding.plan import best_plan


def test_lags_of_an_image_are_found(rng: np.random.Generator) -> None:
    """Inputs of 12 × 12 pixels, each neuron sees a patch: the next pixel and the next line are alike."""
    codes = np.zeros((60, 12, 12), np.uint8)
    for neuron in codes:
        top, left = rng.integers(0, 9, 2)
        neuron[top : top + 4, left : left + 4] = rng.random((4, 4)) < 0.7
    plan = best_plan(codes.reshape(60, 144), lambda plan: float(not plan.lags) + plan.turned)
    assert set(plan.lags[:2]) == {1, 12}


@pytest.mark.verifies("context-coder-lags-rows-merely")
def test_full_rows_make_no_lags(rng: np.random.Generator) -> None:
    """Neurons of very different fullness, and nothing else: all columns coincide in the full ones, at every lag."""
    fullness = np.where(np.arange(80) % 8 == 0, 0.8, 0.02)
    codes = (rng.random((80, 200)) < fullness[:, np.newaxis]).astype(np.uint8)
    plan = best_plan(codes, lambda plan: 100.0 * plan.turned - len(plan.lags))
    print(plan)
    assert len(plan.lags) <= 2  # chance
