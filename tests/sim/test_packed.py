"""Networks of every kind to `.eiez` and back: the same bytes; programs read back from random images."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import compiler.coding.program_body as body
import compiler.coding.program_form as form
import compiler.coding.program_steps as steps
import eie
import sim.programs
from compiler.coding.container import CODERS, Coder, compress_fixed, decompress_fixed
from compiler.errors import CodingError, ImageError, ModelError
from compiler.graph.passes import run_passes
from compiler.image.image import Image
from compiler.lower.build import build
from compiler.lower.partition import Partition
from compiler.lower.pipeline import compile_graph
from compiler.lower.program import Loop, Operand, Program
from compiler.lower.program_check import check_program
from compiler.network import Network, array_graph, network_of
from compiler.network_file import save, to_file
from hw.params import preset
from sim.cases import random_network, random_options, random_params
from sim.packed import compress_image, image_file, restore_image
from sim.programs import program_of
from sim.recurrent_cases import KINDS, recurrent, small_array
from tests.compiler.coding.test_hostile import mutant, sealed
from tests.sim.test_map_operations import array, beside_a_loop, gated


class Residual(nn.Module):
    """Convolutions with groups, strides and pooling, a sum, a concatenation, and a matrix behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 16, 1)
        self.halves = nn.Conv2d(32, 8, 3, stride=2, padding=1, groups=2)
        self.last = nn.Linear(8 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        y = torch.relu(x + self.point(torch.relu(self.depthwise(x))))
        y = nn.functional.max_pool2d(torch.cat([x, y], dim=1), 2)
        return self.last(torch.relu(self.halves(y)).flatten(1))  # type: ignore[no-any-return]


class Tagger(nn.Module):
    """A table of words, a loop, and a matrix: most of it is the host's."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.loop = nn.LSTM(8, 6, batch_first=True)
        self.tags = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tags(self.loop(self.words(x))[0])  # type: ignore[no-any-return]


class Parts(nn.Module):
    """A function of the host between two matrices, so that there are two images."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(12, 10), nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.sigmoid(self.a(x)))  # type: ignore[no-any-return]


def pruned(model: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for each in model.parameters():
        values = torch.randn(each.shape, generator=generator) * 0.3
        if each.ndim > 1:
            values = (values * 8).round() / 8
            values[torch.rand(each.shape, generator=generator) > 0.4] = 0
        each.data = values
    return model.eval()


def compiled(kind: str, array: str, seed: int, *, operators: bool = False) -> Network:
    """A network for an array; without `operators` it leaves loops and functions to the host."""
    params = preset(array) if operators else preset(array).replace(tables=0, elementwise=False)
    generator = torch.Generator().manual_seed(seed)
    if kind == "tagger":
        words = torch.randint(0, 20, (8, 5), generator=generator)
        return eie.compile(pruned(Tagger(), seed), words, params=params)
    model, shape = {"residual": (Residual(), (3, 8, 8)), "parts": (Parts(), (12,))}[kind]
    x = torch.rand(8, *shape, generator=generator)
    return eie.compile(pruned(model, seed), x, params=params)


@pytest.mark.verifies("compressed-files-programs-kind-convolutions")
@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize(
    ("kind", "array", "images"),
    [
        ("residual", "BALANCED_4", 1),
        ("residual", "EIE_64", 1),
        ("tagger", "BALANCED_4", 1),
        ("parts", "BALANCED_16", 2),
    ],
)
def test_every_network_comes_out_again_byte_for_byte(
    kind: str, array: str, images: int, coder: Coder, tmp_path: Path
) -> None:
    network = compiled(kind, array, 3)
    assert len(network.images) == images
    save(network, tmp_path / "n.eie")
    data, sizes = compress_image(tmp_path / "n.eie", coder)
    content = (tmp_path / "n.eie").read_bytes()
    assert restore_image(decompress_fixed(data)) == content
    assert sizes.file_bytes == len(data) < len(content)
    assert sum(tensor.bits for tensor in sizes.tensors) + sizes.header == 8 * len(data)


def random_image(seed: int, **memories: int) -> Image | None:
    rng = np.random.default_rng(seed)
    params = random_params(rng).replace(**memories)
    try:
        program = random_network(rng, params)
        density = [None, 0.3, 1.0][seed % 3]
        maps = tuple(type(each)(*list(vars(each).values())[:5], density) for each in program.maps)
        made = build(type(program)(maps, program.layers, program.inputs, program.outputs), params, random_options(rng))
        to_file(network_of(made))
    except (ImageError, ValueError, IndexError):
        return None  # it does not fit
    return made


def differing(image: Image) -> bool:
    """Whether another image comes out of what is read from one."""
    content = to_file(network_of(image))
    try:
        program = program_of(image)
        inputs, outputs = ([program.maps[n] for n in numbers] for numbers in (program.inputs, program.outputs))
        parts = Partition(array_graph(inputs, outputs, {each.name for each in program.maps}), (program,))
        coded = decompress_fixed(compress_fixed(parts, image.params, image.options, 0, "huffman"))
        return image_file(coded.parts, coded.params, coded.options) != content
    except (CodingError, ImageError):
        return True


@pytest.mark.verifies("programs-read-back-random-images")
def test_random_programs_are_read_back_from_their_images(seed: int) -> None:
    images = [random_image(seed + n) for n in range(40)]
    images += [random_image(seed + n, weight_words=64, refill=True) for n in range(40)]
    found = [image for image in images if image is not None]
    assert len(found) > 40
    assert not any(differing(image) for image in found)


@pytest.mark.verifies("programs-read-back-random-images")
@pytest.mark.parametrize("fault", ["dilation", "groups", "density"])
def test_faults_are_caught(fault: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "dilation":
        window = sim.programs._window
        monkeypatch.setattr(sim.programs, "_window", lambda *of: (*window(*of)[:2], (2, 2), window(*of)[3]))
    elif fault == "groups":
        monkeypatch.setattr(form, "_groups", lambda segment, outputs, inputs: 1 + (inputs % 2 == outputs % 2 == 0))
    else:
        monkeypatch.setattr(sim.programs, "DENSITIES", 1 << 20)
    images = [random_image(seed + n) for n in range(40)]
    assert any(differing(image) for image in images if image is not None)


@pytest.mark.verifies("programs-read-back-random-images")
def test_an_image_that_is_of_other_windows_is_refused() -> None:
    network = compiled("residual", "BALANCED_4", 1)
    image = network.images[0]
    first = image.layers[0]
    wrong = type(first)(**{**vars(first), "windows": (1, 1, *first.windows[2:])})
    broken = Image(**{**vars_of(image), "layers": (wrong, *image.layers[1:])})
    with pytest.raises(CodingError, match="its memories are not of the windows that it states"):
        program_of(broken)


def vars_of(image: Image) -> dict[str, object]:
    return {name: getattr(image, name) for name in Image.__dataclass_fields__}


def recurrent_network(kind: str, seed: int) -> Network:
    """A recurrent network, or products and functions of maps, on a random array."""
    rng = np.random.default_rng(seed)
    if kind in KINDS:
        graph, data = recurrent(rng, kind)
        return compile_graph(run_passes(graph), small_array(rng), data)
    graph, data = gated(rng) if kind == "maps" else beside_a_loop(rng, kind)
    return compile_graph(run_passes(graph), array(rng, kind != "maps"), data)


def lost(network: Network) -> bool:
    """Whether a network does not come out of its file as it was."""
    content = to_file(network)
    parts = Partition(network.graph, tuple(map(program_of, network.images)))
    crc = zlib.crc32(content)
    data = compress_fixed(parts, network.params, network.options, crc, CODERS[crc % 2])
    try:
        return restore_image(decompress_fixed(data)) != content
    except CodingError:
        return True


@pytest.mark.verifies("loops-functions-operations-maps-lie")
@pytest.mark.parametrize("kind", [*KINDS, "maps", "function", "product", "behind"])
def test_loops_functions_and_operations_come_out_again(kind: str, seed: int) -> None:
    assert [n for n in range(3) if lost(recurrent_network(kind, 1000 * seed + n))] == []


@pytest.mark.verifies("loops-functions-operations-maps-lie")
@pytest.mark.parametrize(("kind", "images"), [("tagger", 1), ("parts", 1)])
def test_networks_with_functions_on_the_array_come_out_again(kind: str, images: int, tmp_path: Path) -> None:
    network = compiled(kind, "BALANCED_16", 3, operators=True)
    assert len(network.images) == images
    save(network, tmp_path / "net.eie")
    data, _ = compress_image(tmp_path / "net.eie", "context")
    assert restore_image(decompress_fixed(data)) == (tmp_path / "net.eie").read_bytes()


def faulty(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that leaves something out, or an image that does not say it."""
    if where == "order":
        monkeypatch.setattr(
            steps, "_order", lambda reader, total, count: tuple(sorted(plain_order(reader, total, count)))
        )
    elif where == "function":
        monkeypatch.setattr(steps, "with_tables", lambda head, tables: None)
        monkeypatch.setattr(body, "with_tables", lambda head, tables: None)
    elif where == "reverse":
        monkeypatch.setattr(steps, "Loop", lambda first, last, count, reverse: Loop(first, last, count, not reverse))
    elif where == "block":
        monkeypatch.setattr(sim.programs, "_form", lambda info: dataclasses.replace(plain_form(info), block=-1, at=0))
    else:
        monkeypatch.setattr(sim.programs, "_form", lambda info: dataclasses.replace(plain_form(info), pitch=0))


plain_order, plain_form = steps._order, sim.programs._form


@pytest.mark.verifies("planted-faults-order-steps-functions")
@pytest.mark.parametrize("where", ["order", "function", "reverse", "block", "pitch"])
def test_faults_in_loops_are_caught(where: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = recurrent_network("lstm", 1000 * seed)
    assert not lost(network)
    faulty(where, monkeypatch)
    try:
        assert lost(network)
    except ModelError:  # it was no program any more when it was to be written
        assert where in ("block", "pitch")


@pytest.mark.verifies("hostile-compressed-files-loops-refused")
@pytest.mark.parametrize("coder", CODERS)
def test_hostile_files_with_loops_are_refused_or_harmless(coder: Coder, rng: np.random.Generator, seed: int) -> None:
    network = recurrent_network("lstm", 1000 * seed)
    program = program_of(network.images[0])
    data = compress_fixed(
        Partition(network.graph, (program,)), network.params, network.options, 0, coder
    )  # fmt: skip
    refused = built = 0
    for _ in range(600):
        try:
            content = decompress_fixed(sealed(mutant(rng, data)))
        except CodingError:
            refused += 1
            continue
        try:  # what is read is a program, which fits an array or does not
            for each in content.parts.programs:
                build(each, content.params, content.options)
            built += 1
        except ImageError:
            pass
    assert refused > 300
    assert built > 5


@pytest.mark.verifies("hostile-compressed-files-loops-refused")
def test_programs_that_contradict_themselves_are_refused(seed: int) -> None:
    network = recurrent_network("lstm", 1000 * seed)
    program, params = program_of(network.images[0]), network.params
    check_program(program, params)
    maps, operations, loops = program.maps, program.operations, program.loops
    alike = next(n for n, form in enumerate(maps) if form.layout >= 0)
    walked = next(n for n, form in enumerate(maps) if form.pitch)

    def with_map(number: int, **changes: int) -> Program:
        return dataclasses.replace(
            program, maps=(*maps[:number], dataclasses.replace(maps[number], **changes), *maps[number + 1 :])
        )

    def with_operation(**changes: object) -> Program:
        return dataclasses.replace(program, operations=(dataclasses.replace(operations[0], **changes), *operations[1:]))

    def with_loop(**changes: int) -> Program:
        return dataclasses.replace(program, loops=(dataclasses.replace(loops[0], **changes), *loops[1:]))

    for wrong, words in (
        (with_map(alike, vectors=maps[alike].vectors + 1), "do not fill|vectors apart"),
        (with_map(alike, vectors=0), "do not fill"),
        (with_map(alike, layout=-1), "no layout|another layout|lie as"),
        (with_map(walked, pitch=maps[walked].pitch + 1), "vectors apart"),
        (with_map(walked, at=1 << 16, block=0), "of its block|do not fit"),
        (with_operation(a=Operand(operations[0].a.map, part=99)), "part 99"),
        (with_operation(a=Operand(walked, pixel=99)), "pixel 99"),
        (with_operation(a=Operand(walked, moves=False, pixel=maps[walked].width)), "it reads or makes"),
        (with_loop(count=1 << 15), "a loop of|it reads or makes"),
        (with_loop(last=99), "a loop of"),
        (with_loop(first=1, last=0), "a loop of"),
        (dataclasses.replace(program, loops=()), "it reads or makes"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=words):
            check_program(wrong, params)
