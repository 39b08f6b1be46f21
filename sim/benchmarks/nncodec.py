"""NNCodec (the reference coder of ISO/IEC 15938-17, PyPI `nncodec`) as the anchor of file sizes.

It needs another numpy and torch than the kit, so it gets an environment of its own in the user's cache folder, made
on request. What it compresses is what the kit's coders compress: each shared tensor as signed ranks of its codes
among the values (−2, −1, 0, 1, 2 … from the most negative value to the largest), which is how NNCodec quantizes and
what its contexts are made for. It does so losslessly (integers are not quantized again, `use_dq=False`), with the best
of twenty settings; what it gives back is compared. Codebooks and unshared values are not in its stream: they are
counted with the bytes that they take in the kit's own file.

For a comparison at matched accuracy it gets float tensors instead and quantizes them itself (`NNCodec.quantizer`).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.caches import cache_folder
from compiler.coding.ranks import ranked
from compiler.compressed import CompressedModel

__all__ = ["VERSION", "NNCodec", "Quantizer", "Unavailable", "prepare"]

VERSION = "2.1.3"
_TORCH = "torch==2.13.0"
_FIRST = (
    _TORCH, "numpy<2", "scikit-learn", "h5py", "pybind11", "pandas", "opencv-python-headless<4.12", "tqdm", "Click",
    "setuptools", "wheel", "torchmetrics",
)  # fmt: skip
_INSTALL_S = 1200
_RUN_S = 900


class Unavailable(Exception):
    """NNCodec cannot be had here; says why."""


@dataclass(frozen=True)
class NNCodec:
    """An environment that has NNCodec. python : its interpreter."""

    python: Path

    def compress(self, model: CompressedModel) -> dict[str, Any]:
        """Bytes of its smallest stream of all shared tensors, settings, seconds, version.

        Raises
        ------
        Unavailable
            It fails, or gives other values back.
        """
        tensors = {t.name: ranked(t.codebook).of_code[t.codes].reshape(t.shape).astype(np.int32) for t in model.tensors}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tensors.npz"
            with path.open("wb") as file:
                np.savez(file, allow_pickle=False, **tensors)
            worker = Path(__file__).with_name("nncodec_worker.py")
            # Isolated, or this folder's nncodec.py would be taken for the package.
            printed = _run([str(self.python), "-I", str(worker), str(path)], _RUN_S)
        answer: dict[str, Any] = json.loads(printed.splitlines()[-1])
        return answer

    @contextlib.contextmanager
    def quantizer(self, tensors: Mapping[str, NDArray[np.float32]]) -> Iterator[Quantizer]:
        """NNCodec for float tensors, which it quantizes itself."""
        with tempfile.TemporaryDirectory() as folder:
            made = Quantizer(self.python, tensors, Path(folder))
            try:
                yield made
            finally:
                made.close()


class Quantizer:
    """NNCodec at work on float tensors: a process that answers for one group of settings after the other."""

    def __init__(self, python: Path, tensors: Mapping[str, NDArray[np.float32]], folder: Path) -> None:
        self._file, self._found = folder / "floats.npz", folder / "found.npz"
        np.savez(self._file, allow_pickle=False, **tensors)
        worker = Path(__file__).with_name("nncodec_worker.py")
        command = [str(python), "-I", str(worker), str(self._file), str(self._found)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def encode(self, settings: Mapping[str, Any]) -> tuple[int, dict[str, NDArray[np.float32]]] | None:
        """Bytes of the stream and the values that come out of it; None if NNCodec refuses the settings.

        Raises
        ------
        Unavailable
            The process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(settings) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError as error:
            raise Unavailable(f"NNCodec ended: {error}") from None
        if not line:
            raise Unavailable("NNCodec ended without an answer")
        answer = json.loads(line)
        if "error" in answer:
            return None
        with np.load(self._found, allow_pickle=False) as file:
            return int(answer["bytes"]), {name: file[name] for name in file.files}

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_RUN_S)


def prepare(progress: Callable[[str], None], install: bool = True) -> NNCodec:
    """NNCodec's environment, made the first time (a few minutes, 1.5 GB).

    Raises
    ------
    Unavailable
        It is not there and `install` is false, or installing it fails.
    """
    folder = cache_folder() / f"nncodec-{VERSION}"
    python, ready = folder / "bin" / "python", folder / ".ready"
    if ready.is_file():
        return NNCodec(python)
    if not install:
        raise Unavailable(f"not installed in {folder}")
    progress(f"installing NNCodec {VERSION} in {folder}, a few minutes")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    try:
        _run([sys.executable, "-m", "venv", str(folder)], _INSTALL_S)
        _run([*pip, *_FIRST], _INSTALL_S)
        _run([*pip, "--no-deps", "ptflops"], _INSTALL_S)
        # Its build needs the torch that is installed, not another one.
        _run([*pip, "--no-deps", "--no-build-isolation", f"nncodec=={VERSION}"], _INSTALL_S)
    except Unavailable:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    ready.touch()
    return NNCodec(python)


def _run(command: list[str], seconds: int) -> str:
    """Standard output of a command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]}: {error}") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        raise Unavailable(f"{' '.join(command[:4])} …: {lines[-1]}")
    return done.stdout
