"""Faults that more than one test plants: a component that is told what is wrong, and a wrong function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth import Module
from amaranth.lib import wiring

import hw.expander
from hw.platform import ports_of

__all__ = ["Altered", "late_offsets"]


class Altered(wiring.Component):
    """`inner` between whose ports and itself stands what is wrong: ``change(inner, outside)`` assigns a port anew."""

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


def late_offsets(lengths: Any, original: Any = hw.expander._offsets) -> Any:
    """In the place of `hw.expander._offsets`: each sum takes in one length too many."""
    return [lengths[0] + each for each in original([*lengths[1:], lengths[0]])]
