"""Register map of the host port, written once: hardware, documentation and C header derive from it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from amaranth.lib import data

from hw.layouts import (
    Error,
    Join,
    Memory,
    Op,
    descriptor,
    elementwise,
    fields,
    identity,
    loop,
    memory_shape,
    record,
    refill_header,
)
from hw.params import Params
from hw.parity import KINDS

__all__ = [
    "EVERY_REGISTER", "ID", "REGISTERS", "SPDX", "Field", "Register", "c_header", "markdown", "mask", "offset",
    "registers",
]  # fmt: skip

SPDX = "SPDX-License-Identifier: Apache-2.0"
"""First line of every file of an export."""
ID = 0x31454945  # "EIE1" in little-endian bytes


@dataclass(frozen=True)
class Field:
    """Bits of a register, and what they mean. `access`: that of the register, or W1C: a written one clears the bit."""

    name: str
    first: int
    width: int
    text: str
    access: str = ""

    @property
    def mask(self) -> int:
        """Ones at the bits of the field."""
        return ((1 << self.width) - 1) << self.first


@dataclass(frozen=True)
class Register:
    """One 32-bit register. `access`: RO, RW, WO (reads as zero), or W1C: only its fields so marked can be written."""

    name: str
    offset: int
    access: str
    text: str
    fields: tuple[Field, ...] = ()
    width: int = 32

    @property
    def mask(self) -> int:
        """The bits that mean something; a one written to another one of an RW or WO register answers SLVERR."""
        return sum(bits.mask for bits in self.fields) if self.fields else (1 << self.width) - 1


_KINDS = {
    "QUEUE": "Vectors that wait in a PE.",
    "ACCUMULATORS": "Sums of a PE.",
    "OPERANDS": "Operands of an elementwise operation.",
}

REGISTERS: tuple[Register, ...] = (
    Register("ID", 0x00, "RO", 'The letters "EIE1".'),
    Register("HASH_LOW", 0x04, "RO", "Hash of parameters and layouts, low half. An image with another does not fit."),
    Register("HASH_HIGH", 0x08, "RO", "Hash of parameters and layouts, high half."),
    Register("PES", 0x0C, "RO", "Number of processing elements."),
    Register("CONTROL", 0x10, "WO", "Commands; write ones.", (
        Field("START", 0, 1, "Begin at FIRST, and clear STATUS.DONE. While busy: ignored, and sets STATUS.REFUSED."),
        Field("RESTART", 1, 1,
            "Abandon what runs, clear STATUS.DONE and STATUS.REFUSED, and all accumulators. Memories keep their "
            "contents. If the refill stream is inside a tile, its beats up to the one with TLAST are dropped. "
            "With START: only RESTART."),
        Field("NEW_STREAM", 3, 1,
            "With RESTART: the sources of the streams begin anew. The next beat of the refill stream is a header; "
            "nothing of it is dropped from then on. Of rows of maps, beats that come until BUSY falls are dropped."),
    )),
    Register("STATUS", 0x14, "W1C", "State of the array. A flag that is set while it is cleared stays set.", (
        Field("BUSY", 0, 1, "A run is under way, or accumulators are being cleared after reset."),
        Field("DONE", 1, 1, "A run has ended, successfully or with an error.", "W1C"),
        Field("REFUSED", 2, 1, "A start or a memory access came while busy and had no effect.", "W1C"),
        Field("IN_TILE", 3, 1, "The last beat taken of the refill stream had no TLAST: more of its tile follows."),
        Field("ERROR", 4, 4, "Why the last run ended early: " + ", ".join(f"{e.value} {e.name}" for e in Error) + "."),
        Field("INDEX", 16, 16, "Descriptor at which the run stands or ended."),
    )),
    Register("INTERRUPT", 0x18, "RW", "`irq` is high while a bit of STATUS is set that is enabled here.", (
        Field("DONE", 1, 1, "Enable STATUS.DONE."),
        Field("REFUSED", 2, 1, "Enable STATUS.REFUSED."),
    )),
    Register("FIRST", 0x1C, "RW", "Descriptor at which a run begins.", width=16),
    Register("CYCLES", 0x20, "RO", "Cycles of the last run: counts from its start to its end; 0 after reset."),
    Register("SELECT", 0x24, "RW", "Memory to access.", (
        Field("MEMORY", 0, 4, ", ".join(f"{m.value} {m.name}" for m in Memory) + "."),
        Field("UNIT", 8, 8, "PE (weights, pointers) or write-back group (activations, outputs); otherwise 0."),
    )),
    Register("ADDRESS", 0x28, "RW",
        "Word address; one more after each whole word. Writing it or SELECT also starts a word.", width=21),
    Register("DATA", 0x2C, "RW",
        "The word, 32 bits at a time, low part first; a write of the last part stores it, an access to the last part "
        "moves on. Activations, descriptors and records can be read, all but records can be written. Any other memory, "
        "unit or address answers SLVERR and changes nothing. While busy: no effect, reads as 0, sets STATUS.REFUSED."),
    Register("BATCH", 0x30, "RW", "Samples that a run computes, 1 after reset; as they are when it starts.", width=16),
)  # fmt: skip

"""What every array has."""

_PARITY = Register("PARITY", 0x34, "W1C",
    "Memories of which a word was used whose parity was wrong. RESTART leaves it as it is. A bit that is set while it "
    "is cleared stays set.",
    tuple(Field(name, n, 1, _KINDS.get(name, f"Memory {n}."), "W1C") for n, name in enumerate(KINDS)),
)  # fmt: skip
_MORE = {
    "STATUS": Field("PARITY", 8, 1, "A bit of the register PARITY is set."),
    "INTERRUPT": Field("PARITY", 8, 1, "Enable STATUS.PARITY."),
}
EVERY_REGISTER = (
    *(
        dataclasses.replace(each, fields=(*each.fields, _MORE[each.name])) if each.name in _MORE else each
        for each in REGISTERS
    ),
    _PARITY,
)
"""What an array with parity has."""

ERRORS = {
    Error.NONE: "The run ended at its END descriptor.",
    Error.OPCODE: "A descriptor has an opcode that the array does not know, or was built without.",
    Error.RANGE: "A field of a descriptor cannot be, or an address is beyond its memory.",
    Error.RESERVED: "A reserved field of a descriptor is not zero.",
    Error.STREAM: "The refill stream is wrong: a header with a memory, PE, address, number of words or reserved bit "
    "that cannot be, another buffer within a tile or one whose turn it is not, TLAST elsewhere than at a tile's end.",
}
"""What STATUS.ERROR says. With any but NONE the results of the run are not complete; the accumulators are clear."""

_BY_NAME = {register.name: register for register in EVERY_REGISTER}


def registers(params: Params) -> tuple[Register, ...]:
    """The registers of an array with these parameters."""
    return EVERY_REGISTER if params.parity else REGISTERS


def offset(name: str) -> int:
    """Byte offset of a register."""
    return _BY_NAME[name].offset


def mask(name: str, *names: str) -> int:
    """Bits of these fields of a register; of all that mean something if none is named."""
    register = _BY_NAME[name]
    masks = {bits.name: bits.mask for bits in register.fields}
    return sum(masks[each] for each in names) if names else register.mask


def markdown(params: Params) -> str:
    """The register map and the memories behind it, as a document."""
    lines = [f"<!-- {SPDX} -->", "# Host port: AXI4-Lite, 32-bit data", "", f"Parameter hash `{identity(params)}`.", ""]
    lines += [
        "[host.md](host.md) says how a program uses it. W1C: a one that is written clears the bit.",
        "An unknown offset, a write of other than 32 bits, and a one written to a bit without a meaning of an RW or WO",
        "register answer SLVERR and change nothing.",
        "",
    ]
    lines += ["| offset | name | access | meaning |", "|---|---|---|---|"]
    for register in registers(params):
        lines.append(f"| 0x{register.offset:02X} | {register.name} | {register.access} | {register.text} |")
        for bits in register.fields:
            access = bits.access or ("RO" if register.access == "W1C" else "")
            span = str(bits.first) if bits.width == 1 else f"{bits.first + bits.width - 1}:{bits.first}"
            lines.append(f"| | `{bits.name}` [{span}] | {access} | {bits.text} |")
    if not params.parity:
        lines += [
            "",
            f"An array with `parity` has {_PARITY.name} (0x{_PARITY.offset:02X}) besides, and bits of others.",
        ]
    lines += [
        "",
        "| number | memory | units | words per unit | bits a word | 32-bit parts |",
        "|---|---|---|---|---|---|",
    ]
    for memory in Memory:
        units, words, width = memory_shape(params, memory)
        lines.append(f"| {memory.value} | {memory.name} | {units} | {words} | {width} | {-(-width // 32)} |")
    lines += ["", "| error | name | meaning |", "|---|---|---|"]
    lines += [f"| {error.value} | {error.name} | {text} |" for error, text in ERRORS.items()]
    names = ", ".join(str(name) for name, _ in record(params))
    lines += ["", f"A record holds, 32 bits each: {names}.", ""]
    return "\n".join(lines)


def c_header(params: Params) -> str:
    """Registers, memories, words of descriptors and of the refill stream, and parameters, as a C header (C99 and C++).

    Only what the array has: no opcode, error or memory that was not built.
    """
    lines = [f"/* {SPDX} */", "/* Generated together with the Verilog; do not edit. */", "#ifndef EIE_H"]
    lines += ["#define EIE_H"]

    def part(text: str) -> None:
        lines.extend(["", f"/* {text} */"])

    def define(name: str, value: str) -> None:
        lines.append(f"#define EIE_{name} {value}")

    def layout(name: str, shape: data.StructLayout) -> None:
        part(f"{name}: first bit and width of each field.")
        for field_name, first, width in fields(shape):
            if not field_name.startswith("reserved"):
                define(f"{name}_{field_name.upper()}_FIRST", f"{first}u")
                define(f"{name}_{field_name.upper()}_WIDTH", f"{width}u")

    part("What ID, HASH_LOW and HASH_HIGH read.")
    define("ID_VALUE", f"0x{ID:08X}u")
    digest = int(identity(params), 16)
    define("HASH_LOW_VALUE", f"0x{digest & 0xFFFFFFFF:08X}u")
    define("HASH_HIGH_VALUE", f"0x{digest >> 32:08X}u")
    part("Registers: byte offsets; shifts and masks of their fields.")
    for register in registers(params):
        define(f"REG_{register.name}", f"0x{register.offset:02X}u")
        for bits in register.fields:
            define(f"REG_{register.name}_{bits.name}_SHIFT", f"{bits.first}u")
            define(f"REG_{register.name}_{bits.name}_MASK", f"0x{bits.mask:X}u")
    part("Memories: number, units, words per unit, 32-bit parts per word.")
    for memory in Memory:
        units, words, width = memory_shape(params, memory)
        if words:
            define(f"MEMORY_{memory.name}", f"{memory.value}u")
            define(f"MEMORY_{memory.name}_UNITS", f"{units}u")
            define(f"MEMORY_{memory.name}_WORDS", f"{words}u")
            define(f"MEMORY_{memory.name}_PARTS", f"{-(-width // 32)}u")
    part("Parts of a record.")
    for n, (name, *_) in enumerate(fields(record(params))):
        define(f"RECORD_{name.upper()}", f"{n}u")
    part("Opcodes, joins of the output table, errors.")
    built = {"OP_ILLEGAL": False, "OP_ELEMENTWISE": params.elementwise, "ERROR_STREAM": params.refill}
    for kind in (Op, Join, Error):
        for member in kind:
            if built.get(f"{kind.__name__.upper()}_{member.name}", True):
                define(f"{kind.__name__.upper()}_{member.name}", f"{member.value}u")
    layout("SEGMENT", descriptor(params))
    if params.elementwise:
        layout("ELEMENTWISE", elementwise(params))
    layout("LOOP", loop(params))
    if params.refill:
        layout("REFILL", refill_header(params))
    part("Parameters of the array.")
    for name, value in params.asdict().items():
        define(f"PARAM_{name.upper()}", f"{int(value)}u")
    return "\n".join([*lines, "", "#endif", ""])
