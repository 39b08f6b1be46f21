"""Shared values of a recurrent layer's two matrices: the array has a codebook for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler.lower.pipeline import lower
from compiler.source import load
from compiler.train import recipe
from compiler.train.run import train_recipe
from hw.params import Params


@pytest.mark.verifies("values-recurrent-layer-s-matrices")
def test_the_compiler_takes_the_values_of_both_as_they_are(tmp_path: Path) -> None:
    wanted = recipe.parse(
        {
            "name": "values",
            "seed": 2,
            "data": {"name": "digits", "validation": 0.2, "samples": 300},
            "model": {"name": "lstm", "hidden": 6},
            "stages": [
                {"kind": "prune", "epochs": 1, "learning_rate": 0.01, "density": 0.6},
                {"kind": "share", "epochs": 2, "learning_rate": 0.01, "code_bits": 4},
            ],
        },
        "values",
    )
    train_recipe(wanted, tmp_path / "run")
    source = load(str(tmp_path / "run"))
    for bits, clustered in ((4, False), (3, True)):
        _, reports = lower(source.graph, Params(pes=4, code_bits=bits), source.calibration)
        assert reports
        assert any(report.clustered for report in reports) == clustered
