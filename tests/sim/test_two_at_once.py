"""Two processes that want the same of a cache at once: both have it whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Verilator itself is left out: it takes a minute, and what is looked at is how its result comes to its place.
SIMULATOR = """
import time, sys
import sim.rtl.build as b
from hw.accelerator import TOP_MODULE
from hw.params import Params

def compiled(work, *rest):
    with (work / TOP_MODULE).open("w") as file:
        for n in range(40):
            file.write(f"{n}\\n")
            file.flush()
            time.sleep(0.01)

b.array_verilog = lambda *rest: "the Verilog"
b._compile = compiled
print("ready", flush=True)
sys.stdin.readline()
built = b.build(Params())
print(built.folder.name, (built.folder / TOP_MODULE).read_text().split() == [str(n) for n in range(40)])
"""

BOARD = """
import time, sys
from pathlib import Path
from compiler.claim import alone
from sim.fpga.place import _made

print("ready", flush=True)
sys.stdin.readline()
target = Path(sys.argv[1]) / "fpga" / "board"
made = False
with alone(target):
    if not (target / "seconds.json").exists():
        made = True
        with _made(target) as work:
            for n in range(40):
                (work / str(n)).write_text(str(n))
                time.sleep(0.01)
            (work / "seconds.json").write_text("{}")
print(made, sorted(path.name for path in target.iterdir()) == sorted([*map(str, range(40)), "seconds.json"]))
"""


def together(script: str, cache: Path) -> list[list[str]]:
    """The last words of two processes that begin at once."""
    command = [sys.executable, "-c", script, str(cache)]

    both = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "EIE_CACHE": str(cache)},
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = []
    for process in both:
        said, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        found.append(said.split())
    return found


@pytest.mark.verifies("robust-two-at-once")
def test_two_builds_of_one_simulator_are_both_whole(tmp_path: Path) -> None:
    (one, whole), (other, too) = together(SIMULATOR, tmp_path)
    assert (one, whole, too) == (other, "True", "True")
    assert [path.name for path in (tmp_path / "verilator").iterdir()] == [one]


@pytest.mark.verifies("robust-two-at-once")
def test_one_of_two_makes_a_netlist_and_the_other_waits_for_it(tmp_path: Path) -> None:
    found = together(BOARD, tmp_path)
    assert sorted(found) == [["False", "True"], ["True", "True"]]
    assert sorted(path.name for path in (tmp_path / "fpga").iterdir()) == ["board", "board.lock"]


@pytest.mark.verifies("robust-two-at-once")
def test_planted_fault_without_the_lock_both_make_it(tmp_path: Path) -> None:
    free = BOARD.replace("with alone(target):", "if True:")
    try:
        found = together(free, tmp_path)
    except AssertionError:  # the folder of the first was removed under it
        return
    assert found.count(["True", "True"]) == 2


@pytest.mark.verifies("robust-two-at-once")
@pytest.mark.parametrize("signal", ["kill", "terminate"])
def test_a_lock_ends_with_its_process(tmp_path: Path, signal: str) -> None:
    script = "import sys, time\nfrom pathlib import Path\nfrom compiler.claim import alone\n"
    script += "with alone(Path(sys.argv[1]) / 'x'):\n    print('in', flush=True)\n    time.sleep(float(sys.argv[2]))\n"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), "60"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "in\n"
    getattr(holder, signal)()
    holder.wait()
    holder.stdout.close()
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), "0"], cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    assert done.stdout == "in\n"
