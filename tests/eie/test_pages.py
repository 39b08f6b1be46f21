"""Pages in a real browser: the report of a network, and the page of runs under way. One browser for all."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.errors import InputError
from compiler.graph.dense import Dense, dense_graph
from compiler.journal import Journal
from compiler.lower.pipeline import compile_graph
from compiler.network_file import load, save
from hw.params import preset
from sim.case_file import CASES
from sim.describe import describe
from sim.pages.page import MOST_BYTES, embedded, figure, render
from sim.pages.progress import QUIET, state
from sim.pages.server import Server
from sim.trials import Line

WAIT = 60.0
NAME = 'b <script>alert("x")</script> & $x$'  # of a layer: somebody's file


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a network, its inputs and its report; and the figures, as --json writes them."""
    from click.testing import CliRunner

    from eie.cli import cli

    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(1)
    x = (rng.integers(-100, 100, (5, 64)) * (rng.random((5, 64)) < 0.4)).astype(np.int16)
    layers = [
        Dense(name, (rng.integers(-7, 8, (out, width)) * (rng.random((out, width)) < 0.3)).astype(np.float32))
        for name, out, width in (("a", 48, 64), (NAME, 32, 48), ("c", 8, 32))
    ]
    save(compile_graph(dense_graph(layers), preset("BALANCED_4"), x), folder / "n.eie")
    np.save(folder / "x.npy", x)
    command = ["report", str(folder / "n.eie"), "--input", str(folder / "x.npy"), "-o", str(folder / "r.html")]
    result = CliRunner().invoke(cli, [*command, "--json", str(folder / "r.json")])
    assert result.exit_code == 0, result.output
    return folder, json.loads((folder / "r.json").read_text())


@pytest.mark.verifies("report-page-browser")
def test_figures_are_those_of_the_commands(reported: Any, invoke: Any) -> None:
    folder, data = reported
    network = data["network"]
    assert network["info"] == json.loads(json.dumps(describe(load(folder / "n.eie"))))
    common = (folder / "n.eie", "--input", folder / "x.npy")
    run = json.loads(invoke("run", *common, "--engine", "cycles", "--json=-").stdout)
    assert network["run"] == run
    energy = json.loads(invoke("report", "energy", *common, "--json=-").stdout)["reports"][0]
    assert network["energy"].items() <= energy.items()
    for row, layer in zip(network["layers"], run["layers"], strict=True):
        assert row["cycles"] == layer["cycles"] / 5
        assert row["products"] == (layer["counters"]["entries"] - layer["counters"]["padding"]) / 5
    assert sum(count for _, count in network["weights"][0]["centroids"]) == network["layers"][0]["nonzeros"]
    assert network["drawing"]["edges"] == [[0, 1], [1, 2], [2, 3], [3, 4]]


@pytest.mark.verifies("report-page-browser")
def test_a_page_is_one_file_that_names_nothing_elsewhere(reported: Any) -> None:
    text = (reported[0] / "r.html").read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    rest = text.replace("http://www.w3.org/", "")  # names of XML, which nobody loads
    assert "http:" not in rest
    assert "https:" not in rest
    assert "<script>alert" not in text


def test_what_is_wrong_ends_with_words(invoke: Any, tmp_path: Path, reported: Any) -> None:
    for arguments, words in (
        ((tmp_path / "none.eie",), "none.eie"), ((tmp_path,), "holds no model.safetensors"),
        ((reported[0] / "n.eie", "--search", tmp_path), "report of eie experiment"),
        ((reported[0] / "n.eie", "-o", tmp_path / "no" / "r.html"), "does not exist"),
    ):  # fmt: skip
        result = invoke("report", *arguments)
        assert result.exit_code == 2
        assert words in result.stderr
        assert list(tmp_path.iterdir()) == []


def test_numbers_are_for_people() -> None:
    assert [figure(v) for v in (0, 5, 1234567, 12.0, 0.001234, 3.14159, 99999.5)] == [
        "0", "5", "1,234,567", "12", "0.00123", "3.14", "100,000",
    ]  # fmt: skip
    assert json.loads(embedded("</script><!--&")) == "</script><!--&"
    assert "<" not in embedded("</script><!--&")


def test_a_search_has_its_front(tmp_path: Path) -> None:
    from sim.pages.facts import pareto

    points = [{"way": "w", "bits": n, "ratio": r, "test": t} for n, (r, t) in enumerate([(2, 1.0), (3, 2.0), (3, 1.5)])]
    report = {
        "experiment": {"name": "s"}, "command": "eie experiment", "finished": "now", "versions": {}, "findings": ["f"],
        "tables": [{"title": "t", "columns": ["a", "b"], "rows": [["x", 1.5], [None, 2]]}],
        "figures": {"net": {"points": points, "dense_test_error": 0.9}, "other": 3},
    }  # fmt: skip
    search = pareto(report)
    assert [point["front"] for point in search["fronts"][0]["points"]] == [True, False, True]
    page = render({"name": "s", "said": "", "made": {}, "search": search})
    assert 'data-path="search.tables.0.rows.0.1"' in page
    assert "Pareto front" in page
    assert ">Error against compression</title>" in page
    assert "Filled: no other point is smaller at no more error." in page


