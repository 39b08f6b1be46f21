"""``eie train`` in a process of its own, killed by the system in the middle of a stage, and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compiler.train import checkpoint

RECIPE = """
name = "killed"
seed = 3
[data]
name = "digits"
samples = 500
[model]
name = "mlp"
hidden = [24]
[[stages]]
kind = "dense"
epochs = 4
learning_rate = 5e-3
[[stages]]
kind = "prune"
epochs = 40
learning_rate = 5e-3
density = 0.3
[[stages]]
kind = "share"
epochs = 3
learning_rate = 1e-3
labels = "free"
"""

SECONDS = 300  # for anything to happen at all, on a machine that is very busy

# What a run leaves that does not say how long it took.
FILES = ("model.safetensors", "model.eiez", "calibration.npy")


def train(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "eie", "train", "recipe.toml", "-o", str(folder), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder.parent, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors.decode()


def kill_within(process: subprocess.Popen[bytes], folder: Path, stage: str) -> int:
    """Kill the process some epochs into `stage`; how many of them its checkpoint holds."""
    current = folder / "checkpoints" / "current.safetensors"
    begun, deadline = None, time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if current.exists():
            done = current.stat().st_mtime_ns
            position = _position(current)
            if position is not None and position[0] == stage:
                begun = begun or done
                if done != begun:  # at least one more epoch since the stage was first seen
                    break
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    position = _position(current)
    assert position is not None
    assert position[0] == stage
    return position[1]


def _position(path: Path) -> tuple[str, int] | None:
    try:
        _, content = checkpoint.load(path)
    except Exception:  # a stage has just ended
        return None
    return str(content["record"]["stage"]), int(content["epoch"])


@pytest.mark.verifies("training-eie-train-killed-sigkill")
@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    whole = train(tmp_path / "unbroken")
    broken = train(tmp_path / "killed")
    done = kill_within(broken, tmp_path / "killed", "prune")
    assert 1 <= done < 40
    finish(whole)
    finish(train(tmp_path / "killed", "--resume"))
    for name in FILES:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name
    left = {path.relative_to(tmp_path / "unbroken") for path in (tmp_path / "unbroken").rglob("*") if path.is_file()}
    found = {path.relative_to(tmp_path / "killed") for path in (tmp_path / "killed").rglob("*") if path.is_file()}
    assert left <= found
