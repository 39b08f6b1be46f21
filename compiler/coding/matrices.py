"""The two coders of matrices and floats, with one face: plain bytes go to the file as they come, beside a stream."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from compiler.coding import paper
from compiler.coding.bits import BitDecoder, BitEncoder, BitRecorder
from compiler.coding.context import Neurons, code_matrix
from compiler.coding.floats import FloatModel
from compiler.coding.numbers import read_floats, write_floats
from compiler.coding.paper import Coded
from compiler.coding.plan import Plan, best_plan, read_plan, write_plan
from compiler.coding.wire import Reader, Writer

__all__ = ["MatrixReader", "MatrixWriter", "matrix_reader", "matrix_writer"]

Int = NDArray[np.int64]
Codebook = NDArray[np.float32] | NDArray[np.int16]


class MatrixWriter(Protocol):
    """Takes the matrices of a file one after the other."""

    def write(self, writer: Writer, codes: NDArray[np.uint8], codebook: Codebook) -> None:
        """Append a matrix, uint8 (rows, columns); its plain part goes to `writer`."""

    def floats(self, writer: Writer, values: NDArray[np.float32]) -> None:
        """Append float32 (n,)."""

    def stream(self) -> bytes:
        """What stands before the plain parts."""


class MatrixReader(Protocol):
    """Gives them back in the same order."""

    def read(
        self, reader: Reader, shape: tuple[int, int], codebook: Codebook, what: str
    ) -> tuple[NDArray[np.uint8], Coded]:
        """The next matrix and what it took."""

    def floats(self, reader: Reader, count: int, what: str) -> tuple[NDArray[np.float32], float]:
        """The next floats and their bits."""


def matrix_writer(coder: str) -> MatrixWriter:
    """An empty writer of the coder "huffman" or "context"."""
    return _PaperWriter() if coder == "huffman" else _ContextWriter()


def matrix_reader(coder: str, reader: Reader) -> MatrixReader:
    """A reader, for which the coded stream is taken from the file."""
    if coder == "huffman":
        return _PaperReader()
    return _ContextReader(reader.raw(reader.varint("size of the coded stream", reader.left), "the coded stream"))


class _PaperWriter:
    def write(self, writer: Writer, codes: NDArray[np.uint8], codebook: Codebook) -> None:
        paper.write(writer, codes, len(codebook))

    def floats(self, writer: Writer, values: NDArray[np.float32]) -> None:
        write_floats(writer, values)

    def stream(self) -> bytes:
        return b""


class _PaperReader:
    def read(
        self, reader: Reader, shape: tuple[int, int], codebook: Codebook, what: str
    ) -> tuple[NDArray[np.uint8], Coded]:
        return paper.read(reader, shape, len(codebook), what)

    def floats(self, reader: Reader, count: int, what: str) -> tuple[NDArray[np.float32], float]:
        begin = reader.at
        return read_floats(reader, count, what), 8.0 * (reader.at - begin)


class _ContextWriter:
    def __init__(self) -> None:
        self._encoder = BitEncoder()
        self._floats = FloatModel()
        self._neurons = Neurons(np.zeros(0, np.int64))

    def write(self, writer: Writer, codes: NDArray[np.uint8], codebook: Codebook) -> None:
        nonzeros = int(np.count_nonzero(codes))
        writer.varint(nonzeros)
        if nonzeros:
            trials: dict[Plan, BitRecorder] = {}

            def cost(plan: Plan) -> float:
                head, trials[plan] = Writer(), BitRecorder()
                write_plan(head, plan)
                found = code_matrix(trials[plan], _shape(codes), nonzeros, codebook, plan, self._neurons, codes)
                return 8 * len(head) + sum(found[1:])

            best = best_plan(codes, cost)
            write_plan(writer, best)
            if best not in trials:
                cost(best)
            for found, bits in trials[best].notes:
                self._encoder.code(found, bits)
        self._neurons.see(codes)

    def floats(self, writer: Writer, values: NDArray[np.float32]) -> None:
        self._floats.write(writer, self._encoder, values)

    def stream(self) -> bytes:
        data, head = self._encoder.finish(), Writer()
        head.varint(len(data))
        return bytes(head.data) + data


class _ContextReader:
    def __init__(self, data: bytes) -> None:
        self._decoder = BitDecoder(data)
        self._floats = FloatModel()
        self._neurons = Neurons(np.zeros(0, np.int64))

    def read(
        self, reader: Reader, shape: tuple[int, int], codebook: Codebook, what: str
    ) -> tuple[NDArray[np.uint8], Coded]:
        nonzeros = reader.varint(f"{what}: nonzeros", shape[0] * shape[1])
        codes, positions, values = np.zeros(shape, np.uint8), 0.0, 0.0
        if nonzeros:
            plan = read_plan(reader, what)
            codes, positions, values = code_matrix(self._decoder, shape, nonzeros, codebook, plan, self._neurons, None)
        self._neurons.see(codes)
        return codes, Coded(0, 0, values, positions)

    def floats(self, reader: Reader, count: int, what: str) -> tuple[NDArray[np.float32], float]:
        begin = reader.at
        values, bits = self._floats.read(reader, self._decoder, count, what)
        return values, bits + 8.0 * (reader.at - begin)


def _shape(codes: NDArray[np.uint8]) -> tuple[int, int]:
    rows, columns = codes.shape
    return rows, columns
