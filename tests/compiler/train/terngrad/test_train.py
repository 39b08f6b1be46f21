"""Distributed training from its recipe: a worker that is killed, errors instead of waiting, and going on."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from compiler.errors import RecipeError, ToolError, WorkerError
from compiler.train.checkpoint import load as load_checkpoint
from compiler.train.terngrad import job, train
from tests.compiler.train.terngrad.processes import LIMIT, environment, free_port, start, stop

WORKERS = 2
RECIPE = """
[data]
name = "digits"
samples = 400
[model]
name = "mlp"
hidden = [24, 12]
[schedule]
epochs = 8
batch = 20
optimizer = "sgd"
learning_rate = 0.05
[terngrad]
smallest = 100
float_every = 3
"""
SHIPPED = sorted((Path(__file__).parents[4] / "recipes" / "distributed").glob("*.toml"))


def worker(rank: int, port: int, recipe: str, out: str, more: list[str]) -> None:
    environment(rank, WORKERS, port)
    with open(f"{out}.{rank}", "a", encoding="utf-8") as log, contextlib.redirect_stderr(log):
        code = train.main([recipe, "-o", out, "--timeout", "30", *more])
    os._exit(code)


def in_second_epoch(out: Path) -> None:
    """Wait until a training is."""
    end = time.monotonic() + LIMIT
    while epochs_done(out) < 2 and time.monotonic() < end:
        time.sleep(0.01)


def begin(recipe: Path, out: Path, *more: str) -> list[BaseProcess]:
    port = free_port()
    return [start(worker, rank, port, str(recipe), str(out), list(more)) for rank in range(WORKERS)]


def codes(running: list[BaseProcess]) -> list[int | None]:
    """Exit codes; None for a process that hangs."""
    for process in running:
        process.join(LIMIT)
    found = [process.exitcode for process in running]
    stop(running)
    return found


def epochs_done(out: Path) -> int:
    path = out / train.CHECKPOINT
    return int(load_checkpoint(path)[1]["done"]) if path.is_file() else 0


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("job") / "job.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(recipe: Path) -> Path:
    """A training that nothing broke."""
    out = recipe.parent / "whole"
    assert codes(begin(recipe, out)) == [0] * WORKERS
    return out


@pytest.mark.verifies("killed-worker-ends-others-error")
@pytest.mark.parametrize("victim", range(WORKERS))
def test_a_killed_worker_ends_the_others_and_a_restart_goes_on_bit_for_bit(
    victim: int, recipe: Path, whole: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    running = begin(recipe, broken)
    in_second_epoch(broken)
    victim_id = running[victim].pid
    assert victim_id is not None
    os.kill(victim_id, signal.SIGKILL)
    found = codes(running)
    other = 1 - victim
    assert found[other] == WorkerError.exit_code
    assert found[victim] == -signal.SIGKILL
    assert "start all of them again with --resume" in Path(f"{broken}.{other}").read_text(encoding="utf-8")
    assert 2 <= epochs_done(broken) < 8
    assert codes(begin(recipe, broken, "--resume")) == [0] * WORKERS
    expected, result = (load_checkpoint(out / train.CHECKPOINT) for out in (whole, broken))
    assert {name: bool((value == expected[0][name]).all()) for name, value in result[0].items()} == dict.fromkeys(
        expected[0], True
    )
    assert result[1]["history"] == expected[1]["history"]


@pytest.mark.verifies("killed-worker-ends-others-error")
def test_a_worker_that_is_silent_counts_as_gone(recipe: Path, tmp_path: Path) -> None:
    running = begin(recipe, tmp_path / "out", "--timeout", "8")
    in_second_epoch(tmp_path / "out")
    silent = running[1]
    assert silent.pid is not None
    os.kill(silent.pid, signal.SIGSTOP)
    try:
        running[0].join(LIMIT)
        assert running[0].exitcode == WorkerError.exit_code
    finally:
        silent.kill()
        stop(running)
    assert "does not answer" in Path(f"{tmp_path / 'out'}.0").read_text(encoding="utf-8")


def test_a_run_that_is_there_is_not_overwritten(recipe: Path, whole: Path) -> None:
    assert codes(begin(recipe, whole)) == [2] * WORKERS
    assert "continue it with --resume" in Path(f"{whole}.0").read_text(encoding="utf-8")


def test_without_torchrun_it_says_what_to_do(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ToolError, match="start this with torchrun"):
        train.train(job.load(recipe), tmp_path / "out")
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert train.main([str(recipe), "-o", str(tmp_path / "out")]) == ToolError.exit_code
    assert "torchrun" in said.getvalue()


def parsed(change: dict[str, Any]) -> job.Job:
    content: dict[str, Any] = {
        "name": "x",
        "data": {"name": "digits"},
        "model": {"name": "mlp", "hidden": [8]},
        "schedule": {"epochs": 1, "learning_rate": 0.1},
    }
    return job.parse({**content, **change}, "x.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"name": "letters"}}, "data.name is 'letters'"),
        ({"terngrad": {"clip": -1}}, "terngrad.clip is -1"),
        ({"terngrad": {"scale": 1}}, "unknown key terngrad.scale"),
        ({"schedule": {"epochs": 0, "learning_rate": 0.1}}, "schedule.epochs is 0"),
        ({"stages": []}, "unknown key schedule"),
    ],
)
def test_wrong_recipes_say_what_is_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parsed(change)


def test_a_batch_must_feed_all_workers() -> None:
    with pytest.raises(RecipeError, match="fewer than the 8 workers"):
        parsed({"schedule": {"epochs": 1, "learning_rate": 0.1, "batch": 4}}).data(None, 8)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_come_back_from_their_own_form(path: Path) -> None:
    shipped = job.load(path)
    assert job.parse(shipped.asdict(), "again") == shipped
