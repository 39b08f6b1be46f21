"""Encoding and packing: nothing is lost, and every word is what the layouts say."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from amaranth.lib import data
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.image.check import check
from compiler.image.image import Image
from compiler.image.words import memory_words
from compiler.lower.build import build as build_program
from compiler.lower.build import encode
from compiler.lower.chain import Chain
from compiler.lower.encode import Encoded
from compiler.lower.pack import pack
from compiler.lower.program import chain_program, segment_of
from compiler.lower.rows import Assignment, assign_rows
from compiler.lower.words import pack_words
from compiler.options import DEFAULT, Options
from hw.layouts import Join, Memory, Op, descriptor, entry, fields, output_word, pointer_block, weight_word
from hw.params import LANES, Params
from tests.compiler.array_reader import Reader, word_of
from tests.compiler.networks import SMALL, distinct_codebook, expected, layer_of, network


def build(graph: Chain, options: Options = DEFAULT) -> Image:
    image = build_program(chain_program(graph), graph.params, options)
    check(image)
    return image


def results(image: Image, x: NDArray[np.int16]) -> list[NDArray[np.int64]]:
    """What each layer of a chain makes of one vector, by the plainest reading of the image."""
    reader = Reader(image)
    reader.put(0, x.astype(np.int64).reshape(-1, 1, 1))
    found: dict[int, NDArray[np.int64]] = {}
    for info, made in zip(image.layers, reader.run(), strict=True):
        found[info.result] = made[:, 0, 0]  # of a layer in blocks, when the last of them is there
    return list(found.values())


def differing(graph: Chain, image: Image, rng: np.random.Generator) -> list[str]:
    """Layers with results that are not the graph's."""
    x = rng.integers(-32768, 32768, graph.layers[0].codes.shape[1]).astype(np.int16)
    pairs = zip(graph.layers, results(image, x), expected(graph, x[None]), strict=True)
    return [layer.name for layer, made, right in pairs if not np.array_equal(made, right[0])]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Params, Options, list[int], float, int]:
    params = Params(
        pes=1 << draw(st.integers(0, 6)),
        index_bits=draw(st.integers(4, 8)),
        code_bits=draw(st.integers(2, 8)),
        rows=draw(st.sampled_from([8, 16, 1024])),
        descriptors=1024,
        output_words=8192,
        weight_words=1 << 14,
    )
    widths = draw(st.lists(st.integers(1, 90), min_size=2, max_size=4))
    options = Options(draw(st.booleans()), draw(st.booleans()), draw(st.integers(1, 8)))
    return params, options, widths, draw(st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0])), draw(st.integers(0, 1 << 32))


@pytest.mark.verifies("packed-decoded-run-chain-computes")
@given(cases())
@example((Params(pes=64, rows=1024), DEFAULT, [1, 1, 1], 1.0, 0))
@example((Params(pes=1, index_bits=4, rows=1024), DEFAULT, [3, 1000], 0.004, 0))
@example((Params(pes=8), Options(balanced=False), [17, 9, 16], 0.2, 0))
def test_chains_compute_what_they_should(case: tuple[Params, Options, list[int], float, int]) -> None:
    params, options, widths, density, seed = case
    rng = np.random.default_rng(seed)
    graph = network(rng, params, widths, density)
    image = build(graph, options)
    assert differing(graph, image, rng) == []
    of_layers = {layer.name: sum(i.nonzeros for i in image.layers if i.name.split("#")[0] == layer.name)
                 for layer in graph.layers}  # fmt: skip
    assert of_layers == {layer.name: np.count_nonzero(layer.codes) for layer in graph.layers}
    stored = sum(info.entries - info.padding for info in image.layers)
    assert stored == sum(of_layers.values())  # a fully connected layer has one copy of its weights


