"""The one memory primitive: a synchronous one-read one-write RAM that a chip team swaps for its macro."""

from __future__ import annotations

from typing import Any

from amaranth import ClockSignal, Instance, Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.platform import is_export

__all__ = ["Sram"]


class Sram(wiring.Component):
    """Synchronous RAM with one read and one write port.

    In exported Verilog it is an instance of the module ``eie_ram`` (hw/rtl/eie_ram.v), which infers
    block RAM, can be preloaded in simulation, and is the single place where a macro goes in. In
    Amaranth's simulator it is `amaranth.lib.memory.Memory`.

    Timing: ``r_data`` follows ``r_addr`` one cycle later and holds its value while ``r_en`` is low.
    Reading the word that is written in the same cycle is forbidden: the result is not specified.

    Parameters
    ----------
    width : bits of a word.
    depth : words.
    style : what synthesis for an FPGA should make of it: "auto", "block" for block RAM even where it holds little, or
        "distributed" for memory made of lookup tables, whose register answers in a fraction of a block RAM's time.
        Elsewhere it means nothing.
    log : in simulation of the Verilog, what is written is listed in a file where one is asked for.
    """

    def __init__(self, width: int, depth: int, style: str = "auto", log: bool = False) -> None:
        self.width, self.depth, self.style, self.log = width, depth, style, log
        address = max(1, (depth - 1).bit_length())
        super().__init__({
            "w_en": In(1), "w_addr": In(address), "w_data": In(width),
            "r_en": In(1), "r_addr": In(address), "r_data": Out(width),
        })  # fmt: skip
        self.data: Any = memory.MemoryData(shape=width, depth=depth, init=[])

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if is_export(platform):
            m.submodules.ram = Instance(
                "eie_ram",
                p_WIDTH=self.width,
                p_DEPTH=self.depth,
                p_ADDRESS=len(self.w_addr),
                p_STYLE=self.style,
                p_LOG=int(self.log),
                i_clk=ClockSignal(),
                i_w_en=self.w_en,
                i_w_addr=self.w_addr,
                i_w_data=self.w_data,
                i_r_en=self.r_en,
                i_r_addr=self.r_addr,
                o_r_data=self.r_data,
            )
            return m
        m.submodules.ram = ram = memory.Memory(self.data)
        write, read = ram.write_port(), ram.read_port()
        m.d.comb += [
            write.en.eq(self.w_en), write.addr.eq(self.w_addr), write.data.eq(self.w_data),
            read.en.eq(self.r_en), read.addr.eq(self.r_addr), self.r_data.eq(read.data),
        ]  # fmt: skip
        return m
