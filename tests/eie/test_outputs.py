"""Where commands write: files, links, devices, pipes."""

from __future__ import annotations

import json
import os
import pty
import stat
import threading

import pytest


@pytest.mark.verifies("written-files-links-devices-fifos")
def test_outputs_go_into_a_fifo_and_through_a_link(invoke, layer, tmp_path) -> None:
    fifo, link, target = tmp_path / "fifo", tmp_path / "link.eiez", tmp_path / "there.eiez"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()), daemon=True)
    reader.start()
    result = invoke("compress", layer.image, "-o", fifo)
    assert result.exit_code == 0, result.output
    reader.join(30)
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    link.symlink_to(target)
    result = invoke("compress", layer.image, "-o", link)
    assert result.exit_code == 0, result.output
    assert link.is_symlink()
    assert read == [target.read_bytes()]


@pytest.mark.verifies("written-files-links-devices-fifos")
def test_a_device_is_no_file_to_replace(invoke, layer, tmp_path) -> None:
    master, slave = pty.openpty()  # a device whose folder takes no files, so that a fault does no harm
    try:
        device = os.ttyname(slave)
        drain = threading.Thread(target=lambda: [None for _ in iter(lambda: _read(master), b"")], daemon=True)
        drain.start()
        for arguments in (
            ("compile", layer.npz, "-o", device, "--preset", "BALANCED_4", "--calibrate", layer.inputs),
            ("run", layer.image, "--input", layer.inputs, "--output", device),
            ("run", layer.image, "--input", layer.inputs, "--json", device),
        ):
            result = invoke(*arguments)
            assert result.exit_code == 0, result.output
            assert stat.S_ISCHR(os.stat(device).st_mode)
    finally:
        os.close(slave)
        drain.join(10)
        os.close(master)


def _read(handle: int) -> bytes:
    """What a terminal holds; none once the other side is closed."""
    try:
        return os.read(handle, 1 << 16)
    except OSError:
        return b""


@pytest.mark.verifies("written-files-permissions-umask")
@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_verilog_has_the_permissions_of_any_new_file(invoke, tmp_path, umask) -> None:
    before = os.umask(umask)
    try:
        result = invoke("verilog", "--set", "pes=1", "-o", tmp_path / "rtl", "--json")
    finally:
        os.umask(before)
    assert result.exit_code == 0, result.output
    for path in json.loads(result.stdout)["files"]:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o666 & ~umask, path


def test_a_link_into_a_folder_that_is_not_there_is_found_out_before(invoke, layer, tmp_path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "none" / "n.eiez")
    result = invoke("compress", layer.image, "-o", link)
    assert result.exit_code == 2
    assert "does not exist" in result.stderr
    assert link.is_symlink()
