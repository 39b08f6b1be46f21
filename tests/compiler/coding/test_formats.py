"""Files of earlier formats: `data/` holds some that kits of those times wrote."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from compiler.coding import chain_form
from compiler.coding.container import FixedContent, compress_fixed, decompress, decompress_fixed
from compiler.errors import CodingError
from compiler.lower.chain import Chain
from compiler.lower.program import LOW, Program
from compiler.network_file import graph_text
from compiler.options import preset_options
from hw.params import Params, preset
from sim.cases import random_network, random_options, random_params
from tests.compiler.coding.fixed import chain, parts

DATA = Path(__file__).parent / "data"


def assert_equal(found: Program, expected: Chain) -> None:
    assert len(found.layers) == len(expected.layers)
    for number, (layer, right) in enumerate(zip(found.layers, expected.layers, strict=True)):
        (segment,) = layer.segments
        row = np.repeat(np.arange(len(segment.starts) - 1), segment.counts)
        codes = np.zeros_like(right.codes)
        codes[row, segment.channel] = segment.code
        assert (codes == np.where(right.codebook[right.codes] == 0, 0, right.codes)).all()
        assert (segment.codebook == right.codebook).all()
        assert (layer.bias == right.bias).all()
        assert (layer.shift == right.shift).all()
        assert (layer.name, layer.exact, layer.low) == (
            right.name,
            right.exact,
            0 if right.activation == "relu" else LOW,
        )
        assert segment.source == number
        exponents = [found.maps[n].exponent for n in (number, layer.result)]
        assert exponents == [right.input_exponent, right.output_exponent]


def the_program(content: FixedContent) -> Program:
    (program,) = content.parts.programs
    return program


def of_before(name: str) -> Params:
    """An array of a preset, with the memories that it had in formats 2 and 3."""
    depth = 8 if name == "EIE_64" else 64
    return preset(name).replace(queue_depth=depth, codebooks=16, tables=0, elementwise=False, streams=False)


@pytest.mark.verifies("files-formats-2-4-kits")
@pytest.mark.parametrize("name", ["EIE_64", "BALANCED_4"])
def test_a_network_of_format_2_is_read_whole(name: str) -> None:
    content = decompress_fixed((DATA / f"format2-fixed-{name}.eiez").read_bytes())
    assert_equal(the_program(content), chain(preset(name)))
    assert content.options == preset_options(name)
    assert content.params == of_before(name)
    assert (content.image_crc, content.version) == (None, 2)


@pytest.mark.verifies("files-formats-2-4-kits")
def test_a_network_of_format_3_has_the_graph_around_it() -> None:
    content = decompress_fixed((DATA / "format3-fixed-BALANCED_4.eiez").read_bytes())
    assert [node.op for node in content.parts.graph] == ["Input", "Reshape", "Array", "Output"]
    assert content.parts.graph.nodes[-1]["then"] == "log_softmax"
    assert content.params == of_before("BALANCED_4")
    assert (content.image_crc, content.version) == (None, 3)


@pytest.mark.verifies("files-formats-2-4-kits")
def test_a_network_of_format_4_has_programs_without_loops_for_an_array_without_streams() -> None:
    content = decompress_fixed((DATA / "format4-fixed-BALANCED_4.eiez").read_bytes())
    assert_equal(the_program(content), chain(preset("BALANCED_4")))
    assert content.params == preset("BALANCED_4").replace(streams=False)
    assert (content.image_crc, content.version) == (None, 4)


def test_a_graph_of_format_3_that_is_none_is_refused() -> None:
    made = chain(preset("BALANCED_4"))
    for wrong in (b"[]", b"{", b'[{"op": "Array"}]', b'[{"op": "Array", "attributes": {"width": 1}}]', b"[1]", b"7"):
        with pytest.raises(CodingError, match="is not one"):
            chain_form.parts_of(made, wrong)


@pytest.mark.verifies("files-formats-2-4-kits")
def test_floats_of_format_2_are_read_bit_for_bit() -> None:
    from tests.compiler.coding.fixed import codes

    made = codes(6, 10, 8)
    weight = np.where(made > 0, made * np.float32(0.25) - np.float32(0.75), 0).astype(np.float32)
    bias = np.arange(6, dtype=np.float32) / 3
    path = DATA / "format2-float.eiez"
    state = decompress(path.read_bytes()).network.state()
    np.testing.assert_array_equal(state["fc1.weight"], weight)
    np.testing.assert_array_equal(state["fc1.bias"], bias)


@pytest.mark.verifies("compressed-files-programs-kind-convolutions")
def test_programs_come_back_as_they_were(seed: int) -> None:
    for number in range(60):
        rng = np.random.default_rng(seed + number)
        params, options = random_params(rng), random_options(rng)
        program = random_network(rng, params)
        given = parts(chain(preset("BALANCED_4")))
        given = type(given)(given.graph, (program, program))
        content = decompress_fixed(compress_fixed(given, params, options, number, "huffman"))
        assert (content.params, content.options, content.image_crc) == (params, options, number)
        assert graph_text(content.parts.graph) == graph_text(given.graph)
        for found, right in itertools.product(content.parts.programs, (program,)):
            assert (found.maps, found.inputs, found.outputs) == (right.maps, right.inputs, right.outputs)
            for layer, other in zip(found.layers, right.layers, strict=True):
                plain = [{k: v for k, v in vars(each).items() if not _large(v)} for each in (layer, other)]
                assert plain[0] == plain[1]
                for mine, theirs in zip((layer, *layer.segments), (other, *other.segments), strict=True):
                    for name, value in vars(mine).items():
                        assert np.array_equal(value, vars(theirs)[name]) or name == "segments", name


def _large(value: object) -> bool:
    return isinstance(value, np.ndarray) or (isinstance(value, tuple) and hasattr(next(iter(value), 0), "codebook"))
