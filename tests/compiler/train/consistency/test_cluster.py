"""A parameter server on Ray, on real processes: reads within the bound, a worker that is killed, a server that lies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from compiler import clusters
from compiler.errors import InputError, WorkerError
from compiler.train import checkpoint
from compiler.train.consistency.actors import Server
from compiler.train.consistency.cluster import Driver, Settings, train
from compiler.train.consistency.delays import Delays
from compiler.train.consistency.learner import Learner
from compiler.train.consistency.run import learner_of
from compiler.train.consistency.shard import shard_path
from compiler.train.consistency.simulate import Fault, Simulation
from compiler.train.taken import SHARDS
from compiler.train.terngrad.job import load
from eie.cli import cli

ROOT = Path(__file__).parents[4]
STEPS = 24


def make(until: str = "") -> Learner:
    """Sent by value, for the processes of Ray know nothing of tests.

    until : a file, without which worker 1 makes no more than six updates.
    """
    import time

    from compiler.train.data import Split
    from compiler.train.images import Images
    from compiler.train.models import mlp
    from compiler.train.schedule import Schedule

    inputs = np.random.default_rng(1).uniform(size=(48, 4)).astype(np.float32)
    lesson = Images(Split(inputs, (inputs.sum(1) * 2 % 2).astype(np.int64)), (1, 2, 2))
    torch.manual_seed(1)

    class Held(Learner):
        def update(self, values: Any, worker: int, clock: int) -> Any:
            while until and worker == 1 and clock == 6 and not os.path.exists(until):
                time.sleep(0.05)
            return super().update(values, worker, clock)

    return Held(mlp(4, (3,), 2), lesson, Schedule(2, 4, 0.1, optimizer="sgd", momentum=0.0), 1, 2)


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
            (tmp_path / "killed").touch()

    settings = Settings(2, 1, 1, every=5, overlap=True)
    held = partial(make, str(tmp_path / "killed"))
    trained = train(held, settings, tmp_path, delays=Delays("random", step=0.01), told=told)
    assert [fault["kind"] for fault in trained.faults] == ["killed"]
    assert trained.faults[0]["number"] == 1
    assert trained.faults[0]["seconds"] > 0
    assert max(trained.lags) <= 1
    assert STEPS < trained.reads <= 2 * STEPS  # of the processes that ended regularly
    _, content = checkpoint.load(tmp_path / "shard-0.safetensors")
    assert (content["applied"], content["incarnations"]) == ([STEPS, STEPS], [0, 1])
    with pytest.raises(InputError, match="holds a training already"):
        train(make, settings, tmp_path)


RECIPE = """
seed = 2
[data]
name = "digits"
samples = 80
[model]
name = "mlp"
hidden = [4]
[schedule]
epochs = 4
batch = 10
learning_rate = 0.1
optimizer = "sgd"
momentum = 0
"""


@pytest.mark.slow
@pytest.mark.verifies("staleness-cluster")
def test_a_run_that_was_interrupted_goes_on_to_its_end(ray: Any, tmp_path: Path) -> None:
    """Simulated until a worker has been replaced and all have made some updates; then `eie train --resume`."""
    recipe, out = tmp_path / "job.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    job = load(recipe)
    begun = Simulation(
        learner_of(job.asdict(), None, 2), Delays("none"), staleness=1, shards=1, folder=out / SHARDS, every=2
    )
    begun.run(lambda: -float(begun.shards[0].clocks.applied[1] > 8), -0.5, [Fault("killed", 1, 2.5)])
    (out / SHARDS / "recipe.json").write_text(json.dumps(job.asdict()))
    _, content = checkpoint.load(shard_path(out / SHARDS, 0))
    assert (min(content["applied"]), content["incarnations"]) == (8, [0, 1])

    def run(*more: str) -> Any:
        return CliRunner().invoke(
            cli, ["train", str(recipe), "-o", str(out), "--workers", "2", "--parallel", "server", *more]
        )

    assert "continue it with --resume" in " ".join(run().output.split())
    done = run("--resume", "--staleness", "1", "--overlap")
    assert done.exit_code == 0, done.output
    report = json.loads((out / "report.json").read_text())
    assert report["parallel"]["replaced"] == []
    _, content = checkpoint.load(shard_path(out / SHARDS, 0))
    total = learner_of(job.asdict(), None, 2).total
    assert content["applied"] == [total, total]
    assert report["parallel"]["reads"] == 2 * total - sum(begun.shards[0].durable)
    assert run("--resume").exit_code == 0
    assert json.loads((out / "report.json").read_text()) == report  # left as it is
    recipe.write_text(RECIPE.replace("seed = 2", "seed = 3"))
    other = " ".join(run("--resume").output.replace("│", " ").split())
    assert "was begun by another recipe (it differs in seed)" in other


@pytest.mark.verifies("staleness-faults")
def test_a_server_has_all_updates_of_a_worker_that_ended(tmp_path: Path) -> None:
    """Others are far behind: no checkpoint is due. Without the word `last`, the updates would be in memory only."""

    async def applied(last: bool) -> list[int]:
        path, update = shard_path(tmp_path / str(last), 0), {"a": np.ones(2, np.float32)}
        server = Server(0, {"a": np.zeros(2, np.float32)}, 2, None, path, 20)
        for clock in range(3):
            await server.push(0, 0, clock, update, last and clock == 2)
        assert await server.push(0, 0, 2, update, last) == (3 if last else 0)  # sent again
        return Server(0, {"a": np.zeros(2, np.float32)}, 2, None, path, 20).shard.clocks.applied

    assert asyncio.run(applied(True)) == [3, 0]
    assert asyncio.run(applied(False)) == [0, 0]


class Gone(Exception):
    """As Ray's errors."""


