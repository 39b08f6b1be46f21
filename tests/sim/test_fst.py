"""Waveforms as FST: cut at whole blocks, the same values as the VCD, and a clear error without what they need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.errors import ToolError
from sim.rtl import fst
from sim.rtl.fst import HEADER, VALUES, FstWaves, blocks, check_fst
from sim.rtl.waves import waves_format

GEOMETRY, HIERARCHY = 3, 6
STEP = 1000  # time that one block of values spans in `written`


def number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def block(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + number(len(content) + 8) + content


def written(sizes: list[int]) -> bytes:
    """An FST of blocks of values of these sizes; what they hold nobody looks at."""
    values = [
        block(VALUES, number(n * STEP) + number((n + 1) * STEP) + bytes([n]) * (size - 25))
        for n, size in enumerate(sizes)
    ]
    header = number(0) + number(len(sizes) * STEP) + bytes(40) + number(len(sizes)) + bytes(257)
    return block(HEADER, header) + b"".join(values) + block(GEOMETRY, b"geometry") + block(HIERARCHY, b"signals")


def through(folder: Path, content: bytes, limit: int) -> FstWaves:
    waves = FstWaves(folder / "dump.fst", limit)
    with waves:
        waves.dump.write_bytes(content)
    return waves


def cut_wrongly(path: Path, content: bytes, limit: int) -> str:
    """What is wrong with a file that was made of `content`, empty if nothing is."""
    got = path.read_bytes()
    if not got:
        return ""
    found = list(blocks(path))
    spans = [got[b.start : b.start + b.length] for b in found if b.kind == VALUES]
    ends = content.index(block(GEOMETRY, b"geometry"))
    if len(got) > limit:
        return "longer than the limit"
    if not content[found[0].length : ends].startswith(b"".join(spans)):
        return "other values"
    if not got.endswith(content[ends:]):
        return "another list of signals"
    if got[17:25] != number(len(spans) * STEP) or got[65:73] != number(len(spans)):
        return "the header says what is no longer so"
    return ""


@pytest.mark.parametrize(
    ("name", "form"), [("a.fst", "fst"), ("A.FST", "fst"), ("a.vcd", "vcd"), ("fst", "vcd"), ("/dev/stdout", "vcd")]
)
def test_the_name_says_the_format(name: str, form: str) -> None:
    assert waves_format(Path(name)) == form


def test_a_short_file_stays_what_it_is(tmp_path: Path) -> None:
    content = written([100, 200])
    waves = through(tmp_path, content, len(content))
    assert waves.kept.read_bytes() == content
    assert not waves.cut
    assert not waves.dump.exists()


@pytest.mark.verifies("fst-holds-values-vcd-ends")
def test_a_long_file_ends_with_a_whole_block(rng: np.random.Generator, tmp_path: Path) -> None:
    for _ in range(20):
        sizes = [int(size) for size in rng.integers(30, 400, rng.integers(1, 20))]
        content = written(sizes)
        limit = int(rng.integers(0, len(content)))
        waves = through(tmp_path, content, limit)
        assert waves.cut
        assert waves.written == len(content)
        assert cut_wrongly(waves.kept, content, limit) == ""
        rest = len(content) - sum(sizes)
        most = max((n for n in range(1, len(sizes)) if rest + sum(sizes[:n]) <= limit), default=0)
        kept = sum(b.kind == VALUES for b in blocks(waves.kept))
        assert kept == most, "as many blocks as fit"


@pytest.mark.parametrize("fault", ["not cut", "cut anywhere", "stale header"])
def test_planted_fault_a_wrong_cut_is_caught(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = written([100] * 9)
    right = fst._cut_at_a_block

    def wrong(path: Path, limit: int) -> None:
        if fault == "cut anywhere":
            os.truncate(path, limit)
        if fault == "stale header":
            header = path.read_bytes()[:330]
            right(path, limit)
            path.write_bytes(header + path.read_bytes()[330:])

    monkeypatch.setattr(fst, "_cut_at_a_block", wrong)
    kept = through(tmp_path, content, 700).kept
    try:
        caught = cut_wrongly(kept, content, 700)
    except ToolError as error:
        caught = str(error)
    assert caught


def test_what_is_no_fst_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.fst").write_bytes(b"$date today $end\n" * 9)
    with pytest.raises(ToolError, match=r"a\.fst is no FST"):
        list(blocks(tmp_path / "a.fst"))


def test_a_simulator_that_fails_tells_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="it failed"), FstWaves(tmp_path / "dump.fst", 100):
        raise RuntimeError("it failed before it wrote")


@pytest.fixture
def no_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose C++ compiler finds no lz4."""
    place = tmp_path / "include"
    place.mkdir()
    (place / "lz4.h").write_text("#error lz4.h: No such file or directory\n")
    monkeypatch.setenv("CPATH", str(place))
    monkeypatch.setenv("EIE_CACHE", str(tmp_path / "cache"))  # a build from before would need no header


@pytest.fixture
def fst_works() -> None:
    from sim.rtl.build import tool_environment

    try:
        check_fst(tool_environment())
    except ToolError as error:
        pytest.skip(str(error))


@pytest.mark.rtl
def test_without_headers_the_packages_are_named(no_headers: None) -> None:
    with pytest.raises(ToolError, match=r"apt-get install liblz4-dev zlib1g-dev.* or write a \.vcd") as error:
        check_fst(dict(os.environ))
    assert error.value.exit_code == 3


