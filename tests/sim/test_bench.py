"""Benchmarks: figures follow from the matrices alone, every planted disagreement is caught."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import InputError
from compiler.lower.pipeline import compile_graph
from compiler.options import preset_options
from hw.params import preset
from sim import run as engines
from sim.benchmarks import efficiency, speed, studies
from sim.benchmarks.ablation import END, ablate, arrays, markdown
from sim.benchmarks.layers import NINE, choose, make_case, row_blocks
from sim.benchmarks.model import column_counts, prepared

SCALE = 16


@pytest.mark.verifies("layers-published-sizes-densities-fifteen")
@pytest.mark.parametrize("shape", NINE, ids=lambda shape: shape.name)
@pytest.mark.parametrize("matrices", ["uniform", "skewed"])
def test_layers_have_the_published_densities(shape, matrices, seed) -> None:
    case = make_case(shape, seed, matrices=matrices, scale=4)
    weight, x = case.weight, case.x
    assert weight.shape == (max(8, shape.outputs // 4), max(8, shape.inputs // 4))
    # Five standard deviations, and what four vectors of a few hundred values scatter.
    assert abs(np.count_nonzero(weight) / weight.size - shape.weights) < 5 * np.sqrt(shape.weights / weight.size) + 1e-3
    chance = shape.activations
    assert abs(np.count_nonzero(x) / x.size - chance) <= 5 * np.sqrt(chance * (1 - chance) / x.size)
    assert len(np.unique(weight[weight != 0])) <= 15
    assert len({vector.tobytes() for vector in x}) == 4
    again = make_case(shape, seed, matrices=matrices, scale=4)
    assert np.array_equal(again.weight, weight)
    assert np.array_equal(again.x, x)
    other = make_case(shape, seed + 1, matrices=matrices, scale=4)
    assert not np.array_equal(other.weight, weight)


@pytest.mark.verifies("skewed-matrices")
def test_skewed_matrices_are_uneven(seed) -> None:
    (shape,) = choose(["Alex-7"])
    spread = {}
    for matrices in ("uniform", "skewed"):
        rows = np.count_nonzero(make_case(shape, seed, matrices=matrices, scale=4).weight, axis=1)
        spread[matrices] = float(rows.std() / rows.mean())
    assert spread["uniform"] < 0.15
    assert 0.4 < spread["skewed"] < 0.7  # lognormal(0, 0.5) has 0.53


@pytest.mark.parametrize("bad", [{"scale": 0}, {"batch": 0}, {"matrices": "dense"}])
def test_sizes_that_make_no_sense_are_refused(bad) -> None:
    with pytest.raises(InputError, match="expected"):
        make_case(NINE[0], 1, **bad)
    with pytest.raises(InputError, match="Alex-6"):
        choose(["Alex-9"])


@pytest.mark.verifies("efficiency-matrix-alone-multiplier-cycle")
@pytest.mark.parametrize("name", ["Alex-7", "NT-We", "NT-LSTM"])
def test_every_multiplier_cycle_is_accounted_for(name, seed) -> None:
    case = make_case(choose([name])[0], seed, scale=SCALE)
    row = efficiency.measure_case(case, preset("BALANCED_8"), seed, None)
    useful = sum(
        int(np.count_nonzero(case.weight[:, column])) for vector in case.x for column in np.flatnonzero(vector)
    )
    assert row.nnz_active == useful
    assert row.ideal_cycles == useful / 8
    assert row.rtl_cycles is None
    assert row.efficiency == pytest.approx(useful / 8 / row.model_cycles)
    assert 0 < row.efficiency <= 1
    assert row.efficiency + sum(row.lost.values()) == pytest.approx(1)
    assert row.drain_bound == -(-len(case.weight) // 1) + efficiency.DRAIN_SLACK


@pytest.mark.rtl
def test_hardware_and_models_agree_in_a_measurement(seed) -> None:
    measured = efficiency.measure(preset("BALANCED_4"), choose(["VGG-6", "NT-We"]), [seed], scale=32, hardware="rtl")
    assert measured.differences == []
    for row in measured.rows:
        assert row.rtl_cycles == row.model_cycles
    means = [row.efficiency for row in measured.rows]
    assert measured.geomean == pytest.approx(np.sqrt(means[0] * means[1]))


def _spoiled(monkeypatch, spoil) -> None:
    """The hardware's result passes through `spoil`."""
    original = engines.run

    def run(image, x, *, engine, **options):
        result = original(image, x, engine="cycles" if engine == "rtl" else engine, **options)
        return spoil(result) if engine == "rtl" else result

    monkeypatch.setattr(engines, "run", run)


def one_bit(result):
    values = {name: raw.copy() for name, raw in result.values.items()}
    values[result.names[0]][1, 3] ^= 1
    return dataclasses.replace(result, values=values)


def one_cycle(result):
    records = [[dict(record) for record in vector] for vector in result.records]
    records[0][0]["written"] += 1
    return dataclasses.replace(result, records=records)


def one_count(result):
    records = [[dict(record) for record in vector] for vector in result.records]
    records[0][0]["starved"] -= 1
    return dataclasses.replace(result, records=records)


FAULTS = [(one_bit, "bit 0"), (one_cycle, "written"), (one_count, "starved")]


@pytest.mark.verifies("planted-faults-bit-cycle-count")
@pytest.mark.parametrize(("spoil", "named"), FAULTS)
def test_fault_in_one_bit_cycle_or_counter_is_caught(spoil, named, monkeypatch, seed) -> None:
    _spoiled(monkeypatch, spoil)
    measured = efficiency.measure(preset("BALANCED_4"), choose(["NT-We"]), [seed], scale=SCALE)
    (difference,) = measured.differences
    assert named in difference
    assert difference.startswith(f"NT-We, seed {seed}: ")