def corner_cases() -> dict[str, NDArray[np.uint8]]:
    def matrix(shape: tuple[int, int], *places: tuple[int, int]) -> NDArray[np.uint8]:
        codes = np.zeros(shape, np.uint8)
        for number, place in enumerate(places):
            codes[place] = number % 15 + 1
        return codes

    full = matrix((20, 30), *((row, column) for row in range(20) for column in range(30)))
    empty_rows, empty_columns = full.copy(), full.copy()
    empty_rows[3:19] = 0
    empty_columns[:, 8:29] = 0
    return {
        "empty matrix": matrix((20, 30)),
        "empty rows": empty_rows,
        "empty columns": empty_columns,
        "full": full,
        "one entry, first": matrix((20, 30), (0, 0)),
        "one entry, last": matrix((20, 30), (19, 29)),
        "gap longer than the index": matrix((200, 2), (0, 0), (199, 0), (150, 1)),
        "gap just within the index": matrix((64, 1), (60, 0)),
        "fewer rows than PEs": matrix((3, 30), (0, 1), (1, 9), (2, 29)),
        "rows not a multiple of PEs": matrix((21, 5), (20, 4), (0, 0)),
        "one input": matrix((50, 1), (7, 0), (49, 0)),
        "one output": matrix((1, 50), (0, 0), (0, 49)),
        "one by one": matrix((1, 1), (0, 0)),
    }


@pytest.mark.verifies("corner-cases-empty-matrix-rows")
@pytest.mark.parametrize("pes", [1, 4, 64])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(
    ("name", "codes"), corner_cases().items(), ids=lambda value: value if type(value) is str else ""
)
def test_corner_cases(name: str, codes: NDArray[np.uint8], balanced: bool, pes: int, rng: np.random.Generator) -> None:
    params = SMALL.replace(pes=pes, index_bits=4, rows=256, weight_words=2048)
    graph = Chain((layer_of(codes, distinct_codebook(rng, 4), rng),), params)
    image = build(graph, Options(balanced=balanced))
    assert differing(graph, image, rng) == []
    if name == "gap longer than the index" and pes == 1 and not balanced:
        # 198 zeros between two entries, 150 before the only one: 12 and 9 full reaches of 16.
        assert image.layers[0].padding == 12 + 9


@pytest.mark.verifies("worked-example-publication")
def test_column_of_the_publication() -> None:
    # EIE, section III: 0,0,1,2, eighteen zeros, 3 is stored as v = [1,2,0,3], z = [2,0,15,2].
    codes = np.zeros((23, 1), np.uint8)
    codes[[2, 3, 22], 0] = [1, 2, 3]
    params = SMALL.replace(pes=1, index_bits=4)
    rng = np.random.default_rng(0)
    [layer] = encoded_of(Chain((layer_of(codes, distinct_codebook(rng, 4), rng),), params), Options(False)).layers
    [segment] = layer.segments
    assert segment.codes.tolist() == [1, 2, 0, 3]
    assert segment.indices.tolist() == [2, 0, 15, 2]
    assert segment.counts.tolist() == [[4, 0, 0, 0, 0, 0, 0, 0]]


def encoded_of(graph: Chain, options: Options = DEFAULT) -> Encoded:
    return encode(chain_program(graph), graph.params, options)


