"""The model of an exchange's time: it finds the constants that made its data."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from compiler.train.terngrad.bytes import float_bits, gather_bits, sums_bits
from compiler.train.terngrad.cost import Cost, Exchanged, fit_cost

TRUE = Cost((1.06, 3e-4, 1e-4, 2e-9, 4e-8), load=0.8)
COMPUTING = Cost((0.0, 0.0, *TRUE.constants[2:]), load=0.0)
GRID = [
    Exchanged(scheme, workers, mbit, values - 1000, 1000)
    for scheme, workers, mbit, values in product(
        ("float", "gather", "sums"), (2, 4, 8), (20, 100, 1000), (100_000, 1_000_000)
    )
]


def test_bits_follow_the_formulae() -> None:
    one = Exchanged("float", 4, 10, 900, 100)
    assert one.bits == float_bits(4) * 1000
    assert Exchanged("gather", 4, 10, 900, 100).bits == gather_bits(4) * 900 + float_bits(4) * 100
    assert Exchanged("sums", 4, 10, 900, 100).bits == sums_bits(4) * 900 + float_bits(4) * 100


@pytest.mark.verifies("model-exchange-s-time-finds")
def test_fit_finds_the_constants(rng: np.random.Generator) -> None:
    exact = [TRUE.seconds(exchange, shared=True) for exchange in GRID]
    cpu = [COMPUTING.seconds(exchange) for exchange in GRID]
    found = fit_cost(GRID, exact, cpu)
    assert (*found.constants, found.load) == pytest.approx((*TRUE.constants, TRUE.load), rel=1e-6)
    noisy = [seconds * rng.uniform(0.97, 1.03) for seconds in exact]
    fitted = fit_cost(GRID, noisy, cpu)
    errors = [
        abs(fitted.seconds(exchange, shared=True) / seconds - 1) for exchange, seconds in zip(GRID, exact, strict=True)
    ]
    assert max(errors) < 0.1


def test_constants_are_not_negative(rng: np.random.Generator) -> None:
    assert all(value >= 0 for value in fit_cost(GRID, *rng.uniform(0.1, 10, (2, len(GRID)))).constants)


def test_a_wire_alone_gives_the_ratio_of_the_formulae() -> None:
    wire = Cost((1.0, 0.0, 0.0, 0.0, 0.0), load=1.0)
    for workers in (2, 8, 512):
        times = [wire.seconds(Exchanged(scheme, workers, 100, 10**6, 0)) for scheme in ("float", "sums")]
        assert times[0] / times[1] == pytest.approx(float_bits(workers) / sums_bits(workers))
