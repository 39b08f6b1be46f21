"""What pages make of files that are not as the kit writes them, of figures that are no numbers, and of many runs."""

from __future__ import annotations

import json
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.errors import ToolError
from compiler.frontend.builder import Builder
from compiler.journal import JOURNAL, Journal
from compiler.lower.pipeline import compile_graph
from compiler.network_file import save
from hw.params import preset
from sim.case_file import CASES
from sim.pages import charts
from sim.pages.facts import training_facts
from sim.pages.page import render
from sim.pages.server import Server

WAIT = 60.0
BEGIN = '{"what": "begin", "time": 1, "kind": "training", "name": "r", "epochs": {"dense": 4}}\n'


def strict(text: str | bytes) -> Any:
    """JSON as a browser reads it: without NaN and Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def asked(folder: Path) -> Any:
    """What a server of the folder answers."""
    with Server(folder) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        with urllib.request.urlopen(f"{server.url}state", timeout=WAIT) as answer:
            found = strict(answer.read())
        server.shutdown()
    return found


@pytest.mark.verifies("pages-strange-lines-reports")
def test_a_loss_that_is_no_number_is_none(invoke: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    journal = Journal(tmp_path)
    journal.note("begin", kind="training", name="r", epochs={"dense": 4})
    for epoch, loss in enumerate((0.5, float("nan"), float("inf")), 1):
        journal.note("epoch", stage="dense", epoch=epoch, loss=loss, validation=0.5, density=1.0)
    for line in (tmp_path / JOURNAL).read_text().splitlines():
        strict(line)
    with (tmp_path / JOURNAL).open("a") as file:  # as another program writes it
        file.write(
            '{"what": "epoch", "stage": "dense", "epoch": 4, "loss": NaN, "validation": 1e999, "density": -Infinity}\n'
        )
        file.write('{"what": "stage", "stage": "dense", "test": NaN}\n')
    shown = strict(invoke("watch", tmp_path, "--json=-").stdout)["runs"]
    (run,) = asked(tmp_path)["runs"]
    assert run.pop("chart").startswith("<svg")
    assert shown[0]["stages"] == run["stages"]
    (stage,) = run["stages"]
    assert [epoch["loss"] for epoch in stage["history"]] == [0.5, None, None, None]
    assert stage["history"][3] == {"epoch": 4, "loss": None, "validation": None, "density": None}
    assert (stage["test"], run["done"]) == (None, 4)


@pytest.mark.verifies("pages-strange-lines-reports")
def test_a_page_of_a_training_that_diverged_can_be_read() -> None:
    figures = {"loss": float("nan"), "validation": 0.5, "density": 1.0}
    stage = {"stage": "dense", "kind": "dense", "epochs": 2, "accuracy": {"test": 0.5, "validation": 0.5},
             "history": [{"epoch": 1, **figures, "loss": 0.5}, {"epoch": 2, **figures}]}  # fmt: skip
    about = dict.fromkeys(("seed", "data", "size", "command", "finished", "versions", "cpu_seconds"), "")
    training = training_facts({**about, "stages": [stage]})
    chain = [{"name": "dense", "test": 0.5, "validation": 0.5, "epochs": 2}]
    page = render({"name": "r", "said": "", "made": {}, "training": training, "chain": chain, "chain_said": ""})
    (epoch,) = strict(page.split('id="report-data">')[1].split("</script>")[0])["training"]["stages"][0]["history"][1:]
    assert epoch == {"epoch": 2, **figures, "loss": None}


@pytest.mark.verifies("pages-strange-lines-reports")
@pytest.mark.parametrize(
    "lines",
    [
        '{"what": "begin", "time": 1, "kind": "regression", "name": "r", "total": "5"}\n',
        '{"what": "begin", "time": 1, "kind": "experiment", "name": ["r"], "total": {}, "done": [[1], {}]}\n',
        '{"what": "begin", "time": -1e308, "kind": "regression", "total": 9, "done": "x"}\n',
        f'{{"what": "begin", "time": 1{"0" * 400}, "kind": "regression", "total": 1{"0" * 400}}}\n',
        BEGIN.replace("4}", '[4], "e": true, "f": 1e999}'),
        BEGIN + '{"what": "epoch", "stage": ["dense"], "epoch": 1}\n'
        + '{"what": "epoch", "stage": "dense", "epoch": [1], "loss": 1, "validation": 1, "density": 1}\n'
        + f'{{"what": "epoch", "stage": "dense", "epoch": 1, "loss": 1{"0" * 400}, "validation": "x"}}\n'
        + '{"what": "epoch", "stage": "dense", "epoch": 2, "loss": -1e308, "density": 1e308}\n',
    ],
)  # fmt: skip
def test_lines_of_a_stranger_are_shown_or_left_out(lines: str, tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text(lines)
    strange: tuple[object, ...] = ([1], {}, 1e9, "x", True)
    cases = [{"status": "differs", **dict.fromkeys(("seed", "stage", "number", "values"), value)} for value in strange]
    (tmp_path / CASES).write_text("".join(json.dumps(case) + "\n" for case in cases))
    (run,) = asked(tmp_path)["runs"]
    assert "error" not in run
    assert run["total"] is None or isinstance(run["total"], int)
    if run["kind"] == "regression":
        assert (run["done"], run["cases"], run["values"]) == (5, {"differs": 5}, 0)


@pytest.mark.verifies("watch-page-browser")
def test_each_chart_is_drawn_once_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def history(stages: object, key: str) -> str:
        drawn.append(key)
        return f"<svg {key} {len(drawn)}>"

    monkeypatch.setattr(charts, "history", history)
    journals = [Journal(tmp_path / f"run-{n:02}") for n in range(40)]
    for journal in journals:
        journal.note("begin", kind="training", name="r", epochs={"dense": 4})
        journal.note("epoch", stage="dense", epoch=1, loss=0.5, validation=0.5, density=1.0)
    with Server(tmp_path) as server:
        first = server.now()
        assert len(set(drawn)) == len(drawn) == 40, "each has a key of its own"
        assert [run["chart"] for run in server.now()["runs"]] == [run["chart"] for run in first["runs"]]
        assert len(drawn) == 40
        journals[7].note("epoch", stage="dense", epoch=2, loss=0.4, validation=0.5, density=1.0)
        (tmp_path / "run-00" / JOURNAL).unlink()
        pairs = zip(server.now()["runs"], first["runs"][1:], strict=True)
        kept = [run["chart"] == before["chart"] for run, before in pairs]
        assert kept == [n != 6 for n in range(39)]
        assert len(drawn) == 41


REPORT: dict[str, Any] = {
    "experiment": {"name": "s"}, "command": "eie experiment", "finished": "now", "versions": {}, "findings": ["f"],
    "tables": [{"title": "t", "columns": ["a", "b"], "rows": [["x", -1.5], [None, 2]]}],
    "figures": {"net": {"points": [{"way": "w", "ratio": 2, "test": 1.0}], "dense_test_error": 0.9}, "other": 3},
}  # fmt: skip


@pytest.mark.verifies("pages-strange-lines-reports")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"experiment": "x"}, "experiment should be objects"),
        ({"experiment": {}}, "experiment: it has no name"),
        ({"figures": []}, "figures should be objects"),
        ({"figures": {"net": {"points": {}}}}, "figures.net: points should be lists"),
        ({"figures": {"net": {"points": [3]}}}, "figures.net.points[0]: it is no JSON object"),
        ({"figures": {"net": {"points": [{"test": 1.0}]}}}, "figures.net.points[0]: it has no ratio, way"),
        ({"figures": {"net": {"points": [{"ratio": 10**400, "test": 1.0, "way": "w"}]}}}, "ratio should be numbers"),
        ({"figures": {"net": {"points": [], "dense_test_error": "x"}}}, "dense_test_error should be numbers"),
        ({"tables": [[]]}, "tables[0]: it is no JSON object"),
        ({"tables": [{"title": "t", "columns": [], "rows": [3]}]}, "tables[0]: rows should be"),
        ({"tables": [{"title": "t", "columns": [], "rows": [[[]]]}]}, "tables[0]: rows should be"),
        ({"tables": [{"title": "t", "columns": [], "rows": [[10**400]]}]}, "tables[0]: rows should be"),
        ({"tables": [{"title": "t", "columns": [], "rows": [[float("nan")]]}]}, "cannot be read"),
        ({"findings": ["\ud800"]}, "cannot be read"),
        ({"versions": None}, "versions should be objects"),
    ],
)
def test_a_report_of_a_stranger_is_refused_in_words(change: Any, words: str, invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps({**REPORT, **change}))
    result = invoke("report", tmp_path, "-o", tmp_path / "r.html")
    assert result.exit_code == 2, result.stderr
    assert words in result.stderr
    assert not (tmp_path / "r.html").exists()


def test_a_report_that_is_right_is_shown(invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    result = invoke("report", tmp_path, "-o", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    assert "-1.5" in (tmp_path / "r.html").read_text()
    (tmp_path / "report.json").write_text("[]")
    assert "it is no JSON object" in invoke("report", tmp_path, "-o", tmp_path / "r.html").stderr


@pytest.mark.verifies("report-page-browser")
def test_a_network_of_which_the_array_computes_nothing_has_a_page(invoke: Any, tmp_path: Path) -> None:
    build = Builder()
    x = build.add("Input", "x", shape=(6,))
    build.add("Output", "y", build.add("Multiply", "square", x, x))
    params = preset("BALANCED_4").replace(elementwise=False)
    network = compile_graph(build.graph(), params, np.ones((4, 6), np.float32))
    assert not network.images
    save(network, tmp_path / "n.eie")
    result = invoke("report", tmp_path / "n.eie", "-o", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "r.html").read_text()
    assert '<dd data-path="network.total.samples_per_second" data-value="">\N{EN DASH}</dd>' in text


@pytest.mark.verifies("event-files-tensorboard")
def test_without_its_package_tensorboard_is_refused_before_there_is_a_folder(
    invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with pytest.raises(ToolError, match="needs the package tensorboard"):
        Journal(tmp_path / "run", tmp_path / "events")
    for command in (
        ("verify", "amaranth", "--cases", 1), ("train", "digits"), ("experiment", "squares"),
    ):  # fmt: skip
        result = invoke(*command, "-o", tmp_path / "run", "--tensorboard", tmp_path / "events")
        assert result.exit_code == 3, result.output
        assert "needs the package tensorboard" in result.stderr
    assert list(tmp_path.iterdir()) == []
