"""Energy of a run: sums, bounds, what the publication says, and tables of one's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.errors import InputError
from compiler.graph.dense import Dense, dense_graph
from compiler.lower.pipeline import compile_graph
from compiler.network import Network
from compiler.options import preset_options
from hw.layouts import Memory, memory_shape
from hw.params import Params, preset
from sim import energy
from sim.accesses import ACCESSES
from sim.benchmarks.layers import choose, make_case
from sim.energy import EIE_ARRAY_MW, EIE_PE_MW, PARTS, report
from sim.energy_table import Table, costs, load_table

SMALL = Params(
    pes=4, rows=64, weight_words=1024, pointer_blocks=256, act_lines=256, output_words=256, descriptors=16,
    index_bits=4, queue_depth=8,
)  # fmt: skip


def network(rng: np.random.Generator, params: Params = SMALL, density: float = 0.2) -> Network:
    layers = [
        Dense(name, (rng.integers(-7, 8, shape) * (rng.random(shape) < density)).astype(np.float32), None, "relu")
        for name, shape in (("a", (48, 64)), ("b", (16, 48)))
    ]
    return compile_graph(dense_graph(layers), params, rng.integers(0, 100, (4, 64)).astype(np.float32))


def inputs(rng: np.random.Generator, density: float) -> Any:
    return np.where(rng.random((3, 64)) < density, rng.integers(1, 1000, (3, 64)), 0).astype(np.int16)


def faults(found: dict[str, Any]) -> list[str]:
    """Sums that do not hold: of parts, of layers, of accesses."""
    wrong = []
    for layer in found["layers"]:
        if not math.isclose(sum(layer["pj"].values()), layer["total_pj"]):
            wrong.append(f"parts of {layer['name']}")
    if not math.isclose(sum(layer["total_pj"] for layer in found["layers"]), found["total_pj"]):
        wrong.append("layers")
    if not math.isclose(sum(1000 * each["nj"] for each in found["accesses"]), found["total_pj"]):
        wrong.append("accesses")
    if not math.isclose(sum(found["share"].values()), 1):
        wrong.append("shares")
    # Energy = power x time: mW x µs = nJ.
    if not math.isclose(found["power_mw"] * found["us"], found["nj"]):
        wrong.append("power")
    return wrong


@pytest.mark.verifies("energy-parts-layers-accesses-sum")
def test_parts_layers_and_accesses_sum_up(rng: np.random.Generator) -> None:
    found = report(network(rng), inputs(rng, 0.5), load_table(), 800.0)
    assert faults(found) == []
    assert [layer["name"] for layer in found["layers"]] == ["a", "b"]
    assert set(found["pj"]) == set(PARTS)
    assert {each["name"] for each in found["accesses"]} == set(ACCESSES)
    assert all(each["source"] for each in found["accesses"])


@pytest.mark.verifies("energy-parts-layers-accesses-sum")
def test_fault_a_part_that_is_left_out_is_caught(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = energy._whole

    def lossy(layers: Any, *rest: Any) -> Any:
        return whole([{**each, "pj": {**each["pj"], "weights": 0.0}} for each in layers], *rest)

    monkeypatch.setattr(energy, "_whole", lossy)
    assert faults(report(network(rng), inputs(rng, 0.5), load_table(), 800.0)) == ["layers", "accesses"]


@pytest.mark.verifies("energy-parts-layers-accesses-sum")
def test_an_input_of_zeros_takes_scan_clock_and_write_back_only(rng: np.random.Generator) -> None:
    bias_free = network(rng)
    found = report(bias_free, np.zeros((2, 64), np.int16), load_table(), 800.0)
    spent = {part for part, pj in found["pj"].items() if pj}
    # Write-back reads and clears the accumulators, and adds the bias.
    assert spent == {"activations", "write-back", "accumulators", "arithmetic", "control", "clock"}
    assert found["counts"]["working_cycles"] == found["counts"]["weight_reads"] == 0
    full = report(bias_free, inputs(rng, 1.0), load_table(), 800.0)
    assert found["total_pj"] < full["total_pj"] / 5


@pytest.mark.verifies("energy-parts-layers-accesses-sum")
def test_energy_rises_with_the_density_of_input_and_weights(rng: np.random.Generator) -> None:
    own = network(rng)
    by_input = [report(own, inputs(np.random.default_rng(5), d), load_table(), 800.0)["nj"] for d in (0, 0.1, 0.4, 1)]
    assert by_input == sorted(by_input)
    assert len(set(by_input)) == 4
    x = inputs(rng, 0.5)
    by_weights = [
        report(network(np.random.default_rng(5), density=d), x, load_table(), 800.0)["nj"] for d in (0.05, 0.3, 0.9)
    ]
    assert by_weights == sorted(by_weights)


@pytest.mark.verifies("energy-parts-layers-accesses-sum")
def test_a_clock_changes_power_and_time_and_no_energy(rng: np.random.Generator) -> None:
    own, x = network(rng), inputs(rng, 0.5)
    slow, fast = (report(own, x, load_table(), mhz) for mhz in (400.0, 800.0))
    assert slow["nj"] == fast["nj"]
    assert slow["power_mw"] * 2 == pytest.approx(fast["power_mw"])
    assert slow["us"] == pytest.approx(2 * fast["us"])


@pytest.mark.verifies("energy-parts-layers-accesses-sum")
def test_the_same_samples_again_are_the_same_a_sample(rng: np.random.Generator) -> None:
    own, x = network(rng), inputs(rng, 0.5)
    once, twice = (report(own, each, load_table(), 800.0) for each in (x, np.concatenate([x, x])))
    for name in ("weight_reads", "queue_reads", "codebook_reads", "activation_reads", "output_reads"):
        assert once["counts"][name] == twice["counts"][name]


@pytest.mark.verifies("energy-layers-publication-times-power")
@pytest.mark.parametrize("layer", ["Alex-7", "NT-We", "NT-LSTM"])
@pytest.mark.parametrize("name", ["EIE_64", "BALANCED_64"])
def test_layers_of_the_publication_are_within_two_times_its_energy(layer: str, name: str, seed: int) -> None:
    """590 mW for 64 PEs at 800 MHz times the published time; docs/results/energy.md has all nine layers."""
    (shape,) = choose([layer])
    case = make_case(shape, seed)
    found = report(
        compile_graph(case.graph, preset(name), case.x, preset_options(name)), case.x, load_table(), 800.0
    )  # fmt: skip
    assert 0.5 < found["nj"] / (EIE_ARRAY_MW * shape.paper_us) < 2
    if (layer, name) == ("Alex-7", "EIE_64"):  # table V is measured on this one
        assert 0.5 < found["power_mw"] / EIE_ARRAY_MW < 2
        assert 0.5 < found["power_mw"] / (64 * EIE_PE_MW) < 2


@pytest.mark.verifies("energy-access-shapes-memories-published")
def test_dense_weights_from_dram_take_the_published_ratio_more() -> None:
    table = load_table()
    # EIE, section I: DRAM takes 128 times as much as SRAM, for 32 bits of 32 KB.
    assert table.linear("dram", 32) / table.sram(32, 32768) == 128


@pytest.mark.verifies("energy-parts-layers-accesses-sum")
def test_large_networks_do_not_overflow(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    count = energy.count
    factor = 1 << 70

    def huge(image: Any, x: Any) -> Any:
        made = count(image, x)
        for layer in made.layers:
            for name in layer:
                layer[name] *= factor
        return made

    own, x = network(rng), inputs(rng, 0.5)
    right = report(own, x, load_table(), 800.0)
    monkeypatch.setattr(energy, "count", huge)
    found = report(own, x, load_table(), 800.0)
    assert found["nj"] == pytest.approx(right["nj"] * factor)
    assert found["power_mw"] == pytest.approx(right["power_mw"])
    assert faults(found) == []


def plain_sram(bits: int, words: int) -> float:
    """Five pJ for 32 bits of 32 KB."""
    return 5 * (bits / 32) * (bits * words / 8 / 32768) ** 0.5


@pytest.mark.verifies("energy-access-shapes-memories-published")
def test_costs_follow_from_the_shapes_of_the_memories() -> None:
    params, table = preset("EIE_64"), load_table()
    found = costs(params, table)
    for access, memory in (("weight", Memory.WEIGHTS), ("pointer", Memory.POINTERS), ("codebook", Memory.CODEBOOK),
                           ("activation", Memory.ACTIVATIONS), ("output", Memory.OUTPUTS)):  # fmt: skip
        _, words, bits = memory_shape(params, memory)
        assert found[f"{access}_reads"].pj == pytest.approx(plain_sram(bits, words))
    assert found["accumulator_reads"].pj == pytest.approx(plain_sram(params.acc_bits, params.rows))
    assert found["weight_reads"].pj == pytest.approx(20)  # 64 bits of 128 KB
    assert found["stream_beats"].pj == 4 * 640
    assert found["additions"].pj == pytest.approx(0.1 * params.acc_bits / 32)


@pytest.mark.verifies("energy-access-shapes-memories-published")
def test_costs_rise_with_the_size_of_a_memory() -> None:
    table = load_table()
    small, large = (costs(preset("EIE_64").replace(weight_words=words), table) for words in (1024, 65536))
    assert large["weight_reads"].pj == pytest.approx(8 * small["weight_reads"].pj)
    assert large["pointer_reads"].pj > small["pointer_reads"].pj  # addresses are wider


def own(folder: Path, text: str) -> Table:
    path = folder / "own.toml"
    path.write_text(text)
    return load_table(path)


@pytest.mark.verifies("energy-access-shapes-memories-published")
def test_a_table_of_ones_own_replaces_sections(tmp_path: Path, rng: np.random.Generator) -> None:
    table = own(tmp_path, '[multiply]\npj = 0.1\nsource = "mine"\n[weights]\nread = 3\nwrite = 4.5\n')
    found = costs(SMALL, table)
    assert (found["multiplications"].pj, found["multiplications"].source) == (0.1, "mine")
    assert (found["weight_reads"].pj, found["weight_writes"].pj) == (3, 4.5)
    assert found["pointer_reads"] == costs(SMALL, load_table())["pointer_reads"]
    network_of, x = network(rng), inputs(rng, 0.5)
    mine, shipped = (report(network_of, x, each, 800.0) for each in (table, load_table()))
    assert mine["pj"]["weights"] == pytest.approx(3 * mine["counts"]["weight_reads"])
    assert mine["pj"]["clock"] == shipped["pj"]["clock"]


@pytest.mark.verifies("energy-access-shapes-memories-published")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[multiplier]\npj = 1\n", "unknown section 'multiplier'"),
        ("[multiply]\npj = -1\n", "multiply"),
        ("[multiply]\npj = nan\n", "multiply"),
        ("[multiply]\npj = true\n", "multiply"),
        ('[multiply]\npj = "1"\n', "multiply"),
        ("[sram]\npj = 1\nbits = 32\n", "expected pj, bits, bytes, source"),
        ("[sram]\npj = 1\nbits = 0\nbytes = 1\n", "more than 0"),
        ("[weights]\nread = 1\n", "expected read, write, source"),
        ("multiply = 3\n", "unknown section"),
        ("[multiply\n", "no table of energies"),
    ],
)
def test_tables_that_say_nothing_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        own(tmp_path, text)


@pytest.mark.verifies("energy-access-shapes-memories-published")
def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no table of energies"):
        load_table(tmp_path / "none.toml")
