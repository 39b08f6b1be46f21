"""HAQ on the array: bits on a grid are cycles and energy, the array is a variable, whole networks keep to limits."""

from __future__ import annotations

import copy
from functools import partialmethod
from pathlib import Path

import pytest

from compiler.errors import InputError, RecipeError
from compiler.experiments import load
from compiler.experiments.base import Env
from hw.params import Params
from sim.search.haq import ArrayHaq
from sim.search.kinds import KINDS
from sim.search.measured import Measured
from sim.search.placed import Placed
from sim.search.ran import in_words

RECIPE = """
kind = "haq-array"
seeds = [1, 2]
low = 2
high = 4
uniform = 3
ends = 0
evaluations = 5
judged = 60
rtl = "edge"
agents = ["uniform", "random"]
finetune = { epochs = 1, batch = 50, learning_rate = 1e-3 }

[[searches]]
name = "edge"
pes = [2]
limits = { cycles = 1.0 }

[[searches]]
name = "free"
pes = [4, 8]
queue_depth = [16]
limits = { cycles = 0.9, energy = 1.6, bytes = 1.0 }

[[searches]]
name = "shared"
quantizer = "shared"
pes = [2]
limits = { bytes = 0.8 }

[[networks]]
name = "tiny"
data = "digits"
samples = 200
validation = 0.5
model = { name = "mlp", hidden = [24] }
dense = { epochs = 4, batch = 50, learning_rate = 1e-2 }
"""


def recipe(folder: Path, text: str = RECIPE) -> ArrayHaq:
    path = folder / "haq.toml"
    path.write_text(text)
    experiment = load(path, KINDS)
    assert isinstance(experiment, ArrayHaq)
    return experiment


@pytest.mark.verifies("policy-haq-array")
def test_haq_on_arrays_end_to_end_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Measured, "in_hardware", partialmethod(Measured.in_hardware, engine="cycles"))
    experiment = recipe(tmp_path)
    result = experiment.run(experiment.trials()[0], Env(None, lambda word: None))
    rows = result["rows"]
    assert [(row["search"], row["agent"]) for row in rows] == [
        (search, agent) for search in ("edge", "free", "shared") for agent in ("uniform", "random")
    ]
    for row in rows:
        costs = row["costs"]
        shares = [share for name, share in costs.items() if name.endswith("% of its limit")]
        assert len(shares) == {"edge": 1, "free": 3, "shared": 1}[row["search"]]
        assert max(shares) <= 100
        assert row["cost"] <= row["budget"] == 1
        assert costs["bytes"] == sum(
            count * bits / 8 + (2 * (2**bits - 1) if row["search"] == "shared" else 2)
            for count, bits in zip((24 * 64, 24 * 10), row["levels"], strict=True)
        )
    edge, free, shared = rows[:2], rows[2:4], rows[4:]
    assert all((row["costs"]["PEs"], row["costs"]["cycles"]) == (2, row["costs"]["cycles edge"]) for row in edge)
    assert edge[0]["levels"] == [3, 3]
    assert edge[0]["costs"]["cycles, % of its limit"] == 100  # the limit is what this network takes as a whole
    # At 0.9 of the cycles of 4 PEs 3 bits need 8 PEs: the array is chosen, for uniform bits as well.
    assert free[0]["levels"] == [3, 3]
    assert free[0]["costs"]["PEs"] == 8
    # Shared values prune nothing: the same cycles at other bits; on a grid cycles follow bits.
    assert shared[0]["levels"] != edge[0]["levels"]
    assert len({row["costs"]["cycles"] for row in shared}) == 1
    results = {"tiny.1": result, "tiny.2": copy.deepcopy(result)}
    summary = experiment.summarize(results)
    assert summary.findings[0] == "The limit held in all 12 searches."
    assert [row["agent"] for row in rows if "verilog" in row] == ["random"]
    assert rows[1]["verilog"] == {
        "samples": 1, "cycles": rows[1]["costs"]["cycles"], "counted": rows[1]["costs"]["cycles"], "equal": True,
    }  # fmt: skip
    assert "2 of 2 networks found that ran in Verilog" in summary.findings[-1]
    matrix = summary.tables[-1]
    assert matrix.columns[3:] == ["edge, %", "free, %", "shared, %"]
    for row in matrix.rows:
        if row[0] == "edge":
            assert float(row[3] or 999) <= 100
    result["rows"][3]["costs"]["energy, % of its limit"] = 100.1  # planted
    assert "was broken by tiny.1 random" in experiment.summarize(results).findings[0]


@pytest.mark.verifies("policy-haq-array")
def test_bits_on_a_grid_are_cycles_and_energy_and_shared_ones_are_not(tmp_path: Path) -> None:
    experiment = recipe(tmp_path)
    _, subject = experiment.subject(experiment.trials()[0], Env(None, lambda word: None))
    for name, differ in (("edge", True), ("shared", False)):
        known = experiment.problem(subject, {"search": name})
        placed = known.variants
        assert isinstance(placed, Placed)
        policies = [(0, 0, 0), (0, 2, 2)]
        few, many = (experiment.measured(subject, placed.array(each)).whole(placed.found(each)) for each in policies)
        assert few is not None
        assert many is not None
        assert (few.cycles < many.cycles) == (few.energy < many.energy) == differ
        assert few.stored <= many.stored
        assert known.problem.cost((0, 1, 1)) == pytest.approx(1 if name == "edge" else 1 / 0.8)
        assert not known.problem.fits((0, 2, 2))


@pytest.mark.verifies("policy-haq-array")
def test_other_cycles_in_hardware_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = recipe(tmp_path)
    _, subject = experiment.subject(experiment.trials()[0], Env(None, lambda word: None))
    measured = experiment.measured(subject, Params(pes=2))
    assert measured.in_hardware(subject.module, "cycles")["equal"]
    monkeypatch.setattr(Measured, "cycles", lambda self, module: 7.0)  # planted
    found = measured.in_hardware(subject.module, "cycles")
    assert (found["counted"], found["equal"]) == (7, False)
    strict = recipe(tmp_path, RECIPE.replace("cycles = 0.9", "cycles = 0.1"))
    with pytest.raises(InputError, match="search free: with 2 bits everywhere no array keeps to the limits"):
        strict.problem(subject, {"search": "free"})
    assert (
        in_words([{"verilog": found}])
        == "0 of 1 networks found that ran in Verilog take the cycles of the model, with equal outputs."
    )


@pytest.mark.verifies("policy-haq-array")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("limits = { cycles = 1.0 }", "limits = {}", "search edge has limits {}"),
        ('name = "free"', 'name = "edge"', "two have one name"),
        ("pes = [4, 8]", "pes = [4, 6]", "search free: pes is 6; expected a power of two"),
        ('quantizer = "shared"', 'quantizer = "log"', "quantizer"),
        ('rtl = "edge"', 'rtl = "cloud"', "rtl is 'cloud'; expected one of edge, free, shared"),
        ("cycles = 1.0", "seconds = 1.0", "seconds"),
    ],
)
def test_recipes_that_are_wrong_are_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in RECIPE
    with pytest.raises(RecipeError) as caught:
        recipe(tmp_path, RECIPE.replace(old, new, 1))
    assert said in str(caught.value)
