"""Plots show what the report says, and their files are what their names say."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure
from torch import nn

from compiler.train import plots, recipe
from compiler.train.data import load
from compiler.train.layers import weights
from compiler.train.progress import load_module, stage_path
from compiler.train.run import train_recipe

STAGES: list[dict[str, Any]] = [
    {"kind": "dense", "epochs": 3, "learning_rate": 0.01},
    {"kind": "sensitivity", "density": 0.4},
    {"kind": "prune", "epochs": 2, "learning_rate": 0.01, "density": "sensitivity"},
    {"kind": "share", "epochs": 2, "learning_rate": 0.001, "code_bits": 3},
]
RECIPE = recipe.parse(
    {
        "name": "drawn",
        "data": {"name": "digits", "validation": 0.2, "samples": 300},
        "model": {"name": "mlp", "hidden": [12]},
        "stages": STAGES,
    },
    "drawn",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plots") / "run"
    train_recipe(RECIPE, folder)
    return folder


@pytest.fixture(scope="module")
def report(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "report.json").read_text()))


@pytest.fixture(scope="module")
def module(run: Path) -> nn.Module:
    dataset = load("digits", 0.2, None, 300)
    return load_module(stage_path(run, "share"), RECIPE.model, dataset)


def texts(svg: bytes) -> str:
    """All that an SVG file writes: letters are text in it, not shapes."""
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return " | ".join("".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text"))


EXPECTED: dict[str, list[str]] = {
    "history": ["drawn, seed 1", "dense", "prune", "share", "epoch", "validation accuracy, %", "zero weights, %"],
    "weights": ["fc1", "fc2", "nonzero", "7 distinct"],
    "size": ["fc1.weight", "fc2.weight", "fc1.bias", "header", "bytes", "smaller than float32"],
    "sensitivity": ["fc1", "fc2", "density of the layer", "star: proposed density"],
}

# Colours that only the data has: lines, bars, points.
COLOURS = {"history": ["#1f77b4", "#ff7f0e"], "weights": ["#d62728"], "size": ["#1f77b4"], "sensitivity": ["#1f77b4"]}


def check_files(folder: Path) -> None:
    names = sorted(path.name for path in (folder / "plots").iterdir())
    assert names == sorted(f"{name}.{form}" for name in EXPECTED for form in ("png", "svg"))
    for name, words in EXPECTED.items():
        written = texts((folder / "plots" / f"{name}.svg").read_bytes())
        for word in words:
            assert word in written, (name, word)
        pixels = image.imread(folder / "plots" / f"{name}.png")
        assert pixels.shape[0] > 200
        assert pixels.shape[1] > 400
        for colour in COLOURS[name]:
            wanted = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
            drawn = np.abs(pixels[:, :, :3] - wanted).max(2) < 0.02
            assert drawn.sum() > 50, (name, colour)


@pytest.mark.verifies("plots-data-files")
def test_files_are_pictures_of_what_they_should_show(run: Path) -> None:
    check_files(run)


@pytest.mark.verifies("planted-fault-empty-plot")
def test_planted_fault_an_empty_plot_is_caught(run: Path, tmp_path: Path) -> None:
    for name in EXPECTED:
        for form in ("png", "svg"):
            path = tmp_path / "plots" / f"{name}.{form}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes((run / "plots" / path.name).read_bytes())
    check_files(tmp_path)
    figure = Figure(figsize=(7, 4.2))
    figure.subplots()
    (tmp_path / "plots" / "history.png").write_bytes(plots.picture(figure, "png"))
    with pytest.raises(AssertionError, match="history"):
        check_files(tmp_path)


def test_history_has_a_point_for_every_epoch(report: dict[str, Any]) -> None:
    left, right = plots._history(report).axes
    epochs = [epoch for stage in report["stages"] for epoch in stage["history"]]
    (accuracy,) = (line for line in left.lines if line.get_label() == "validation accuracy")
    assert list(accuracy.get_xdata()) == list(range(1, 8))
    assert list(accuracy.get_ydata()) == [100 * epoch["validation"] for epoch in epochs]
    (zeros,) = right.lines
    assert list(zeros.get_ydata()) == [100 * (1 - epoch["density"]) for epoch in epochs]
    # A line where a stage begins, but for the first.
    assert [line.get_xdata()[0] for line in left.lines if line is not accuracy] == [3.5, 5.5]


def test_weights_are_counted_at_their_shared_values(module: nn.Module) -> None:
    figure = plots._weights(module)
    sites = list(weights(module))
    assert len(figure.axes) == len(sites) == 2
    for axes, site in zip(figure.axes, sites, strict=True):
        value = site.value.detach().numpy()
        places, counts = axes.lines[-1].get_data()
        assert len(places) == 7
        assert sum(counts) == np.count_nonzero(value)
        for place, count in zip(places, counts, strict=True):
            assert count == (value == place).sum() > 0


def test_weights_that_are_not_shared_are_a_histogram() -> None:
    layer = nn.Linear(40, 30)
    (axes,) = plots._weights(nn.Sequential(layer)).axes
    assert sum(patch.get_height() for patch in axes.patches) == 1200


def test_sizes_of_all_parts_add_up_to_the_file(report: dict[str, Any]) -> None:
    (axes,) = plots._size(report).axes
    total = sum(patch.get_height() for patch in axes.patches)
    assert total == pytest.approx(report["size"]["file_bytes"], abs=2)
    assert report["size"]["file_bytes"] > 100


def test_sensitivity_shows_every_curve_and_proposal(report: dict[str, Any]) -> None:
    scan = report["stages"][1]
    (axes,) = plots._sensitivity(scan).axes
    curves = [line for line in axes.lines if len(line.get_xdata()) > 1]
    stars = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert [line.get_label() for line in curves] == list(scan["curves"])
    for line, star, (name, curve) in zip(curves, stars, scan["curves"].items(), strict=True):
        densities, accuracy = zip(*curve, strict=True)
        assert tuple(line.get_xdata()) == densities
        assert list(line.get_ydata()) == [100 * value for value in accuracy]
        assert list(star.get_xdata()) == [scan["proposal"][name]]


def test_tradeoff_sorts_its_curves() -> None:
    figure = plots.tradeoff({"both": [(40.0, 2.0), (10.0, 1.0)]}, 0.9, "title", {"paper": (20.0, 1.5)})
    curve, point, dense = figure.axes[0].lines
    assert list(curve.get_xdata()) == [10, 40]
    assert list(curve.get_ydata()) == [1, 2]
    assert (list(point.get_xdata()), list(point.get_ydata())) == ([20], [1.5])
    assert set(dense.get_ydata()) == {0.9}


def test_the_same_figure_gives_the_same_bytes(report: dict[str, Any]) -> None:
    for form in ("png", "svg"):
        first, second = (plots.picture(plots._history(report), form) for _ in range(2))
        assert first == second
        assert len(io.BytesIO(first).getvalue()) > 1000
