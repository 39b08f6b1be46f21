"""Driver for the array's host port, over AXI4-Lite, in a cocotb bench."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

from hw.layouts import Memory, memory_shape
from hw.params import Params
from hw.registers import mask, offset

__all__ = ["HostPort"]


class HostPort:
    """Registers and memories by name; what a driver on a real host does, in the same order."""

    def __init__(self, dut: Any, params: Params) -> None:
        self.params = params
        self.master = AxiLiteMaster(
            AxiLiteBus.from_prefix(dut, "s_axi"), dut.aclk, dut.aresetn, reset_active_level=False
        )

    async def write(self, register: str, value: int) -> None:
        """Write a register."""
        answer = await self.master.write(offset(register), value.to_bytes(4, "little"))
        assert answer.resp == AxiResp.OKAY, f"a write of {value:#x} to {register} is answered with {answer.resp.name}"

    async def read(self, register: str) -> int:
        """Read a register."""
        answer = await self.master.read(offset(register), 4)
        assert answer.resp == AxiResp.OKAY, f"a read of {register} is answered with {answer.resp.name}"
        return int.from_bytes(answer.data, "little")

    async def command(self, *names: str) -> None:
        """Write ones to bits of CONTROL."""
        await self.write("CONTROL", mask("CONTROL", *names))

    async def acknowledge(self, *names: str) -> None:
        """Clear flags of STATUS."""
        await self.write("STATUS", mask("STATUS", *names))

    async def select(self, memory: Memory, unit: int, address: int) -> None:
        """Point the memory window at a word."""
        await self.write("SELECT", memory.value | unit << 8)
        await self.write("ADDRESS", address)

    def parts(self, memory: Memory) -> int:
        """How many 32-bit parts a word of a memory has."""
        return -(-memory_shape(self.params, memory)[2] // 32)

    async def load(self, memory: Memory, unit: int, address: int, words: Sequence[int]) -> None:
        """Write successive words of one memory."""
        await self.select(memory, unit, address)
        for word in words:
            for part in range(self.parts(memory)):
                await self.write("DATA", (word >> 32 * part) & 0xFFFFFFFF)

    async def fetch(self, memory: Memory, unit: int, address: int, count: int) -> list[int]:
        """Read successive words of one memory."""
        await self.select(memory, unit, address)
        words = []
        for _ in range(count):
            word = 0
            for part in range(self.parts(memory)):
                word |= await self.read("DATA") << 32 * part
            words.append(word)
        return words

    async def status(self) -> dict[str, int]:
        """Fields of STATUS."""
        value = await self.read("STATUS")
        return {
            "busy": value & 1, "done": value >> 1 & 1, "refused": value >> 2 & 1, "in_tile": value >> 3 & 1,
            "error": value >> 4 & 15, "index": value >> 16,
        }  # fmt: skip
