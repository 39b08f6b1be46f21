"""The published layout, byte by byte: files that stand here as they would be written by hand."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.coding.container import compress, decompress
from compiler.compressed import CompressedModel, CompressedTensor
from compiler.dcnet import Form, parse_form, read_net, write_net
from compiler.errors import CodingError, ModelError
from tests.compiler.coding.models import assert_equal, floats, tensor

FORMS = (Form("conv", (2, 3, 2, 2), 8), Form("fc", (2, 20), 4))

# conv: 24 places, entries at 0, 1 and 18 (a filler at 17, then a gap of 0).
CONV_BOOK = [0.0, 0.5, -0.25] + [0.0] * 253
CONV_CODES = bytes([2, 1, 0, 2])  # one a byte; the third is the filler
CONV_GAPS = bytes([0x00, 0x0F])  # 0 and 0; 15 (the filler) and 0: the first of two in the low half
# fc: 40 places, entries at 3, 20 (a filler at 19) and 39 (a filler at 36, then a gap of 2).
FC_BOOK = [0.0, 1.0, 2.0, -3.0] + [0.0] * 12
FC_CODES = bytes([0x03, 0x02, 0x01])  # 3 and the filler; 2 and the filler; 1, and a half that is not used
FC_GAPS = bytes([0xF3, 0xF0, 0x02])  # 3 and 15; 0 and 15; 2
FILE = (
    bytes([4, 0, 0, 0, 5, 0, 0, 0])
    + struct.pack("<256f", *CONV_BOOK) + struct.pack("<2f", 0.125, -1.0) + CONV_CODES + CONV_GAPS
    + struct.pack("<16f", *FC_BOOK) + struct.pack("<2f", 7.0, 0.0) + FC_CODES + FC_GAPS
)  # fmt: skip


@pytest.mark.verifies("net-files-written-hand-byte")
def test_a_file_written_by_hand_is_read_as_written() -> None:
    model = read_net(FILE, FORMS)
    conv, fc = np.zeros(24, np.float32), np.zeros(40, np.float32)
    conv[[0, 1, 18]] = -0.25, 0.5, -0.25
    fc[[3, 20, 39]] = -3.0, 2.0, 1.0
    expected = {
        "conv.weight": conv.reshape(2, 3, 2, 2), "fc.weight": fc.reshape(2, 20),
        "conv.bias": np.array([0.125, -1.0], np.float32), "fc.bias": np.array([7.0, 0.0], np.float32),
    }  # fmt: skip
    found = model.state()
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_the_same_bytes_are_written_again() -> None:
    data, forms = write_net(read_net(FILE, FORMS))
    assert forms == FORMS
    assert data == FILE


@given(seed=st.integers(0, 2**32 - 1), bits=st.integers(1, 8), density=st.sampled_from([0.0, 0.01, 0.1, 0.7, 1.0]))
def test_any_network_of_weights_and_biases_comes_back(seed: int, bits: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 12, int(rng.integers(2, 5))))
    made = tensor(rng, "a.weight", shape, bits, density)
    model = CompressedModel((made,), {"a.bias": floats(rng, shape[0], 0)})
    data, forms = write_net(model)
    found = read_net(data, forms)
    for name, values in model.state().items():
        np.testing.assert_array_equal(found.state()[name], values)
    assert_equal(decompress(compress(found, "huffman")).network, found)


def replaced(at: int, *values: int) -> bytes:
    return FILE[:at] + bytes(values) + FILE[at + len(values) :]


@pytest.mark.verifies("net-files-lie")
@pytest.mark.parametrize(
    ("data", "forms", "words"),
    [
        (FILE[:-1], FORMS, "the file ends within fc: gaps: 2 bytes left, 3 needed"),
        (FILE[:7], FORMS, "the file ends within the numbers of entries"),
        (FILE + b"\0", FORMS, "1 bytes behind the last layer"),
        (replaced(0, 25), FORMS, "conv: 25 entries; a tensor of shape (2, 3, 2, 2) has at most 24"),
        (replaced(0, 0xFF, 0xFF, 0xFF, 0xFF), FORMS, "conv: 4294967295 entries"),
        (replaced(8, 0, 0, 0x80, 0x3F), FORMS, "conv: code 0 is 1.0; expected 0"),
        (replaced(12, 0, 0, 0xC0, 0x7F), FORMS, "not finite"),
        (FILE[:-1] + b"\x03", FORMS, "fc: an entry stands at 40; expected less than 40"),
        (FILE, FORMS[:1], "conv: code 0 is"),
        (FILE, (Form("a", (1 << 15, 1 << 15), 4),), "more than"),
    ],
)
def test_lies_are_refused(data: bytes, forms: tuple[Form, ...], words: str) -> None:
    with pytest.raises(CodingError) as caught:
        read_net(data, forms)
    assert words in str(caught.value)


def test_thousands_of_changed_files_are_refused_or_harmless(rng: np.random.Generator) -> None:
    refused = 0
    for _ in range(3000):
        changed = bytearray(FILE)
        for _ in range(int(rng.integers(1, 4))):
            changed[int(rng.choice([rng.integers(8), rng.integers(len(FILE) - 20, len(FILE))]))] = rng.integers(256)
        try:
            read_net(bytes(changed), FORMS).verify()
        except CodingError:
            refused += 1
    assert refused > 1000


def test_forms() -> None:
    assert parse_form("fc6=4096x9216") == Form("fc6", (4096, 9216), 4)
    assert parse_form("conv1=96x3x11x11") == Form("conv1", (96, 3, 11, 11), 8)
    assert parse_form("fc8=1000x4096:8") == Form("fc8", (1000, 4096), 8)
    for wrong in ("", "fc", "fc=", "fc=10", "fc=10x0", "fc=10x10:5", "=10x10", "fc=axb", "fc=-1x-1"):
        with pytest.raises(CodingError, match="expected NAME=OUTxIN"):
            parse_form(wrong)


def test_what_has_no_room_in_the_layout_is_named(rng: np.random.Generator) -> None:
    made: CompressedTensor = tensor(rng, "a.weight", (3, 4), 4, 0.5)
    with pytest.raises(ModelError, match=r"needs a\.bias with 3 values"):
        write_net(CompressedModel((made,)))
    with pytest.raises(ModelError, match="no room for norm"):
        write_net(CompressedModel((made,), {"a.bias": np.zeros(3, np.float32), "norm": np.zeros(2, np.float32)}))
