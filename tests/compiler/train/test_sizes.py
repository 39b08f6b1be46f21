"""The size of a layer, counted against small cases worked out by hand."""

from __future__ import annotations

import numpy as np

from compiler.train.sizes import layer_size


def test_by_hand() -> None:
    # Nonzeros at 2, 3, 36: gaps 2, 0 and 32, the last with two fillers. 5 entries of 8 bits, 16 floats, 3 biases.
    weight = np.zeros((3, 14), np.float32)
    weight.flat[[2, 3, 36]] = [0.5, -0.5, 0.5]
    assert layer_size(weight, 3, 4) == {
        "weights": 42,
        "nonzeros": 3,
        "density": 3 / 42,
        "distinct": 2,
        "dense_bytes": 4 * 45,
        "sparse_bytes": 5 + 64 + 12,
    }


def test_longest_gap_without_a_filler() -> None:
    weight = np.zeros((1, 17), np.float32)
    weight[0, 15] = 1
    assert layer_size(weight, 0, 4)["sparse_bytes"] == 1 + 64
    weight[0] = 0
    weight[0, 16] = 1
    assert layer_size(weight, 0, 4)["sparse_bytes"] == 2 + 64


def test_weights_that_are_not_shared_and_no_weights() -> None:
    weight = np.ones((2, 3), np.float32)
    assert layer_size(weight, 2, None)["sparse_bytes"] == 6 * 36 // 8 + 8
    assert layer_size(np.zeros_like(weight), 2, 4)["sparse_bytes"] == 64 + 8
