"""A proof sheet: a block with free inputs, what is given of them, and what must then hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amaranth import ClockDomain, Instance, Module, Signal, Value
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Cover, Fragment, ShapeLike

from compiler.errors import InputError
from hw.platform import ports_of

__all__ = ["Design", "Sheet"]


@dataclass(frozen=True)
class Design:
    """RTLIL text with the module ``top``, and what its checks say: check n is the cell ``check_n_``."""

    rtlil: str
    texts: tuple[str, ...]


class Sheet:
    """What a proof is written on: `m` is the module around the block under proof.

    There is one clock, and no reset but where a proof makes one: every register begins with its initial value. What is
    free may have any value in any cycle; what `given` says limits it.
    """

    def __init__(self) -> None:
        self.m = Module()
        self.m.domains.sync = domain = ClockDomain(reset_less=True)
        self._ports: list[Value] = [domain.clk]  # without it nothing would ever move
        self._began = Signal(name="began")
        self.m.d.sync += self._began.eq(1)

    def add(self, component: Any, name: str = "block", driven: Sequence[str] = (), built: bool = False) -> Any:
        """Add a component. All its inputs are free but those whose name begins with one of `driven`.

        With `built` it is elaborated now, with all blocks in it, so that claims can name what is inside.
        """
        self.m.submodules[name] = fragment = Fragment.get(component, None) if built else component
        if built:
            self._built = fragment
        for port, (signal, way) in ports_of(component, component.signature).items():
            if way == "i" and not any(port == start or port.startswith(f"{start}__") for start in driven):
                self._ports.append(signal)
        return component

    def inner(self, name: str) -> Signal:
        """A register or wire of the block that was `built` last, by its name; what is claimed of it helps a proof.

        Raises
        ------
        InputError
            There is none of this name, or several.
        """
        found: dict[int, Signal] = {}

        def look(fragment: Any) -> None:
            for statements in fragment.statements.values():
                for statement in statements:
                    found.update((id(each), each) for each in statement._lhs_signals() if each.name == name)
            for below, _, _ in fragment.subfragments:
                look(below)

        look(self._built)
        if len(found) != 1:
            raise InputError(
                f"{len(found)} signals of the block are named {name!r}; expected one: the block has changed"
            )
        return next(iter(found.values()))

    def free(self, shape: ShapeLike = 1, name: str = "free") -> Any:
        """A signal that may have any value in any cycle."""
        signal = Signal(shape, name=f"{name}_{len(self._ports)}")
        self._ports.append(Value.cast(signal))
        return signal

    def constant(self, shape: ShapeLike = 1, name: str = "constant") -> Any:
        """A signal of any value, the same in all cycles."""
        signal = Signal(shape, name=name)
        raw = Signal(len(Value.cast(signal)), name=f"{name}_raw")
        self.m.submodules += Instance("$anyconst", p_WIDTH=len(raw), o_Y=raw)
        self.m.d.comb += Value.cast(signal).eq(raw)
        return signal

    def past(self, value: Any, cycles: int = 1) -> Any:
        """The value of so many cycles ago; zero before the first one."""
        now = Value.cast(value)
        for _ in range(cycles):
            late = Signal.like(now, name="past", init=0)
            self.m.d.sync += late.eq(now)
            now = late
        return now

    @property
    def began(self) -> Value:
        """False in the first cycle only."""
        return self._began

    def given(self, condition: Any) -> None:
        """The environment keeps to this."""
        self.m.d.comb += Assume(condition)

    def must(self, condition: Any, text: str) -> None:
        """It holds in every cycle."""
        self.m.d.comb += Assert(condition, text)

    def reach(self, condition: Any, text: str) -> None:
        """It happens in some run: what is given leaves room for it."""
        self.m.d.comb += Cover(condition, text)

    def steady(self, valid: Any, ready: Any, payload: Any, name: str, given: bool = False) -> None:
        """What is offered stays, unchanged, until it is taken: a rule of every stream, for its source."""
        payload = Value.cast(payload)
        waits = self.past(Value.cast(valid) & ~ready)
        kept = ~waits | (Value.cast(valid) & (payload == self.past(payload)))
        if given:
            self.given(kept)
        else:
            self.must(kept, f"{name}: what is offered stays until it is taken")

    def design(self) -> Design:
        """The sheet as yosys reads it; it can be asked for once."""
        text = str(rtlil.convert(self.m, ports=self._ports, name="top", emit_src=False))
        text = re.sub(r"cell \\(\$any\w+)", r"cell \1", text)  # cells of yosys, not modules of a design
        texts: list[str] = []

        def named(found: re.Match[str]) -> str:
            texts.append(found[2])
            return f"cell $check \\check_{len(texts) - 1}_\n{found[1]}{found[2]}"

        return Design(_CHECK.sub(named, text), tuple(texts))


_CHECK = re.compile(r'cell \$check \S+\n(\s+parameter \\FORMAT ")([^"]*)')