class Actor:
    """Answers, or is gone."""

    def __init__(self, answers: bool) -> None:
        self.answers = answers

    def __getattr__(self, name: str) -> Any:
        return self

    def remote(self, *arguments: Any) -> bool:
        return self.answers


class Rays:
    """What the driver needs of Ray."""

    exceptions = SimpleNamespace(
        RayActorError=Gone, GetTimeoutError=TimeoutError, RayTaskError=ZeroDivisionError, RayError=Gone
    )

    def get(self, answers: bool, timeout: float) -> dict[str, Any]:
        if not answers:
            raise Gone("x")
        return state([3, 4])

    def kill(self, actor: Any) -> None:
        pass


def state(applied: list[int], incarnations: tuple[int, ...] = (0, 0), waiting: tuple[Any, ...] = ()) -> dict[str, Any]:
    return {"applied": applied, "incarnations": list(incarnations), "waiting": list(waiting)}


def test_a_training_that_goes_on_begins_with_what_there_is(tmp_path: Path) -> None:
    driver = Driver(None, make, Settings(2, 2), tmp_path, None)
    driver._first([state([3, 4], (0, 1)), state([5, 2], (2, 0))])
    assert driver.incarnations == [2, 1]
    assert [driver.signs["worker", worker].count for worker in range(2)] == [3, 2]
    assert all(sign.fresh for sign in driver.signs.values())


@pytest.mark.verifies("staleness-faults")
def test_after_a_server_is_back_no_worker_counts_as_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(Rays(), make, Settings(2, 1, timeout=5.0), tmp_path, None)
    driver.running, driver.servers = {"a": 0, "b": 1}, [Actor(False)]
    replaced: list[tuple[str, int]] = []
    monkeypatch.setattr(driver, "_replace", lambda kind, worker, reason: replaced.append((kind, worker)))
    monkeypatch.setattr(driver, "_serve", lambda number: Actor(True))
    before = time.monotonic() - 6
    for sign in driver.signs.values():
        sign.count, sign.at, sign.fresh = 9, before, False
    states = driver._look()
    driver._hung(states)
    assert not replaced
    assert driver.faults[0]["kind"] == "server"
    assert driver.faults[0]["had"] == 9
    driver.signs["worker", 1].at = before
    driver._hung(states)
    assert replaced == [("hung", 1)]


@pytest.mark.verifies("staleness-faults")
def test_a_process_that_hangs_before_it_joins_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the one before it was waiting for a read when it was killed, and is noted down as such."""
    driver = Driver(None, make, Settings(2, 1, timeout=5.0), tmp_path, None)
    driver.running, driver.incarnations = {"a": 0, "b": 1}, [0, 1]
    replaced: list[int] = []
    monkeypatch.setattr(driver, "_replace", lambda kind, worker, reason: replaced.append(worker))
    for sign in driver.signs.values():
        sign.at, sign.fresh = time.monotonic() - 6, False
    driver._hung([state([3, 3], (0, 0), ((0, 0), (1, 0)))])
    assert replaced == [1]


def test_seconds_of_a_fault_begin_with_what_came_before_it(tmp_path: Path) -> None:
    driver = Driver(None, make, Settings(2, 1), tmp_path, None)
    driver._note([state([1, 1])])
    driver._fault("killed", 1, "x")
    driver._note([state([1, 2])])  # which the process that was killed had sent
    assert "seconds" not in driver.faults[0]
    driver._note([state([1, 3])])
    assert driver.faults[0]["seconds"] >= 0


def test_too_many_replacements_end_it(tmp_path: Path) -> None:
    driver = Driver(None, make, Settings(2, restarts=1), tmp_path, None)
    driver._fault("killed", 0, "x")
    with pytest.raises(WorkerError, match="2 processes ended, the last one hung"):
        driver._fault("hung", 0, "y")
    assert Counter(fault["kind"] for fault in driver.faults) == {"killed": 1}