@pytest.fixture
def network(tmp_path: Path) -> Any:
    from compiler.graph.dense import Dense, dense_graph
    from compiler.lower.pipeline import compile_graph
    from hw.params import preset

    x = np.ones((40, 24), np.int16)
    return compile_graph(
        dense_graph([Dense("a", np.ones((40, 24), np.float32))]), preset("BALANCED_1"), x
    ), x  # the array of the demo: its simulator is there


@pytest.mark.verifies("fst-holds-values-vcd-ends")
@pytest.mark.rtl
def test_eie_run_ends_with_3_without_headers(network: Any, no_headers: None, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from compiler.network_file import save
    from eie.cli import cli

    save(network[0], tmp_path / "n.eie")
    np.save(tmp_path / "x.npy", network[1])
    command = ["run", str(tmp_path / "n.eie"), "--input", str(tmp_path / "x.npy"), "--engine", "rtl", "--waves"]
    result = CliRunner().invoke(cli, [*command, str(tmp_path / "w.fst")])
    assert result.exit_code == 3
    assert "liblz4-dev zlib1g-dev" in result.stderr
    assert not (tmp_path / "w.fst").exists()


@pytest.fixture
def run(network: Any, tmp_path: Path) -> Callable[..., tuple[Path, Any]]:
    """Runs the network and writes a waveform under a name; gives its path, and what `run_rtl` gave."""
    from sim.decode import decode
    from sim.rtl.engine import run_rtl
    from sim.run import check_input

    image = network[0].only

    def run(name: str, limit: int = 200_000_000) -> tuple[Path, Any]:
        path = tmp_path / name
        inputs = check_input(image, network[1])[0]
        return path, run_rtl(image, inputs, decode(image), waves=path, waves_limit=limit)

    return run


@pytest.mark.rtl
@pytest.mark.slow
def test_an_fst_is_smaller_than_the_vcd_of_the_same_run(run: Any, fst_works: None) -> None:
    (vcd, by_vcd), (whole, by_fst) = run("w.vcd"), run("w.fst")
    assert by_vcd.build.folder != by_fst.build.folder
    assert (by_vcd.build.waves, by_fst.build.waves) == ("vcd", "fst")
    assert run("again.vcd")[1].build.folder == by_vcd.build.folder
    content = whole.read_bytes()
    assert content[:9] == bytes([HEADER]) + number(329)
    assert 0 < len(content) < vcd.stat().st_size / 10
    kinds = [b.kind for b in blocks(whole)]
    assert kinds[0] == HEADER
    assert set(kinds[1:-2]) == {VALUES}
    assert kinds[-2:] == [GEOMETRY, HIERARCHY]
    last = int(re.findall(rb"^#(\d+)$", vcd.read_bytes(), re.MULTILINE)[-1])
    assert content[17:25] == number(last)


@pytest.mark.verifies("fst-holds-values-vcd-ends")
@pytest.mark.rtl
@pytest.mark.slow
def test_an_fst_ends_at_its_limit_and_holds_what_the_vcd_holds(
    run: Any, fst_works: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    vcd, _ = run("w.vcd")
    whole, _ = run("w.fst")
    limit = whole.stat().st_size // 2
    right, on_disk = fst._cut_at_a_block, list[int]()

    def watched(path: Path, limit: int) -> None:
        on_disk.append(path.stat().st_size)
        right(path, limit)

    monkeypatch.setattr(fst, "_cut_at_a_block", watched)
    short, ran = run("short.fst", limit)
    assert ran.waves_cut
    assert limit < on_disk[0] < 1.25 * limit, "the simulator stops writing, before anything is cut"
    assert 0.8 * limit < short.stat().st_size <= limit
    if shutil.which("fst2vcd") is None:
        pytest.skip("sizes are right; values are not compared, because this machine has no fst2vcd (package gtkwave)")
    expected, _ = changes(vcd.read_text())
    for path in (whole, short):
        got, end = changes(subprocess.run(["fst2vcd", path], capture_output=True, text=True, check=True).stdout)
        # Words of memories have a scope of their own in one of the two.
        kept, wanted = (
            {name: values for name, values in found.items() if not re.search(r"\[\d+\]\.", name)}
            for found in (got, expected)
        )
        assert len(kept) > 1000
        assert kept == {name: [c for c in values if c[0] <= end] for name, values in wanted.items()}
    assert end > 1_000_000, "a cut file still holds values"


def changes(vcd: str) -> tuple[dict[str, list[tuple[int, str]]], int]:
    """For each signal by its full name when it took which value, in a VCD; and the last time in it."""
    head, body = vcd.split("$enddefinitions $end")
    names: dict[str, str] = {}
    scope: list[str] = []
    for kind, rest in re.findall(r"\$(scope|upscope|var)\s+(.*?)\s*\$end", head, re.DOTALL):
        words = rest.split()
        if kind == "scope":
            scope.append(words[1])
        elif kind == "upscope":
            scope.pop()
        else:
            names[".".join([*scope, *words[3:]])] = words[2]
    found: dict[str, list[tuple[int, str]]] = {sign: [] for sign in names.values()}
    time = 0
    for line in body.splitlines():
        if line.startswith("#"):
            time = int(line[1:])
        elif line and not line.startswith("$"):
            value, sign = line[1:].split() if line.startswith("b") else (line[0], line[1:])
            value = value.lstrip("0") or "0"
            if not found[sign] or found[sign][-1][1] != value:
                found[sign].append((time, value))
    return {name: found[sign] for name, sign in names.items()}, time
