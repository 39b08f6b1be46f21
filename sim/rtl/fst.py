"""An FST within a size: whole blocks of values are dropped from its end; and what its writer needs to be compiled.

The format is GTKWave's. A file is a sequence of blocks: a type in one byte, the length of what follows in eight, the
length itself counted, and the content; all numbers are big-endian. The header comes first, then blocks of values, each
of a span of time and readable without the others, then the list of signals.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from compiler.errors import ToolError
from sim.rtl.waves import Waves

__all__ = ["HEADER", "VALUES", "Block", "FstWaves", "blocks", "check_fst"]

HEADER, VALUES = 0, 8
"""Types of the two blocks that are looked into."""

# Where the header block, from its type on, says when the last value changes, and how many blocks of values follow.
_END_TIME, _VALUE_BLOCKS = 17, 65

_USES = b"""
#include <lz4.h>
#include <zlib.h>
int main() { return LZ4_versionNumber() == 0 || zlibVersion() == nullptr; }
"""


class Block(NamedTuple):
    """A block of an FST: its type, its first byte in the file, and its length in bytes, type and length included."""

    kind: int
    start: int
    length: int


def check_fst(environment: dict[str, str]) -> None:
    """Compile and link a few lines with what Verilator's FST writer includes.

    Raises
    ------
    ToolError
        The headers or libraries of lz4 and zlib are missing.
    """
    with tempfile.TemporaryDirectory(prefix="eie-") as folder:
        command = ["c++", "-x", "c++", "-", "-o", f"{folder}/uses", "-llz4", "-lz"]
        done = subprocess.run(command, input=_USES, env=environment, capture_output=True, check=False)
    if done.returncode:
        printed = done.stderr.decode(errors="replace").splitlines()
        reason = next((line for line in printed if "error" in line or "cannot find" in line), "c++ failed")
        raise ToolError(
            f"a waveform as .fst needs the headers of lz4 and zlib, which c++ does not find ({reason.strip()}); run: "
            "apt-get install liblz4-dev zlib1g-dev (`eie doctor` names the packages of other systems), "
            "or write a .vcd, which needs neither"
        )


class FstWaves(Waves):
    """`Waves` as FST: the simulator ends the file soon after the limit, and at the end whole blocks are cut off.

    While the simulator runs, the file may be longer than the limit by one or two blocks: a few hundredths of it, or
    what 64 time steps take where that is more. A limit that not even the first block keeps leaves an empty file.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:  # a simulator that failed leaves no file, or one without a list of signals
            return
        self.dump.rename(self.kept)
        self.written = self.kept.stat().st_size
        if self.cut:
            _cut_at_a_block(self.kept, self.limit)


def blocks(path: Path) -> Iterator[Block]:
    """The blocks of an FST in their order.

    Raises
    ------
    ToolError
        The lengths do not add up to that of the file: it is no FST, or it is damaged.
    """
    end = path.stat().st_size
    with path.open("rb") as file:
        start = 0
        while start < end:
            file.seek(start)
            head = file.read(9)
            length = int.from_bytes(head[1:], "big") + 1
            if length < 9 or start + length > end:
                raise ToolError(f"{path.name} is no FST: a block of {length} bytes at byte {start} of {end}")
            yield Block(head[0], start, length)
            start += length


def _cut_at_a_block(path: Path, limit: int) -> None:
    """Drop blocks of values from the end until the file is no longer than `limit`, and say so in its header."""
    every = list(blocks(path))
    values = [block for block in every if block.kind == VALUES]
    others = [block for block in every if block.kind not in (HEADER, VALUES)]
    length = sum(block.length for block in every)
    while values and length > limit:
        length -= values.pop().length
    with path.open("r+b") as file:
        if not values:
            file.truncate(0)
            return
        tail = b"".join(_content(path, block) for block in others)
        last = values[-1]
        file.truncate(last.start + last.length)
        file.seek(0, 2)
        file.write(tail)
        file.seek(last.start + _END_TIME)  # a block of values says when it ends in the place where the header does
        end_time = file.read(8)
        file.seek(_END_TIME)
        file.write(end_time)
        file.seek(_VALUE_BLOCKS)
        file.write(len(values).to_bytes(8, "big"))


def _content(path: Path, block: Block) -> bytes:
    with path.open("rb") as file:
        file.seek(block.start)
        return file.read(block.length)