@pytest.mark.verifies("rows-dealt-evenly-split-rows")
def test_interleaved_rows_are_those_of_the_published_array(rng: np.random.Generator) -> None:
    params = SMALL.replace(pes=16, rows=32)
    graph = network(rng, params, [30, 70], 0.3)
    image = build(graph, Options(balanced=False))
    words = memory_words(image)[Memory.OUTPUTS]
    order = image.map_orders[1]
    assert order[:70].tolist() == list(range(70))
    layout = output_word(params)
    for group in range(2):
        line = 0
        for word in (values_of(layout, number) for number in words[group]):
            if word["last"]:
                neuron = (line * 2 + group) * LANES + word["lane"]
                assert (group * 8 + word["pe"], word["slot"]) == (neuron % 16, neuron // 16)
            line += word["flush"]


def test_a_column_that_is_empty_in_a_pe_may_cost_an_entry(rng: np.random.Generator) -> None:
    params = SMALL.replace(pes=4)
    options = Options(balanced=False, skip_empty=False)
    graph = network(rng, params, [21, 40], 0.05)
    [with_empty] = encoded_of(graph, options).layers[0].segments
    [plain] = encoded_of(graph, options.replace(skip_empty=True)).layers[0].segments
    assert (with_empty.counts[:, :21] == np.maximum(plain.counts[:, :21], 1)).all()
    assert (with_empty.counts[:, :21] == 1).sum() > (plain.counts[:, :21] == 1).sum() > 0
    assert not with_empty.counts[:, 21:].any()  # beyond the inputs nothing is ever sent
    assert differing(graph, build(graph, options), rng) == []


def loads_of(found: Assignment, work: NDArray[np.int64], group: NDArray[np.int64], params: Params) -> list[int]:
    loads = np.zeros(params.pes, np.int64)
    for row, amount in enumerate(work.tolist()):
        base = int(group[row]) * params.group
        if row in found.parts:
            parts = found.parts[row]
            assert sum(parts.share) == amount
            assert len(set(parts.pe)) == len(parts.pe) > 1
            for pe, share in zip(parts.pe, parts.share, strict=True):
                loads[base + pe] += share
        else:
            loads[base + int(found.pe[row])] += amount
    used = [(int(group[r]), int(found.pe[r]), int(found.slot[r])) for r in range(len(work)) if r not in found.parts]
    used += [(int(group[r]), *place) for r, p in found.parts.items() for place in zip(p.pe, p.slot, strict=True)]
    assert len(set(used)) == len(used)
    return loads.tolist()


@pytest.mark.verifies("rows-dealt-evenly-split-rows")
@pytest.mark.parametrize("pes", [1, 2, 4, 8, 16, 64])
@pytest.mark.parametrize("fragments", [1, 2, 8])
def test_rows_are_dealt_evenly(pes: int, fragments: int, rng: np.random.Generator) -> None:
    params = Params(pes=pes)
    rows = 5 * pes + (pes + 1) // 2
    work = rng.integers(4000, 6000, rows)
    group = np.arange(rows) % params.groups
    options = Options(fragments=fragments)
    found = assign_rows(work, group, 0 * group, np.arange(rows), params, options, hidden=False, most=params.rows)
    again = assign_rows(work, group, 0 * group, np.arange(rows), params, options, hidden=False, most=params.rows)
    assert np.array_equal(found.pe, again.pe)
    loads = loads_of(found, work, group, params)
    assert found.busiest == max(loads)
    assert all(len(parts.pe) <= fragments for parts in found.parts.values())
    if fragments == 8 and pes > 1:
        # At most one split row for each PE but one, and every PE of a group ends with the same work.
        assert found.parts
        for number in range(params.groups):
            mine = loads[number * params.group : (number + 1) * params.group]
            total = int(work[group == number].sum())
            split = sum(len(parts.pe) - 1 for row, parts in found.parts.items() if group[row] == number)
            assert split <= 2 * params.group
            if split:
                assert max(mine) <= -(-total // params.group) + 1
    alone = Options(fragments=1)
    whole = assign_rows(work, group, 0 * group, np.arange(rows), params, alone, hidden=False, most=params.rows)
    assert not whole.parts
    assert found.busiest <= whole.busiest


@pytest.mark.verifies("rows-dealt-evenly-split-rows")
def test_the_entries_of_a_split_row_are_shared_evenly_along_it(rng: np.random.Generator) -> None:
    params = Params(pes=8)
    work = rng.integers(4000, 6000, 12)
    zeros = np.zeros(12, np.int64)
    found = assign_rows(work, zeros, zeros, np.arange(12), params, DEFAULT, hidden=False, most=params.rows)
    for row, parts in found.parts.items():
        owners = parts.owners()
        assert np.bincount(owners, minlength=len(parts.pe)).tolist() == list(parts.share)
        half = np.bincount(owners[: work[row] // 2], minlength=len(parts.pe))
        assert (abs(np.array(parts.share) - 2 * half) <= 2).all()


@pytest.mark.verifies("rows-dealt-evenly-split-rows")
def test_only_one_row_of_a_result_is_split(rng: np.random.Generator) -> None:
    params = Params(pes=8)
    work = rng.integers(4000, 6000, 12)
    output = np.arange(12) // 4
    zeros = np.zeros(12, np.int64)
    found = assign_rows(work, zeros, zeros, output, params, DEFAULT, hidden=False, most=params.rows)
    assert len({int(output[row]) for row in found.parts}) == len(found.parts) > 0


@pytest.mark.verifies("rows-dealt-evenly-split-rows")
@pytest.mark.parametrize("channels", [3, 8, 20, 32])
def test_the_rows_of_each_pixel_are_spread_over_all_pes(channels: int, rng: np.random.Generator) -> None:
    params = Params(pes=8)
    pixels = 24
    pixel = np.repeat(np.arange(pixels), channels)
    work = np.tile(rng.integers(20, 60, channels), pixels)
    zeros = np.zeros(len(work), np.int64)
    found = assign_rows(work, zeros, pixel, np.arange(len(work)), params, DEFAULT, hidden=True, most=params.rows)
    for number in range(pixels):
        rows = np.bincount(found.pe[pixel == number], minlength=8)
        assert rows.max() - rows.min() <= 1
    loads = loads_of(found, work, zeros, params)
    assert found.busiest == max(loads)
    # A pixel changes the difference between two PEs by no more than the difference of its rows.
    assert max(loads) - min(loads) <= 2 * int(work.max())
    assert not found.parts


def values_of(layout: data.Layout, word: int) -> dict[str, int]:
    return {name: word >> first & ((1 << width) - 1) for name, first, width in fields(layout)}


def nested(layout: data.Layout, values: dict[str, int]) -> Any:
    """Leaf values in the form that `Layout.const` takes."""
    if isinstance(layout, data.ArrayLayout):
        return [_inner(layout.elem_shape, values, str(lane)) for lane in range(layout.length)]
    return {name: _inner(field.shape, values, str(name)) for name, field in layout}


def _inner(shape: Any, values: dict[str, int], name: str) -> Any:
    if isinstance(shape, data.Layout):
        prefix = name + "."
        return nested(
            shape, {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
        )
    return values[name]


@pytest.mark.verifies("words-equal-amaranth-s-own")
@pytest.mark.parametrize(("index_bits", "code_bits"), [(4, 2), (4, 4), (5, 4), (6, 4), (7, 8), (8, 8)])
@pytest.mark.parametrize("make", [weight_word, pointer_block, output_word, descriptor])
def test_words_equal_amaranths_constants(make: Any, index_bits: int, code_bits: int, rng: np.random.Generator) -> None:
    params = Params(index_bits=index_bits, code_bits=code_bits, rows=1024, weight_words=1 << 20)
    layout = make(params)
    leaves = fields(layout)
    for extreme in (False, True):
        values = {
            name: rng.integers((1 << width) - 1 if extreme else 0, 1 << width, 5)
            for name, _, width in leaves
            if name not in ("op", "join")
        }
        packed = pack_words(layout, values)
        for row in range(5):
            each = {name: int(array[row]) for name, array in values.items()}
            each |= {name: 0 for name in ("op", "join") if any(name == leaf for leaf, _, _ in leaves)}
            constant = layout.const(nested(layout, each)).as_value().value
            assert int.from_bytes(packed[row].tobytes(), "little") == constant


@pytest.mark.parametrize("value", [-1, 16, 1 << 40])
def test_a_value_that_does_not_fit_its_field_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match=r"index is .* expected 4 unsigned bits"):
        pack_words(entry(Params(index_bits=4)), {"code": [0], "index": [value]})


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match="no field indx; expected some of code, index"):
        pack_words(entry(Params()), {"indx": [0]})


def test_memories_hold_what_the_specification_says(rng: np.random.Generator) -> None:
    params = SMALL.replace(pes=16, rows=32, index_bits=4)
    graph = network(rng, params, [30, 50, 20], 0.15)
    image = build(graph, Options(fragments=1))
    words = memory_words(image)
    first, second, end = (word_of(descriptor(params), word) for word in image.descriptors)
    assert (first["vectors"], first["pointers"], first["outputs"], first["chained"], first["codebook"]) == (
        4,
        0,
        0,
        0,
        0,
    )
    vectors = image.maps[1].vectors
    assert (second["vectors"], second["pointers"], second["chained"], second["codebook"]) == (vectors, 4, 1, 1)
    assert second["outputs"] == first["words"]
    assert (first["source"], second["source"]) == (0, image.maps[1].base * 2)
    assert end == {**dict.fromkeys(end, 0), "op": Op.END.value}
    for found, layer in zip((first, second), graph.layers, strict=True):
        assert (found["low"], found["high"]) == (0 if layer.activation == "relu" else -32768, 32767)
    assert words[Memory.CODEBOOK][0] == [int(v) % (1 << 16) for layer in graph.layers for v in layer.codebook]

    # Pointers: base is the entry address, counted over both layers; lengths add up to it.
    for pe in range(params.pes):
        address = 0
        for word in words[Memory.POINTERS][pe]:
            block = values_of(pointer_block(params), word)
            assert block["base"] == address
            address += sum(block[f"lengths.{lane}"] for lane in range(LANES))
    assert len(words[Memory.POINTERS][0]) == 4 + vectors

    # Output table: each neuron with its bias and shift, in the lane in which its order has it.
    base = 0
    for layer, step, order in zip(graph.layers, (first, second), image.map_orders[1:], strict=True):
        seen = []
        for group in range(params.groups):
            line = 0
            for word in (word_of(output_word(params), w) for w in image.table[group, base : base + step["words"]]):
                if word["last"]:
                    neuron = int(order[(line * params.groups + group) * LANES + word["lane"]])
                    seen.append(neuron)
                    assert (word["bias"], word["shift"]) == (layer.bias[neuron], layer.shift)
                    assert word["join"] == Join.START.value
                line += word["flush"]
            assert line == step["row_lines"]
        assert sorted(seen) == list(range(len(layer.bias)))
        base += step["words"]


def test_equal_codebooks_are_stored_once(rng: np.random.Generator) -> None:
    graph = network(rng, SMALL, [20, 20, 20, 20], 0.3)
    same = dataclasses.replace(graph, layers=tuple(
        dataclasses.replace(layer, codebook=graph.layers[0].codebook) for layer in graph.layers
    ))  # fmt: skip
    image = build(same)
    assert len(image.codebooks) == 1
    assert differing(same, image, rng) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_words": 2}, r"weight memory needs \d+, the array has 2 \(--set weight_words=\d+\)"),
        ({"pointer_blocks": 2}, r"pointer memory needs 9, the array has 2 \(--set pointer_blocks=9\)"),
        ({"act_lines": 5}, r"activation memory needs 9 lines, the array has 5: .* \(--set act_lines=9\)"),
        ({"output_words": 39}, r"output table needs 40, the array has 39 \(--set output_words=40\)"),
        ({"codebooks": 1}, r"codebook memory needs 2, the array has 1 \(--set codebooks=2\)"),
        ({"descriptors": 2}, r"descriptor memory needs 3, the array has 2 \(--set descriptors=3\)"),
    ],
)
def test_a_network_that_does_not_fit_names_memory_and_parameter(
    change: dict[str, int], message: str, rng: np.random.Generator
) -> None:
    graph = network(rng, SMALL.replace(refill=False, **change), [33, 30, 10], 0.5)
    with pytest.raises(ImageError, match=message):
        build(graph, Options(fragments=1))


def test_layers_larger_than_the_memories_are_streamed(rng: np.random.Generator) -> None:
    params = SMALL.replace(pes=4, rows=16, weight_words=64, pointer_blocks=24, descriptors=64)
    graph = network(rng, params, [100, 150, 40, 9], 0.3)
    image = build(graph)
    steps = [step for of_layer in image.steps for step in of_layer]
    assert [info.name for info in image.layers] == ["layer0#0", "layer0#1", "layer0#2", "layer1", "layer2"]
    assert sum(step.refill for step in steps) > 6
    assert any(not step.refill for step in steps)
    assert [step.buffer for step in steps if step.refill] == [n % 2 for n in range(sum(s.refill for s in steps))]
    assert differing(graph, image, rng) == []


@pytest.mark.verifies("planted-faults-lost-padding-entry")
def test_a_range_that_begins_too_late_is_seen(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault: the stream brings the columns of a range from one vector further on."""
    from compiler.lower import pack as packing

    params = SMALL.replace(pes=4, rows=64, weight_words=64, pointer_blocks=24, descriptors=64)
    graph = network(rng, params, [100, 150], 0.3)
    assert differing(graph, build(graph), rng) == []
    cut = packing.cut_ranges

    def late(*args: Any) -> Any:
        ranges = cut(*args)
        return [dataclasses.replace(each, source=each.source - (n == 1)) for n, each in enumerate(ranges)]

    monkeypatch.setattr(packing, "cut_ranges", late)
    assert differing(graph, build(graph), rng) == ["layer0"]


def test_a_vector_that_no_buffer_holds_says_so(rng: np.random.Generator) -> None:
    graph = network(rng, SMALL.replace(weight_words=2), [33, 30, 10], 0.5)
    with pytest.raises(ImageError, match=r"even streamed: a vector needs \d+ words of a buffer, there are \d+"):
        build(graph)


def test_a_pointer_memory_without_a_block_for_a_buffer_says_so(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compiler.lower import pack as packing

    cut = packing.cut_ranges

    def without(*args: Any) -> Any:
        *rest, buffers, params = args
        return cut(*rest, dataclasses.replace(buffers, buffer_blocks=0), params)

    monkeypatch.setattr(packing, "cut_ranges", without)
    with pytest.raises(ImageError, match="no block left for a buffer: raise pointer_blocks"):
        build(network(rng, SMALL.replace(pes=4, rows=64, weight_words=64, pointer_blocks=24), [100, 150], 0.3))


def test_a_network_beyond_the_largest_array_says_so(rng: np.random.Generator) -> None:
    graph = network(rng, SMALL.replace(codebooks=256, descriptors=512, output_words=2000), [2] * 260, 0.5)
    with pytest.raises(ImageError, match=r"codebook memory needs 259, .* expected an integer from 1 to 256: split"):
        build(graph)


def with_segment(encoded: Encoded, **changes: Any) -> Encoded:
    """A program of one layer and segment, with fields of that replaced."""
    [layer] = encoded.layers
    [segment] = layer.segments
    changed = dataclasses.replace(segment, **changes)
    entries = len(changed.codes)
    layer = dataclasses.replace(layer, segments=(changed,), entries=entries)
    return dataclasses.replace(encoded, layers=(layer,))


def one_column(rng: np.random.Generator, entries: dict[int, int]) -> Chain:
    """A layer of 60 x 3 on one PE with nonzeros (row → code) in its middle column."""
    codes = np.zeros((60, 3), np.uint8)
    codes[list(entries), 1] = list(entries.values())
    params = SMALL.replace(pes=1, index_bits=4)
    return Chain((layer_of(codes, distinct_codebook(rng, 4), rng, "layer0"),), params)


def packed(graph: Chain, encoded: Encoded) -> Image:
    image = pack(encoded, graph.params, Options(balanced=False))
    check(image)
    return image


@pytest.mark.verifies("planted-fault-swapped-nibble-decode")
@pytest.mark.parametrize(("code", "refused"), [(3, False), (15, False), (15, True)])
def test_a_swapped_nibble_is_seen(code: int, refused: bool, rng: np.random.Generator) -> None:
    graph = one_column(rng, {1: code, 58: 4} if refused else {1: code, 20: 4})
    encoded = encoded_of(graph, Options(balanced=False))
    [segment] = encoded.layers[0].segments
    assert (segment.codes[0], segment.indices[0]) == (code, 1)
    codes, indices = segment.codes.copy(), segment.indices.copy()
    codes[0], indices[0] = indices[0], codes[0]
    faulty = with_segment(encoded, codes=codes, indices=indices)
    assert matrix_of(packed(graph, encoded)) == {(row, 1): int(c) for row, c in entries_of(graph)}
    if refused:  # the rows behind it are pushed out of the column
        with pytest.raises(
            ImageError, match=r"layer0: an entry stands (in row 72 of a PE|at an accumulator that no word)"
        ):
            packed(graph, faulty)
    else:
        assert matrix_of(packed(graph, faulty)) != {(row, 1): int(c) for row, c in entries_of(graph)}


def entries_of(graph: Chain) -> list[tuple[int, int]]:
    codes = graph.layers[0].codes
    return [(int(row), int(codes[row, 1])) for row in np.flatnonzero(codes[:, 1])]


def matrix_of(image: Image) -> dict[tuple[int, int], int]:
    """(slot, column) → code of the entries of an image of one PE and one segment, padding left out."""
    reader, params, found = Reader(image), image.params, {}
    for number, word in enumerate(image.pointers[0]):
        block = word_of(pointer_block(params), word)
        at = block["base"]
        for lane in range(LANES):
            row = -1
            for _ in range(block[f"lengths.{lane}"]):
                each = reader._entry(0, at)
                row += each["index"] + 1
                if each["code"]:
                    found[row, number * LANES + lane] = each["code"]
                at += 1
    return found


@pytest.mark.verifies("planted-faults-lost-padding-entry")
def test_a_lost_padding_entry_is_seen(rng: np.random.Generator) -> None:
    graph = one_column(rng, {1: 3, 50: 4})
    encoded = encoded_of(graph, Options(balanced=False))
    [segment] = encoded.layers[0].segments
    assert encoded.layers[0].padding == 3
    keep = np.arange(len(segment.codes)) != int(np.flatnonzero(segment.codes == 0)[0])
    counts = segment.counts.copy()
    counts[0, 1] -= 1
    faulty = with_segment(encoded, codes=segment.codes[keep], indices=segment.indices[keep], counts=counts)
    assert matrix_of(packed(graph, encoded)) == {(1, 1): 3, (50, 1): 4}
    assert matrix_of(packed(graph, faulty)) != {(1, 1): 3, (50, 1): 4}


@pytest.mark.verifies("weights-codebook-makes-zero-entries")
@pytest.mark.parametrize("zeros", [[0], [0, 3], [0, 15], [3]])
def test_weights_that_are_zero_are_no_entries(zeros: list[int], rng: np.random.Generator) -> None:
    codes = rng.integers(0, 16, (5, 2, 3, 7)).astype(np.uint8)
    book = rng.integers(1, 99, 16).astype(np.int16)
    book[zeros] = 0
    segment = segment_of(0, codes, book)
    found = np.zeros((5, 6, 7), np.int16)
    output = np.repeat(np.arange(5), segment.counts)
    found[output, segment.tap, segment.channel] = book[segment.code]
    np.testing.assert_array_equal(found, book[codes].reshape(found.shape))
    assert len(segment.code) == np.count_nonzero(book[codes])
