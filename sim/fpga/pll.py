"""The PLL of an ECP5: dividers for a clock, and the instance."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth import Instance, Signal

from compiler.errors import InputError

__all__ = ["Pll", "ecp5_pll"]

# Lattice, ECP5 and ECP5-5G Family Data Sheet (FPGA-DS-02012), table of sysCLOCK PLL timing.
_VCO = (400.0, 800.0)
_COMPARED = (3.125, 400.0)
_MOST = 128
_NEAR = 0.01
"""How far the clock may be from the one asked for, as a part of it."""


@dataclass(frozen=True)
class Pll:
    """Dividers: of the input, of the feedback, of the output. mhz : the clock that comes out."""

    input: int
    feedback: int
    output: int
    mhz: float

    @classmethod
    def find(cls, given: float, wanted: float) -> Pll:
        """The dividers whose clock is nearest to `wanted`, and of these those whose oscillator is in the middle.

        Feedback is from the output: clock = given · feedback / input, oscillator = clock · output.

        Raises
        ------
        InputError
            None comes within 1 %.
        """
        found: tuple[float, float, Pll] | None = None
        for divider in range(1, _MOST + 1):
            if not _COMPARED[0] <= given / divider <= _COMPARED[1]:
                continue
            feedback = max(1, min(_MOST, round(wanted * divider / given)))
            mhz = given * feedback / divider
            outputs = [n for n in range(1, _MOST + 1) if _VCO[0] <= mhz * n <= _VCO[1]]
            for output in outputs:
                key = (round(abs(mhz - wanted), 6), abs(mhz * output - sum(_VCO) / 2))
                if found is None or key < found[:2]:
                    found = (*key, cls(divider, feedback, output, mhz))
        if found is None or found[0] > _NEAR * wanted:
            near = f"; the nearest is {found[2].mhz:.2f}" if found else ""
            raise InputError(f"{wanted:g} MHz cannot be made of {given:g} MHz by an ECP5's PLL{near}")
        return found[2]


def ecp5_pll(pll: Pll, given: Signal, clock: Signal, locked: Signal) -> Instance:
    """The PLL between the board's clock and the design's, feedback from its first output."""
    return Instance(
        "EHXPLLL",
        p_CLKI_DIV=pll.input,
        p_CLKFB_DIV=pll.feedback,
        p_CLKOP_DIV=pll.output,
        p_CLKOP_ENABLE="ENABLED",
        p_CLKOP_CPHASE=pll.output // 2,
        p_CLKOP_FPHASE=0,
        p_FEEDBK_PATH="CLKOP",
        p_OUTDIVIDER_MUXA="DIVA",
        p_STDBY_ENABLE="DISABLED",
        p_DPHASE_SOURCE="DISABLED",
        p_PLLRST_ENA="DISABLED",
        p_INTFB_WAKE="DISABLED",
        a_ICP_CURRENT="12",
        a_LPF_RESISTOR="8",
        a_MFG_ENABLE_FILTEROPAMP="1",
        a_MFG_GMCREF_SEL="2",
        i_CLKI=given,
        i_CLKFB=clock,
        i_RST=0,
        i_STDBY=0,
        i_PHASESEL0=0,
        i_PHASESEL1=0,
        i_PHASEDIR=0,
        i_PHASESTEP=0,
        i_PHASELOADREG=0,
        i_PLLWAKESYNC=0,
        i_ENCLKOP=0,
        o_CLKOP=clock,
        o_LOCK=locked,
    )
