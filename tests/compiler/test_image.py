"""Image files: what is saved comes back, and nothing else is taken for an image."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from compiler import network_file
from compiler.errors import ImageError
from compiler.image.check import check
from compiler.image.image import Image
from compiler.image.words import memory_words, readmemh
from compiler.lower.build import build
from compiler.lower.chain import Chain
from compiler.lower.program import chain_program
from compiler.network import network_of
from hw.layouts import Memory, Op, descriptor, fields, identity, loop, memory_shape, output_word
from hw.params import Params
from tests.compiler.networks import SMALL, network

TENSORS = ("entries", "pointers", "codebooks", "table", "descriptors", "orders")


def pack(chain: Chain) -> Image:
    return build(chain_program(chain), chain.params)


@pytest.fixture
def image(rng: np.random.Generator) -> Image:
    return pack(network(rng, SMALL, [9, 10, 6], 0.4))


@pytest.fixture
def path(image: Image, tmp_path: Path) -> Path:
    write(image, tmp_path / "net.eie")
    return tmp_path / "net.eie"


def write(image: Image, path: Path) -> None:
    """The file of the network that is this image and nothing else."""
    network_file.save(network_of(image), path)


def read(path: Path, params: Params | None = None) -> Image:
    [image] = network_file.load(path, params).images
    return image


def same(one: Image, other: Image) -> bool:
    arrays = all(
        getattr(one, name).dtype == getattr(other, name).dtype
        and np.array_equal(getattr(one, name), getattr(other, name))
        for name in TENSORS
    )
    return arrays and (one.params, one.layers, one.maps) == (other.params, other.layers, other.maps)


def save_unchecked(image: Image, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save an image that lies: checksums are right, contents are not."""
    with monkeypatch.context() as patch:
        patch.setattr(network_file, "check_network", lambda network: None)
        write(image, path)


def test_what_is_saved_comes_back(image: Image, path: Path) -> None:
    back = read(path)
    assert same(image, back)
    assert back.identity == identity(SMALL)
    assert (back.inputs, back.outputs, back.frame) == (image.inputs, image.outputs, image.frame)
    assert [(each.name, each.channels) for each in back.maps] == [("input", 9), ("layer0", 10), ("layer1", 6)]


def test_equal_images_give_equal_files(image: Image, path: Path, tmp_path: Path) -> None:
    write(read(path), tmp_path / "again.eie")
    write(image, tmp_path / "third.eie")
    assert path.read_bytes() == (tmp_path / "again.eie").read_bytes() == (tmp_path / "third.eie").read_bytes()


def test_a_loaded_image_is_for_the_array_it_was_made_for(path: Path) -> None:
    assert read(path, SMALL).params == SMALL
    other = SMALL.replace(queue_depth=8)
    with pytest.raises(
        ImageError, match=r"made for \w{16}, the array is \w{16} \(queue_depth 32 here, 8 there\)"
    ) as caught:
        read(path, other)
    assert identity(SMALL) in str(caught.value)
    assert identity(other) in str(caught.value)


