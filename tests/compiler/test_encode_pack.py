"""Encoding and packing: nothing is lost, and every word is what docs/numerics.md says."""

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
from compiler.image.image import Image, row_orders
from compiler.image.words import memory_words
from compiler.lower import stream, tiles
from compiler.lower.chain import Chain
from compiler.lower.encode import EncodedLayer, encode
from compiler.lower.pack import pack
from compiler.lower.rows import assign_rows
from compiler.lower.words import pack_words
from compiler.options import DEFAULT, Options
from hw.layouts import Memory, Op, descriptor, entry, fields, pointer_block, weight_word
from hw.params import LANES, Params
from sim import golden
from sim.decode import codes as codes_of
from sim.decode import columns, decode
from tests.compiler.networks import SMALL, distinct_codebook, expected, layer_of, network


def build(graph: Chain, options: Options = DEFAULT) -> Image:
    image = pack(graph, encode(graph, options), options)
    check(image)
    return image


def folded(graph: Chain, rng: np.random.Generator) -> Chain:
    """The network with some of its layers marked as having dense inputs."""
    layers = tuple(dataclasses.replace(layer, fold=bool(rng.integers(0, 2))) for layer in graph.layers)
    return dataclasses.replace(graph, layers=layers)


def assert_comes_back(graph: Chain, image: Image) -> None:
    """Decoding gives the network that went in, and the columns add up."""
    params = image.params
    decoded, codes_back, stored = decode(image), codes_of(image), columns(image)
    assert len(decoded) == len(codes_back) == len(graph.layers)
    assert len(stored) == sum(info.descriptors for info in image.layers) == len(image.descriptors) - 1
    for layer, back, found, info, steps in zip(
        graph.layers, decoded, codes_back, image.layers, image.steps, strict=True
    ):
        weight = layer.codebook.astype(np.int64)[layer.codes]
        np.testing.assert_array_equal(found.toarray(), layer.codes)
        np.testing.assert_array_equal(back.weight.toarray(), weight)
        np.testing.assert_array_equal(back.bias, layer.bias)
        assert (back.shift, back.relu) == (layer.shift, layer.activation == "relu")
        assert info.nonzeros == np.count_nonzero(layer.codes)
        mine, stored = stored[: len(steps)], stored[len(steps) :]
        entries = sum(int(step.counts.sum()) for step in mine)
        assert (entries, sum(int(step.padding.sum()) for step in mine)) == (info.nonzeros + info.padding, info.padding)
        for step, form in zip(mine, steps, strict=True):
            assert form.fold == (layer.fold and params.fold > 1)
            assert step.counts.shape == step.starts.shape == step.padding.shape
            assert step.counts.shape == (params.column_blocks(form.act_vectors, bool(form.fold)) * LANES, params.pes)
            assert bool(step.packets) == form.refill


@st.composite
def cases(draw: st.DrawFn) -> tuple[Params, Options, list[int], float, int]:
    params = Params(
        pes=1 << draw(st.integers(0, 6)),
        index_bits=draw(st.integers(4, 8)),
        code_bits=draw(st.integers(2, 8)),
        rows=draw(st.sampled_from([2, 8, 1024])),
        fragments=1 << draw(st.integers(0, 3)),
        fold=draw(st.integers(1, 2)),
        descriptors=1024,
        bias_words=8192,
        weight_words=1 << 14,
    )
    widths = draw(st.lists(st.integers(1, 150), min_size=2, max_size=4))
    options = Options(balanced=draw(st.booleans()), skip_empty=draw(st.booleans()))
    return params, options, widths, draw(st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0])), draw(st.integers(0, 1 << 32))


