"""A component with a fault in what it is told: between its ports and the component stands what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth import Module
from amaranth.lib import wiring

from hw.platform import ports_of

__all__ = ["Altered"]


class Altered(wiring.Component):
    """`inner`, and a statement that says otherwise: ``change(inner, outside)`` assigns a port anew."""

    def __init__(self, inner: Any, change: Callable[[Any, Any], Any]) -> None:
        self.inner, self.change = inner, change
        super().__init__(inner.signature)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.inner = self.inner
        within, outside = (ports_of(each, each.signature) for each in (self.inner, self))
        for name, (port, way) in within.items():
            mine = outside[name][0]
            m.d.comb += port.eq(mine) if way == "i" else mine.eq(port)
        m.d.comb += self.change(self.inner, self)
        return m
