from __future__ import annotations

import re
import subprocess

import pytest

from hw.layouts import Error, Memory, Op, descriptor, elementwise, fields, loop, memory_shape, refill_header
from hw.params import Params, preset
from hw.registers import ERRORS, REGISTERS, c_header, markdown, mask

C = ("cc", "-x", "c", "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror")
CXX = ("c++", "-x", "c++", "-std=c++11", "-Wall", "-Wextra", "-pedantic", "-Werror")
PLAIN = Params(pes=2, tables=0, elementwise=False, refill=False)


@pytest.mark.verifies("register-map-overlaps-c-header")
def test_offsets_are_words_and_fields_do_not_overlap():
    offsets = [register.offset for register in REGISTERS]
    assert offsets == sorted(set(offsets))
    assert all(offset % 4 == 0 for offset in offsets)
    for register in REGISTERS:
        taken = 0
        for bits in register.fields:
            assert not taken & bits.mask
            assert bits.mask < 1 << 32
            taken |= bits.mask
        assert register.mask == (taken or (1 << register.width) - 1)


@pytest.mark.verifies("register-map-overlaps-c-header")
def test_interrupts_are_enabled_at_the_places_of_their_flags():
    flags = {bits.name for register in REGISTERS for bits in register.fields if bits.access == "W1C"}
    assert flags == {"DONE", "REFUSED"}
    assert all(mask("INTERRUPT", name) == mask("STATUS", name) for name in flags)


def test_every_error_is_explained():
    text = markdown(PLAIN)
    assert set(ERRORS) == set(Error)
    assert all(f"| {error.value} | {error.name} | {ERRORS[error]} |" in text for error in Error)


@pytest.mark.verifies("register-map-overlaps-c-header")
def test_every_field_is_in_the_header():
    header = c_header(preset("BALANCED_16"))
    for register in REGISTERS:
        assert f"#define EIE_REG_{register.name} 0x{register.offset:02X}u" in header
        for bits in register.fields:
            assert f"#define EIE_REG_{register.name}_{bits.name}_MASK 0x{bits.mask:X}u" in header


def constants(tmp_path, header, compiler):
    """Every constant of a header, as a compiled program prints it."""
    names = re.findall(r"^#define (EIE_\w+) ", header, re.MULTILINE)
    rows = "".join(f'    printf("%s %lu\\n", "{name}", (unsigned long)({name}));\n' for name in names)
    (tmp_path / "eie.h").write_text(header)
    (tmp_path / "main.c").write_text(
        f'#include <stdio.h>\n#include "eie.h"\n#include "eie.h"\n\nint main(void)\n{{\n{rows}    return 0;\n}}\n'
    )
    subprocess.run([*compiler, "main.c", "-o", "main"], cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "main"], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in (line.split() for line in printed.splitlines())}


@pytest.mark.verifies("c-header-strict-c99-c")
@pytest.mark.parametrize("params", [preset("BALANCED_4"), PLAIN], ids=["all", "plain"])
@pytest.mark.parametrize("compiler", [C, CXX], ids=["C99", "C++"])
def test_the_header_compiles_and_says_what_is_built(tmp_path, params, compiler):
    found = constants(tmp_path, c_header(params), compiler)
    layouts = {"SEGMENT": descriptor(params), "LOOP": loop(params)}
    layouts |= {"ELEMENTWISE": elementwise(params)} if params.elementwise else {}
    layouts |= {"REFILL": refill_header(params)} if params.refill else {}
    for prefix, layout in layouts.items():
        for name, first, width in fields(layout):
            if not name.startswith("reserved"):
                at = f"EIE_{prefix}_{name.upper()}"
                assert (found[f"{at}_FIRST"], found[f"{at}_WIDTH"]) == (first, width)
    assert any(name.startswith("EIE_ELEMENTWISE") for name in found) == params.elementwise
    assert any(name.startswith("EIE_REFILL") for name in found) == params.refill
    absent = {Op.ILLEGAL.name, *(() if params.elementwise else (Op.ELEMENTWISE.name,))}
    assert {name for name in found if name.startswith("EIE_OP_")} == {
        f"EIE_OP_{op.name}" for op in Op if op.name not in absent
    }
    assert ("EIE_ERROR_STREAM" in found) == params.refill
    assert found["EIE_ERROR_RANGE"] == Error.RANGE.value
    for memory in Memory:
        units, words, bits = memory_shape(params, memory)
        assert (f"EIE_MEMORY_{memory.name}" in found) == bool(words)
        if words:
            at = f"EIE_MEMORY_{memory.name}"
            assert [found[at + end] for end in ("", "_UNITS", "_WORDS", "_PARTS")] == [
                memory.value, units, words, -(-bits // 32)
            ]  # fmt: skip
