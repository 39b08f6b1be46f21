"""The comparison with NNCodec at matched accuracy: its smallest file within the limit, by validation alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.compressed import CompressedModel
from sim.benchmarks import equal_error
from sim.benchmarks.equal_error import measure_equal_error, search

torch = pytest.importorskip("torch")


class Fake:
    """Bytes fall and errors rise with the step size; finer biases cost bytes; scan order 3 saves ten."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []

    def encode(self, settings: Mapping[str, Any]) -> tuple[int, dict[str, np.ndarray]] | None:
        self.asked.append(settings)
        if settings["lambda_scale"] > 0.5:
            return None  # refused
        size = 5000 - 40 * settings["qp"] - 2 * settings["nonweight_qp"] - 10 * (settings["scan_order"] == 3)
        error = max(settings["qp"] + 8, 0) + max(settings["nonweight_qp"] + 16, 0)
        return size, {"fc.weight": np.full(1, error, np.float32)}


def wrong(values: Mapping[str, np.ndarray]) -> int:
    return 30 + int(values["fc.weight"][0])


@pytest.mark.verifies("nncodec-matched-accuracy-smallest-file")
def test_the_smallest_file_within_the_limit_is_found() -> None:
    fake = Fake()
    best, tried = search(fake, wrong, 35, lambda what: None, True)  # type: ignore[arg-type]
    assert best is not None
    assert best.settings["qp"] == -3
    assert best.settings["nonweight_qp"] == -16
    assert best.settings["scan_order"] == 3
    assert best.bytes == 5000 + 120 + 32 - 10
    assert 300 < tried < len(fake.asked)  # those that are measured are made again


def test_without_a_file_within_the_limit_there_is_none() -> None:
    assert search(Fake(), wrong, 29, lambda what: None)[0] is None  # type: ignore[arg-type]


@pytest.mark.verifies("planted-fault-limit-errors-kept")
def test_planted_fault_a_limit_that_is_not_kept_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that asks nobody for the errors ends at the coarsest steps."""
    best, _ = search(Fake(), lambda values: 0, 35, lambda what: None)  # type: ignore[arg-type]
    assert best is not None
    assert wrong(Fake().encode(best.settings)[1]) > 35  # type: ignore[index]


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """A short run on the digits that prunes, then shares."""
    from compiler.train.recipe import parse
    from compiler.train.run import train_recipe
    from compiler.train.runfolder import load_run

    train = {"epochs": 1, "batch": 64, "learning_rate": 2e-3}
    recipe = parse(
        {
            "name": "tiny", "seed": 1, "threads": 1,
            "data": {"name": "digits", "validation": 0.2},
            "model": {"name": "mlp", "hidden": [16]},
            "stages": [
                {"kind": "prune", "density": 0.3, **train},
                {"kind": "share", "code_bits": 3, **train},
            ],
        },
        "here",
    )  # fmt: skip
    train_recipe(recipe, tmp_path / "run")
    return load_run(tmp_path / "run")


@pytest.mark.verifies("nncodec-matched-accuracy-gets-pruned")
def test_nncodec_gets_the_pruned_network_before_sharing(run: Any) -> None:
    """Its values are the checkpoint's, its errors those of the values that it gives back."""
    given: dict[str, np.ndarray] = {}

    class Quantizer(Fake):
        def encode(self, settings: Mapping[str, Any]) -> tuple[int, dict[str, np.ndarray]]:
            zeroed = settings["qp"] > -10
            return 900 - settings["qp"], {name: value * (not zeroed) for name, value in given.items()}

    class Stand:
        def quantizer(self, tensors: Mapping[str, np.ndarray]) -> Any:
            from contextlib import nullcontext

            given.update(tensors)
            return nullcontext(Quantizer())

    network = CompressedModel.from_state({key: value.numpy() for key, value in run.module.state_dict().items()})
    row = measure_equal_error("run", run, network, Stand(), lambda what: None)  # type: ignore[arg-type]
    weight = given["fc1.weight"]
    assert 0 < np.count_nonzero(weight) < weight.size
    assert len(np.unique(weight)) > 8  # not shared yet
    assert row.kit_validation is not None
    if row.nncodec_bytes is None:
        assert "reach" in row.note  # the float network is worse than the shared one that was trained on
    else:
        assert row.nncodec_bytes == 910
        assert row.nncodec_validation is not None
        assert row.nncodec_validation <= row.kit_validation
        assert row.settings["qp"] == -10


def test_a_run_without_sharing_says_so(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(run), "before_sharing", lambda self: None)
    row = equal_error.measure_equal_error("run", run, None, None, lambda what: None)  # type: ignore[arg-type]
    assert row.kit_bytes is None
    assert "no checkpoint" in row.note
