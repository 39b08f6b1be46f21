"""Rows are given to PEs by the products that calibration data lets expect."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from compiler.coding.container import decompress_fixed
from compiler.errors import ImageError
from compiler.graph.dense import Dense, dense_graph
from compiler.image.check import check
from compiler.lower import assemble
from compiler.lower.activity import density_of, parts_of, rates_of
from compiler.lower.layout import _even
from compiler.lower.pipeline import compile_graph
from compiler.lower.program import RATES, MapForm, ProgramLayer, segment_of
from compiler.lower.rows import _in_entries, assign_rows
from compiler.network import Network
from compiler.network_file import load, save
from compiler.options import DEFAULT
from hw.params import LANES, Params
from sim.benchmarks.layers import choose, make_case
from sim.network import run_network
from sim.packed import compress_image, restore_image

PARAMS = Params(pes=16, rows=64, act_lines=256, weight_words=512)
INPUTS, OUTPUTS, SAMPLES = 96, 64, 64


def uneven(rng: np.random.Generator, samples: int) -> NDArray[np.int16]:
    """Inputs of which the first half is rarely zero and the second half nearly always."""
    often = np.where(np.arange(INPUTS) < INPUTS // 2, 0.9, 0.05)
    return (rng.integers(1, 1000, (samples, INPUTS)) * (rng.random((samples, INPUTS)) < often)).astype(np.int16)


def layer(rng: np.random.Generator) -> Any:
    """Rows that read the first half of the inputs, or the second, all with as many weights."""
    weight = np.zeros((OUTPUTS, INPUTS), np.float32)
    for row in range(OUTPUTS):
        half = rng.integers(0, 2) * INPUTS // 2
        weight[row, half + rng.choice(INPUTS // 2, 16, replace=False)] = rng.choice([-2.0, 1.0, 3.0], 16)
    return dense_graph([Dense("fc", weight, None, "relu")])


@pytest.fixture
def network(rng: np.random.Generator) -> Network:
    return compile_graph(layer(rng), PARAMS, uneven(rng, SAMPLES))


@pytest.mark.verifies("rows-by-expected-products")
def test_rows_of_equally_many_weights_are_told_apart(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, calibration, x = layer(rng), uneven(rng, SAMPLES), uneven(rng, 8)
    ran = run_network(compile_graph(graph, PARAMS, calibration), x, engine="cycles")
    monkeypatch.setattr(assemble, "rates_of", lambda *_: None)  # the planted fault: by weights alone
    before = run_network(compile_graph(graph, PARAMS, calibration), x, engine="cycles")
    assert np.array_equal(ran.raw, before.raw)
    assert ran.cycles < 0.93 * before.cycles


@pytest.mark.verifies("rows-by-expected-products")
def test_chance_tells_nothing_apart(rng: np.random.Generator) -> None:
    alike = rng.random((4, 1000)) < 0.35
    assert density_of(alike) == np.count_nonzero(alike) / alike.size
    assert isinstance(density_of(alike[:1]), float)
    assert density_of(np.ones((3, 5))) == 1.0
    case = make_case(choose(["NT-We"])[0], 1, scale=8)
    case = dataclasses.replace(case, x=np.where(rng.random(case.x.shape) < 0.4, case.x, 0).astype(np.int16))
    assert all(not each.rates for each in compile_graph(case.graph, PARAMS.replace(rows=256), case.x).only.layers)


@pytest.mark.verifies("rows-by-expected-products")
def test_densities_of_numbers_are_moved_to_their_mean_as_far_as_chance_goes(rng: np.random.Generator) -> None:
    true = rng.choice([0.1, 0.4, 0.8], 600)
    samples = rng.random((12, 600)) < true
    found, counted = density_of(samples), samples.mean(axis=0)
    assert isinstance(found, np.ndarray)
    assert np.square(found - true).mean() < 0.9 * np.square(counted - true).mean()
    assert found.mean() == pytest.approx(counted.mean(), abs=1e-6)
    assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.verifies("rows-by-expected-products")
@pytest.mark.parametrize("axes", ["C", "CW", "WC", "CHW", "HWC"])
def test_densities_have_the_axes_of_a_map(axes: str, rng: np.random.Generator) -> None:
    sizes = {"C": 5, "H": 3, "W": 2}
    given = rng.random([sizes[axis] for axis in axes]).astype(np.float32)
    density, found = parts_of(given, axes)
    assert found is not None
    assert found.shape == tuple(sizes[n] if n in axes else 1 for n in "CHW")
    assert density == pytest.approx(given.mean())
    at = dict(zip("CHW", np.indices(found.shape), strict=True))
    np.testing.assert_array_equal(found, given[tuple(at[axis] for axis in axes)])
    assert parts_of(0.25, axes) == (0.25, None)


@pytest.mark.verifies("rows-by-expected-products")
@pytest.mark.parametrize("size", [1, 4])
def test_rates_by_plain_loops(size: int, rng: np.random.Generator) -> None:
    """One result at a place of its window, and results everywhere: there the mean of a channel counts."""
    channels, outputs, (height, width) = 6, 9, (3, 4)
    activity = rng.random((channels, height, width)).astype(np.float32)
    codes = (rng.integers(1, 16, (outputs, 2, 2, channels)) * (rng.random((outputs, 2, 2, channels)) < 0.5)).astype(
        np.uint8
    )
    codes[0] = 0  # a row without weights
    book = np.arange(16, dtype=np.int16)
    segment = segment_of(0, codes, book, origin=(-1, 1), dilation=(2, 1))
    zeros = np.zeros(outputs, np.int64)
    maps = [MapForm("x", channels, height, width, 0), MapForm("y", outputs, size, size, 0)]
    made = ProgramLayer("y", 1, (segment,), zeros, zeros)
    wanted = np.zeros(outputs)
    for row, ky, kx, channel in np.argwhere(codes):
        y, x = -1 + 2 * ky, 1 + kx
        inside = 0 <= y < height and 0 <= x < width
        at_place = activity[channel, y, x] if inside else 0.0
        wanted[row] += at_place if size == 1 else activity[channel].mean()
    found = rates_of(made, maps, {0: activity})
    assert found is not None
    counts = segment.counts[1:]
    np.testing.assert_array_equal(found[1:], np.clip(np.rint(RATES * wanted[1:] / counts), 1, RATES))
    assert rates_of(dataclasses.replace(made, maximum=True), maps, {0: activity}) is None
    assert rates_of(made, maps, {}) is None


@pytest.mark.verifies("rows-by-expected-products")
def test_a_loop_reads_all_steps_and_its_first_state_says_nothing(rng: np.random.Generator) -> None:
    """A gate of one pixel reads one row of its input a step, and the state, whose first value is zero."""
    steps, channels, outputs = 5, 6, 9
    activity = rng.random((channels, steps, 1)).astype(np.float32)
    activity[:, 0] = 0
    codes = [(rng.integers(1, 16, (outputs, 1, 1, n)) * (rng.random((outputs, 1, 1, n)) < 0.5)) for n in (channels, 7)]
    book, zeros = np.arange(16, dtype=np.int16), np.zeros(outputs, np.int64)
    read, state = (
        dataclasses.replace(segment_of(source, each.astype(np.uint8), book), moves=True)
        for source, each in enumerate(codes)
    )
    maps = [MapForm("x", channels, steps, 1, 0), MapForm("h", 7, 1, 1, 0, 0.0), MapForm("y", outputs, 1, 1, 0)]
    found = rates_of(ProgramLayer("y", 2, (read, state), zeros, zeros), maps, {0: activity})
    assert found is not None
    wanted = codes[0][:, 0, 0].astype(bool) @ activity.mean(axis=(1, 2)) + codes[1].astype(bool).sum(axis=(1, 2, 3))
    work = read.counts + state.counts
    met = work > 0
    np.testing.assert_array_equal(found[met], np.clip(np.rint(RATES * wanted[met] / work[met]), 1, RATES))


@pytest.mark.verifies("rows-by-expected-products")
def test_pes_expect_equal_work_and_split_rows_keep_their_entries(rng: np.random.Generator) -> None:
    params = Params(pes=LANES)
    entries = rng.integers(200, 300, 20)
    rates, zeros = rng.integers(4, RATES, 20), np.zeros(20, np.int64)
    expected = entries * rates
    found = assign_rows(
        entries, zeros, zeros, np.arange(20), params, DEFAULT, hidden=False, most=params.rows, expected=expected
    )
    loads = np.zeros(LANES)
    for row in range(20):
        parts = found.parts.get(row)
        if parts is not None:
            assert sum(parts.share) == entries[row]
            assert min(parts.share) > 0
        for pe, share in zip(parts.pe, parts.share, strict=True) if parts else [(found.pe[row], entries[row])]:
            loads[pe] += share * rates[row]
    assert found.parts
    assert loads.max() <= expected.sum() / LANES + RATES * LANES
    assert _in_entries([(0, 7), (3, 9)], 16) == [(0, 7), (3, 9)]
    assert _in_entries([(0, 641), (3, 1), (1, 640)], 5) == [(0, 3), (1, 2)]


@pytest.mark.verifies("rows-by-expected-products")
@pytest.mark.parametrize(("channels", "vectors", "classes"), [(100, 16, 8), (300, 38, 2), (10, 2, 2), (64, 8, 4)])
def test_channels_of_little_work_fill_no_vector(
    channels: int, vectors: int, classes: int, rng: np.random.Generator
) -> None:
    work = np.where(rng.random(channels) < 0.5, 1, 1000) * rng.integers(1, 5, channels)
    order = _even(work, vectors, classes).reshape(vectors, LANES)
    assert sorted(order[order >= 0]) == list(range(channels))
    held = (order >= 0).sum(axis=1)
    assert held.max() == -(-channels // vectors)


@pytest.mark.verifies("rates-in-files")
def test_rates_come_out_of_both_files(network: Network, tmp_path: Path) -> None:
    (info,) = network.only.layers
    assert len(info.rates) == OUTPUTS
    assert len(set(info.rates)) > 1
    save(network, tmp_path / "net.eie")
    again = load(tmp_path / "net.eie")
    assert again.only.layers == network.only.layers
    data, _ = compress_image(tmp_path / "net.eie", "huffman")  # refuses if the programs of either give another file
    content = decompress_fixed(data)
    assert content.version == 6
    assert restore_image(content) == (tmp_path / "net.eie").read_bytes()
    (program,) = content.parts.programs
    assert program.layers[0].rates is not None
    assert tuple(program.layers[0].rates.tolist()) == info.rates


@pytest.mark.verifies("rates-in-files")
@pytest.mark.parametrize("rates", [(1,) * (OUTPUTS - 1), (0,) * OUTPUTS, (RATES + 1,) * OUTPUTS])
def test_rates_that_are_none_are_refused(rates: tuple[int, ...], network: Network) -> None:
    image = network.only
    wrong = dataclasses.replace(image, layers=(dataclasses.replace(image.layers[0], rates=rates),))
    with pytest.raises(ImageError, match=f"{len(rates)} rates; expected one a channel, 1 to {RATES}"):
        check(wrong)


@pytest.mark.verifies("rates-in-files")
def test_a_file_of_layers_without_rates_says_nothing_of_them(rng: np.random.Generator, tmp_path: Path) -> None:
    save(compile_graph(layer(rng), PARAMS, uneven(rng, 1)), tmp_path / "net.eie")
    text = (tmp_path / "net.eie").read_bytes()
    assert b"padding" in text
    assert b"rates" not in text
    assert load(tmp_path / "net.eie").only.layers[0].rates == ()
