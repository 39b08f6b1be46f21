"""Files of earlier formats: `data/` holds some that kits of those times wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler.coding.container import compress_fixed, decompress, decompress_fixed
from compiler.lower.chain import Chain
from compiler.options import preset_options
from hw.params import preset
from tests.compiler.coding.fixed import chain, codes

DATA = Path(__file__).parent / "data"


def assert_equal(found: Chain, expected: Chain) -> None:
    assert found.params == expected.params
    for layer, right in zip(found.layers, expected.layers, strict=True):
        assert (layer.codes == right.codes).all()
        assert (layer.codebook == right.codebook).all()
        assert (layer.bias == right.bias).all()
        for name in ("name", "weight_exponent", "shift", "activation", "input_exponent", "output_exponent", "exact"):
            assert getattr(layer, name) == getattr(right, name), name


@pytest.mark.parametrize("name", ["EIE_64", "BALANCED_4"])
def test_a_network_of_format_2_is_read_whole(name: str) -> None:
    content = decompress_fixed((DATA / f"format2-fixed-{name}.eiez").read_bytes())
    assert_equal(content.network, chain(preset(name)))
    assert [layer.fold for layer in content.network.layers] == [True, False]
    assert content.options == preset_options(name)
    assert content.image_crc is None


def test_floats_of_format_2_are_read_bit_for_bit() -> None:
    made = codes(6, 10, 8)
    weight = np.where(made > 0, made * np.float32(0.25) - np.float32(0.75), 0).astype(np.float32)
    bias = np.arange(6, dtype=np.float32) / 3
    path = DATA / "format2-float.eiez"
    state = decompress(path.read_bytes()).network.state()
    np.testing.assert_array_equal(state["fc1.weight"], weight)
    np.testing.assert_array_equal(state["fc1.bias"], bias)


def test_the_graph_around_the_layers_comes_back() -> None:
    made, options = chain(preset("BALANCED_4")), preset_options("BALANCED_4")
    for around in (b"", b"[]", b"x" * 5000):
        content = decompress_fixed(compress_fixed(made, options, 1, around=around))
        assert content.around == around
