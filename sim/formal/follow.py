"""Nothing lost, doubled or reordered: one item of a stream, chosen freely, is followed through a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth import Signal, Value

from sim.formal.sheet import Sheet

__all__ = ["Followed", "follow"]


@dataclass(frozen=True)
class Followed:
    """The chosen item: it has left, it goes out in this cycle, and its payload."""

    gone: Signal
    shown: Signal
    kept: Signal


def follow(
    s: Sheet, taken: Any, given: Any, payload: Any, result: Any, most: int, forget: Any = 0, name: str = "stream"
) -> Followed:
    """Claim that the items that go out are those that come in, each once, in their order and unchanged.

    A free signal chooses one item as it comes in. From then on it is known how many are before it; when it is its turn,
    what goes out must be it. Since any item can be the chosen one, this holds for all.

    Parameters
    ----------
    taken, payload : an item comes in. given, result : an item goes out, and shows as many of the payload's low bits
        as it has.
    most : items that are in the block at most.
    forget : the items in the block are dropped with this cycle.
    """
    m = s.m
    payload, result = Value.cast(payload), Value.cast(result)
    inside, before = Signal(range(most + 2), name=f"{name}_inside"), Signal(range(most + 2), name=f"{name}_before")
    chosen, gone = Signal(name=f"{name}_chosen"), Signal(name=f"{name}_gone")
    kept = Signal(len(payload), name=f"{name}_kept")
    m.d.sync += inside.eq(inside + taken - given)
    choose = s.free(1, f"{name}_choose")
    with m.If(taken & choose & ~chosen & ~gone):
        m.d.sync += [chosen.eq(1), before.eq(inside - given), kept.eq(payload)]
    with m.If(chosen & given):
        m.d.sync += before.eq(before - 1)
        with m.If(before == 0):
            m.d.sync += [chosen.eq(0), gone.eq(1)]
    with m.If(forget):
        m.d.sync += [inside.eq(0), chosen.eq(0)]
    s.must(~Value.cast(given) | (inside != 0), f"{name}: nothing goes out that did not come in")
    s.must(inside <= most, f"{name}: at most {most} are inside")
    shown = Signal(name=f"{name}_shown")
    m.d.comb += shown.eq(chosen & (before == 0) & given)
    s.must(~shown | (result == kept[: len(result)]), f"{name}: each goes out once, in its turn and unchanged")
    s.reach(gone, f"{name}: the chosen one has left")
    return Followed(gone, shown, kept)
