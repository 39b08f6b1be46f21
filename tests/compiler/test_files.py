"""Files are written whole or not at all, and what is no ordinary file stays what it is."""

from __future__ import annotations

import errno
import os
import pty
import resource
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from compiler.files import append_line, is_stream, write_file, write_files

ROOT = Path(__file__).parents[2]


def others(folder: Path) -> list[str]:
    """Names in a folder, temporary ones included."""
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for content in (b"first, and longer", b"second", b""):
        write_file(path, content)
        assert path.read_bytes() == content
    write_file(str(path), b"by its name")
    assert path.read_bytes() == b"by its name"
    assert others(tmp_path) == ["a.bin"]


def test_a_reader_of_the_old_file_keeps_it(tmp_path: Path) -> None:
    """It is replaced and not overwritten: nobody sees half of either."""
    path = tmp_path / "a.bin"
    write_file(path, b"old")
    with path.open("rb") as old:
        write_file(path, b"new")
        assert old.read() == b"old"


@pytest.mark.verifies("written-files-permissions-umask")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_permissions_are_those_of_a_new_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_file(tmp_path / "a.bin", b"x")
        (tmp_path / "b.bin").write_bytes(b"x")
        assert os.umask(umask) == umask  # and the umask is as it was
    finally:
        os.umask(before)
    assert mode(tmp_path / "a.bin") == 0o666 & ~umask == mode(tmp_path / "b.bin")


@pytest.mark.verifies("nothing-half-written")
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "a.bin"
    write_file(path, b"old")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert others(tmp_path) == ["a.bin"]


@pytest.mark.verifies("nothing-half-written")
def test_an_interrupt_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    write_file(path, b"old")

    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert others(tmp_path) == ["a.bin"]


def test_no_folder_and_a_folder_in_the_way_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "none" / "a.bin", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_file(tmp_path / "folder", b"x")
    assert others(tmp_path) == ["folder"]


@pytest.mark.verifies("written-files-links-devices-fifos")
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link, second = tmp_path / "there" / "a.bin", tmp_path / "link", tmp_path / "second"
    target.write_bytes(b"old")
    link.symlink_to(Path("there") / "a.bin")
    second.symlink_to(link)
    for path in (link, second):
        write_file(path, path.name.encode())
        assert path.is_symlink()
        assert target.read_bytes() == path.name.encode()
        assert not target.is_symlink()
    assert others(tmp_path / "there") == ["a.bin"]


def test_a_link_to_nothing_makes_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "new.bin")
    write_file(link, b"x")
    assert link.is_symlink()
    assert (tmp_path / "there" / "new.bin").read_bytes() == b"x"
    link.unlink()
    link.symlink_to(tmp_path / "nowhere" / "new.bin")
    with pytest.raises(FileNotFoundError):
        write_file(link, b"x")
    assert link.is_symlink()


@pytest.mark.verifies("written-files-links-devices-fifos")
@pytest.mark.parametrize("size", [3, 1 << 18])  # more than a pipe holds
def test_a_fifo_is_written_into(tmp_path: Path, size: int) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()), daemon=True)
    reader.start()
    write_file(fifo, b"x" * size)
    reader.join(30)
    assert read == [b"x" * size]
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert others(tmp_path) == ["fifo"]


@pytest.mark.verifies("written-files-links-devices-fifos")
def test_a_device_stays_a_device(tmp_path: Path) -> None:
    """A terminal of our own: its folder takes no files, so that a fault does no harm. /dev/null is only asked about."""
    assert is_stream("/dev/null")
    master, slave = pty.openpty()
    try:
        device = os.ttyname(slave)
        link = tmp_path / "link"
        link.symlink_to(device)
        for path in (device, link):
            assert is_stream(path)
            write_file(path, b"content")
            assert os.read(master, 100) == b"content"
            assert stat.S_ISCHR(os.stat(device).st_mode)
        assert link.is_symlink()
    finally:
        os.close(master)
        os.close(slave)


_PROGRAM = """
import sys
from compiler.files import write_file
print("before")
write_file(sys.argv[1], b"content\\n")
print("after")
"""


@pytest.mark.verifies("written-files-links-devices-fifos")
@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("to", ["pipe", "file"])
def test_standard_output_keeps_what_is_written_to_it(tmp_path: Path, path: str, to: str) -> None:
    """Also where it is a file: that one is neither replaced nor written over."""
    command = [sys.executable, "-c", _PROGRAM, path]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    if to == "pipe":
        output = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60, env=environment).stdout
    else:
        with (tmp_path / "out").open("wb") as file:
            subprocess.run(command, stdout=file, check=True, timeout=60, env=environment)
        output = (tmp_path / "out").read_bytes()
    assert output == b"before\ncontent\nafter\n"


def test_ordinary_paths_are_no_streams(tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(b"a file that is called like a descriptor")
    for path in (tmp_path / "1", tmp_path, tmp_path / "none", tmp_path / "none" / "1"):
        assert not is_stream(path)
    write_file(tmp_path / "1", b"x")
    assert (tmp_path / "1").read_bytes() == b"x"


def test_several_files_go_into_a_new_folder(tmp_path: Path) -> None:
    paths = write_files(tmp_path / "new" / "folder", {"a.txt": "ä\n", "b.txt": ""})
    assert paths == [tmp_path / "new" / "folder" / name for name in ("a.txt", "b.txt")]
    assert [path.read_text("utf-8") for path in paths] == ["ä\n", ""]


KILLED = """
import sys
from compiler.files import write_file
contents = [bytes([number]) * 300_000 for number in (65, 66)]
print("begun", flush=True)
while True:
    for content in contents:
        write_file(sys.argv[1], content)
"""


@pytest.mark.verifies("robust-kill")
def test_a_process_that_is_killed_leaves_one_content_or_the_other(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"A" * 300_000)
    found = set()
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(rng.uniform(0, 0.05)))
        process.kill()
        process.wait()
        process.stdout.close()
        content = path.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1
        found.add(content[:1])
    assert found <= {b"A", b"B"}
    assert all(each.name == "out" or each.name.startswith(".out.") for each in tmp_path.iterdir())


@pytest.mark.verifies("robust-full-disk")
def test_an_error_of_writing_names_the_file(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match=r"out") as caught:
            write_file(tmp_path / "out", bytes(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert caught.value.filename == str(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.verifies("written-lines-whole")
def test_lines_are_added_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a write takes three bytes at a time; what cannot be written is said of the file."""
    path, write = tmp_path / "a.jsonl", os.write
    append_line(path, "first")
    monkeypatch.setattr(os, "write", lambda handle, content: write(handle, content[:3]))
    append_line(path, "the second ×")
    assert path.read_bytes() == "first\nthe second ×\n".encode()

    def full(handle: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        append_line(path, "third")
    assert caught.value.filename == str(path)
