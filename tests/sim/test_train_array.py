"""Networks with removed structure on the array: every bit of the hardware, and an honest comparison of cycles."""

from __future__ import annotations

import dataclasses

import pytest

from compiler.train.runfolder import LoadedRun
from hw.params import preset
from sim.benchmarks import train_array
from sim.benchmarks.train_array import Row, at_equal_accuracy, findings, measure, train_all

BEGIN = """
name = "{name}"
data = {{ name = "digits", validation = 0.2 }}
model = {{ name = "mlp", hidden = [24, 16] }}

[[stages]]
kind = "dense"
epochs = 6
learning_rate = 0.005
"""

LASSO = """
[[stages]]
kind = "group_lasso"
epochs = 12
batch = 32
learning_rate = 0.1
optimizer = "sgd"
groups = [
    { by = "filter", strength = 0.02, layers = ["fc1", "fc2"] },
    { by = "channel", strength = 0.01, layers = ["fc1", "fc2"] },
]

[[stages]]
kind = "shrink"
"""

PRUNE = """
[[stages]]
kind = "prune"
epochs = 8
learning_rate = 0.005
density = 0.5
"""

END = """
[[stages]]
kind = "share"
epochs = 1
learning_rate = 0.0005
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedRun]:
    folder = tmp_path_factory.mktemp("array")
    recipes = {}
    for name, middle in (("ssl", LASSO), ("magnitude", PRUNE)):
        recipes[name] = folder / f"{name}.toml"
        recipes[name].write_text(BEGIN.format(name=name) + middle + END, encoding="utf-8")
    return train_all(recipes, folder / "runs", densities=[0.3])


@pytest.mark.verifies("shrunk-network-array-bit")
@pytest.mark.rtl
def test_a_shrunk_network_runs_bit_exact_and_is_compared(runs: dict[str, LoadedRun]) -> None:
    assert list(runs) == ["ssl", "magnitude 0.3"]
    rows = measure(runs, preset("BALANCED_4"), samples=20, engine="rtl", checked=1)
    own, other = rows
    assert all(row.different == 0 and row.compared > 2 * 20 for row in rows)
    inputs, first, second, outputs = map(int, own.shape.split("-"))
    assert (inputs, outputs) == (64, 10)
    assert first < 24 or second < 16  # neurons are gone
    assert other.nonzeros < 0.35 * (64 * 24 + 24 * 16 + 16 * 10)
    assert all(row.entries >= row.nonzeros for row in rows)
    # A multiplication takes a PE a cycle, so no run is faster than its work spread evenly.
    assert all(row.cycles >= row.work / row.pes for row in rows)
    assert len(findings(rows, "ssl")) == 2


@pytest.mark.verifies("planted-fault-bit-hardware")
@pytest.mark.rtl
def test_planted_fault_a_bit_of_the_hardware_is_seen(
    runs: dict[str, LoadedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = train_array.run

    def broken(*arguments: object, **options: object) -> object:
        result = real(*arguments, **options)  # type: ignore[arg-type]
        if options.get("engine") == "rtl":
            next(iter(result.values.values()))[1, 3] ^= 4
        return result

    monkeypatch.setattr(train_array, "run", broken)
    (row,) = measure({"ssl": runs["ssl"]}, preset("BALANCED_4"), samples=2, engine="rtl", checked=2)
    assert row.different == 2  # against golden, and against the cycle model's golden values


def row(name: str, validation: float, cycles: float) -> Row:
    return Row(name, 4, 10, validation, 2.0, 2.0, "8-4-2", 10, 12, 9.0, cycles, 100, 0, 10_000)


def test_networks_are_compared_at_equal_accuracy_only() -> None:
    rows = [row("ssl", 2.0, 100), row("good", 2.1, 150), row("better", 1.5, 300), row("bad", 2.2, 10)]
    assert at_equal_accuracy(rows, "ssl") == rows[1]
    # Two percent of a hundred samples are two, give or take 1.4; of ten thousand, 0.14 points.
    assert at_equal_accuracy([dataclasses.replace(each, validation_samples=100) for each in rows], "ssl").cycles == 10
    assert "1.50x as fast" in findings(rows, "ssl")[1]
    assert at_equal_accuracy([rows[0], rows[3]], "ssl") is None
    assert "no other network is as accurate" in findings([rows[0], rows[3]], "ssl")[1]
    assert "7 differ" in findings([dataclasses.replace(rows[0], different=7), rows[1]], "ssl")[0]
