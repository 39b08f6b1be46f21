"""One seed decides every random number of a run, hypothesis included: else a failure cannot be replayed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).with_name("conftest.py")

DRAWS = """
from hypothesis import given, settings, strategies as st

seen = []

@settings(max_examples=5)
@given(st.integers(0, 10**9))
def test_draw(n):
    seen.append(n)

def test_show(seed, rng):
    print("DREW", seed, rng.integers(10**9), seen)
"""


def draws(folder: Path, *options: str) -> tuple[str, str]:
    """What a run with these options says of its seed, and the numbers that its tests drew."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-s",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        *options,
        "test_draw.py",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    header, drew = (next(line for line in done.stdout.splitlines() if word in line) for word in ("seed: ", "DREW"))
    return header, drew[drew.index("DREW") :]


def test_seed_is_printed_and_replays_every_random_number(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "test_draw.py").write_text(DRAWS, encoding="utf-8")
    header, first = draws(tmp_path, "--seed", "7")
    assert "--seed 7" in header
    assert first.startswith("DREW 7 ")
    assert draws(tmp_path, "--seed", "7")[1] == first
    _, seed, number, examples = first.split(maxsplit=3)
    _, other_seed, other_number, other_examples = draws(tmp_path)[1].split(maxsplit=3)  # the default seed
    assert other_seed != seed
    assert other_number != number
    assert other_examples != examples
