"""A small memory that is read within a cycle: lookup tables of an FPGA, a register file elsewhere."""

from __future__ import annotations

from typing import Any

from amaranth import Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["NearRam"]


class NearRam(wiring.Component):
    """RAM of at most `hw.params.NEAR_WORDS` words with one write port and a read port without a register.

    Timing: ``r_data`` is the word at ``r_addr`` in the same cycle; a word that is written shows in the next one.

    Parameters
    ----------
    width : bits of a word.
    depth : words.
    """

    def __init__(self, width: int, depth: int) -> None:
        self.width, self.depth = width, depth
        address = max(1, (depth - 1).bit_length())
        super().__init__({
            "w_en": In(1), "w_addr": In(address), "w_data": In(width), "r_addr": In(address), "r_data": Out(width),
        })  # fmt: skip
        self.data: Any = memory.MemoryData(shape=width, depth=depth, init=[])

    def beside(self) -> NearRam:
        """A memory for one bit beside each of its words (`hw.parity.ParityBeside`)."""
        return NearRam(1, self.depth)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = words = memory.Memory(self.data)
        write, read = words.write_port(), words.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.w_en), write.addr.eq(self.w_addr), write.data.eq(self.w_data),
            read.addr.eq(self.r_addr), self.r_data.eq(read.data),
        ]  # fmt: skip
        return m
