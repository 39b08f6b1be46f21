"""Files that are damaged, cut, or lie: refused with a reason, or read as another small network; never anything else."""

from __future__ import annotations

import resource
import time
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from compiler.coding import context, float_form, huffman, kernels, paper
from compiler.coding.container import CODERS, Coder, FixedContent, compress, compress_fixed, decompress, decompress_any
from compiler.coding.matrices import MatrixWriter
from compiler.coding.mixing import Mix
from compiler.coding.sizes import MAX_DENSE, MAX_ELEMENTS
from compiler.coding.wire import Reader, Writer
from compiler.compressed import CompressedModel
from compiler.errors import CodingError
from compiler.graph.ir import Graph, Node
from compiler.lower.chain import Chain
from compiler.lower.partition import Partition
from compiler.options import DEFAULT
from tests.compiler.coding.fixed import graph, parts
from tests.compiler.coding.models import assert_equal, floats, tensor

MUTANTS = 3000


def network(rng: np.random.Generator) -> CompressedModel:
    shared = (tensor(rng, "a.weight", (24, 30), 4, 0.2), tensor(rng, "b.weight", (5, 24), 3, 0.4))
    return CompressedModel(shared, {"a.bias": floats(rng, 24, 0), "b.bias": floats(rng, 5, 1)}, {"made": "by a test"})


def with_host(made: Chain) -> Partition:
    """A chain with a graph around it that has tensors of the host."""
    given = parts(made)
    codes = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    book = np.array([0, 5, -7, 9], np.int16)
    constant = Node("c", "Constant", (), {"exponent": 0}, {"value": np.arange(-3, 3, dtype=np.int16)})
    linear = Node("l", "Linear", ("c",), {"shift": 1}, {"bias": np.arange(3), "codes": codes, "codebook": book})
    return Partition(Graph((constant, linear, *given.graph)), given.programs)


def sealed(data: bytes) -> bytes:
    """With a checksum that is right, so that the readers themselves must find what is wrong."""
    return data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little")


