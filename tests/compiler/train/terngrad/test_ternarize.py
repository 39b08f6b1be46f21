"""One gradient: what becomes of it on average, in range, and again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from compiler.train.terngrad.ternarize import generator_of, scaler, ternarize


def gradient_of(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


def draws(gradient: torch.Tensor, scale: torch.Tensor, seed: int, count: int) -> torch.Tensor:
    codes = [ternarize(gradient, scale, generator_of(seed, step, 0, 0)) for step in range(count)]
    return torch.stack(codes).double().mean(0) * scale


def worst_deviation(mean: torch.Tensor, expected: torch.Tensor, scale: float, count: int) -> float:
    """Largest deviation of a mean of codes, in standard deviations: of an element kept with probability |g| / s."""
    magnitude = expected.abs().clamp(max=scale).double()
    sigma = (magnitude * (scale - magnitude) / count).sqrt()
    inside = sigma > 0
    assert torch.equal(mean[~inside], expected[~inside].double())
    return float(((mean - expected.double())[inside] / sigma[inside]).abs().max())


@pytest.mark.verifies("mean-many-ternarizations-gradient-clipped")
def test_expectation_is_the_gradient(rng: np.random.Generator, seed: int) -> None:
    gradient, count = gradient_of(rng, 2000), 2000
    scale = scaler(gradient, 0)
    worst = worst_deviation(draws(gradient, scale, seed, count), gradient, float(scale), count)
    limit = stats.norm.isf(1e-6 / len(gradient) / 2)  # one false alarm in a million seeds
    assert worst < limit


@pytest.mark.verifies("planted-fault-elements-kept-too")
def test_fault_a_biased_draw_is_caught(rng: np.random.Generator, seed: int) -> None:
    gradient, count = gradient_of(rng, 2000), 2000
    scale = scaler(gradient, 0)
    biased = draws(gradient * 1.1, scale, seed, count)  # as if elements were kept a tenth too often
    limit = stats.norm.isf(1e-6 / len(gradient) / 2)
    assert worst_deviation(biased.clamp(-float(scale), float(scale)), gradient, float(scale), count) > limit


@pytest.mark.verifies("mean-many-ternarizations-gradient-clipped")
def test_expectation_with_clipping_is_the_clipped_gradient(rng: np.random.Generator, seed: int) -> None:
    gradient, count = gradient_of(rng, 2000), 1000
    scale = scaler(gradient, 1.0)
    s = float(scale)
    clipped = gradient.clamp(-s, s)
    assert (gradient.abs() > s).sum() > 100
    worst = worst_deviation(draws(gradient, scale, seed, count), clipped, s, count)
    assert worst < stats.norm.isf(1e-6 / len(gradient) / 2)


@pytest.mark.verifies("codes-range-signs-clipping-gradients")
def test_codes_are_in_range_and_have_the_gradients_signs(rng: np.random.Generator, seed: int) -> None:
    gradient = gradient_of(rng, 37, 11)
    gradient[3] = 0
    codes = ternarize(gradient, scaler(gradient, 2.5), generator_of(seed, 0, 0, 0))
    assert codes.dtype is torch.int8
    assert codes.shape == (37 * 11,)
    assert set(codes.unique().tolist()) <= {-1, 0, 1}
    kept = codes != 0
    assert torch.equal(codes[kept], gradient.reshape(-1)[kept].sign().to(torch.int8))


@pytest.mark.verifies("codes-range-signs-clipping-gradients")
def test_everything_beyond_the_scaler_is_kept(rng: np.random.Generator, seed: int) -> None:
    gradient = gradient_of(rng, 5000)
    scale = scaler(gradient, 1.0)
    codes = ternarize(gradient, scale, generator_of(seed, 0, 0, 0))
    beyond = gradient.abs() >= scale
    assert beyond.any()
    assert torch.equal(codes[beyond], gradient[beyond].sign().to(torch.int8))


def test_scalers(rng: np.random.Generator) -> None:
    gradient = gradient_of(rng, 40, 50) + 3
    values = gradient.double().numpy()
    assert float(scaler(gradient, 2.5)) == pytest.approx(2.5 * values.std(), rel=1e-5)
    assert float(scaler(gradient, 0)) == pytest.approx(np.abs(values).max())


@pytest.mark.verifies("codes-range-signs-clipping-gradients")
@pytest.mark.parametrize("clip", [0.0, 2.5])
def test_a_gradient_of_zeros_gives_zeros_and_one_that_is_not_finite_says_so(clip: float, seed: int) -> None:
    zeros = torch.zeros(9)
    assert not ternarize(zeros, scaler(zeros, clip), generator_of(seed, 0, 0, 0)).any()
    for bad in (float("nan"), float("inf")):
        gradient = torch.tensor([1.0, bad, 0.0])
        assert scaler(gradient, clip).isinf()


@pytest.mark.verifies("random-numbers-follow-seed-step")
def test_random_numbers_follow_from_seed_step_worker_and_tensor_alone(rng: np.random.Generator, seed: int) -> None:
    gradient = gradient_of(rng, 4096)
    scale = scaler(gradient, 2.5)

    def codes(*numbers: int) -> torch.Tensor:
        torch.rand(7)  # torch's own stream has no part in it
        return ternarize(gradient, scale, generator_of(*numbers))

    first = codes(seed, 5, 2, 3)
    assert torch.equal(first, codes(seed, 5, 2, 3))
    for other in ((seed + 1, 5, 2, 3), (seed, 6, 2, 3), (seed, 5, 1, 3), (seed, 5, 2, 4), (seed, 5, 3, 2)):
        assert not torch.equal(first, codes(*other))


@pytest.mark.verifies("random-numbers-follow-seed-step")
def test_memory_layout_does_not_matter(rng: np.random.Generator, seed: int) -> None:
    gradient = gradient_of(rng, 8, 3, 5, 5)
    last = gradient.to(memory_format=torch.channels_last)
    codes = [ternarize(form, scaler(form, 2.5), generator_of(seed, 0, 0, 0)) for form in (gradient, last)]
    assert torch.equal(*codes)
