"""`eie bench networks --sets`: its figures are those of the model, and add up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from compiler.errors import InputError
from hw.params import preset
from sim.benchmarks import convolutions, sets
from sim.benchmarks.convolutions import ConvShape
from sim.benchmarks.sets import measure_sets, total

PARAMS = preset("BALANCED_4")
SMALL = (
    ConvShape("first", "conv", 3, 8, 13, 14, (3, 3), padding=(1, 1), weights=0.5),
    ConvShape("depth", "depthwise", 8, 8, 13, 14, (3, 3), padding=(1, 1), groups=8, activations=0.5),
    ConvShape("same", "conv", 8, 8, 13, 14, (3, 3), 1, (1, 1), weights=0.3, activations=0.5, shortcut=8, times=2),
    ConvShape("half", "conv", 8, 12, 14, 14, (3, 3), 2, (1, 1), weights=0.3, activations=0.5, shortcut=6,
              shortcut_stride=2),
    ConvShape("last", "full", 60, 10, 1, 1, weights=0.2),
)  # fmt: skip


@pytest.fixture(name="small", autouse=True)
def small_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(convolutions.SETS, "small", lambda: SMALL)


def rows_of(seed: int, **rest: Any) -> list[dict[str, Any]]:
    return list(measure_sets(["small"], PARAMS, seed=seed, **rest))


@pytest.mark.verifies("published-sets-shares-cycles-add")
def test_shares_add_up_and_nothing_is_lost(seed: int) -> None:
    rows = rows_of(seed)
    assert [row["layer"] for row in rows] == [shape.name for shape in SMALL]
    for row in rows:
        assert sum(row["parts"].values()) == pytest.approx(1)
        assert min(row["parts"].values()) >= 0, row
        assert row["parts"]["useful"] == row["utilization"]
        assert row["useful"] <= PARAMS.pes * row["cycles"]
    dense = rows[0]["dense_cycles"]
    assert dense == -(-13 * 14 * 8 * 27 // 4)
    assert rows[2]["utilization"] > 0.8
    whole = total(rows, PARAMS.pes)
    assert whole["useful"] == sum(row["useful"] * row["times"] for row in rows)
    assert whole["utilization"] < whole["hidden"]


@pytest.mark.verifies("published-sets-shares-cycles-add")
def test_products_of_lost_entries_would_show(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The useful products are counted from weights and maps, not by the array."""
    counted = convolutions._useful
    monkeypatch.setattr(convolutions, "_useful", lambda *of: counted(*of) * 3 // 2)
    assert any(min(row["parts"].values()) < 0 for row in rows_of(seed))


def test_a_map_beyond_the_memory_is_cut(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "MEMORIES", {**sets.MEMORIES, "act_lines": 300})
    big = ConvShape("big", "conv", 8, 8, 40, 10, (3, 3), padding=(1, 1), weights=0.5, activations=0.5)
    monkeypatch.setitem(convolutions.SETS, "small", lambda: (big,))
    (row,) = list(measure_sets(["small"], PARAMS.replace(act_lines=300, streams=False), seed=seed))
    assert (row["rows"], row["of_rows"]) == (10, 40)
    assert total([row], 4)["useful"] == 4 * row["useful"]


def test_the_command_and_unknown_sets(seed: int, invoke: Any) -> None:
    result = invoke("bench", "networks", "--sets", "small", "--preset", "BALANCED_4", "--seed", seed, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert [row["layer"] for row in answer["rows"]] == [shape.name for shape in SMALL]
    assert set(answer["totals"]) == {"small", "small, conv", "small, depthwise", "small, full"}
    with pytest.raises(InputError, match=r"unknown network 'vgg'; expected one of vgg-16"):
        list(measure_sets(["vgg"], PARAMS))


@pytest.mark.verifies("published-sets-verilog-cut-maps")
@pytest.mark.slow
def test_layers_run_as_verilog(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "MEMORIES", {})
    monkeypatch.setattr(sets, "RTL_CYCLES", 3000)
    rows = rows_of(seed, rtl_layers=4)
    assert all(row["rtl"]["equal"] and row["rtl"]["records"] > 0 for row in rows[:4])
    assert rows[2]["rtl"]["rows"] < 13
