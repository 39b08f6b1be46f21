"""Weight sharing: few values stay, many become the best few."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import compiler.lower.share
from compiler.lower.share import share
from sim.benchmarks.sharing import optimum


@given(arrays(np.float32, (5, 7), elements=st.sampled_from([0, -0.0, 1, -1, 0.5, 3e-30, -2e30])), st.integers(3, 8))
def test_few_values_are_kept_exactly(weight: np.ndarray, code_bits: int) -> None:
    codes, centroids, places = share(weight, code_bits)
    np.testing.assert_array_equal(places, np.flatnonzero(weight))
    assert codes.dtype == np.uint8
    assert centroids.shape == (1 << code_bits,)
    assert centroids[0] == 0
    np.testing.assert_array_equal(centroids[codes], weight)
    np.testing.assert_array_equal(codes == 0, weight == 0)


@pytest.mark.parametrize("code_bits", range(2, 9))
def test_many_values_go_to_their_nearest_centroid(code_bits: int, rng: np.random.Generator) -> None:
    weight = (rng.normal(size=(40, 50)) * (rng.random((40, 50)) < 0.5)).astype(np.float32)
    codes, centroids, _ = share(weight, code_bits)
    assert int(codes.max()) < 1 << code_bits
    np.testing.assert_array_equal(codes == 0, weight == 0)
    used = centroids[1:]
    assert (np.diff(used) > 0).all()
    there = weight[weight != 0].astype(np.float64)
    nearest = np.abs(there[:, np.newaxis] - used).argmin(axis=1) + 1
    np.testing.assert_array_equal(codes[weight != 0], nearest)
    for number, centroid in enumerate(used, 1):
        assert np.isclose(centroid, weight[codes == number].astype(np.float64).mean())


def squared_error(weight: np.ndarray, code_bits: int) -> float:
    codes, centroids, _ = share(weight, code_bits)
    return float(((centroids[codes] - weight) ** 2).sum())


def test_clusters_are_the_best_there_are(rng: np.random.Generator) -> None:
    # Three centroids for ten values, some frequent: all ways to cut the sorted values in three are tried.
    values = np.sort(rng.choice(np.arange(1, 100), 10, replace=False)).astype(np.float32)
    weight = np.repeat(values, rng.integers(1, 9, 10))[np.newaxis]
    flat = weight[0].astype(np.float64)
    cuts = np.flatnonzero(np.diff(flat)) + 1
    ways = (np.split(flat, pair) for pair in itertools.combinations(cuts, 2))
    best = min(sum(((part - part.mean()) ** 2).sum() for part in way) for way in ways)
    assert squared_error(weight, 2) == pytest.approx(best)


@pytest.mark.verifies("weight-sharing-0-1-exact")
@pytest.mark.parametrize("draw", ["normal", "standard_t", "standard_cauchy"])
@pytest.mark.parametrize("code_bits", [4, 8])
def test_pooling_costs_next_to_nothing(draw: str, code_bits: int, rng: np.random.Generator) -> None:
    """Within 0.1 % of the exact optimum however long the tails, at the pooling that large layers get."""
    drawn = rng.standard_t(3, 80_000) if draw == "standard_t" else getattr(rng, draw)(size=80_000)
    weight = drawn.astype(np.float32)[np.newaxis]
    assert len(np.unique(weight)) > compiler.lower.share.EXACT_VALUES
    best = optimum(weight[0], (1 << code_bits) - 1)
    assert best * (1 - 1e-9) <= squared_error(weight, code_bits) <= best * 1.001


@pytest.mark.verifies("planted-fault-bins-equal-width")
def test_planted_fault_bins_of_equal_width_are_caught(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    weight = rng.standard_cauchy(size=80_000).astype(np.float32)[np.newaxis]
    best = optimum(weight[0], 255)

    def equal(values: np.ndarray, counts: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
        scale = (compiler.lower.share.EXACT_VALUES - 1) / (values[-1] - values[0])
        bins = ((values - values[0]) * scale).astype(np.int64)
        weights = np.bincount(bins, weights=counts)
        sums = np.bincount(bins, weights=counts * values)
        return sums[weights > 0] / weights[weights > 0], weights[weights > 0]

    monkeypatch.setattr(compiler.lower.share, "_pool", equal)
    assert squared_error(weight, 8) > best * 1.001


def test_an_empty_matrix_has_no_centroids() -> None:
    codes, centroids, _ = share(np.zeros((3, 4), np.float32), 4)
    assert not codes.any()
    assert not centroids.any()
