"""Blocks taken out of a larger one: what they would hand out may be anything, so the claim holds for any block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from amaranth import Array, Instance, Module, Signal
from amaranth.hdl import Fragment
from amaranth.lib import wiring

from hw.platform import ports_of
from hw.sram import Sram

__all__ = ["RigidSram", "free_block", "replaced"]


def free_block(kind: Any) -> Any:
    """A class that takes the place of `kind`: the same ports, and any value in any cycle at its outputs."""

    class Free(kind):  # type: ignore[misc]
        def elaborate(self, platform: object) -> Module:
            """What is free at each output."""
            for value in vars(self).values():  # blocks that it would have been made of
                if isinstance(value, wiring.Component):
                    Fragment.get(value, platform)
            m = Module()
            for name, (port, way) in ports_of(self, self.signature).items():
                if way == "o":
                    raw = Signal(len(port), name=f"{name}_raw")
                    m.submodules += Instance("$anyseq", p_WIDTH=len(raw), o_Y=raw)
                    m.d.comb += port.eq(raw)
            return m

    return Free


class RigidSram(Sram):
    """A memory of any content, the same in all cycles: `words`. Nothing is written."""

    def elaborate(self, platform: object) -> Module:
        """Words that never change, and the register behind them."""
        m = Module()
        self.words = [Signal(self.width, name=f"word_{n}") for n in range(self.depth)]
        for word in self.words:
            raw = Signal.like(word, name="raw")
            m.submodules += Instance("$anyconst", p_WIDTH=self.width, o_Y=raw)
            m.d.comb += word.eq(raw)
        with m.If(self.r_en):
            m.d.sync += self.r_data.eq(Array(self.words)[self.r_addr])
        return m


@contextlib.contextmanager
def replaced(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    """`name` in `module` is `value` meanwhile."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