@pytest.mark.verifies("bad-images-truncated")
def test_a_file_cut_at_any_place_is_refused(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    cut = tmp_path / "cut.eie"
    for length in [*range(0, len(content), 7), *range(len(content) - 8, len(content))]:
        cut.write_bytes(content[:length])
        with pytest.raises(ImageError, match=r"cut\.eie: "):
            read(cut)
    cut.write_bytes(content + b"\0")
    with pytest.raises(ImageError):
        read(cut)


@pytest.mark.verifies("bad-images-flipped-bit-memory")
@pytest.mark.parametrize("name", TENSORS)
def test_a_flipped_bit_in_each_tensor_is_named(
    name: str, image: Image, path: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    content = bytearray(path.read_bytes())
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    begin, end = (
        8 + int.from_bytes(content[:8], "little") + place for place in header[f"image.0.{name}"]["data_offsets"]
    )
    assert end > begin
    for place in {begin, end - 1, *rng.integers(begin, end, 20).tolist()}:
        flipped = content.copy()
        flipped[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "bad.eie").write_bytes(flipped)
        with pytest.raises(ImageError, match=f"{name} is damaged: CRC-32"):
            read(tmp_path / "bad.eie")


@pytest.mark.verifies("bad-images-field-descriptors-output")
def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(
    image: Image, path: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    content = bytearray(path.read_bytes())
    refused = 0
    places = rng.choice(len(content), 700, replace=False).tolist()
    for place in [*range(8), *places]:
        flipped = content.copy()
        flipped[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "bad.eie").write_bytes(flipped)
        try:
            back = read(tmp_path / "bad.eie")
        except ImageError:
            refused += 1
        else:
            assert same(image, back), f"byte {place}"
    assert refused > 600


def raw_container(header: Any, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.mark.verifies("bad-images-image")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an image at all",
        bytes(100),
        b"\x80\x04\x95.",  # the beginning of a pickle
        b"PK\x03\x04" + bytes(60),
        raw_container({}, b""),
        raw_container({}, b"", length=1 << 60),
        raw_container(b"[" * 100_000, b""),
        raw_container({"entries": {"dtype": "U8", "shape": [1 << 40], "data_offsets": [0, 1 << 40]}}, b"abc"),
        raw_container({"entries": {"dtype": "U8", "shape": [1 << 40], "data_offsets": [0, 3]}}, b"abc"),
        raw_container({"entries": {"dtype": "U8", "shape": [1 << 63, 4], "data_offsets": [0, 3]}}, b"abc"),
        raw_container({"entries": {"dtype": "U8", "shape": [3], "data_offsets": [-3, 0]}}, b"abc"),
        save({"weight": np.zeros(3, np.float32)}),
        save({"weight": np.zeros(3, np.float32)}, metadata={"eie": "{"}),
        save({"weight": np.zeros(3, np.float32)}, metadata={"eie": "[" * 5000}),
        save({"weight": np.zeros(3, np.float32)}, metadata={"eie": "[]"}),
        save({"weight": np.zeros(3, np.float32)}, metadata={"eie": '{"header": 3, "crc32": "00000000"}'}),
        save({"weight": np.zeros(3, np.float32)}, metadata={"eie": "1" * 5000}),
    ],
)
def test_what_is_not_an_image_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.eie").write_bytes(content)
    with pytest.raises(ImageError, match=r"bad\.eie: "):
        read(tmp_path / "bad.eie")


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    for place, message in ((tmp_path, "not a readable network"), (tmp_path / "missing.eie", "no such file")):
        with pytest.raises(ImageError, match=message):
            read(place)


def change_header(content: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The file with its header changed and the header's checksum right again."""
    length = int.from_bytes(content[:8], "little")
    outer = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["eie"])
    change(outer["header"])
    outer["crc32"] = network_file._header_crc(outer["header"])
    return save(load(content), metadata={"eie": json.dumps(outer)})


def layers(header: dict[str, Any]) -> Any:
    return header["images"][0]["layers"]


def maps(header: dict[str, Any]) -> Any:
    return header["images"][0]["maps"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(format=99), "format version 99; this kit reads"),
        (lambda h: h.update(identity="0" * 16), "identity '0000000000000000', this kit gives"),
        (lambda h: h.pop("images"), "the header is not"),
        (lambda h: h.update(extra=1), "the header is not"),
        (lambda h: h.update(crc32=[]), "the header is not"),
        (lambda h: h["crc32"].pop("image.0.table"), "image.0.table is damaged"),
        (lambda h: h.update(params=7), "its parameters are not legal"),
        (lambda h: h["params"].update(pes=3), "its parameters are not legal .*power of two"),
        (lambda h: h["params"].update(pes=1 << 40), "its parameters are not legal"),
        (lambda h: h["params"].pop("pes"), "its parameters are not legal .*missing parameter pes"),
        (lambda h: h["params"].update(spare=3), "its parameters are not legal .*unknown parameter 'spare'"),
        (lambda h: h["params"].update(rows=128), "identity .* this kit gives"),
        (lambda h: h.update(images={}), "the list of images is not a list"),
        (lambda h: h.update(images=[[]]), "an image is described by"),
        (lambda h: h["images"][0].update(layers=[]), "no layers"),
        (lambda h: h["images"][0].update(layers=3), "the list of layers is not a list"),
        (lambda h: h["images"][0].update(frame="3"), "frame of an image is '3'"),
        (lambda h: h["images"][0].update(frame=1 << 40), "activations: 1099511627776 words"),
        (lambda h: h["images"][0].update(inputs=[True]), "inputs are .*expected integers"),
        (lambda h: h["images"][0].update(inputs=[9]), r"inputs are maps \(9,\)"),
        (lambda h: h["images"][0].update(inputs=[1]), "a layer writes an input"),
        (lambda h: h["images"][0].update(outputs=[0]), "an output is not written"),
        (lambda h: h["images"][0].update(outputs=[1]), "it makes .* in the graph"),
        (lambda h: layers(h).pop(), "shape"),
        (lambda h: layers(h).append(layers(h)[0]), "a layer name is used twice"),
        (lambda h: layers(h).append(3), "a layer is described by 3"),
        (lambda h: layers(h)[0].pop("result"), "a layer is described by"),
        (lambda h: layers(h)[0].update(result="1"), "result of a layer is '1'"),
        (lambda h: layers(h)[0].update(result=True), "result of a layer is True"),
        (lambda h: layers(h)[0].update(result=1.0), r"result of a layer is 1\.0"),
        (lambda h: layers(h)[0].update(result=0), "reads the map that it writes"),
        (lambda h: layers(h)[0].update(sources=[]), "maps .1.; there are 3"),
        (lambda h: layers(h)[0].update(sources=[0.5]), "sources are .*expected integers"),
        (lambda h: layers(h)[0].update(sources=[2]), "before all of it is written|descriptor 0"),
        (lambda h: layers(h)[0].update(tile_x=0), "tiles of 1 x 0 pixels"),
        (lambda h: layers(h)[0].update(tile_x=2), "column_lines is"),
        (lambda h: layers(h)[0].update(tile_y=2), "tile_lines is"),
        (lambda h: layers(h)[0].update(entries=0), "entries are pointed to, it states 0"),
        (lambda h: layers(h)[0].update(exact=1), "exact of a layer is 1"),
        (lambda h: maps(h)[1].update(name="input"), "a map name is used twice"),
        (lambda h: maps(h)[1].update(channels=11), "does not name each of 11 channels once"),
        (
            lambda h: maps(h)[1].update(base=maps(h)[0]["base"]),
            "destination|source|lie on the same lines|not in a pixel",
        ),
        (lambda h: maps(h)[1].update(base=-1), "window_pitch is 2; expected 0"),
        (lambda h: maps(h)[1].update(height=2), "its rows take more"),
        (lambda h: maps(h)[1].update(pitch=1), "pixels of 2 vectors, 1 apart"),
        (lambda h: maps(h)[1].update(exponent=1 << 30), "exponent 1073741824 is out of range"),
        (lambda h: maps(h)[0].update(exponent=5), "in the graph"),
        (lambda h: maps(h)[1].update(axes="CC"), "axes 'CC' for 1 x 1 pixels"),
        (lambda h: maps(h)[1].update(axes=3), "axes of a map is 3"),
    ],
)
def test_a_header_that_lies_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.eie").write_bytes(change_header(path.read_bytes(), change))
    with pytest.raises(ImageError, match=message):
        read(tmp_path / "bad.eie")


