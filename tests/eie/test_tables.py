"""Tables fit the terminal and break no word; a run shows results; `eie info` is short unless asked."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from compiler.graph.dense import Dense, dense_graph
from compiler.lower.pipeline import compile_graph
from compiler.network import Network
from compiler.network_file import save
from eie.output import PATIENCE, Output
from eie.preview import show_outputs
from eie.tables import table_text
from hw.params import preset
from sim.network import run_network

COLUMNS = ("layer", "activation", "bits of largest sum", "accumulator bits", "cycles, all resident", "nonzeros")
ROW = ("encoder.block.fc1", "relu", 34, 40, 12345678, 9)


@pytest.mark.verifies("tables-fit-break-word-short")
@pytest.mark.parametrize("columns", [24, 40, 60, 80, 120, 200])
def test_a_table_fits_and_breaks_no_word(columns, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = table_text(COLUMNS, [ROW, ROW], "A title")
    lines = text.splitlines()
    assert lines[0] == "A title"
    assert max(map(len, lines[1:])) <= max(columns, 38)  # the first two columns stand together whatever it takes
    words = text.split()
    for name in COLUMNS:
        assert all(word in words for word in name.split())
    if columns >= 40:
        assert words.count("12,345,678") == 2
        assert "encoder.block.fc1" in words


def test_a_name_longer_than_half_of_the_screen_is_folded_and_complete(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    name = "a" * 25 + "b" * 40
    text = table_text(("layer", "n"), [(name, 1)])
    assert max(map(len, text.splitlines())) <= 40
    assert text.count("b") == 40


@pytest.fixture(scope="module")
def network() -> Network:
    weight = np.array([[1, 0], [0, 1], [-1, 2], [0, 0]], np.float32)
    layers = [Dense("first", weight, activation="relu"), Dense("second", np.eye(4, dtype=np.float32)[::-1].copy())]
    return compile_graph(dense_graph(layers), preset("BALANCED_2"), np.array([[3, 4], [5, 7]], np.int16))


@pytest.fixture(scope="module")
def files(network, tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("net")
    save(network, folder / "n.eie")
    np.save(folder / "x.npy", np.array([[3, 4], [5, 7]], np.int16))
    return folder


@pytest.mark.verifies("tables-fit-break-word-short")
def test_info_is_short_unless_all_is_asked_for(files, invoke, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    short, everything = invoke("info", files / "n.eie"), invoke("info", files / "n.eie", "--all")
    assert short.exit_code == everything.exit_code == 0, short.output
    assert "Memory map" not in short.stdout
    assert "--all" in short.stdout
    assert len(short.stdout.splitlines()) <= 16
    assert all(title in everything.stdout for title in ("Layers", "Memory map", "Break-even", "Bounds", "Bits by part"))
    assert max(map(len, (short.stdout + everything.stdout).splitlines())) <= 80
    assert invoke("-v", "info", files / "n.eie").stdout == everything.stdout
    total = next(line.split() for line in short.stdout.splitlines() if line.startswith("all "))
    facts = json.loads(invoke("info", files / "n.eie", "--json").stdout)
    assert int(total[1]) == sum(layer["nonzeros"] for layer in facts["layers"])
    assert int(total[-2]) == facts["cycles"]["model"]
    assert float(total[-1]) == pytest.approx(100 * facts["utilization"], abs=0.01)


@pytest.mark.verifies("tables-fit-break-word-short")
def test_a_run_without_a_file_for_outputs_shows_the_largest(files, network, invoke) -> None:
    result = invoke("run", files / "n.eie", "--input", files / "x.npy")
    raw = np.load(files / "x.npy") @ np.array([[1, 0], [0, 1], [-1, 2], [0, 0]]).T[:, ::-1]
    rows = [line.split() for line in result.stdout.splitlines() if ":" in line and line.split()[0] in ("0", "1")]
    for sample, row in enumerate(rows):
        assert row[1] == f"{int(raw[sample].argmax())}:"
    assert len(rows) == 2
    assert "cycles" not in result.stdout  # golden has none, and columns of nothing but dashes say nothing
    written = invoke("run", files / "n.eie", "--input", files / "x.npy", "--output", files / "y.npz")
    assert "largest" not in written.stdout
    assert "cycles" in invoke("run", files / "n.eie", "--input", files / "x.npy", "--engine", "cycles").stdout


def test_a_long_batch_is_previewed(network, capsys) -> None:
    result = run_network(network, np.ones((20, 2), np.int16))
    show_outputs(Output(), result, {result.names[0]: "output"})
    shown = capsys.readouterr().out
    assert "8 of 20 samples" in shown
    assert sum(line.strip()[:1].isdigit() for line in shown.splitlines()) == 8


def test_quiet_leaves_out_notes_and_not_the_answer(tmp_path, invoke) -> None:
    np.savez(tmp_path / "l.npz", weight=np.eye(3, dtype=np.float32))
    loud = invoke("compile", tmp_path / "l.npz", "-o", tmp_path / "a.eie")
    quiet = invoke("-q", "compile", tmp_path / "l.npz", "-o", tmp_path / "b.eie")
    assert "calibrate" in loud.stderr
    assert quiet.stderr == ""
    assert "b.eie" in quiet.stdout
    assert (tmp_path / "a.eie").read_bytes() == (tmp_path / "b.eie").read_bytes()


def test_what_takes_long_says_so(monkeypatch, capsys) -> None:
    monkeypatch.setattr("eie.output.PATIENCE", 0.05)
    output = Output()
    with output.patience("torch reads the module"):
        time.sleep(0.3)
    assert capsys.readouterr().err == "eie: torch reads the module …\n"
    with output.patience("nothing"):
        pass
    time.sleep(0.1)
    assert capsys.readouterr().err == ""
    assert PATIENCE == 1.0


@pytest.mark.verifies("progress-in-logs")
def test_a_log_gets_a_line_now_and_then(monkeypatch, capsys) -> None:
    clock = iter([0.0, 59.0, 60.0, 60.0, 61.0, 120.5, 120.5])  # of the start, and each look at it
    monkeypatch.setattr("eie.output.time.monotonic", lambda: next(clock))
    with Output().progress("Verifying") as told:
        for done in (1, 2, 3, 1200):
            told(done, 2000)
    assert capsys.readouterr().err == "Verifying: 2 of 2,000\nVerifying: 1,200 of 2,000\n"
