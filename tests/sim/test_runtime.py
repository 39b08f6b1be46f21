"""Object files that builds of simulators lend one another: Verilator's library, and nothing that knows the array."""

from __future__ import annotations

from pathlib import Path

import cocotb_tools.config
import pytest

from compiler.errors import ToolError
from hw.params import preset
from sim.rtl import build, runtime

FLAGS = ("-O3",)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EIE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "verilator").mkdir(parents=True)


def lent(tmp_path: Path, flags: tuple[str, ...] = FLAGS) -> set[str]:
    """What the second build gets of the first."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    for name in ("verilated.o", "verilated_vpi.o", "verilator.o", "Vtop.o", "Vtop__ALL.a"):
        (first / name).write_text("of the first")
    runtime.keep(first, FLAGS)
    runtime.lend(second, flags)
    return {path.name for path in second.iterdir()}


@pytest.mark.verifies("builds-simulators-share-verilator-s")
def test_the_library_is_lent_and_nothing_else(tmp_path: Path) -> None:
    assert lent(tmp_path) == {"verilated.o", "verilated_vpi.o"}


@pytest.mark.verifies("builds-simulators-share-verilator-s")
def test_other_flags_get_nothing(tmp_path: Path) -> None:
    assert lent(tmp_path, ("-O0",)) == set()


@pytest.mark.verifies("builds-simulators-share-verilator-s")
def test_planted_fault_cocotbs_main_lent_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes the model by its size, which the ports of the array decide."""
    main = cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"
    assert '#include "Vtop.h"' in main.read_text()
    monkeypatch.setattr(runtime, "_OBJECTS", "verilat*.o")
    assert f"{main.stem}.o" in lent(tmp_path)


@pytest.mark.verifies("builds-simulators-share-verilator-s")
@pytest.mark.parametrize(
    ("said", "given", "quick"), [("quick", None, True), ("", None, False), ("quick", False, False)]
)
def test_the_environment_asks_for_builds_that_take_less_time(
    said: str, given: bool | None, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(*arguments: object) -> None:
        raise ToolError(f"quick: {arguments[-1]}")

    monkeypatch.setenv("EIE_BUILD", said)
    monkeypatch.setattr(build, "_compile", compiled)
    with pytest.raises(ToolError, match=f"^quick: {quick}$"):
        build.build(preset("BALANCED_1"), quick=given)
