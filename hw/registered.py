"""A component between registers, behind three pins: what synthesis figures are measured on."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.platform import ports_of

__all__ = ["Registered"]


class Registered(wiring.Component):
    """Every port of a component behind a register of its own, and those behind a shift register.

    Nothing of the component can be optimised away, since any input bit can be set and every output bit seen;
    and no path of the component starts or ends at a pin, so its clock is that of an array that surrounds it
    with registers.

    Timing: an input bit that is shifted in in cycle t stands at the component in t + 2. Outputs are taken every cycle;
    bit n of those of the cycle before ``load`` shifts out n + 2 cycles after it.

    Members
    -------
    shift_in : the inputs of the component, the last one first.
    load, shift_out : take all outputs into the shift register; it ends here.

    Parameters
    ----------
    component : what to measure; it becomes the submodule ``dut``.
    """

    def __init__(self, component: Any) -> None:
        self.component = component
        super().__init__({"shift_in": In(1), "load": In(1), "shift_out": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = component = self.component
        ports = ports_of(component, component.signature).values()
        inputs = Cat(signal for signal, way in ports if way == "i")
        outputs = Cat(signal for signal, way in ports if way == "o")
        shifted, given = Signal(len(inputs)), Signal(len(inputs))
        taken, leaving = Signal(len(outputs)), Signal(len(outputs))
        m.d.sync += [
            shifted.eq(Cat(self.shift_in, shifted)), given.eq(shifted),
            taken.eq(outputs), leaving.eq(Mux(self.load, taken, leaving >> 1)),
            self.shift_out.eq(leaving[0]),
        ]  # fmt: skip
        m.d.comb += inputs.eq(given)
        return m