def test_progress_survives_half_a_line_and_a_second_process(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.note("begin", kind="training", name="r", epochs={"dense": 3})
        for epoch in (1, 2):
            journal.note("epoch", stage="dense", epoch=epoch, loss=1 / epoch, validation=0.5, density=1.0)
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('{"what": "epo')
    (run,) = state(tmp_path)["runs"]
    assert (run["done"], run["total"], run["status"]) == (2, 3, "running")
    (run,) = state(tmp_path, now=time.time() + 2 * QUIET)["runs"]
    assert run["status"] == "silent"
    (tmp_path / "progress.jsonl").write_text((tmp_path / "progress.jsonl").read_text() + "\n")
    second = Journal(tmp_path)
    second.note("begin", kind="training", name="r", epochs={"dense": 3})
    second.note("epoch", stage="dense", epoch=2, loss=0.4, validation=0.6, density=1.0)
    with pytest.raises(RuntimeError), second:
        raise RuntimeError("no room")
    (run,) = state(tmp_path)["runs"]
    assert (run["done"], run["status"], run["message"]) == (2, "failed", "RuntimeError: no room")
    assert run["stages"][0]["history"][1]["loss"] == 0.4


def test_what_is_known_is_written_once(invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "fuzz").mkdir()
    (tmp_path / "fuzz" / CASES).write_text('{"first": 0, "cases": 100}\n')  # a campaign of another kind is no run
    assert json.loads(invoke("watch", tmp_path, "--json=-").stdout)["runs"] == []
    (tmp_path / "file").write_text("")
    assert "is a file" in invoke("watch", tmp_path / "file").stderr


@pytest.mark.verifies("event-files-tensorboard")
def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    with Journal(None, tmp_path / "tb") as journal:
        for step in range(3):
            journal.curve({"loss/dense": 1 / (step + 1), "density/dense": 0.5}, step)
    found = {}
    for path in (tmp_path / "tb").iterdir():
        for event in loader.EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found[value.tag, event.step] = float(value.tensor.float_val[0])
    assert found == {
        **{("loss/dense", step): pytest.approx(1 / (step + 1)) for step in range(3)},
        **{("density/dense", step): 0.5 for step in range(3)},
    }


def test_pages_are_only_for_this_machine(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        with urllib.request.urlopen(f"{server.url}state", timeout=WAIT) as answer:
            assert json.load(answer)["runs"] == []
        for path, host, code in (("state", "example.com", 403), ("../x.npy", "127.0.0.1", 404)):
            request = urllib.request.Request(server.url + path, headers={"Host": host})
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(request, timeout=WAIT)
            assert error.value.code == code
            error.value.close()
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window. Debian: chromium and chromium-driver; .ci/run installs them where it may."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if chromium is None or driver is None:
        pytest.skip("no Chromium with its driver on this machine: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="eie-") as profile:
        for flag in (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--window-size=1200,900", f"--user-data-dir={profile}",
        ):  # fmt: skip
            options.add_argument(flag)
        made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            yield made
        finally:
            made.quit()


# For each cell that names its place in the data: what is there, and what is shown, if they differ.
COMPARE = """
const data = JSON.parse(document.getElementById("report-data").textContent);
const wrong = [];
let compared = 0;
for (const cell of document.querySelectorAll("[data-path]")) {
  const value = cell.dataset.path.split(".").reduce((at, key) => at?.[key], data);
  const given = cell.dataset.value === "" ? null : Number(cell.dataset.value);
  const shown = Number(cell.textContent.replace(/[,%]|nJ|of.*/g, ""));
  const near = (a, b) => Math.abs(a - b) <= 0.006 + 0.006 * Math.abs(b);
  compared += 1;
  if (value !== given) wrong.push([cell.dataset.path, value, given]);
  else if (given !== null && !near(shown, given) && !near(shown, 100 * given))
    wrong.push([cell.dataset.path, given, cell.textContent]);
}
return [compared, wrong];
"""

# What somebody who does not see, or has no mouse, would miss.
ACCESS = """
const wrong = [], every = (selector) => [...document.querySelectorAll(selector)];
const text = (id) => document.getElementById(id)?.textContent;
for (const svg of every("svg")) {
  const ids = (svg.getAttribute("aria-labelledby") ?? "").split(" ");
  if (svg.getAttribute("role") !== "img" || !ids.every(text)) wrong.push("a drawing without a name");
}
if (every("table").some((table) => !table.caption?.textContent)) wrong.push("a table without a caption");
if (every("button").some((button) => !button.textContent.trim())) wrong.push("a button without a name");
if (every("nav a").some((link) => !document.querySelector(link.getAttribute("href")))) wrong.push("a link to nothing");
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
if (new Set(ids).size !== ids.length) wrong.push("an id twice: " + ids.find((id, n) => ids.indexOf(id) !== n));
const levels = [...document.querySelectorAll("h1, h2, h3")].map((head) => Number(head.tagName[1]));
if (levels[0] !== 1 || levels.some((level, n) => n && level > levels[n - 1] + 1)) wrong.push("headings skip a level");
if (document.documentElement.lang !== "en") wrong.push("no language");
return wrong;
"""

COLUMN = """
const rows = [...document.querySelectorAll("#table-layers tbody tr")];
return rows.map((row) => Number(row.querySelector(`[data-path$="${arguments[0]}"]`).dataset.value));
"""


def until(what: Callable[[], Any], words: str) -> None:
    end = time.monotonic() + WAIT
    while not what():
        assert time.monotonic() < end, words
        time.sleep(0.05)


@pytest.mark.verifies("report-page-browser", "watch-page-browser")
@pytest.mark.slow
def test_pages_in_a_browser(browser: Any, reported: Any, tmp_path: Path) -> None:
    report_in(browser, *reported)
    watched_in(browser, tmp_path)


def report_in(browser: Any, folder: Path, data: dict[str, Any]) -> None:
    browser.get((folder / "r.html").as_uri())
    assert browser.get_log("browser") == [], "nothing is complained of"
    inside = browser.execute_script('return document.getElementById("report-data").textContent')
    assert json.loads(inside) == data
    compared, wrong = browser.execute_script(COMPARE)
    assert wrong == []
    assert compared > 60
    browser.execute_script(
        "const cells = document.querySelectorAll('td[data-value]'); cells[3].dataset.value = '12345'; "
        "cells[5].textContent = '98,765';"
    )
    assert len(browser.execute_script(COMPARE)[1]) == 2, "planted: a number that is not the data's, and one shown wrong"
    browser.refresh()
    assert browser.execute_script(ACCESS) == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert NAME in browser.find_element("css selector", "#table-layers tbody").text

    head = next(
        each for each in browser.find_elements("css selector", "#table-layers th button") if each.text == "nonzeros"
    )
    given = browser.execute_script(COLUMN, ".nonzeros")
    head.click()
    assert browser.execute_script(COLUMN, ".nonzeros") == sorted(given) != given
    head.send_keys("\ue007")  # Enter
    assert browser.execute_script(COLUMN, ".nonzeros") == sorted(given, reverse=True)
    cell = head.find_element("xpath", "..")
    assert cell.get_attribute("aria-sort") == "descending"

    def background(scheme: str) -> str:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        return str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))

    assert background("light") == "rgb(255, 255, 255)"
    assert background("dark") == "rgb(22, 24, 28)"
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"landscape": True})
    assert len(printed["data"]) > 20_000
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False})  # fmt: skip
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400, "nothing sticks out"
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def watched_in(browser: Any, folder: Path) -> None:
    def serving(port: int) -> Server:
        end = time.monotonic() + WAIT
        while True:  # the port that a server gave up may be another's for a while
            try:
                server = Server(folder, port=port)
                break
            except InputError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def text() -> str:
        return str(browser.execute_script("return document.body.innerText"))

    server = serving(0)
    port = server.server_address[1]
    browser.get(server.url)
    until(lambda: "No run has begun" in text(), "an empty folder")
    training = Journal(folder / "run")
    training.note("begin", kind="training", name=NAME, epochs={"dense": 2, "prune": 1})
    training.note("epoch", stage="dense", epoch=1, loss=0.5, validation=0.9, density=1.0)
    until(lambda: "1 of 3 epochs" in text() and "90.00" in text(), "an epoch")
    until(lambda: browser.execute_script("return document.querySelectorAll('figure svg').length") == 1, "a chart")
    assert NAME in text()
    assert browser.execute_script(ACCESS) == []
    assert browser.get_log("browser") == []

    server.shutdown()
    server.server_close()
    until(lambda: "Nobody answers" in text(), "the server is gone")
    training.note("epoch", stage="dense", epoch=2, loss=float("nan"), validation=0.95, density=1.0)
    case = Line("rtl", "", 0, 7, "a", "k", "differs", "layer x differs", 1.0, 1.0, "here:1", {"values": 12})
    with Journal(folder / "night" / "rtl-1") as night:
        night.note("begin", kind="regression", name="rtl", total=4)
        (folder / "night" / "rtl-1" / CASES).write_text(json.dumps(case.asdict()) + "\n")
    server = serving(port)
    until(lambda: "2 of 3 epochs" in text() and "Nobody" not in text(), "the same page after a restart")
    assert "1 of 4 cases" in text()
    assert "layer x differs" in text()
    assert "95.00" in text(), "beside a loss that is no number"
    training.note("end", status="finished")
    until(lambda: "finished" in text(), "the end")
    server.shutdown()
    server.server_close()