@pytest.mark.verifies("bad-images-sizes-lie")
@pytest.mark.parametrize("huge", [1 << 20, 1 << 40, 1 << 62, 10**30])
@pytest.mark.parametrize(
    ("what", "name"),
    [("layers", name) for name in ("result", "tile_y", "tile_x", "entries", "descriptors")]
    + [
        ("maps", name) for name in ("channels", "height", "width", "vectors", "pitch", "row", "base", "lines", "planes")
    ],
)
def test_sizes_that_lie_cost_no_memory(what: str, name: str, huge: int, path: Path, tmp_path: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        header["images"][0][what][0][name] = huge

    (tmp_path / "bad.eie").write_bytes(change_header(path.read_bytes(), change))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError):
            read(tmp_path / "bad.eie")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def altered(array: Any, place: Any, value: int) -> Any:
    array = array.copy()
    array[place] = value
    return array


LIES: dict[str, tuple[Callable[[Image], dict[str, Any]], str]] = {
    "entries of other PEs": (lambda i: {"entries": i.entries[:2]}, "entries has shape"),
    "entries of other width": (lambda i: {"entries": i.entries[:, :, :9]}, "entries has shape"),
    "no entries": (lambda i: {"entries": i.entries[:, :0]}, "leads out of|no word|at least one word"),
    "more entries than memory": (
        lambda i: {"entries": np.zeros((4, 257, 10), np.uint8)}, "weights: 257 words; the array has 256"),
    "entries cut": (lambda i: {"entries": i.entries[:, :-1]}, "a pointer block leads out of the entries"),
    "entry elsewhere": (
        lambda i: {"entries": altered(i.entries, (0, 0), 255)}, "an entry stands (in row|at an accumulator)"),
    "pointers cut": (lambda i: {"pointers": i.pointers[:, :-1]}, "pointers have 3 words; expected 4"),
    "codebooks of other size": (lambda i: {"codebooks": i.codebooks[:, :8]}, "codebooks has shape"),
    "a codebook less": (lambda i: {"codebooks": i.codebooks[:1]}, "descriptor 1: codebook 1; there are 1"),
    "padding with a weight": (lambda i: {"codebooks": altered(i.codebooks, (1, 0), 3)}, "code 0 of a codebook"),
    "table cut": (lambda i: {"table": i.table[:, :-1]}, "table has 15 words; expected 16|table has"),
    "table of another array": (lambda i: {"table": i.table[:, :, :5]}, "table has shape"),
    "frame cut": (lambda i: {"frame": i.frame - 1}, "the frame has"),
    "descriptor missing": (lambda i: {"descriptors": i.descriptors[1:]}, "descriptors has shape"),
    "descriptor of ones": (lambda i: {"descriptors": altered(i.descriptors, 0, 255)}, "descriptor 0 has an unknown op"),
    "descriptor of another op": (
        lambda i: {"descriptors": altered(i.descriptors, (0, 0), i.descriptors[0, 0] | 15)},
        "descriptor 0 has an unknown op"),
    "tiles that nobody asks for": (lambda i: {"tiles": np.zeros((1, 16), np.uint8)}, "tiles that no descriptor uses"),
    "tiles of other width": (lambda i: {"tiles": np.zeros((0, 8), np.uint8)}, "tiles has shape"),
    "no end": (lambda i: {"descriptors": altered(i.descriptors, -1, 0)}, "the last descriptor is not END"),
    "order out of range": (lambda i: {"orders": altered(i.orders, 0, 1000)}, "its order does not name"),
    "order below a hole": (lambda i: {"orders": altered(i.orders, -1, -2)}, "its order does not name"),
    "order twice": (lambda i: {"orders": altered(i.orders, 0, int(i.orders[1]))}, "its order does not name"),
    "order with another hole": (
        lambda i: {"orders": np.concatenate([i.orders[:-8], np.roll(i.orders[-8:], 1)])},
        "does not make each channel of its pixels once"),
    "orders cut": (lambda i: {"orders": i.orders[:-1]}, "orders has shape"),
    "pointer base": (lambda i: {"pointers": altered(i.pointers, (0, 1, 0), 255)}, "a pointer block leads out"),
    "pointer length": (
        lambda i: {"pointers": altered(i.pointers, (0, 0, -2), 255)}, "a pointer block leads out|more entries than"),
}  # fmt: skip