def mutant(rng: np.random.Generator, data: bytes) -> bytes:
    """A few bytes changed, cut out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(4, max(len(changed) - 4, 5)))
        match int(rng.integers(6)):
            case 0:
                changed[at] ^= 1 << int(rng.integers(8))
            case 1:
                changed[at] = int(rng.choice([0, 127, 128, 255]))
            case 2:
                del changed[at : at + int(rng.integers(1, 8))]
            case 3:
                changed[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 6))).astype(np.uint8))
            case 4:
                changed[at:at] = b"\xff" * int(rng.integers(1, 11))
            case _:
                del changed[at:]
    return bytes(changed)


@pytest.mark.verifies("hostile-compressed-files-12-000")
@pytest.mark.parametrize("kind", ["float", "fixed"])
@pytest.mark.parametrize("coder", CODERS)
def test_thousands_of_hostile_files_are_refused_or_harmless(rng: np.random.Generator, coder: Coder, kind: str) -> None:
    made = graph(rng)
    fixed = compress_fixed(with_host(made), made.params, DEFAULT, 1, coder)
    data = compress(network(rng), coder) if kind == "float" else fixed
    reasons: list[str] = []
    begin = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(MUTANTS):
        try:
            content = decompress_any(sealed(mutant(rng, data)))
        except CodingError as error:
            reasons.append(str(error))
        else:
            if isinstance(content, FixedContent):  # if it is read, then it is a legal network
                for program in content.parts.programs:
                    program.verify(content.params)
                assert all(tensor.weights <= MAX_ELEMENTS for tensor in content.sizes.tensors)
            else:
                content.network.verify()
                assert content.network.dense_bytes <= 4 * (MAX_ELEMENTS + MAX_DENSE)
    print(f"{coder}, {kind}: {len(reasons)} of {MUTANTS} refused in {time.monotonic() - begin:.1f} s")
    assert len(reasons) > MUTANTS // 2
    assert all(reason and "\n" not in reason for reason in reasons)
    # KiB on Linux: no mutant made the process much larger than it was.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000


@pytest.mark.verifies("hostile-compressed-files-cut-anywhere")
@pytest.mark.parametrize("coder", CODERS)
def test_a_file_cut_anywhere_or_with_any_bit_flipped_is_refused(rng: np.random.Generator, coder: Coder) -> None:
    data = compress(network(rng), coder)
    for size in range(len(data)):
        with pytest.raises(CodingError):
            decompress(data[:size])
    for size in range(len(data) - 4):  # the same, and the checksum is right
        with pytest.raises(CodingError):
            decompress(sealed(data[:size] + bytes(4)))
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CodingError):
            decompress(bytes(changed))


def lie(write: object, coder: Coder) -> bytes:
    """A file whose content `write` appends, its checksum right."""
    writer = Writer()
    writer.raw(b"EIEZ")
    writer.byte(2 << 3 | CODERS.index(coder))
    write(writer)  # type: ignore[operator]
    return sealed(bytes(writer.data) + b"\0\0\0\0")


@pytest.mark.verifies("hostile-compressed-files-sizes-lie")
@pytest.mark.parametrize("coder", CODERS)
def test_sizes_that_lie_cost_no_memory(coder: Coder) -> None:
    def huge(writer: Writer) -> None:
        writer.varint(1)
        writer.varint(0)
        writer.byte(1)
        writer.varint(1)
        writer.raw(b"a")
        writer.byte(7 << 5 | 2)
        writer.varint(1 << 28)
        writer.varint(1 << 28)
        writer.raw(bytes(40))

    def many(writer: Writer) -> None:
        writer.varint(1 << 60)
        writer.raw(bytes(40))

    def values(writer: Writer) -> None:
        writer.varint(0)
        writer.varint(1)
        writer.byte(1)
        writer.varint(1)
        writer.raw(b"a")
        writer.byte(1)
        writer.varint(1 << 24)
        writer.raw(bytes(40))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for wrong, words in ((huge, "more values than this kit reads"), (many, "tensors is"), (values, "the file ends")):
        with pytest.raises(CodingError, match=words):
            decompress(lie(wrong, coder))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_what_is_no_such_file_is_said() -> None:
    for data, words in (
        (b"", "does not begin with EIEZ"),
        (b"PK\3\4 and so on", "does not begin with EIEZ"),
        (b"EIEZ", "ends within its header"),
        (b"EIEZ\xf8" + bytes(9), "format version 31; this kit reads 2"),
        (b"EIEZ\x10" + bytes(9), "damaged"),
    ):
        with pytest.raises(CodingError, match=words):
            decompress_any(data)


def caught(model: CompressedModel, coder: Coder) -> bool:
    """Whether a round trip notices."""
    try:
        assert_equal(model, decompress(compress(model, coder)).network)
    except (AssertionError, CodingError):
        return True
    return False


@pytest.mark.verifies("planted-faults-code-words-exchanged")
def test_planted_faults_in_the_huffman_coder_are_caught(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One code word a bit too long in the encoder; a gap that a filler bridges one short."""
    model = network(rng)
    assert not caught(model, "huffman")
    encode, from_positions = huffman.encode, paper.from_positions

    def swapped(symbols: np.ndarray, lengths: np.ndarray) -> bytes:
        first, last = np.flatnonzero(lengths)[[0, -1]]
        wrong = symbols.copy()
        wrong[symbols == first], wrong[symbols == last] = last, first
        return encode(wrong, lengths)

    with monkeypatch.context() as patch:
        patch.setattr(huffman, "encode", swapped)
        assert caught(model, "huffman")

    def short(*arguments: object) -> tuple[np.ndarray, np.ndarray]:
        codes, gaps = from_positions(*arguments)  # type: ignore[arg-type]
        gaps[len(gaps) // 2] ^= 1
        return codes, gaps

    with monkeypatch.context() as patch:
        patch.setattr(paper, "from_positions", short)
        assert caught(model, "huffman")
    assert not caught(model, "huffman")


@pytest.mark.verifies("planted-faults-probability-off-bit")
def test_planted_faults_in_the_context_coder_are_caught(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder whose probability is one step off, whose model does not learn a bit, or that knows other hints."""
    model = network(rng)
    data = compress(model, "context")

    def wrong() -> bool:
        try:
            assert_equal(model, decompress(data).network)
        except (AssertionError, CodingError):
            return True
        return False

    assert not wrong()
    from compiler.coding import bits, positions

    read, steps = bits.BitDecoder.read, kernels.position_steps

    def off(self: bits.BitDecoder, made: Iterator[int], chances: np.ndarray, found: np.ndarray) -> None:
        def shifted() -> Iterator[int]:
            for size in made:
                chances[:size] = np.minimum(chances[:size] + 64 / 65536, 65535 / 65536)
                yield size

        read(self, shifted(), chances, found)

    with monkeypatch.context() as patch:
        patch.setattr(bits.BitDecoder, "read", off)
        assert wrong()

    learned = 0

    def forgetful(mix: Mix, *arguments: object) -> Iterator[int]:
        nonlocal learned
        for size in steps(mix, *arguments):
            learned += 1
            if learned == 5:
                kept = mix.tables.copy()
            if learned == 6:
                mix.tables[:] = kept
            yield size

    with monkeypatch.context() as patch:
        patch.setattr(positions, "position_steps", forgetful)
        assert wrong()
        assert learned > 6

    with monkeypatch.context() as patch:
        patch.setattr(context.Neurons, "see", lambda self, codes: None)
        assert wrong()
    assert not wrong()


@pytest.mark.verifies("planted-fault-codebook-entries-exchanged")
def test_a_planted_fault_in_the_values_is_caught(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two entries of a codebook exchanged by the writer."""
    model = network(rng)
    write = float_form._write_codebook

    def exchanged(writer: Writer, matrices: MatrixWriter, codebook: np.ndarray) -> None:
        write(writer, matrices, codebook[[0, 2, 1, *range(3, len(codebook))]])

    monkeypatch.setattr(float_form, "_write_codebook", exchanged)
    assert caught(model, "huffman")
    assert caught(model, "context")


@pytest.mark.verifies("hostile-compressed-files-sizes-lie")
@pytest.mark.parametrize("coder", CODERS)
def test_sizes_of_programs_that_lie_cost_no_memory(rng: np.random.Generator, coder: Coder) -> None:
    made = graph(rng)
    data = compress_fixed(parts(made), made.params, DEFAULT, 1, coder)
    reader = Reader(data)
    reader.at = 9
    reader.raw(reader.varint("parameters", 1 << 12), "parameters")
    begin = data[: reader.at]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def maps(*sizes: tuple[int, int, int]) -> bytes:
        """Two values of (channels, height, width), and one layer that has a window of 1 x 1."""
        writer = Writer()
        writer.varint(1)
        writer.varint(len(sizes) << 2)
        for channels, height, width in sizes:
            writer.byte(1)
            writer.varint(1)
            writer.raw(bytes([97 + len(writer) % 26]))
            writer.varint(channels)
            writer.signed(0)
            writer.varint(height)
            writer.varint(width)
        writer.byte(0)
        return bytes(writer.data)

    for wrong, words in (
        (maps((1 << 15, 1, 1), (1 << 15, 1, 1)), "more weights than this kit reads"),
        (maps((8, 1 << 15, 1 << 15), (8, 1, 1)), "activation vectors; there may be"),
        (maps((1 << 25, 1, 1), (8, 1, 1)), "channels is"),
        (bytes([1, 0xFF, 0xFF, 0xFF, 0x7F]), "values of a part is"),
        (bytes([0xFF, 0xFF, 0xFF, 0x7F]), "parts of the array is"),
    ):
        with pytest.raises(CodingError, match=words):
            decompress_any(sealed(begin + wrong + bytes(40)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
