"""A parameter server on Ray, on real processes: reads within the bound, a worker that is killed, a server that lies."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compiler import clusters
from compiler.errors import InputError, WorkerError
from compiler.train import checkpoint
from compiler.train.consistency.cluster import Driver, Settings, train
from compiler.train.consistency.delays import Delays
from compiler.train.consistency.learner import Learner

ROOT = Path(__file__).parents[4]
STEPS = 24


def make() -> Learner:
    """Sent by value, for the processes of Ray know nothing of tests."""
    from compiler.train.data import Split
    from compiler.train.images import Images
    from compiler.train.models import mlp
    from compiler.train.schedule import Schedule

    inputs = np.random.default_rng(1).uniform(size=(48, 4)).astype(np.float32)
    lesson = Images(Split(inputs, (inputs.sum(1) * 2 % 2).astype(np.int64)), (1, 2, 2))
    torch.manual_seed(1)
    return Learner(mlp(4, (3,), 2), lesson, Schedule(2, 4, 0.1, optimizer="sgd", momentum=0.0), 1, 2)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A cluster of this machine, for all tests here."""
    loaded = pytest.importorskip("ray")
    import sys

    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(ROOT))
        clusters.connect(clusters.load(), clusters.LOCAL, 2)
        yield loaded
        with contextlib.suppress(Exception):
            loaded.shutdown()


@pytest.mark.slow
@pytest.mark.verifies("staleness-cluster")
def test_a_worker_is_killed_and_nothing_is_lost(ray: Any, tmp_path: Path) -> None:
    killed: list[int] = []

    def told(states: list[dict[str, Any]]) -> None:
        if not killed and states[0]["applied"][1] >= 4:
            killed.append(states[0]["processes"][1][1])
            os.kill(killed[0], signal.SIGKILL)

    settings = Settings(2, 1, 1, every=5)
    trained = train(make, settings, tmp_path, delays=Delays("random", step=0.15), told=told)
    assert [fault["kind"] for fault in trained.faults] == ["killed"]
    assert trained.faults[0]["number"] == 1
    assert trained.faults[0]["seconds"] > 0
    assert max(trained.lags) <= 1
    assert STEPS < trained.reads <= 2 * STEPS  # of the processes that ended regularly
    _, content = checkpoint.load(tmp_path / "shard-0.safetensors")
    assert (content["applied"], content["incarnations"]) == ([STEPS, STEPS], [0, 1])
    with pytest.raises(InputError, match="holds a training already"):
        train(make, settings, tmp_path)


def test_too_many_replacements_end_it(tmp_path: Path) -> None:
    driver = Driver(None, make, Settings(2, restarts=1), tmp_path, None)
    driver._fault("killed", 0, "x")
    with pytest.raises(WorkerError, match="2 processes ended, the last one hung"):
        driver._fault("hung", 0, "y")
    assert Counter(fault["kind"] for fault in driver.faults) == {"killed": 1}
