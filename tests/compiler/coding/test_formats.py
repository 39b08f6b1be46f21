"""Files of earlier formats: `data/` holds some that kits of those times wrote."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from compiler.coding import chain_form
from compiler.coding.container import FixedContent, compress_fixed, decompress, decompress_fixed
from compiler.errors import CodingError
from compiler.graph.dense import Dense, dense_graph
from compiler.lower.chain import Chain
from compiler.lower.pipeline import compile_graph
from compiler.lower.program import LOW, Program
from compiler.network_file import graph_text, load
from compiler.options import preset_options
from hw.params import Params, preset
from sim.cases import random_network, random_options, random_params
from sim.network import run_network
from sim.packed import restore_image
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


@pytest.mark.verifies("files-formats-2-4-kits")
def test_a_network_of_format_5_gives_the_same_results_though_its_channels_lie_elsewhere(tmp_path: Path) -> None:
    """Its first layer has a row of 96 weights among rows of two: vectors have other channels now."""
    content = decompress_fixed((DATA / "format5-fixed-uneven.eiez").read_bytes())
    assert (content.image_crc, content.version) == (None, 5)
    (tmp_path / "net.eie").write_bytes(restore_image(content))
    rng = np.random.default_rng(5)

    def uneven(rows: int, columns: int) -> NDArray[np.float32]:
        weight = np.zeros((rows, columns), np.float32)
        for row in range(rows):
            count = 2 if row else columns
            weight[row, rng.choice(columns, count, replace=False)] = rng.choice([-2.0, 1.0, 3.0], count)
        return weight

    graph = dense_graph([Dense("fc1", uneven(10, 96), None, "relu"), Dense("fc2", uneven(20, 10), None, "none")])
    x = rng.integers(-100, 100, (4, 96)).astype(np.int16)
    right = run_network(compile_graph(graph, content.params, None), x, engine="golden")
    np.testing.assert_array_equal(run_network(load(tmp_path / "net.eie"), x, engine="golden").raw, right.raw)
    assert right.raw.any()


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