@pytest.mark.verifies("bad-images-field-descriptors-output")
@pytest.mark.parametrize("lie", LIES)
def test_contents_that_lie_are_refused(lie: str, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, message = LIES[lie]
    bad = dataclasses.replace(image, **change(image))
    with pytest.raises(ImageError, match=message):
        check(bad)
    save_unchecked(bad, tmp_path / "bad.eie", monkeypatch)
    with pytest.raises(ImageError, match=message):
        read(tmp_path / "bad.eie")


FIELDS = [name for name, _, _ in fields(descriptor(SMALL)) if not name.startswith("reserved")]


@pytest.mark.verifies("bad-images-field-descriptors-output")
@pytest.mark.parametrize("name", [name for name in FIELDS if name not in ("codebook", "low", "high", "dy", "dx")])
def test_every_field_of_a_descriptor_is_checked(name: str, image: Image) -> None:
    """Flipping its lowest bit is noticed, but for limits, and the distance of positions where there is only one."""
    first = next(first for each, first, _ in fields(descriptor(SMALL)) if each == name)
    bad = altered(image.descriptors, (1, first // 8), image.descriptors[1, first // 8] ^ 1 << first % 8)
    changed = dataclasses.replace(image, descriptors=bad)
    with pytest.raises(ImageError):
        check(changed)


WORDS = {
    "flush": (0, "groups do not write in step|vectors are written"),
    "last": (0, "a word joins|each channel of its pixels once"),
    "lane": (0, "each channel of its pixels once"),
    "slot": (0, "is read twice in a tile|that no word reads"),
    "pe": (0, "is read twice in a tile|that no word reads|beyond its group"),
    "join": (0, "joins a result that is complete"),
}


@pytest.mark.verifies("bad-images-field-descriptors-output")
@pytest.mark.parametrize("field", WORDS)
def test_every_field_of_the_output_table_is_checked(field: str, image: Image) -> None:
    word, message = WORDS[field]
    first = next(first for each, first, _ in fields(output_word(SMALL)) if each == field)
    place = (0, word, first // 8)
    bad = altered(image.table, place, image.table[place] ^ 1 << first % 8)
    with pytest.raises(ImageError, match=message):
        check(dataclasses.replace(image, table=bad))


@pytest.fixture
def tiled() -> Image:
    """An image with tiles: its weight memory holds a fraction of the network."""
    params = SMALL.replace(weight_words=24, pointer_blocks=12)
    image = pack(network(np.random.default_rng(5), params, [60, 50, 20], 0.3))
    assert sum(step.refill for steps in image.steps for step in steps) > 3
    check(image)
    return image


def header_bit(first: int, tiles: Any) -> Any:
    """The stream with one bit of its first header flipped."""
    return altered(tiles, (0, first // 8), tiles[0, first // 8] ^ 1 << first % 8)


@pytest.mark.verifies("bad-images-field-descriptors-output")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tiles: tiles[:0], "it ends before the last tile is there"),
        (lambda tiles: tiles[:-1], "it ends in the middle of a packet"),
        (lambda tiles: np.concatenate([tiles, tiles[:1]]), "goes on after the last tile"),
        (lambda tiles: header_bit(1, tiles), "a packet goes to memory 2"),
        (lambda tiles: header_bit(4 + 6, tiles), "a packet goes to PE 64"),
        (lambda tiles: header_bit(12 + 19, tiles), r"a packet goes to PE 0, words 5242\d\d"),
        (lambda tiles: header_bit(12, tiles), "a packet goes to PE 0, words|leads out of the words"),
        (lambda tiles: header_bit(32 + 19, tiles), r"a packet goes to PE 0, words \d+ to 5242\d\d,"),
        (lambda tiles: header_bit(52, tiles), "buffer 1"),
        (lambda tiles: header_bit(53, tiles), "leads out of the words|buffer|memory"),
        (lambda tiles: header_bit(100, tiles), "reserved|expected weights or pointers"),
    ],
)
def test_a_stream_that_lies_is_refused(
    change: Callable[[Any], Any], message: str, tiled: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = dataclasses.replace(tiled, tiles=change(tiled.tiles))
    with pytest.raises(ImageError, match=message):
        check(bad)
    save_unchecked(bad, tmp_path / "bad.eie", monkeypatch)
    with pytest.raises(ImageError, match=message):
        read(tmp_path / "bad.eie")


def test_an_image_with_tiles_survives_its_file(tiled: Image, tmp_path: Path) -> None:
    write(tiled, tmp_path / "net.eie")
    back = read(tmp_path / "net.eie", tiled.params)
    assert np.array_equal(back.tiles, tiled.tiles)
    assert back.steps == tiled.steps


@pytest.mark.verifies("bad-images-another-array")
def test_an_image_for_another_array_is_refused(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for params in (SMALL.replace(pes=8), SMALL.replace(index_bits=5), SMALL.replace(rows=128), Params()):
        save_unchecked(dataclasses.replace(image, params=params), tmp_path / "bad.eie", monkeypatch)
        with pytest.raises(ImageError):
            read(tmp_path / "bad.eie")


@pytest.mark.verifies("nothing-half-written")
def test_a_failed_save_leaves_the_old_file(image: Image, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ImageError, match=r"cannot be written.*No space left"):
            write(image, path)
    bad = dataclasses.replace(image, orders=image.orders[:-1])
    with pytest.raises(ImageError, match="orders"):
        write(bad, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["net.eie"]
    with pytest.raises(ImageError, match="cannot be written"):
        write(image, path.parent / "no folder" / "net.eie")


def test_readmemh_text_holds_the_memory_words(image: Image, tmp_path: Path) -> None:
    readmemh(image, tmp_path / "hex")
    words = memory_words(image)
    names = set()
    for memory, units in words.items():
        _, capacity, bits = memory_shape(image.params, memory)
        for number, unit in enumerate(units):
            name = f"{memory.name.lower()}_{number}.hex"
            names.add(name)
            lines = (tmp_path / "hex" / name).read_text().splitlines()
            assert [int(line, 16) for line in lines] == unit
            assert {len(line) for line in lines} == {-(-bits // 4)}
            assert len(unit) <= capacity
            assert max(unit) < 1 << bits
    assert {file.name for file in (tmp_path / "hex").iterdir()} == names
    assert {"weights_3.hex", "pointers_0.hex", "codebook_0.hex", "outputs_0.hex", "descriptors_0.hex"} <= names
    assert set(words) == {Memory.WEIGHTS, Memory.POINTERS, Memory.CODEBOOK, Memory.OUTPUTS, Memory.DESCRIPTORS}


def test_orders_are_split_by_map(image: Image) -> None:
    assert [len(order) for order in image.map_orders] == [16, 16, 8]  # whole vectors
    assert [int((order >= 0).sum()) for order in image.map_orders] == [9, 10, 6]


@pytest.mark.verifies("images-loop-body-another-refused")
def test_a_loop_in_the_body_of_another_one_is_refused(image: Image) -> None:
    """Rounds are counted for one loop: the array ends such a run with an error, which once went on for ever."""

    def ending(first: int, count: int) -> Any:
        word = loop(image.params).const({"op": Op.LOOP.value, "first": first, "count": count}).as_value().value
        return np.frombuffer(word.to_bytes(image.descriptors.shape[1], "little"), np.uint8)

    def with_loops(*endings: Any) -> Image:
        program = np.stack([image.descriptors[0], *endings, *image.descriptors[1:]])
        return dataclasses.replace(image, descriptors=program)

    assert len(with_loops(ending(0, 2), ending(0, 3)).program) == len(image.program) + 2
    with pytest.raises(ImageError, match=r"descriptor 2 ends a loop that begins at descriptor 0; expected 2 to 1"):
        check(with_loops(ending(0, 2), ending(0, 3)))
    with pytest.raises(ImageError, match="descriptor 1 ends a loop that begins at descriptor 1"):
        check(with_loops(ending(1, 2)))