@given(cases())
@example((Params(pes=64, rows=1024), DEFAULT, [1, 1, 1], 1.0, 0))
@example((Params(pes=1, index_bits=4, rows=1024), DEFAULT, [3, 1000], 0.004, 0))
@example((Params(pes=8), Options(balanced=False), [17, 9, 16], 0.2, 0))
def test_encode_and_decode_give_the_matrix_back(case: tuple[Params, Options, list[int], float, int]) -> None:
    params, options, widths, density, seed = case
    rng = np.random.default_rng(seed)
    graph = folded(network(rng, params, widths, density), rng)
    assert_comes_back(graph, build(graph, options))


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


@pytest.mark.parametrize("pes", [1, 4, 64])
@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(
    ("name", "codes"), corner_cases().items(), ids=lambda value: value if type(value) is str else ""
)
def test_corner_cases_come_back(
    name: str, codes: NDArray[np.uint8], balanced: bool, fold: bool, pes: int, rng: np.random.Generator
) -> None:
    params = SMALL.replace(pes=pes, index_bits=4, rows=256, weight_words=2048)
    layer = dataclasses.replace(layer_of(codes, distinct_codebook(rng, 4), rng), fold=fold)
    graph = Chain((layer,), params)
    image = build(graph, Options(balanced=balanced))
    assert_comes_back(graph, image)
    if name == "gap longer than the index" and pes == 1 and not fold:
        # 198 zeros between two entries, 150 before the only one: 12 and 9 full reaches of 16.
        assert image.layers[0].padding == 12 + 9


def test_column_of_the_publication() -> None:
    # EIE, section III: 0,0,1,2, eighteen zeros, 3 is stored as v = [1,2,0,3], z = [2,0,15,2].
    codes = np.zeros((23, 1), np.uint8)
    codes[[2, 3, 22], 0] = [1, 2, 3]
    params = SMALL.replace(pes=1, index_bits=4)
    rng = np.random.default_rng(0)
    [encoded] = encode(Chain((layer_of(codes, distinct_codebook(rng, 4), rng),), params), Options(balanced=False))
    [block] = encoded.blocks
    assert block.codes.tolist() == [1, 2, 0, 3]
    assert block.indices.tolist() == [2, 0, 15, 2]
    assert block.counts.tolist() == [[4, 0, 0, 0, 0, 0, 0, 0]]


def plain_entries(
    codes: NDArray[np.uint8], sources: list[int], order: list[int], params: Params, fold: bool = False
) -> list[list[list[tuple[int, int]]]]:
    """Entries of each PE and column, one by one as the specification tells it, for a layer without fragments."""
    slots = len(order) // params.pes
    reach = (1 << params.index_bits) - 1
    width = 2 if fold else 1
    sources = sources + [-1] * (-len(sources) % width)
    result = []
    for pe in range(params.pes):
        of_pe: list[list[tuple[int, int]]] = []
        for first in range(0, len(sources), width):
            column: list[tuple[int, int]] = []
            skipped = 0
            for slot in range(slots):
                neuron = order[slot * params.pes + pe]
                for source in sources[first : first + width]:  # virtual rows: one for each activation of the column
                    code = int(codes[neuron, source]) if neuron >= 0 and source >= 0 else 0
                    if code:
                        while skipped > reach:
                            column.append((0, reach))
                            skipped -= reach + 1
                        column.append((code, skipped))
                        skipped = 0
                    else:
                        skipped += 1
            of_pe.append(column)
        of_pe += [[]] * (-len(of_pe) % LANES)
        result.append(of_pe)
    return result


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("balanced", [False, True])
def test_entries_are_those_of_the_specification(balanced: bool, fold: bool, rng: np.random.Generator) -> None:
    params = SMALL.replace(pes=2, index_bits=4, fragments=1)
    graph = network(rng, params, [11, 90, 7], 0.03)
    graph = dataclasses.replace(graph, layers=tuple(dataclasses.replace(n, fold=fold) for n in graph.layers))
    encoded = encode(graph, Options(balanced=balanced))
    sources = list(range(11))
    for layer, form in zip(graph.layers, encoded, strict=True):
        [block] = form.blocks
        plain = plain_entries(layer.codes, sources, form.row_order.tolist(), params, fold)
        flat = [found for of_pe in plain for column in of_pe for found in column]
        assert list(zip(block.codes.tolist(), block.indices.tolist(), strict=True)) == flat
        assert block.counts.tolist() == [[len(column) for column in of_pe] for of_pe in plain]
        sources = form.row_order.tolist()
    assert any(form.padding for form in encoded)


