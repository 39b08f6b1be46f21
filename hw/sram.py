"""The one memory primitive: a synchronous one-read one-write RAM that a chip team swaps for its macro."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, ClockSignal, Instance, Module, Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.parity import ParityCheck
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
    parity : a word has a bit more, above the others, that makes its number of ones even.

    Members
    -------
    w_en, w_addr, w_data, r_en, r_addr, r_data : the ports. `width` bits each way, with and without parity.
    used, wrong : ``r_data`` is used in this cycle; 2 cycles later, its parity was wrong (only with `parity`).
    """

    def __init__(self, width: int, depth: int, style: str = "auto", log: bool = False, parity: bool = False) -> None:
        self.width, self.depth, self.style, self.log, self.parity = width, depth, style, log, parity
        address = max(1, (depth - 1).bit_length())
        super().__init__({
            "w_en": In(1), "w_addr": In(address), "w_data": In(width),
            "r_en": In(1), "r_addr": In(address), "r_data": Out(width),
            **({"used": In(1), "wrong": Out(1)} if parity else {}),
        })  # fmt: skip
        self.data: Any = memory.MemoryData(shape=width + parity, depth=depth, init=[])

    def beside(self) -> Sram:
        """A memory for one bit beside each of its words (`hw.parity.ParityBeside`)."""
        return Sram(1, self.depth, "distributed")

    def elaborate(self, platform: object) -> Module:
        m = Module()
        w_data: Value = self.w_data
        r_data: Value = self.r_data
        if self.parity:
            m.submodules.check = check = ParityCheck(self.width + 1)
            w_data, r_data = Cat(self.w_data, self.w_data.xor()), check.word
            m.d.comb += [self.r_data.eq(check.word), check.used.eq(self.used), self.wrong.eq(check.wrong)]
        if is_export(platform):
            m.submodules.ram = Instance(
                "eie_ram",
                p_WIDTH=len(w_data),
                p_DEPTH=self.depth,
                p_ADDRESS=len(self.w_addr),
                p_STYLE=self.style,
                p_LOG=int(self.log),
                i_clk=ClockSignal(),
                i_w_en=self.w_en,
                i_w_addr=self.w_addr,
                i_w_data=w_data,
                i_r_en=self.r_en,
                i_r_addr=self.r_addr,
                o_r_data=r_data,
            )
            return m
        m.submodules.ram = ram = memory.Memory(self.data)
        write, read = ram.write_port(), ram.read_port()
        m.d.comb += [
            write.en.eq(self.w_en), write.addr.eq(self.w_addr), write.data.eq(w_data),
            read.en.eq(self.r_en), read.addr.eq(self.r_addr), r_data.eq(read.data),
        ]  # fmt: skip
        return m
