from __future__ import annotations

from hw.params import preset
from hw.registers import REGISTERS, c_header


def test_offsets_are_words_and_fields_do_not_overlap():
    offsets = [register.offset for register in REGISTERS]
    assert offsets == sorted(set(offsets))
    assert all(offset % 4 == 0 for offset in offsets)
    for register in REGISTERS:
        taken = 0
        for bits in register.fields:
            mask = ((1 << bits.width) - 1) << bits.first
            assert not taken & mask
            assert mask < 1 << 32
            taken |= mask


def test_every_field_is_in_the_header():
    header = c_header(preset("BALANCED_16"))
    for register in REGISTERS:
        assert f"#define EIE_{register.name} 0x{register.offset:02X}u" in header
        for bits in register.fields:
            assert f"#define EIE_{register.name}_{bits.name}_MASK" in header
