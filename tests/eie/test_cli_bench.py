"""``eie bench``: documented JSON, exit codes, and nothing half-written."""

from __future__ import annotations

import dataclasses
import json

import pytest

SMALL = ("--scale", 16, "--preset", "BALANCED_4", "--seeds", 1)


def test_bench_eie_writes_the_documented_json(invoke, tmp_path) -> None:
    target = tmp_path / "eie.json"
    result = invoke("bench", "eie", *SMALL, "--layers", "NT-We,vgg-6", "--engines", "cycles,amaranth", "--json", target)
    assert result.exit_code == 0, result.output
    assert "amaranth = golden model in every bit, = cycle model in every cycle and counter" in result.stdout
    answer = json.loads(target.read_text())
    assert [row["layer"] for row in answer["rows"]] == ["VGG-6", "NT-We"]
    for row in answer["rows"]:
        assert {"layer", "seed", "nnz_active", "padding", "ideal_cycles", "rtl_cycles", "model_cycles", "efficiency",
                "counters"} <= set(row)  # fmt: skip
        assert row["rtl_cycles"] == row["model_cycles"]
        assert row["efficiency"] == pytest.approx(row["nnz_active"] / 4 / row["rtl_cycles"])
    assert answer["geomean"] == pytest.approx(
        (answer["rows"][0]["efficiency"] * answer["rows"][1]["efficiency"]) ** 0.5
    )
    assert answer["versions"]["array"]


@pytest.mark.verifies("planted-fault-command-ends-1")
def test_bench_eie_ends_with_1_and_says_where_if_the_hardware_differs(invoke, monkeypatch) -> None:
    from sim import run as engines

    original = engines.run

    def run(image, x, *, engine, **options):
        result = original(image, x, engine="cycles", **options)
        if engine == "rtl":
            values = {name: raw.copy() for name, raw in result.values.items()}
            values[result.names[0]][0, 0] ^= 4
            result = dataclasses.replace(result, engine=engine, values=values)
        return result

    monkeypatch.setattr(engines, "run", run)
    result = invoke("bench", "eie", *SMALL, "--layers", "NT-We")
    assert result.exit_code == 1
    assert "DIFFER: NT-We, seed 1: values: 1 of" in result.stdout
    assert "bit 2" in result.stdout
    assert "= golden model" not in result.stdout


@pytest.mark.verifies("documented-json-compiled-network")
def test_bench_eie_measures_a_compiled_network(invoke, layer, tmp_path) -> None:
    import numpy as np

    result = invoke("bench", "eie", "--layers", "none", "--network", layer.image, "--input", layer.inputs,
                    "--engines", "cycles", "--json", "-")  # fmt: skip
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["rows"] == []
    assert answer["geomean"] is None
    network = answer["network"]
    assert network["nnz_active"] == sum(np.count_nonzero(layer.weight[:, vector != 0]) for vector in layer.x)
    assert network["efficiency"] == pytest.approx(network["nnz_active"] / network["pes"] / network["model_cycles"])
    assert [row["layer"] for row in network["layers"]] == ["layer"]


@pytest.mark.verifies("bad-usage-ends-2-leaves")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("eie", "--layers", "Alex-9"), "unknown layer 'Alex-9'; expected some of Alex-6"),
        (("eie", "--layers", "none"), "--network and --input"),
        (("eie", "--network", "x.eie"), "belong together"),
        (("eie", "--seeds", "one"), "expected numbers separated by commas"),
        (("eie", "--engines", "rtl,amaranth"), "two kinds of hardware"),
        (("eie", "--engines", "verilog"), "expected cycles"),
        (("eie", "--preset", "BALANCED_3"), "unknown preset"),
        (("ablation", "--rtl", "9"), "rows 0 to 5"),
        (("studies", "-o", "studies", "--rtl", "3"), "expected some of 1, 2, 4"),
        (("studies",), "missing option"),
    ],
)
def test_bad_usage_ends_with_2_and_says_what_was_expected(arguments, said, invoke, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("bench", *arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert list(tmp_path.iterdir()) == []


def test_bench_ablation_writes_table_and_json(invoke, tmp_path) -> None:
    folder = tmp_path / "results"
    result = invoke("bench", "ablation", "-o", folder, "--pes", 4, "--scale", 16, "--seeds", 1, "--layers", "NT-We")
    assert result.exit_code == 0, result.output
    document = json.loads((folder / "ablation.json").read_text())
    assert len(document["steps"]) == 6
    table = (folder / "ablation.md").read_text()
    assert f"{document['steps'][-1]['geomean']:.4f}" in table
    assert document["command"] == "eie bench ablation --seeds 1 --layers NT-We --pes 4 --scale 16"


def test_bench_studies_writes_plots_and_json(invoke, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    arguments = ("bench", "studies", "-o", tmp_path, "--study", "width", "--study", "depth", "--scale", 16,
                 "--layers", "NT-We", "--rtl", "none")  # fmt: skip
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth.json", "depth.svg", "width.json", "width.svg"]
    plot = (tmp_path / "depth.svg").read_bytes()
    assert b"</svg>" in plot
    points = json.loads((tmp_path / "depth.json").read_text())["points"]
    assert {point["array"] for point in points} == {"BALANCED_64", "EIE_64"}
    invoke(*arguments)
    assert (tmp_path / "depth.svg").read_bytes() == plot


def test_bench_speed_writes_its_rows(invoke) -> None:
    result = invoke("bench", "speed", "--quick", "--no-rtl", "--json", "-")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert {"what", "value", "unit", "ratio", "target", "reached", "peak_mib"} <= set(rows[0])
