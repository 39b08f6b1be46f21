# SPDX-License-Identifier: Apache-2.0
"""The array in a LiteX system-on-chip. `eie verilog` writes this file beside the Verilog; it needs LiteX alone.

    from eie_litex import add_eie
    eie = add_eie(soc, "build/rtl", origin=0x9000_0000)

The registers are one uncached region of 4 KiB of the system's bus (docs/host.md; the program in C is the same). If the
array has streams, their endpoints are for DMA engines: LiteX's LiteDRAMDMAReader and Writer, or WishboneDMAReader.
"""

import json
from pathlib import Path
from types import SimpleNamespace

from litex.gen import LiteXModule
from litex.soc.integration.soc import SoCRegion
from litex.soc.interconnect import axi, stream
from migen import ClockSignal, Constant, Instance, ResetSignal, Signal

__all__ = ["EIE", "add_eie"]

SIZE = 0x1000
"""Bytes of the registers."""
BEAT = 128
"""Bits of a beat of each stream."""


class EIE(LiteXModule):
    """The array behind an AXI4-Lite interface.

    Parameters
    ----------
    platform : to which the Verilog is added. folder : that `eie verilog` wrote.

    Attributes
    ----------
    bus : AXI4-Lite, 32 bits, byte addresses. irq : high while STATUS has a flag that INTERRUPT enables.
    weights, acts_in : sinks of the streams of weights and of rows of maps. acts_out : source of rows of maps. Each is
        None if the array has no such stream.
    """

    def __init__(self, platform, folder):
        folder = Path(folder)
        params = json.loads((folder / "memories.json").read_text())["params"]
        self.bus = bus = axi.AXILiteInterface(data_width=32, address_width=32)
        self.irq = Signal()
        self.ev = SimpleNamespace(irq=self.irq)  # what LiteX's `soc.irq.add` looks for
        pins = {
            "i_aclk": ClockSignal("sys"), "i_aresetn": ~ResetSignal("sys"), "o_irq": self.irq,
            "i_s_axi_awaddr": bus.aw.addr[:12], "i_s_axi_awvalid": bus.aw.valid, "o_s_axi_awready": bus.aw.ready,
            "i_s_axi_awprot": Constant(0, 3), "i_s_axi_wdata": bus.w.data, "i_s_axi_wstrb": bus.w.strb,
            "i_s_axi_wvalid": bus.w.valid, "o_s_axi_wready": bus.w.ready, "o_s_axi_bresp": bus.b.resp,
            "o_s_axi_bvalid": bus.b.valid, "i_s_axi_bready": bus.b.ready, "i_s_axi_araddr": bus.ar.addr[:12],
            "i_s_axi_arvalid": bus.ar.valid, "i_s_axi_arprot": Constant(0, 3), "o_s_axi_arready": bus.ar.ready,
            "o_s_axi_rdata": bus.r.data, "o_s_axi_rresp": bus.r.resp, "o_s_axi_rvalid": bus.r.valid,
            "i_s_axi_rready": bus.r.ready,
        }  # fmt: skip
        self.weights = _stream(pins, "s_axis_weights") if params["refill"] else None
        self.acts_in = _stream(pins, "s_axis_acts") if params["streams"] else None
        self.acts_out = _stream(pins, "m_axis_acts") if params["streams"] else None
        self.specials += Instance("eie_accelerator", **pins)
        for file in ("accelerator.v", "eie_ram.v"):
            platform.add_source(str(folder / file))


def _stream(pins, name):
    """The endpoint of a stream, and its pins added to those of the instance."""
    end = stream.Endpoint([("data", BEAT)])
    to, back = ("i", "o") if name.startswith("s_") else ("o", "i")
    pins |= {
        f"{to}_{name}_tdata": end.data, f"{to}_{name}_tlast": end.last, f"{to}_{name}_tvalid": end.valid,
        f"{back}_{name}_tready": end.ready,
    }  # fmt: skip
    return end


def add_eie(soc, folder, origin=None, name="eie"):
    """Put the array into a system: its registers on the bus at `origin` (or where there is room), its interrupt.

    Returns the `EIE`, whose streams are still to be connected.
    """
    eie = EIE(soc.platform, folder)
    setattr(soc, name, eie)
    soc.bus.add_slave(name, eie.bus, SoCRegion(origin=origin, size=SIZE, cached=False))
    if soc.irq.enabled:
        soc.irq.add(name, use_loc_if_exists=True)
    return eie
