"""A LiteX system with the array of a folder, as Verilog ``soc.v`` there. Run by itself: LiteX prints and keeps state.

Its one master stands at the pins: a Wishbone bus, so that a bench is the processor. Streams and interrupt are pins too.
"""

# mypy: ignore-errors

import sys
from pathlib import Path

from litex.build.sim import SimPlatform
from litex.gen import LiteXModule
from litex.gen.fhdl.verilog import convert
from litex.soc.integration.soc_core import SoCMini
from litex.soc.interconnect import wishbone
from migen import ClockDomain

ORIGIN = 0x9000_0000


def main(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    from eie_litex import add_eie

    platform = SimPlatform("SIM", [])
    soc = SoCMini(platform, clk_freq=int(1e6), ident_version=False)
    soc.crg = LiteXModule()
    soc.crg.cd_sys = clock = ClockDomain("sys")
    master = wishbone.Interface(data_width=32, address_width=32, addressing="word")
    soc.bus.add_master(name="host", master=master)
    eie = add_eie(soc, folder, origin=ORIGIN)
    pins = {clock.clk, clock.rst, eie.irq}
    pins |= {getattr(master, name) for name in ("adr", "dat_w", "dat_r", "sel", "cyc", "stb", "ack", "we", "err")}
    for name, end in (("weights", eie.weights), ("acts_in", eie.acts_in), ("acts_out", eie.acts_out)):
        assert end is not None, f"{name} is missing"
        for part in ("data", "valid", "ready", "last"):
            signal = getattr(end, part)
            signal.name_override = f"{name}_{part}"
            pins.add(signal)
    for name in ("adr", "dat_w", "dat_r", "sel", "cyc", "stb", "ack", "we", "err"):
        getattr(master, name).name_override = name
    eie.irq.name_override = "irq"
    soc.finalize()
    convert(soc.get_fragment(), ios=pins, name="soc", platform=platform).write(str(folder / "soc.v"))


main(Path(sys.argv[1]))