@pytest.mark.verifies("planted-fault-spot-check-study")
def test_fault_in_a_spot_check_of_a_study_is_caught(monkeypatch, seed) -> None:
    _spoiled(monkeypatch, one_cycle)
    with pytest.raises(studies.StudyError, match="written"):
        studies.run_study("pes", choose(["NT-We"]), seed=seed, scale=SCALE, rtl=[2])


@pytest.mark.verifies("ablation-change-row-ends-balanced")
def test_ablation_ends_at_the_balanced_array_one_change_a_row(seed) -> None:
    chain = [{**params.asdict(), **options.asdict()} for _, _, params, options in arrays()]
    assert chain[-1] == {**preset(END).asdict(), **preset_options(END).asdict()}
    for before, after in itertools.pairwise(chain):
        assert sum(before[name] != after[name] for name in before) == 1
    steps = ablate(choose(["VGG-6", "NT-We"]), [seed], pes=8, scale=SCALE)
    means = [step.measurement.geomean for step in steps]
    assert means[-1] > 1.2 * means[0]
    table = markdown(steps, "eie bench ablation")
    assert table.count("\n| ") == len(chain) + 1
    for step in steps:
        assert f"{step.measurement.geomean:.4f}" in table


@pytest.mark.verifies("prepared-cycle-model-whole-run")
def test_the_prepared_model_gives_the_cycles_of_the_whole_run(seed) -> None:
    for name in ("Alex-8", "NT-LSTM"):
        case = make_case(choose([name])[0], seed, scale=SCALE)
        image = compile_graph(case.graph, preset("BALANCED_8"), case.x).only
        whole = engines.run(image, case.x, engine="cycles")
        run = prepared(image, case.x)
        assert [run(), run()] == [whole.cycles - whole.drain_cycles] * 2
        info = image.layers[0]
        assert column_counts(image).sum() == info.nonzeros + info.padding


@pytest.mark.verifies("reads-wide-words-reads-entry")
@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=12), st.data())
def test_reads_of_wide_words_equal_reads_entry_by_entry(counts, data) -> None:
    table = np.array(counts, np.int64)
    active = np.array(sorted(data.draw(st.sets(st.integers(0, len(table) - 1)))), np.int64)
    for width in (1, 4, 8):
        expected = 0
        for pe in range(table.shape[1]):
            place = 0
            for column, count in enumerate(table[:, pe].tolist()):
                if column in active:
                    expected += len({entry // width for entry in range(place, place + count)})
                place += count
        assert studies.row_reads(table, active, width) == expected


def test_row_blocks_hold_all_rows_and_fit() -> None:
    case = make_case(choose(["NT-Wd"])[0], 1, scale=4)
    params = preset("BALANCED_2").replace(rows=256)
    blocks = list(row_blocks(case, params))
    assert len(blocks) > 1
    assert np.array_equal(np.concatenate([block.weight for block in blocks]), case.weight)
    for block in blocks:
        compile_graph(block.graph, params, block.x)


@pytest.mark.verifies("studies-move-they-must")
def test_studies_show_what_the_parameters_are_worth(seed) -> None:
    shapes = choose(["VGG-7", "NT-We"])
    depth = studies.run_study("depth", shapes, seed=seed, scale=4)
    at, balance = studies.means(depth, "EIE_64", "load_balance")
    assert at == list(studies.DEPTHS)
    assert balance[-1] > balance[0]
    index = studies.run_study("index", shapes, seed=seed, scale=4)
    padding = studies.means(index, "EIE_64", "padding")[1]
    assert padding == sorted(padding, reverse=True)
    width = studies.run_study("width", shapes, seed=seed, scale=4)
    reads = studies.means(width, "BALANCED_64", "reads")[1]
    assert reads == sorted(reads, reverse=True)


@pytest.mark.verifies("speed-anchors-ratios-memory")
def test_speed_rows_have_anchors_figures_and_memory(seed) -> None:
    rows = speed.measure(quick=True, seed=seed, rtl=False)
    names = [row.what for row in rows]
    assert sum(name.startswith("cycle model") for name in names) == len(NINE) + 1
    for row in rows:
        assert row.value > 0
        assert row.peak_mib > 0
        assert row.target is None  # a quick bench reaches no figure
    anchored = [row for row in rows if row.anchor]
    assert len(anchored) == 2
    for row in anchored:
        assert row.ratio == pytest.approx(row.value / row.anchor_value)


@pytest.mark.parametrize(
    ("value", "ratio", "target", "at_least", "reached"),
    [(9.0, None, 10.0, True, False), (11.0, None, 10.0, True, True), (9.0, 2.0, 3.0, False, True),
     (1.0, 4.0, 3.0, False, False), (1.0, None, None, True, None)],
)  # fmt: skip
def test_a_figure_is_reached_on_its_own_side(value, ratio, target, at_least, reached) -> None:
    row = speed.Row("x", value, "s", None, None, ratio, target, at_least, None, None, None)
    assert row.reached is reached


@pytest.mark.verifies("verilog-models-small-bench-rate")
@pytest.mark.slow
@pytest.mark.rtl
def test_verilog_equals_the_models_in_a_small_bench(seed) -> None:
    measured = efficiency.measure(preset("BALANCED_4"), choose(["Alex-7", "NT-We"]), [seed], scale=SCALE)
    assert measured.differences == []
    assert all(row.rtl_cycles == row.model_cycles for row in measured.rows)
    rows = speed.measure(quick=True, seed=seed)
    assert [row.value > 0 for row in rows if row.what.startswith(("RTL", "simulator"))] == [True] * 4
