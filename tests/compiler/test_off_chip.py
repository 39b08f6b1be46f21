"""Maps off chip: which ones go, how large their rings are, what is refused, and that nothing changes in the results."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from compiler.coding.container import decompress_fixed
from compiler.errors import ImageError
from compiler.graph.ir import Graph
from compiler.graph.operators import make
from compiler.image import check_streams
from compiler.image.check import check
from compiler.image.image import Image
from compiler.image.rings import off_chip, ring_offsets, rows_needed
from compiler.image.steps import Step
from compiler.lower import spill
from compiler.lower.build import build
from compiler.lower.program import MapForm, Operand, Operation, Program, ProgramLayer, segment_of
from compiler.lower.strips import Strip
from compiler.network_file import load, save, to_file
from hw.layouts import descriptor, fields
from hw.params import Params
from sim import golden
from sim.benchmarks.whole import Builder, Compiled, compile_whole
from sim.network import run_network
from sim.packed import compress_image, restore_image
from sim.run import run

PARAMS = Params(pes=16, rows=64, weight_words=2048, pointer_blocks=2048, output_words=2048)
LINES = 110
"""Activation lines with which some maps of the network below stream and others stay."""


@cache
def graph() -> Graph:
    """A convolution with stride, a fire module, a pool that leads out of its map, a sum, and the mean."""
    of = Builder((3, 17, 17), 0.4, np.random.default_rng(5))
    last = of.fire("fire", of.conv("conv", "image", 16, 3, 2), 4, 8)
    last = of.pool("pool", last)
    own = of.conv("part", last, 16, 3, 1, 1, "none")
    last = of.add("Add", "sum", own, last, activation="relu")
    last = of.add("AveragePool", "mean", of.conv("tail", last, 6, 1), kernel=(4, 4))
    return Graph((*of.nodes, make("Output", "output", last)))


@cache
def compiled(lines: int) -> Compiled:
    return compile_whole(graph(), PARAMS.replace(act_lines=lines), count=2)


def outside(image: Image) -> set[str]:
    return {each.name for each in image.maps if each.off_chip}


def assert_right(made: Compiled) -> None:
    right = golden.run_graph(made.graph, [made.x], made.network.params.acc_bits)
    found = run_network(made.network, made.x).values
    assert sum(name in right for name in found) > 2
    for name in found.keys() & right.keys():
        assert np.array_equal(found[name], right[name].raw), name


def received(height: int, windows: list[tuple[int, int, int]], step: int, tiles: int, rows: int) -> bool:
    """Whether a ring of so many rows gets to the end of two samples, row by row."""
    there = kept = 0
    for sample in (0, height):
        for tile in range(tiles):
            for n, (y0, wy, dy) in enumerate(windows):
                there = max(there, min(2 * height, kept + rows))
                if there < sample + min(height, y0 + tile * step + (wy - 1) * dy + 1):
                    return False
                if n == 0:
                    kept = sample + min(max(y0 + tile * step, 0), height)
    return max(there, min(2 * height, kept + rows)) == 2 * height


@pytest.mark.verifies("rings-large-windows-need-row")
def test_a_ring_holds_what_windows_need_and_no_row_more(rng: np.random.Generator) -> None:
    tight = 0
    for _ in range(400):
        height, tiles, step = (int(rng.integers(1, high)) for high in (20, 8, 5))
        windows = [
            (int(rng.integers(-3, 4)), int(rng.integers(1, 5)), int(rng.integers(1, 3)))
            for _ in range(int(rng.integers(1, 4)))
        ]  # fmt: skip
        windows.sort()
        needed = rows_needed(height, windows, step, tiles)
        assert received(height, windows, step, tiles, needed)
        limits = [step, *(max(abs(y0), (wy - 1) * dy + 1, dy) for y0, wy, dy in windows)]
        if needed > max(limits):
            assert not received(height, windows, step, tiles, needed - 1)
            tight += 1
    assert tight > 50


@pytest.mark.verifies("maps-off-chip-largest-go")
def test_maps_go_the_largest_first_until_the_rest_fits() -> None:
    whole = compiled(2048).network.only
    assert not outside(whole)
    before: set[str] = set()
    streamed = 0
    for lines in (200, 150, LINES, 80):
        image = compiled(lines).network.only
        check(image)
        assert image.rings + image.frame <= lines
        assert len(outside(image)) >= len(before)
        before = outside(image)
        streamed += bool(before)
        assert_right(compiled(lines))
    assert streamed >= 3
    largest = max((each for each in whole.maps), key=lambda each: each.lines)
    assert largest.name in before


def test_what_the_host_sends_and_takes_follows_from_descriptors_and_maps() -> None:
    image = compiled(LINES).network.only
    for each in off_chip(image):
        info, step = image.layers[each.layer], image.steps[each.layer][0]
        assert {image.maps[n].name for n in each.reads} == {
            image.maps[n].name for n in info.sources if image.maps[n].off_chip
        }
        assert step.stream_in == bool(each.reads)
        assert step.stream_out == (each.writes >= 0)
        offsets, row = ring_offsets(image, each.layer)
        assert list(offsets) == list(each.reads)
        assert row == step.ring_row
    written = {each.writes for each in off_chip(image)} | set(image.inputs)
    assert all(n in written for each in off_chip(image) for n in each.reads)


@pytest.mark.verifies("maps-off-chip-largest-go")
def test_inputs_give_their_lines_free_before_anything_streams() -> None:
    of = Builder((8, 12, 12), 0.4, np.random.default_rng(6))
    last = of.conv("tail", of.conv("middle", of.conv("first", "image", 8, 3, 1, 1), 8, 3, 1, 1), 8, 3, 1, 1)
    chain = Graph((*of.nodes, make("Output", "output", last)))
    kept = compile_whole(chain, PARAMS, count=2).network.only
    made = compile_whole(chain, PARAMS.replace(act_lines=kept.frame - 1, streams=False), count=2)
    image = made.network.only
    assert not outside(image)
    assert image.frame < kept.frame
    (first,) = (image.maps[n] for n in image.inputs)
    assert any(each.base < first.base + first.lines and first.base < each.base + each.lines
               for each in image.maps if each.name != first.name)  # fmt: skip
    assert_right(made)


@pytest.mark.verifies("maps-off-chip-largest-go")
def test_maps_of_operations_stay_on_chip(rng: np.random.Generator) -> None:
    params = PARAMS.replace(code_bits=4)
    book = np.arange(16, dtype=np.int16) * 100

    def layer(name: str, source: int, result: int, stride: int) -> ProgramLayer:
        codes = (rng.integers(1, 16, (8, 3, 3, 8)) * (rng.random((8, 3, 3, 8)) < 0.3)).astype(np.uint8)
        window = segment_of(source, codes, book, stride=(stride, stride), origin=(-1, -1))
        return ProgramLayer(name, result, (window,), np.zeros(8, np.int64), np.full(8, 10))

    together = {"layout": 0, "vectors": params.groups}
    maps = (
        MapForm("image", 8, 24, 24, 0), *(MapForm(name, 8, 12, 12, 0, **together) for name in ("one", "square")),
        MapForm("end", 8, 12, 12, 0),
    )  # fmt: skip
    program = Program(
        maps, (layer("one", 0, 1, 2), layer("end", 2, 3, 1)), (0,), (3,),
        (Operation("square", Operand(2), Operand(1), Operand(1), shift=4),), (0, -1, 1),
    )  # fmt: skip
    x = rng.integers(-100, 100, (2, 24, 24, 8)).astype(np.int16)
    whole = build(program, params)
    right, found = run(whole, x).values, set()
    for lines in range(whole.frame, 347, -30):
        image = build(program, params.replace(act_lines=lines))
        check(image)
        assert not outside(image) & {"one", "square"}
        found |= outside(image)
        values = run(image, x).values
        assert all(np.array_equal(values[name], right[name]) for name in right)
    assert found == {"image"}
    assert "elementwise operation of a map off chip" in refused(other_map(image, 2, base=-1))


def refused(image: Image) -> str:
    with pytest.raises(ImageError) as caught:
        check_streams.check_streams(image)
    return str(caught.value)


@pytest.mark.verifies("maps-off-chip-largest-go")
def test_what_cannot_fit_says_what_it_needs_and_fits_with_that() -> None:
    with pytest.raises(ImageError, match="activation memory needs") as caught:
        compiled(16)
    lines, given, frame, rings = (
        int(number) for number in re.findall(
            r"needs (\d+) lines, the array has (\d+): (\d+) for the maps that must stay on chip at one time, (\d+) for",
            str(caught.value),
        )[0]
    )  # fmt: skip
    assert lines == frame + rings > given == 16
    assert compiled(lines).network.only.rings


def test_an_array_without_streams_says_what_its_memory_lacks() -> None:
    with pytest.raises(ImageError, match=r"activation memory needs \d+, the array has 110 \(--set act_lines="):
        compile_whole(graph(), PARAMS.replace(act_lines=LINES, streams=False))


@pytest.mark.verifies("files-maps-off-chip-both")
def test_files_hold_maps_off_chip(tmp_path: Path) -> None:
    network = compiled(LINES).network
    path = tmp_path / "a.eie"
    save(network, path)
    again = load(path)
    assert again.only.maps == network.only.maps
    assert to_file(again) == path.read_bytes()
    data, _ = compress_image(path, "context")
    assert restore_image(decompress_fixed(data)) == path.read_bytes()


def changed(image: Image, layer: int, place: int | None = None, **values: int) -> Image:
    """The image with other fields in the descriptors of a layer, or in one of them."""
    rows = image.descriptors.copy()
    places = {name: (first, width) for name, first, width in fields(descriptor(image.params))}
    first = image.numbers[layer]
    for number in range(first, first + image.layers[layer].descriptors) if place is None else [first + place]:
        word = int.from_bytes(rows[number].tobytes(), "little")
        for name, value in values.items():
            low, width = places[name]
            word = word & ~(((1 << width) - 1) << low) | (value & (1 << width) - 1) << low
        rows[number] = np.frombuffer(word.to_bytes(rows.shape[1], "little"), np.uint8)
    return dataclasses.replace(image, descriptors=rows)


def other_map(image: Image, number: int, **values: int) -> Image:
    maps = [dataclasses.replace(each, **values) if n == number else each for n, each in enumerate(image.maps)]
    return dataclasses.replace(image, maps=tuple(maps))


def reader(image: Image, count: int = 1) -> tuple[int, Step]:
    """The first layer into which at least so many maps stream, and its first segment."""
    number = next(each.layer for each in off_chip(image) if len(each.reads) >= count)
    return number, image.steps[number][0]


def writer(image: Image) -> tuple[int, Step]:
    number = next(each.layer for each in off_chip(image) if each.writes >= 0)
    return number, image.steps[number][0]


def resident(image: Image) -> int:
    """A layer that reads and writes maps on chip only."""
    streams = {each.layer for each in off_chip(image)}
    return next(n for n in range(len(image.layers)) if n not in streams)


def second(image: Image) -> tuple[int, int, Step]:
    """A layer with a second segment in the ring: number, place and descriptor of it."""
    for number, steps in enumerate(image.steps):
        rings = [place for place, step in enumerate(steps) if step.ring]
        if len(rings) > 1 and rings[0] == 0:
            return number, rings[1], steps[rings[1]]
    raise AssertionError


FAULTS: list[tuple[Callable[[Image], Image], str]] = [
    (lambda i: changed(i, reader(i)[0], stream_in=0), "stream_in is 0; expected 1"),
    (lambda i: changed(i, writer(i)[0], stream_out=0), "stream_out is 0; expected 1|chained is 0"),
    (lambda i: changed(i, resident(i), stream_out=1, out_rows=1), "stream_out is 1; expected 0|activations: "),
    (lambda i: changed(i, resident(i), stream_in=1), "stream_in is 1; expected 0"),
    (lambda i: changed(i, resident(i), out_rows=1), "out_rows is 1, but nothing streams out"),
    (lambda i: changed(i, resident(i), ring_rows=3), "of a ring, but nothing streams in"),
    (lambda i: changed(i, resident(i), 0, ring=1), "ring 1, reach 0|chained is"),
    (lambda i: changed(i, reader(i)[0], 0, ring=0), "ring 0, reach"),
    (lambda i: changed(i, reader(i)[0], 0, reach=reader(i)[1].reach + 1), "expected ring 1, reach"),
    (lambda i: changed(i, reader(i)[0], 0, chained=1), "chained is 1; expected 0"),
    (lambda i: changed(i, reader(i)[0], 0, source=reader(i)[1].source + 1), "not of a pixel of"),
    (lambda i: changed(i, reader(i)[0], 0, window_pitch=reader(i)[1].window_pitch + 1), "window_pitch is"),
    (lambda i: changed(i, reader(i)[0], 0, tile_pitch_y=reader(i)[1].tile_pitch_y + 1), "tile_pitch_y is"),
    (lambda i: changed(i, reader(i)[0], ring_row=reader(i)[1].ring_row + 2), "pitch is|source is|ring_row is"),
    (lambda i: changed(i, reader(i)[0], ring_size=reader(i)[1].ring_size - 2), "ring_size is|lead"),
    (lambda i: changed(i, reader(i)[0], ring_skip=reader(i)[1].ring_skip + 1), "ring_skip is"),
    (lambda i: changed(i, reader(i)[0], ring_skip_size=reader(i)[1].ring_skip_size + 1), "ring_skip_size is"),
    (lambda i: changed(i, reader(i)[0], ring_base=reader(i)[1].ring_base + 1000), "source is|activations: "),
    (lambda i: changed(i, writer(i)[0], out_rows=0), "a ring of no rows of tiles"),
    (lambda i: changed(i, writer(i)[0], destination=writer(i)[1].destination + 1000), "activations: "),
    (lambda i: changed(i, second(i)[0], second(i)[1], source=second(i)[2].source - 2), "not of a pixel of"),
    (lambda i: other_map(i, off_chip(i)[0].reads[0], base=-2), "base -2"),
    (lambda i: other_map(i, off_chip(i)[0].reads[0], base=i.rings), "stream_in is 1|lines|ring"),
    (lambda i: other_map(i, writer_map(i), lines=i.maps[writer_map(i)].lines + 1), "lines are sent; its map has"),
    (lambda i: other_map(i, writer_map(i), lines=1 << 24), "maps off chip take"),
    (lambda i: dataclasses.replace(i, inputs=tuple(n for n in i.inputs if n not in off_chip(i)[0].reads)), "inputs"),
]  # fmt: skip


def writer_map(image: Image) -> int:
    return next(each.writes for each in off_chip(image) if each.writes >= 0)


@pytest.mark.verifies("planted-faults-rule-rings-maps")
@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_fault_in_a_ring_is_refused(number: int) -> None:
    image = compiled(LINES).network.only
    check(image)
    fault, message = FAULTS[number]
    with pytest.raises(ImageError, match=message):
        check(fault(image))


def rings_of(image: Image, layer: int, rows: int) -> Image:
    """The layer with a ring of so many rows, and everything that follows from it."""
    offsets, row = ring_offsets(image, layer)
    info = image.layers[layer]
    height = image.maps[next(iter(offsets))].height
    skip = height % rows
    common = {"ring_rows": rows, "ring_size": rows * row, "ring_skip": skip, "ring_skip_size": skip * row}
    for place, (step, part) in enumerate(zip(image.steps[layer], info.parts, strict=True)):
        source = info.sources[part]
        own = {}
        if step.ring:
            first = step.ring_base * image.params.groups + step.y0 % rows * row + offsets[source]
            own = {"source": first + step.x0 * image.maps[source].pitch}
        image = changed(image, layer, place, **common, **own)
    return image


@pytest.mark.verifies("planted-faults-rule-rings-maps")
def test_fault_a_ring_that_is_a_row_too_small_is_refused() -> None:
    image = compiled(LINES).network.only
    number, step = reader(image)
    steps = [each for each in image.steps[number] if each.ring]
    height = image.maps[off_chip(image)[0].reads[0]].height
    needed = rows_needed(height, [(each.y0, each.wy, each.dy) for each in steps], step.step_y, step.tiles_y)
    check_streams.check_streams(rings_of(image, number, needed))
    with pytest.raises(ImageError, match=f"a ring of {needed - 1} rows; its windows need {needed}"):
        check_streams.check_streams(rings_of(image, number, needed - 1))


@pytest.mark.verifies("planted-faults-rule-rings-maps")
def test_fault_rings_on_the_same_lines_are_refused() -> None:
    image = compiled(80).network.only
    number = next(each.layer for each in off_chip(image) if each.reads and each.writes >= 0)
    wrong = changed(image, number, destination=image.steps[number][0].ring_base)
    assert "its two rings lie on the same lines" in refused(wrong)


def test_fault_a_map_that_is_read_before_it_is_sent_is_refused() -> None:
    image = compiled(LINES).network.only
    each = next(each for each in off_chip(image) if each.reads and not set(each.reads) & set(image.inputs))
    late = next(other.layer for other in off_chip(image) if other.writes in each.reads)
    wrong = dataclasses.replace(image, outputs=image.outputs)
    layers = list(wrong.layers)
    layers[late] = dataclasses.replace(layers[late], result=layers[each.layer].result)
    with pytest.raises(ImageError):
        check(dataclasses.replace(wrong, layers=tuple(layers)))


@pytest.mark.verifies("planted-faults-rule-rings-maps")
def test_fault_a_compiler_that_puts_the_wrong_segment_first_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from compiler.lower import descriptors

    right = descriptors._ring_first

    def wrong(cut: list[Strip]) -> list[Strip]:
        return sorted(cut, key=lambda strip: strip.segment == cut[0].segment)

    # A residual sum: the window of the convolution begins a row above that of the map itself.
    of = Builder((8, 24, 24), 0.4, np.random.default_rng(5))
    last = of.conv("first", "image", 8, 3, 1)
    total = of.add("Add", "sum", of.conv("second", last, 8, 3, 1, 1, "none"), last, activation="relu")
    monkeypatch.setattr(descriptors, "_ring_first", lambda *given: wrong(right(*given)))
    with pytest.raises(ImageError, match="expected the one of the ring that begins highest"):
        check(
            compile_whole(
                Graph((*of.nodes, make("Output", "output", total))), PARAMS.replace(act_lines=250)
            ).network.only
        )


def test_fault_rings_that_are_too_small_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "rows_needed", lambda *args: max(1, rows_needed(*args) - 1))
    monkeypatch.setattr(spill, "_grown", lambda rings, *rest: rings)
    with pytest.raises(ImageError, match="its windows need"):
        check(compile_whole(graph(), PARAMS.replace(act_lines=LINES)).network.only)
