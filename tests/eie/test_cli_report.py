"""``eie report``: tables with their sources, JSON, a summary; area by stand-ins and, with EIE_FPGA=1, by yosys."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from compiler.errors import InputError
from hw.core import PE_MODULE
from hw.params import preset
from sim.fpga.area import DEBIAN_LIBRARY, measure_area, read_area


@pytest.mark.verifies("reports-command-line-area-pe")
def test_energy_of_a_file_and_its_batch(layer, invoke) -> None:
    result = invoke("report", "energy", layer.image, "--input", layer.inputs, "--json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["reports"]
    assert (found["samples"], found["params"]["pes"]) == (5, 16)
    active = layer.x != 0
    useful = sum(np.count_nonzero(layer.weight[:, columns]) for columns in active) / 5
    assert useful <= found["counts"]["codebook_reads"] < 1.2 * useful
    assert found["nj"] == pytest.approx(sum(each["nj"] for each in found["accesses"]))
    assert found["dense_pj"]["dram"] > 10 * found["dense_pj"]["sram"] > found["total_pj"]
    shown = invoke("report", "energy", layer.image, "--input", layer.inputs).stdout
    for text in ("EIE, table I", "mW while it runs", "weight reads", "[1]", "dense"):
        assert text in shown


@pytest.mark.verifies("reports-command-line-area-pe")
def test_random_inputs_have_the_density_and_repeat(layer, invoke) -> None:
    def nj(*more: object) -> float:
        result = invoke("report", "energy", layer.image, *more, "--json")
        assert result.exit_code == 0, result.output
        (found,) = json.loads(result.stdout)["reports"]
        return float(found["nj"])

    assert nj("--density", 0.1) < nj("--density", 0.35) == nj() < nj("--density", 1)
    assert nj("--seed", 2) != nj("--seed", 1) == nj()
    # A tenth of the clock changes no energy.
    assert nj("--clock", 80) == nj()


@pytest.mark.verifies("reports-command-line-area-pe")
def test_a_layer_of_the_publication_and_a_summary(layer, invoke, tmp_path) -> None:
    result = invoke(
        "report", "energy", layer.image, "--layers", "NT-We", "--preset", "EIE_64", "-o", tmp_path / "e.md",
        "--json", tmp_path / "e.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "EIE mW" in result.stdout
    summary = (tmp_path / "e.md").read_text()
    assert summary.count("| NT-We | EIE_64 |") == 2
    assert "## layer" in summary
    assert len(json.loads((tmp_path / "e.json").read_text())["reports"]) == 2


@pytest.mark.verifies("reports-command-line-area-pe")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to report on"),
        (("a.eie", "b.eie", "--input", "x.npy"), "--input belongs to one network"),
        (("--layers", "FC-9"), "unknown layer"),
        (("--layers", "NT-We", "--preset", "EIE_65"), "unknown preset"),
        (("--layers", "NT-We", "--clock", "0"), "--clock"),
        (("none.eie",), "none.eie"),
        (("--layers", "NT-We", "--table", "none.toml"), "no table of energies"),
    ],
)
def test_what_cannot_be_reported_ends_with_2(arguments, message, invoke) -> None:
    result = invoke("report", "energy", *arguments)
    assert result.exit_code == 2
    assert message in result.output


STAT = {
    "modules": {
        f"\\{PE_MODULE}": {
            "area": 1234.5,
            "num_cells_by_type": {"DFFPOSX1": 3, "NAND2X1": 4, "$paramod$00\\eie_ram": 6},
        }
    }
}


@pytest.mark.verifies("reports-command-line-area-pe")
def test_area_counts_cells_and_no_memories() -> None:
    assert read_area(STAT) == {"area": 1234.5, "count": 7, "cells": {"DFFPOSX1": 3, "NAND2X1": 4}}


@pytest.mark.verifies("reports-command-line-area-pe")
def test_a_library_without_flip_flops_is_refused() -> None:
    module = {"area": 1.0, "num_cells_by_type": {"$_DFF_P_": 3}}
    with pytest.raises(InputError, match=r"no cells for \$_DFF_P_"):
        read_area({"modules": {PE_MODULE: module}})


@pytest.mark.verifies("reports-command-line-area-pe")
def test_a_library_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOSYS", "true")
    with pytest.raises(InputError, match="qflow-tech-osu018"):
        measure_area(preset("EIE_64"), tmp_path / "none.lib", tmp_path, print)


@pytest.mark.verifies("reports-command-line-area-pe")
@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("EIE_FPGA") or not DEBIAN_LIBRARY.exists(), reason="EIE_FPGA=1 and Debian's qflow-tech-osu018"
)
def test_area_of_a_pe(invoke, tmp_path) -> None:
    result = invoke("report", "area", "--preset", "EIE_64", "-o", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    # The published PE has 19,277 µm² of cells at 45 nm.
    assert 0.5 < found["area_45nm"] / 19_277 < 2
    assert found["memory_bits"] > 1_000_000
