"""The decoder reads images the way the array does, and refuses what the array would misread."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from compiler.errors import ImageError
from compiler.image.image import Image, LayerInfo
from hw.layouts import Function, Op
from hw.params import Params
from sim import golden
from sim.decode import columns, decode

PARAMS = Params(
    pes=2, index_bits=4, rows=32, weight_words=4, pointer_blocks=8, act_lines=8, bias_words=64, descriptors=4, fold=1
)


def by_hand(**changes: Any) -> Image:
    """A layer of 37 x 2 on two PEs, every byte written by hand.

    PE 0 has the even neurons: column 0 holds neuron 0 (code 1) and, 18 rows on, neuron 36 (code 2) behind one
    padding entry; column 1 is empty. PE 1 has the odd neurons: column 1 holds neuron 3 (code 15).
    """
    # Entry byte: code in the low nibble, index in the high one. Neuron 36 is slot 18: a gap of 17 is 15 + 1 + 1.
    entries = np.zeros((2, 1, 8), np.uint8)
    entries[0, 0, :3] = [0x01, 0xF0, 0x12]
    entries[1, 0, :1] = [0x1F]
    # Pointer block: 5 bits of base, then eight lengths of 6 bits: 53 bits.
    pointers = np.zeros((2, 1, 7), np.uint8)
    pointers[0, 0, 0] = 3 << 5
    pointers[1, 0, :3] = [0, 1 << 3, 0]
    descriptors = np.zeros((2, 32), np.uint8)
    # op 1, function 1; codebook 0, shift 2 (bits 13 …); destination 1; activation vectors 1, slots 19; pointers 0,
    # bias 0.
    descriptors[0, :16] = [0x11, 0x40, 0, 0, 0, 0, 1, 0, 1, 0, 19, 0, 0, 0, 0, 0]
    descriptors[1, 0] = 15
    bias = np.zeros((1, 38), np.int64)
    bias[0, 36], bias[0, 3] = -5, 7  # slot * 2 + pe
    order = np.append(np.arange(37), [-1, -1, -1]).astype(np.int32)  # whole activation vectors
    codebook = np.zeros((1, 16), np.int16)
    codebook[0, [1, 2, 15]] = [100, -200, 32767]
    info = LayerInfo("a", 2, 37, 2, "relu", 0, -2, 2, 0, True, 3, 1, 1)
    none = np.zeros((0, 16), np.uint8)
    image = Image(PARAMS, (info,), entries, pointers, none, codebook, bias, descriptors, order)
    return dataclasses.replace(image, **changes)


def test_constants_of_the_hand_written_image() -> None:
    assert (Op.MATVEC.value, Op.END.value, Function.RELU.value) == (1, 15, 1)
    assert (PARAMS.entry_address_bits, PARAMS.count_bits, PARAMS.entry_bits) == (5, 6, 8)


def test_a_hand_written_image_is_read_as_written() -> None:
    [layer] = decode(by_hand())
    weight = np.zeros((37, 2), np.int64)
    weight[0, 0], weight[36, 0], weight[3, 1] = 100, -200, 32767
    np.testing.assert_array_equal(layer.weight.toarray(), weight)
    bias = np.zeros(37, np.int64)
    bias[36], bias[3] = -5, 7
    np.testing.assert_array_equal(layer.bias, bias)
    assert (layer.name, layer.shift, layer.relu) == ("a", 2, True)
    [result] = golden.run([layer], np.array([[-3, 1]], np.int16), 40)
    assert result.raw[0, [0, 3, 36]].tolist() == [0, (32767 + 7 + 2) // 4, (600 - 5 + 2) // 4]


def test_columns_of_the_hand_written_image() -> None:
    [stored] = columns(by_hand())
    assert (stored.counts.dtype, stored.starts.dtype, stored.padding.dtype) == (np.uint16, np.uint8, np.uint16)
    assert stored.counts.tolist() == [[3, 0], [0, 1]] + [[0, 0]] * 6
    assert stored.starts.tolist() == [[0, 0], [3, 0]] + [[3, 1]] * 6
    assert stored.padding.tolist() == [[1, 0]] + [[0, 0]] * 7
    assert stored.packets == []


def test_a_hand_written_folded_image_with_a_split_row() -> None:
    # 3 x 3 on two PEs: neurons 0 and 1 whole in slot 0, neuron 2 split over both PEs in slot 1. Columns come in pairs.
    # PE 0: pair (0, 1): neuron 0 has code 1 for input 0 and 2 for input 1 (virtual rows 0, 1), neuron 2 code 3 for
    # input 1 (virtual row 3, gap 1); pair (2, -): nothing. PE 1: pair (0, 1): nothing; pair (2, -): neuron 1 code 4
    # (virtual row 0), neuron 2 code 5 (virtual row 2, gap 1).
    params = PARAMS.replace(fold=2, fragments=2)
    entries = np.zeros((2, 1, 8), np.uint8)
    entries[0, 0, :3] = [0x01, 0x02, 0x13]
    entries[1, 0, :2] = [0x04, 0x15]
    # Pointer block: 5 bits of base, then eight lengths of 7 bits: 61 bits.
    pointers = np.zeros((2, 1, 8), np.uint8)
    pointers[0, 0, 0] = 3 << 5
    pointers[1, 0, 1] = 2 << 4  # second length: bit 12 on
    descriptors = np.zeros((2, 32), np.uint8)
    # op 1, function 0; fold (bit 18), fragment_log2 1 (bit 19); destination 1; activation vectors 1, slots 2; fragment
    # slots 1.
    descriptors[0, :18] = [0x01, 0, 0x04 | 0x08, 0, 0, 0, 1, 0, 1, 0, 2, 0, 0, 0, 0, 0, 1, 0]
    descriptors[1, 0] = 15
    codebook = np.zeros((1, 16), np.int16)
    codebook[0, 1:6] = [10, 20, 30, 40, 50]
    info = LayerInfo("a", 3, 3, 3, "none", 0, 0, 0, 0, True, 5, 0, 1)
    image = Image(
        params, (info,), entries, pointers, np.zeros((0, 16), np.uint8), codebook, np.array([[1, 2, 3]]),
        descriptors, np.array([0, 1, 2, -1, -1, -1, -1, -1], np.int32),
    )  # fmt: skip
    [layer] = decode(image)
    assert layer.weight.toarray().tolist() == [[10, 20, 0], [0, 0, 40], [0, 30, 50]]
    assert layer.bias.tolist() == [1, 2, 3]
    [stored] = columns(image)
    assert stored.counts[:2].tolist() == [[3, 0], [0, 2]]


def changed(array: np.ndarray, place: Any, value: int) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entries": changed(by_hand().entries, (0, 0, 2), 0xF2)}, "an entry stands in row 32 of a PE; expected less"),
        ({"entries": changed(by_hand().entries, (0, 0, 2), 0x22)}, "an entry stands in row 19 of a PE"),
        ({"bias": changed(by_hand().bias, (0, 37), 1)}, "a position that no neuron has, has a bias"),
        (
            {"row_order": by_hand().row_order[[37, *range(37), 38, 39]]},
            "an entry stands at a position that no neuron has",
        ),
    ],
)
def test_entries_that_contradict_the_layer_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(by_hand(**changes))


def test_an_entry_in_a_column_without_a_neuron_is_refused() -> None:
    pointers = by_hand().pointers.copy()
    pointers[1, 0, :3] = [0, 0, 1 << 1]  # its one entry moves from column 1 to column 2
    with pytest.raises(ImageError, match="an entry stands in column 2; expected less than 2"):
        decode(by_hand(pointers=pointers))


def test_overlapping_columns_are_refused() -> None:
    # All lengths at their largest would make a small file decode into a large one.
    with pytest.raises(ImageError, match="leads out of the entries"):
        decode(by_hand(pointers=changed(by_hand().pointers, (0, 0, slice(1, 3)), 0x22)))


def test_padding_entries_decode_to_nothing() -> None:
    # The padding entry moves elsewhere in the column's gap: code 0 counts as a step and as nothing else.
    image = by_hand(entries=changed(by_hand().entries, (0, 0, slice(1, 3)), [0x50, 0xB2]))  # type: ignore[arg-type]
    [layer], [expected] = decode(image), decode(by_hand())
    np.testing.assert_array_equal(layer.weight.toarray(), expected.weight.toarray())


def test_a_lost_padding_entry_moves_a_weight() -> None:
    entries = by_hand().entries.copy()
    entries[0, 0, :3] = [0x01, 0x12, 0]
    pointers = changed(by_hand().pointers, (0, 0, 0), 2 << 5)
    info = dataclasses.replace(by_hand().layers[0], padding=0)
    [layer], [expected] = decode(by_hand(entries=entries, pointers=pointers, layers=(info,))), decode(by_hand())
    difference = (layer.weight - expected.weight).tocoo()
    assert sorted(zip(*(axis.tolist() for axis in difference.coords), strict=True)) == [(4, 0), (36, 0)]
