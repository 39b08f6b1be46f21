"""``eie cost`` and `eie.cost`: tables and JSON that agree, and errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import eie
from compiler.errors import InputError
from compiler.graph.dense import Dense, dense_graph
from tests.eie.conftest import Invoke, Layer

GRAPH = dense_graph([Dense("a", np.eye(4, dtype=np.float32))])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EIE_CACHE", str(tmp_path / "cache"))


@pytest.mark.verifies("cost-command")
def test_json_and_words_agree(layer: Layer, invoke: Invoke) -> None:
    arguments = ("cost", layer.npz, "--calibrate", layer.inputs, "--samples", 2, "--blocks")
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["samples"] == 2
    (only,) = found["layers"]
    assert only["cycles"] == found["cycles"] > 0
    assert found["blocks_error"] == 0.0
    shown = invoke(*arguments)
    assert shown.exit_code == 0, shown.output
    assert f"{found['stored']:,}" in shown.stdout
    assert "+0.00% from those of the network" in shown.stdout


@pytest.mark.verifies("cost-command")
def test_without_inputs_it_says_what_to_do(layer: Layer, invoke: Invoke) -> None:
    result = invoke("cost", layer.npz)
    assert result.exit_code == 2
    assert "expected --calibrate X.npy" in result.stderr
    with pytest.raises(InputError, match="no calibration data"):
        eie.cost(GRAPH, "BALANCED_2")


@pytest.mark.verifies("cost-command")
def test_the_python_name_takes_what_compile_takes() -> None:
    x = np.ones((3, 4))
    found = eie.cost(GRAPH, "BALANCED_2", calibration=x)
    assert found.samples == 3
    ran = eie.run(eie.compile(GRAPH, params="BALANCED_2", calibration=x), x, engine="cycles")
    assert found.cycles * 3 == ran.cycles
    assert eie.cost(GRAPH, "BALANCED_2", calibration=x, samples=x[:1]).samples == 1
