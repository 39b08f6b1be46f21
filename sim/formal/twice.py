"""No path from an input to an output within a cycle: two copies of a block that are told the same until now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from amaranth import Signal, Value

from hw.platform import ports_of
from sim.formal.sheet import Sheet

__all__ = ["no_path"]


def no_path(s: Sheet, make: Callable[[], Any], but: Sequence[str] = ()) -> None:
    """Claim that no output of the block depends on an input of the same cycle.

    Both copies have the same inputs until a cycle that is chosen freely; in this one the second copy has any others,
    and its outputs must be those of the first all the same.

    Parameters
    ----------
    make : makes a block; called twice.
    but : names of inputs that are left out, that is, are the same in both also then.
    """
    first, second = s.add(make(), "first"), make()
    s.m.submodules.second = second
    now, before = s.free(1, "now"), Signal()
    s.m.d.sync += before.eq(before | now)
    theirs = ports_of(second, second.signature)
    for name, (signal, way) in ports_of(first, first.signature).items():
        other = theirs[name][0]
        if way == "o":
            s.must(before | (signal == other), f"{name} does not depend on an input within the cycle")
            continue
        s.m.d.comb += other.eq(signal)
        if name not in but:
            with s.m.If(now):
                s.m.d.comb += other.eq(Value.cast(s.free(len(signal), "other")))
    s.reach(now & ~before & s.began, "the inputs differ")
