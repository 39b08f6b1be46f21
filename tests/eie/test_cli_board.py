"""``--engine board``: runs and comparisons over a port, and what happens without one."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import sim.driver.streams
from tests.sim.boards import SMALL, python_board

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def small(request, tmp_path_factory):
    """A layer for the smallest array, and inputs."""
    from eie.cli import cli

    rng = np.random.default_rng(request.config.getoption("seed"))
    folder = tmp_path_factory.mktemp("small")
    weight = rng.integers(-1, 2, (6, 9)).astype(np.float32)
    np.savez(folder / "layer.npz", weight=weight, bias=np.zeros(6), activation="relu")
    np.save(folder / "x.npy", rng.integers(-200, 200, (2, 9)).astype(np.int16))
    settings = [word for name, value in SMALL.asdict().items() for word in ("--set", f"{name}={value}")]
    cli(
        ["compile", str(folder / "layer.npz"), "-o", str(folder / "layer.eie"), "--calibrate", str(folder / "x.npy"),
         *settings],
        standalone_mode=False,
    )  # fmt: skip
    return folder


@pytest.mark.verifies("eie-run-eie-diff-over")
def test_run_and_diff_over_the_simulator(small, invoke, tmp_path) -> None:
    source = ("--input", small / "x.npy")
    result = invoke(
        "run",
        small / "layer.eie",
        *source,
        "--output",
        tmp_path / "y.npz",
        "--engine",
        "board",
        "--port",
        "sim",
        "--json",
    )
    assert result.exit_code == 0, result.output
    board = json.loads(result.stdout)
    model = json.loads(invoke("run", small / "layer.eie", *source, "--engine", "cycles", "--json").stdout)
    assert board.pop("engine") == "board"
    assert model.pop("engine") == "cycles"
    assert board == model
    invoke("run", small / "layer.eie", *source, "--output", tmp_path / "z.npz")
    with np.load(tmp_path / "y.npz") as y, np.load(tmp_path / "z.npz") as z:
        np.testing.assert_array_equal(y["raw"], z["raw"])


@pytest.mark.verifies("eie-run-eie-diff-over")
def test_diff_over_a_serial_line(small, invoke) -> None:
    with python_board(SMALL) as name:
        result = invoke(
            "diff", small / "layer.eie", "--input", small / "x.npy", "--engines", "golden,cycles,board",
            "--port", f"serial:{name}", "--json",
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    compared = json.loads(result.stdout)["comparisons"]
    assert [of["engines"] for of in compared] == [["golden", "cycles"], ["golden", "board"], ["cycles", "board"]]
    assert all(of["values"] == 12 for of in compared)
    assert compared[2]["records"] > 0


@pytest.mark.parametrize("arguments", [["--engine", "board"], ["--engine", "rtl", "--port", "sim"], ["--port", "sim"]])
def test_the_engine_and_the_port_belong_together(small, invoke, arguments) -> None:
    result = invoke("run", small / "layer.eie", "--input", small / "x.npy", *arguments)
    assert result.exit_code == 2
    assert "belong together" in result.stderr


@pytest.mark.verifies("eie-run-eie-diff-over")
@pytest.mark.parametrize("port", ["serial:/dev/none", "mmap:/dev/none", "usb", "serial:/dev/null"])
def test_a_port_that_cannot_be_opened_ends_with_2(small, invoke, port) -> None:
    result = invoke("run", small / "layer.eie", "--input", small / "x.npy", "--engine", "board", "--port", port)
    assert result.exit_code == 2
    assert port.partition(":")[2] in result.stderr


@pytest.mark.verifies("eie-run-eie-diff-over")
def test_without_pyserial_where_it_is_needed_ends_with_3_and_says_what_to_install(small, invoke, monkeypatch) -> None:
    monkeypatch.setattr(sim.driver.streams.importlib.util, "find_spec", lambda name: None)
    arguments = ("run", small / "layer.eie", "--input", small / "x.npy", "--engine", "board", "--port")
    odd = invoke(*arguments, "serial:/dev/ttyUSB0:123456")
    monkeypatch.setitem(sys.modules, "termios", None)
    other = invoke(*arguments, "serial:COM3")
    for result in (odd, other):
        assert result.exit_code == 3
        assert "pip install 'eie-kit[board]'" in result.stderr


def test_an_array_that_is_another_one_ends_with_1(small, invoke) -> None:
    with python_board(SMALL.replace(queue_depth=7)) as name:
        result = invoke(
            "run", small / "layer.eie", "--input", small / "x.npy", "--engine", "board", "--port", f"serial:{name}"
        )
    assert result.exit_code == 1
    assert "parameter hash" in result.stderr


@pytest.mark.verifies("docs-driver-md-example-bytes")
def test_the_example_of_the_document_runs(small, monkeypatch, capsys) -> None:
    text = (DOCS / "driver.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(small)
    with python_board(SMALL) as name:
        exec(code.replace("serial:/dev/ttyUSB0", f"serial:{name}").replace("net.eie", "layer.eie"), {})
    assert "cycles" in capsys.readouterr().out


@pytest.mark.verifies("docs-driver-md-example-bytes")
def test_the_protocol_of_the_document_is_the_one_that_is_built() -> None:
    """The request and the answer that the document spells out byte by byte."""
    from sim.driver.frames import Answer, Request

    text = (DOCS / "driver.md").read_text(encoding="utf-8")
    spelled = [bytes.fromhex(line) for line in re.findall(r"^    ((?:[0-9a-f]{2} ?)+)$", text, re.MULTILINE)]
    assert spelled == [
        Request(7, 2, 0x1C, 1, (5,)).pack(), Answer(7, 0, 1).pack(),
        Request(8, 1, 0x00, 1).pack(), Answer(8, 0, 1, (0x31454945,)).pack(),
    ]  # fmt: skip
