"""Several seeds of one recipe: every run is kept, and the figures of all are put together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compiler.errors import InputError
from compiler.train import recipe
from compiler.train.seeds import train_seeds

TINY = recipe.parse(
    {
        "name": "tiny",
        "seeds": [3, 8],
        "data": {"name": "digits", "validation": 0.2, "samples": 200},
        "model": {"name": "mlp", "hidden": [8]},
        "stages": [
            {"kind": "dense", "epochs": 1, "learning_rate": 0.01},
            {"kind": "prune", "epochs": 1, "learning_rate": 0.01, "density": 0.3},
        ],
    },
    "tiny",
)


@pytest.mark.verifies("several-seeds-mean-worst")
def test_mean_and_worst_of_two_seeds(tmp_path: Path) -> None:
    summary = train_seeds(TINY, tmp_path / "runs")
    assert [row["seed"] for row in summary["runs"]] == [3, 8]
    reports = [json.loads((tmp_path / "runs" / name).read_text()) for name in summary["reports"]]
    errors = [100 * (1 - report["stages"][-1]["accuracy"]["test"]) for report in reports]
    sizes = [(tmp_path / "runs" / f"seed-{seed}" / "model.eiez").stat().st_size for seed in (3, 8)]
    assert errors[0] != errors[1]
    assert summary["mean"]["test_error"] == pytest.approx(sum(errors) / 2, abs=1e-3)
    assert summary["worst"]["test_error"] == pytest.approx(max(errors), abs=1e-3)
    assert summary["worst"]["file_bytes"] == max(sizes)
    assert summary["worst"]["ratio"] == pytest.approx(summary["dense_bytes"] / max(sizes), abs=0.01)
    assert json.loads((tmp_path / "runs" / "summary.json").read_text()) == summary
    with pytest.raises(InputError, match="exist already; continue with --resume"):
        train_seeds(TINY, tmp_path / "runs")
    assert train_seeds(TINY, tmp_path / "runs", resume=True)["runs"] == summary["runs"]
