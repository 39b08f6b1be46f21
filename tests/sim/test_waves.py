"""A waveform within its limit: whole if it fits, else cut where a viewer can still read it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from sim.rtl.vcd import VcdWaves

VCD = b"$enddefinitions $end\n" + b"".join(b"#%d\n1a\nb%s b\n" % (time, bin(time)[2:].encode()) for time in range(5000))


def through(folder: Path, limit: int, content: bytes = VCD) -> VcdWaves:
    waves = VcdWaves(folder / "dump.vcd", limit)
    with waves:
        with waves.dump.open("wb") as simulator:
            simulator.write(content)
    return waves


def test_a_short_file_stays_what_it_is(tmp_path: Path) -> None:
    waves = through(tmp_path, len(VCD))
    assert waves.kept.read_bytes() == VCD
    assert not waves.cut
    assert not waves.dump.exists()


@pytest.mark.verifies("waveforms-end-limit-whole-time")
@pytest.mark.parametrize("limit", [100, 5000, 70_000, len(VCD) - 1])
def test_a_long_file_ends_with_a_whole_time_step(limit: int, tmp_path: Path) -> None:
    waves = through(tmp_path, limit)
    kept = waves.kept.read_bytes()
    assert waves.cut
    assert limit - 40 < len(kept) <= limit
    assert VCD.startswith(kept)
    assert VCD[len(kept) :].startswith(b"#")
    assert waves.written == len(VCD)


def test_a_simulator_that_writes_nothing_is_no_wait(tmp_path: Path) -> None:
    waves = VcdWaves(tmp_path / "dump.vcd", 100)
    with pytest.raises(RuntimeError), waves:
        raise RuntimeError("it failed before it wrote")
    assert not waves.dump.exists()
    assert waves.kept.read_bytes() == b""


def test_links_and_pipes_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "link.vcd").symlink_to(tmp_path / "real.vcd")
    through(tmp_path, len(VCD)).deliver(tmp_path / "link.vcd")
    assert (tmp_path / "link.vcd").is_symlink()
    assert (tmp_path / "real.vcd").read_bytes() == VCD
    os.mkfifo(tmp_path / "fifo")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "fifo").read_bytes()))
    reader.start()
    through(tmp_path, len(VCD)).deliver(tmp_path / "fifo")
    reader.join()
    assert got == [VCD]
    assert (tmp_path / "fifo").is_fifo()


@pytest.mark.verifies("waveforms-end-limit-whole-time")
@pytest.mark.rtl
@pytest.mark.slow
def test_eie_run_says_that_it_cut(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from compiler.graph.dense import Dense, dense_graph
    from compiler.lower.pipeline import compile_graph
    from compiler.network_file import save
    from eie.cli import cli
    from hw.params import preset

    x = np.ones((40, 24), np.int16)
    weight = np.ones((40, 24), np.float32)
    save(compile_graph(dense_graph([Dense("a", weight)]), preset("BALANCED_1"), x), tmp_path / "n.eie")
    np.save(tmp_path / "x.npy", x)
    common = ["run", str(tmp_path / "n.eie"), "--input", str(tmp_path / "x.npy"), "--engine", "rtl"]
    for limit in (1, 200):
        target = tmp_path / f"{limit}.vcd"
        result = CliRunner().invoke(cli, [*common, "--waves", str(target), "--waves-limit", str(limit)])
        assert result.exit_code == 0, result.output
        assert ("ends after 1 MB" in result.stderr) == (limit == 1)
    short, whole = ((tmp_path / f"{limit}.vcd").read_bytes() for limit in (1, 200))
    assert 900_000 < len(short) <= 1_000_000 < len(whole)
    assert whole.startswith(short)


@pytest.mark.verifies("waveforms-hold-levels-cycles")
@pytest.mark.rtl
@pytest.mark.slow
def test_levels_and_cycles_are_chosen(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from compiler.graph.dense import Dense, dense_graph
    from compiler.lower.pipeline import compile_graph
    from compiler.network_file import save
    from eie.cli import cli
    from hw.params import preset
    from tests.sim.test_fst import changes

    x = np.ones((4, 24), np.int16)
    save(compile_graph(dense_graph([Dense("a", np.ones((40, 24), np.float32))]), preset("BALANCED_1"), x),
         tmp_path / "n.eie")  # fmt: skip
    np.save(tmp_path / "x.npy", x)
    common = ["run", str(tmp_path / "n.eie"), "--input", str(tmp_path / "x.npy"), "--engine", "rtl"]
    target = tmp_path / "w.vcd"
    result = CliRunner().invoke(
        cli, [*common, "--waves", str(target), "--waves-depth", "2", "--waves-window", "20:50"]
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found, _ = changes(target.read_text())
    now = {int(value, 2) for _, value in found["eie_accelerator.core.now.[31:0]"]}
    assert now == set(range(20, 50)), "the cycles of the records"
    assert max(name.split(".[")[0].count(".") for name in found) == 2, "the array, and its core"
    result = CliRunner().invoke(cli, [*common, "--waves", str(target), "--waves-window", "5000000:6000000"])
    assert "w.vcd is empty: no run lasts until cycle 5,000,000" in result.stderr
