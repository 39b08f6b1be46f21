"""Codes and sums as bits: every length, every number of workers, and a lane that is lost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compiler.train.terngrad import pack as packing
from compiler.train.terngrad.bytes import (
    FLOAT_BITS,
    cheapest,
    float_bits,
    gather_bits,
    gather_ratio,
    low_rank_bits,
    push_bits,
    sum_bits,
    sums_bits,
    sums_ratio,
)
from compiler.train.terngrad.pack import pack, pack_sums, unpack, unpack_sums

LENGTHS = [1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 1001]


def codes_of(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.integers(-1, 2, shape).astype(np.int8))


@pytest.mark.verifies("packed-codes-sums-come-back")
@given(st.lists(st.integers(-1, 1), min_size=1, max_size=70))
def test_packed_codes_come_back(values: list[int]) -> None:
    codes = torch.tensor(values, dtype=torch.int8)
    packed = pack(codes)
    assert packed.dtype is torch.uint8
    assert len(packed) == -(-len(values) // 4)
    assert torch.equal(unpack(packed, len(values)), codes)


def test_the_first_code_is_in_the_lowest_bits() -> None:
    assert pack(torch.tensor([-1, 0, 1, -1, 1], dtype=torch.int8)).tolist() == [0b00100100, 0b01010110]


@pytest.mark.verifies("packed-codes-sums-come-back")
@given(st.integers(1, 64), st.integers(1, 70), st.integers(0, 1 << 32))
def test_packed_sums_come_back(workers: int, length: int, start: int) -> None:
    values = np.random.default_rng(start).integers(-workers, workers + 1, length).astype(np.int16)
    packed = pack_sums(torch.from_numpy(values), workers)
    assert len(packed) == sum_bits(workers) * -(-length // 8)
    assert torch.equal(unpack_sums(packed, workers, length), torch.from_numpy(values))


@pytest.mark.parametrize("workers", [1, 2, 127, 128, 512, 5000])
def test_extreme_sums_come_back(workers: int) -> None:
    sums = torch.tensor([-workers, workers, 0, workers - 1, 1 - workers], dtype=torch.int16)
    assert torch.equal(unpack_sums(pack_sums(sums, workers), workers, len(sums)), sums)


def differing_sums(rng: np.random.Generator, packer: Callable[[Tensor], Tensor]) -> int:
    """Cases, over N up to 64 and odd lengths, in which the sum of what was packed is not the sum."""
    wrong = 0
    for workers in (*range(1, 17), 31, 33, 63, 64):
        for length in LENGTHS:
            codes = codes_of(rng, workers, length)
            unpacked = sum(unpack(packer(mine), length).to(torch.int16) for mine in codes)
            back = unpack_sums(pack_sums(torch.as_tensor(unpacked), workers), workers, length)
            wrong += not torch.equal(back, codes.sum(0, dtype=torch.int16))
    return wrong


@pytest.mark.verifies("packed-sums-unpacked-sums-up")
def test_packed_sums_equal_the_unpacked_for_up_to_64_workers_and_odd_lengths(rng: np.random.Generator) -> None:
    assert differing_sums(rng, pack) == 0


@pytest.mark.verifies("planted-fault-lane-lost-packing")
@pytest.mark.parametrize("lane", range(4))
def test_fault_a_lost_lane_is_caught(lane: int, rng: np.random.Generator) -> None:
    def lossy(codes: Tensor) -> Tensor:
        spare = -len(codes) % packing.CODES_PER_BYTE
        lanes = torch.cat([codes, codes.new_zeros(spare)]).view(-1, packing.CODES_PER_BYTE)
        lanes[:, lane] = 0
        return pack(lanes.reshape(-1))

    assert differing_sums(rng, lossy) > 0


def test_bits_of_sums_hold_them_and_no_more_than_needed() -> None:
    for workers in range(1, 600):
        assert 2 ** (sum_bits(workers) - 1) < 2 * workers + 1 <= 2 ** sum_bits(workers)


def test_formulae() -> None:
    for workers in range(2, 520):
        assert float_bits(workers) / gather_bits(workers) == pytest.approx(gather_ratio(workers))
        assert float_bits(workers) / sums_bits(workers) == pytest.approx(sums_ratio(workers))
        assert push_bits(workers, FLOAT_BITS) / push_bits(workers) == pytest.approx(16)
        least = min(gather_bits(workers), sums_bits(workers))
        assert {"gather": gather_bits, "sums": sums_bits}[cheapest(workers)](workers) == least
    assert [cheapest(workers) for workers in (1, 2, 3, 4, 512)] == ["gather", "gather", "sums", "sums", "sums"]
    # A 100 x 50 matrix as two factors of one column, and a bias of 100 as it is.
    assert low_rank_bits([(100, 50), (100,)], 1, 2) == float_bits(2) * (150 + 100)
