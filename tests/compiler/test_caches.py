"""A machine without a home folder, a cache with blanks in its path, and variables that others have set."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from compiler.caches import cache_folder, settle, writable

ROOT = Path(__file__).parents[2]
VARIABLES = ("EIE_CACHE", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "YOWASP_CACHE_DIR")
NOWHERE = "/proc/nowhere"  # not even root can make a folder there


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that monkeypatch restores what the code under test sets
        monkeypatch.delenv(name)


def test_by_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / ".cache" / "eie"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "eie"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "eie"


def test_a_given_folder_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EIE_CACHE", "my cache")
    assert cache_folder() == tmp_path / "my cache"


def test_without_a_home_that_can_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", NOWHERE)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = settle()
    assert folder.parent == tmp_path
    assert writable(folder)
    assert folder.stat().st_mode & 0o077 == 0
    assert cache_folder() == folder / "eie"
    assert os.environ["XDG_CACHE_HOME"] == str(folder)
    assert settle() == folder


def test_somebody_elses_temporary_folder_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", NOWHERE)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / f"eie-cache-{os.getuid()}"
    link.symlink_to(tmp_path / "elsewhere")
    assert settle() not in (link, tmp_path / "elsewhere")


@pytest.mark.verifies("home-blanks-cache-s-path")
def test_verilog_and_cycles_without_a_home(tmp_path: Path) -> None:
    code = (
        "from hw.params import preset; from hw.export import verilog_text\n"
        "from compiler.caches import settle; settle()\n"
        "assert 'module' in verilog_text(preset('BALANCED_1'))\n"
        "import compiler.cycles.model\n"
    )
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment = {**kept, "HOME": NOWHERE, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "COCOTB_TEST_FILTER", "COCOTB_TESTCASE", "VERILATOR_BIN", "VERILATOR_TEST_FLAGS", "OBJCACHE", "MAKEFILES",
        "GNUMAKEFLAGS", "CXXFLAGS", "LDFLAGS", "GPI_EXTRA", "RANDOM_SEED", "TOPLEVEL",
    ],
)  # fmt: skip
def test_variables_of_others_do_not_reach_the_tools(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sim.rtl.build import tool_environment

    monkeypatch.setenv(name, "nonsense")
    monkeypatch.setenv("MAKEFLAGS", "nonsense")
    found = tool_environment()
    assert name not in found
    assert found["MAKEFLAGS"] == ""
    assert found["HOME"] == os.environ["HOME"]


@pytest.mark.verifies("home-blanks-cache-s-path")
@pytest.mark.rtl
@pytest.mark.slow
def test_rtl_runs_with_all_of_it_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import numpy as np

    from compiler.graph.dense import Dense, dense_graph
    from compiler.lower.pipeline import compile_graph
    from hw.params import preset
    from sim.network import run_network

    for name in ("COCOTB_TEST_FILTER", "COCOTB_TESTCASE", "VERILATOR_BIN", "OBJCACHE", "VERILATOR_TEST_FLAGS"):
        monkeypatch.setenv(name, "nonsense")
    kept, own = cache_folder() / "verilator", tmp_path / "a cache" / "verilator"
    for library in kept.glob("library-*"):  # Verilator's own, which others have compiled: half of the time
        shutil.copytree(library, own / library.name)
    monkeypatch.setenv("EIE_CACHE", str(tmp_path / "a cache"))
    x = np.arange(8, dtype=np.int16).reshape(2, 4)
    network = compile_graph(dense_graph([Dense("a", np.eye(4, dtype=np.float32))]), preset("BALANCED_1"), x)
    for _ in range(2):  # built, then taken from the cache
        rtl, golden = (run_network(network, x, engine=engine).raw for engine in ("rtl", "golden"))
        np.testing.assert_array_equal(rtl, golden)
    (built,) = (each for each in own.iterdir() if not each.name.startswith("library-"))
    assert (built / "eie_accelerator").is_file()