def test_a_column_that_is_empty_in_a_pe_may_cost_an_entry(rng: np.random.Generator) -> None:
    params = SMALL.replace(pes=4, fragments=1)
    options = Options(skip_empty=False, balanced=False)
    graph = network(rng, params, [21, 40], 0.05)
    [form] = encode(graph, options)
    [block] = form.blocks
    plain = encode(graph, options.replace(skip_empty=True))[0].blocks[0].counts
    assert (block.counts[:, :21] == np.maximum(plain[:, :21], 1)).all()
    assert (block.counts[:, :21] == 1).sum() > (plain[:, :21] == 1).sum() > 0
    assert not block.counts[:, 21:].any()  # beyond the inputs nothing is ever sent
    assert_comes_back(graph, build(graph, options))


def test_rows_are_dealt_evenly_and_by_work(rng: np.random.Generator) -> None:
    work = (rng.lognormal(3, 1, 203)).astype(np.int64)
    for pes in (1, 4, 16, 64):
        params = Params(pes=pes, fragments=1)
        assignment = assign_rows(work, params, DEFAULT)
        assert (assignment.slots, assignment.fragment_slots, assignment.split) == (-(-203 // pes), 0, 1)
        loads = np.bincount(assignment.pe, weights=work, minlength=pes)
        interleaved = assign_rows(work, params, Options(balanced=False))
        assert interleaved.pe.tolist() == [n % pes for n in range(203)]
        assert interleaved.slot.tolist() == [n // pes for n in range(203)]
        assert loads.max() <= np.bincount(interleaved.pe, weights=work, minlength=pes).max()
        for pe in range(pes):  # neurons ascend, from slot 0 on
            mine = np.flatnonzero(assignment.pe == pe)
            assert np.array_equal(assignment.slot[mine], np.arange(len(mine)))
        again = assign_rows(work, params, DEFAULT)
        assert np.array_equal(assignment.pe, again.pe)
        assert np.array_equal(assignment.slot, again.slot)
        order = assignment.positions(params)
        assert np.array_equal(order[assignment.slot * pes + assignment.pe], np.arange(203))
        assert (order < 0).sum() == len(order) - 203


@pytest.mark.parametrize("pes", [2, 4, 8, 16, 64])
def test_split_rows_even_out_the_work(pes: int, rng: np.random.Generator) -> None:
    work = rng.integers(400, 600, 5 * pes + (pes + 1) // 2)
    params = Params(pes=pes)
    assignment = assign_rows(work, params, DEFAULT)
    assert assignment.fragments
    assert assignment.split <= params.max_split
    loads = np.zeros(pes, np.int64)
    for row, amount in enumerate(work.tolist()):
        if row in assignment.fragments:
            assert assignment.slot[row] >= assignment.slots - assignment.fragment_slots
            assert assignment.pe[row] % assignment.split == 0
            assert len(assignment.fragments[row]) == amount
            # Evenly along the columns: no PE waits for its part of a row. At most the larger half of all shares.
            shares = np.bincount(assignment.fragments[row], minlength=assignment.split)
            half = np.bincount(assignment.fragments[row][: amount // 2], minlength=assignment.split)
            assert (abs(shares - 2 * half) <= 2).all()
            loads[assignment.pe[row] : assignment.pe[row] + assignment.split] += shares
        else:
            assert assignment.slot[row] < assignment.slots - assignment.fragment_slots
            loads[assignment.pe[row]] += amount
    runs = loads.reshape(-1, assignment.split)
    assert (runs.max(axis=1) - runs.min(axis=1) <= 1).all()
    whole = assign_rows(work, params.replace(fragments=1), DEFAULT)
    assert loads.max() < np.bincount(whole.pe, weights=work, minlength=pes).max()
    order = assignment.positions(params)
    assert np.array_equal(np.sort(order[order >= 0]), np.arange(len(work)))


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


@pytest.mark.parametrize(("index_bits", "code_bits"), [(4, 2), (4, 4), (5, 4), (6, 4), (7, 8), (8, 8)])
@pytest.mark.parametrize("make", [weight_word, pointer_block, descriptor])
def test_words_equal_amaranths_constants(make: Any, index_bits: int, code_bits: int, rng: np.random.Generator) -> None:
    params = Params(index_bits=index_bits, code_bits=code_bits, rows=1024, weight_words=1 << 20)
    layout = make(params)
    leaves = fields(layout)
    for extreme in (False, True):
        values = {
            name: rng.integers((1 << width) - 1 if extreme else 0, 1 << width, 5)
            for name, _, width in leaves
            if name not in ("op", "function")
        }
        packed = pack_words(layout, values)
        for row in range(5):
            each = {name: int(array[row]) for name, array in values.items()}
            each |= {name: 0 for name in ("op", "function") if any(name == leaf for leaf, _, _ in leaves)}
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
    params = SMALL.replace(pes=16, rows=32, index_bits=4, fragments=1)
    graph = network(rng, params, [30, 50, 20], 0.15)
    image = build(graph)
    words = memory_words(image)
    orders = row_orders(image)

    # Pointers: base is the entry address, counted over both layers; blocks of a layer follow those before.
    sources = [list(range(30)), orders[0].tolist()]
    plain = [
        plain_entries(layer.codes, source, order.tolist(), params)
        for layer, source, order in zip(graph.layers, sources, orders, strict=True)
    ]
    for pe in range(params.pes):
        all_columns = [column for of_layer in plain for column in of_layer[pe]]
        flat = [found for column in all_columns for found in column]
        memory = words[Memory.WEIGHTS][pe]
        assert len(memory) == image.entries.shape[1]
        for address, found in enumerate(flat + [(0, 0)] * (len(memory) * LANES - len(flat))):
            word = values_of(weight_word(params), memory[address // LANES])
            assert (word[f"{address % LANES}.code"], word[f"{address % LANES}.index"]) == found
        address = 0
        for block, word in enumerate(words[Memory.POINTERS][pe]):
            lengths = [len(column) for column in all_columns[block * LANES : (block + 1) * LANES]]
            fields_ = values_of(pointer_block(params), word)
            assert fields_ == {"base": address, **{f"lengths.{n}": length for n, length in enumerate(lengths)}}
            address += sum(lengths)

    # Bias: for each group, slot by slot.
    base = 0
    for layer, order in zip(graph.layers, orders, strict=True):
        for position, neuron in enumerate(order.tolist()):
            slot, pe = divmod(position, 16)
            stored = words[Memory.BIAS][pe // 8][base + slot * 8 + pe % 8]
            assert stored == (int(layer.bias[neuron]) % (1 << 40) if neuron >= 0 else 0)
        base += len(order) // 16 * 8

    # Descriptors: inputs at line 0, a region for every result, then END.
    first, second, end = (values_of(descriptor(params), word) for word in words[Memory.DESCRIPTORS][0])
    lines = [2, 4, 2]  # 30, 64 and 32 values of 16 a line
    for number, (found, layer) in enumerate(zip((first, second), graph.layers, strict=True)):
        assert found["op"] == Op.MATVEC.value
        assert found["chained"] == number == found["codebook"]
        assert found["shift"] == layer.shift
        assert found["function"] == (layer.activation == "relu")
        assert found["source"] == sum(lines[:number])
        assert found["destination"] == sum(lines[: number + 1])
    assert (first["act_vectors"], first["slots"], first["pointers"], first["bias"]) == (4, 4, 0, 0)
    assert (second["act_vectors"], second["slots"], second["pointers"], second["bias"]) == (8, 2, 4, 32)
    assert end == {**dict.fromkeys(end, 0), "op": Op.END.value}

    codebook = words[Memory.CODEBOOK][0]
    assert codebook == [int(value) % (1 << 16) for layer in graph.layers for value in layer.codebook]


def test_networks_compute_what_they_should(rng: np.random.Generator) -> None:
    for balanced in (False, True):
        params = SMALL.replace(pes=8)
        graph = network(rng, params, [40, 33, 17, 5], 0.3)
        x = rng.integers(-32768, 32768, (6, 40)).astype(np.int16)
        results = golden.run(decode(build(graph, Options(balanced=balanced))), x, params.acc_bits)
        for result, right in zip(results, expected(graph, x), strict=True):
            np.testing.assert_array_equal(result.raw, right)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_words": 2}, r"weight memory needs \d+, the array has 2 \(--set weight_words=\d+\)"),
        ({"pointer_blocks": 2}, r"pointer memory needs 9, the array has 2 \(--set pointer_blocks=9\)"),
        ({"act_lines": 5}, r"activation memory needs 11, the array has 5 \(--set act_lines=11\)"),
        ({"bias_words": 40}, r"bias memory needs 44, the array has 40 \(--set bias_words=44\)"),
        ({"codebooks": 1}, r"codebook memory needs 2, the array has 1 \(--set codebooks=2\)"),
        ({"descriptors": 2}, r"descriptor memory needs 3, the array has 2 \(--set descriptors=3\)"),
    ],
)
def test_a_network_that_does_not_fit_names_memory_and_parameter(
    change: dict[str, int], message: str, rng: np.random.Generator
) -> None:
    params = SMALL.replace(refill=False, fragments=1, **change)
    graph = network(rng, params, [33, 30, 10], 0.5)
    with pytest.raises(ImageError, match=message):
        pack(graph, encode(graph))


def test_layers_larger_than_the_memories_become_tiles(rng: np.random.Generator) -> None:
    params = SMALL.replace(pes=4, rows=16, weight_words=64, pointer_blocks=12, descriptors=64)
    graph = folded(network(rng, params, [100, 150, 40, 9], 0.3), rng)
    image = build(graph)
    steps = [step for of_layer in image.steps for step in of_layer]
    blocks = [sum(not step.keep for step in of_layer) for of_layer in image.steps]
    assert blocks == [3, 1, 1]  # 150 rows, 64 accumulators
    assert sum(step.refill for step in steps) > 6
    assert any(not step.refill for step in steps)
    assert [step.buffer for step in steps if step.refill] == [n % 2 for n in range(sum(s.refill for s in steps))]
    assert image.entries.shape[1] + max(words for step in columns(image) for words in [0, *step.packets]) <= 64
    assert_comes_back(graph, image)
    x = rng.integers(-32768, 32768, (3, 100)).astype(np.int16)
    for result, right in zip(golden.run(decode(image), x, params.acc_bits), expected(graph, x), strict=True):
        np.testing.assert_array_equal(result.raw, right)


def test_a_tile_boundary_off_by_one_is_caught_by_decoding(rng: np.random.Generator, monkeypatch: Any) -> None:
    params = SMALL.replace(pes=4, rows=16, weight_words=64, pointer_blocks=12, descriptors=64)
    graph = network(rng, params, [100, 150], 0.3)
    encoded = encode(graph)
    assert differing_layers(graph, encoded) == []
    plan = tiles.plan_tiles(encoded, params)
    late = next(n for n, tile in enumerate(plan.tiles) if tile.refill and tile.first)
    moved = [dataclasses.replace(t, first=t.first - 1) if n == late else t for n, t in enumerate(plan.tiles)]
    wrong = stream.pack_stream(encoded, dataclasses.replace(plan, tiles=tuple(moved)), params)
    monkeypatch.setattr("compiler.lower.pack.pack_stream", lambda *_: wrong)
    assert differing_layers(graph, encoded) == ["layer0"]


def test_a_line_that_no_buffer_holds_says_so(rng: np.random.Generator) -> None:
    graph = network(rng, SMALL.replace(weight_words=2), [33, 30, 10], 0.5)
    with pytest.raises(ImageError, match=r"in tiles: weight memory: .* need \d+ words of a buffer, there are \d+ "):
        pack(graph, encode(graph))


def test_a_network_beyond_the_largest_array_says_so(rng: np.random.Generator) -> None:
    graph = network(rng, SMALL, [2] * 18, 0.5)
    with pytest.raises(ImageError, match=r"codebook memory needs 17, .* expected an integer from 1 to 16: split"):
        pack(graph, encode(graph))


def differing_layers(graph: Chain, encoded: tuple[EncodedLayer, ...]) -> list[str]:
    """The check of `test_encode_and_decode_give_the_matrix_back`, as names of layers that came back wrong."""
    image = pack(graph, encoded)
    wrong = []
    for layer, back in zip(graph.layers, decode(image), strict=True):
        if not np.array_equal(back.weight.toarray(), layer.codebook.astype(np.int64)[layer.codes]):
            wrong.append(layer.name)
    return wrong


def with_block(form: EncodedLayer, **changes: Any) -> EncodedLayer:
    """A layer of one block, with fields of that replaced."""
    return dataclasses.replace(form, blocks=(dataclasses.replace(form.blocks[0], **changes),))


def one_column(rng: np.random.Generator, entries: dict[int, int]) -> Chain:
    """A layer of 60 x 3 on one PE with nonzeros (row → code) in its middle column."""
    codes = np.zeros((60, 3), np.uint8)
    codes[list(entries), 1] = list(entries.values())
    params = SMALL.replace(pes=1, index_bits=4)
    return Chain((layer_of(codes, distinct_codebook(rng, 4), rng, "layer0"),), params)


@pytest.mark.parametrize(("code", "refused"), [(3, False), (15, False), (15, True)])
def test_a_swapped_nibble_is_caught_by_decoding(code: int, refused: bool, rng: np.random.Generator) -> None:
    graph = one_column(rng, {1: code, 58: 4} if refused else {1: code, 20: 4})
    [form] = encode(graph)
    [block] = form.blocks
    assert (block.codes[0], block.indices[0]) == (code, 1)
    codes, indices = block.codes.copy(), block.indices.copy()
    codes[0], indices[0] = indices[0], codes[0]
    faulty = with_block(form, codes=codes, indices=indices)
    assert differing_layers(graph, (form,)) == []
    if refused:  # the rows behind it are pushed out of the column
        with pytest.raises(ImageError, match="layer0: an entry stands in row 72 of a PE; expected less than 60"):
            differing_layers(graph, (faulty,))
    else:
        assert differing_layers(graph, (faulty,)) == ["layer0"]


def test_a_lost_padding_entry_is_caught_by_decoding(rng: np.random.Generator) -> None:
    graph = one_column(rng, {1: 3, 50: 4})
    [form] = encode(graph)
    assert form.padding == 3
    [block] = form.blocks
    keep = np.arange(len(block.codes)) != int(np.flatnonzero(block.codes == 0)[0])
    counts = block.counts.copy()
    counts[0, 1] -= 1
    faulty = with_block(form, codes=block.codes[keep], indices=block.indices[keep], counts=counts)
    faulty = dataclasses.replace(faulty, padding=form.padding - 1)
    assert differing_layers(graph, (form,)) == []
    assert differing_layers(graph, (faulty,)) == ["layer0"]
