"""Verilog that is kept: of the same hardware, of the same array, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from hw.params import Params, preset
from sim import sources
from sim.rtl import exported

WRITTEN: list[Params] = []


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def text(params: Params, annotated: bool) -> str:
        WRITTEN.append(params)
        return f"{params.pes} {annotated}"

    WRITTEN.clear()
    monkeypatch.setenv("EIE_CACHE", str(tmp_path))
    monkeypatch.setattr(exported, "verilog_text", text)


def another_process() -> None:
    exported.array_verilog.cache_clear()
    exported._hardware.cache_clear()


@pytest.fixture(autouse=True)
def forgotten():
    another_process()
    yield
    another_process()


def test_a_second_process_takes_what_the_first_wrote() -> None:
    params = preset("BALANCED_1")
    first = exported.array_verilog(params)
    another_process()
    assert exported.array_verilog(params) == first == "1 False"
    assert WRITTEN == [params]


def test_another_array_or_form_is_another_text() -> None:
    small = preset("BALANCED_1")
    texts = {
        exported.array_verilog(params, annotated)
        for params in (small, small.replace(pes=2))
        for annotated in (False, True)
    }
    assert texts == {"1 False", "1 True", "2 False", "2 True"}


def test_other_hardware_writes_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the hash is of are the files of hw/ as they are, so that an edit is never hidden by what was kept."""
    changed = tmp_path / "hw"
    changed.mkdir()
    (changed / "pe.py").write_text("a = 1\n")
    monkeypatch.setattr(sources.resources, "files", lambda package: changed)
    exported.array_verilog(preset("BALANCED_1"))
    (changed / "pe.py").write_text("a = 2\n")
    another_process()
    exported.array_verilog(preset("BALANCED_1"))
    assert len(WRITTEN) == 2


def test_a_cache_that_cannot_be_written_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EIE_CACHE", str(tmp_path / "file"))
    assert exported.array_verilog(preset("BALANCED_1")) == "1 False"
