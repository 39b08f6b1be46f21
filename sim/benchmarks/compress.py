"""Bytes of compressed networks and speed of the coders, beside NNCodec on the same shared weights.

That compares coders alone: both give the same values back. `equal_error` compares the whole of both ways.

Every file is decompressed and compared before it counts. A ratio is dense float32 bytes by all bytes of the file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.coding.container import CODERS, compress, decompress
from compiler.coding.sizes import Sizes
from compiler.compressed import CompressedModel, CompressedTensor
from sim.benchmarks.nncodec import NNCodec, Unavailable

__all__ = ["SPEEDS", "Row", "SpeedRow", "made", "measure", "measure_speed"]

SPEEDS = {"huffman": 20.0, "context": 5.0}
"""Figures to reach, MB of dense float32 weights a second, encoding and decoding."""

_LENET = (("fc1", 300, 784, 0.02), ("fc2", 100, 300, 0.04), ("fc3", 10, 100, 0.2))


@dataclass(frozen=True)
class Row:
    """One network by one coder.

    stream_bytes : codes and positions with names and shapes; side_bytes : codebooks and values stored one by one.
    smaller_than_nncodec : share of NNCodec's bytes that is saved; None where there are none.
    """

    network: str
    coder: str
    nonzeros: int
    dense_bytes: int
    file_bytes: int | None
    stream_bytes: float | None
    side_bytes: float
    ratio: float | None
    smaller_than_nncodec: float | None
    note: str = ""


@dataclass(frozen=True)
class SpeedRow:
    """Of one network, from CPU seconds of this process; the best of three. to_reach : MB of float32 values a second."""

    coder: str
    network: str
    weights: int
    density: float
    encode_mb_s: float
    decode_mb_s: float
    to_reach: float

    @property
    def reached(self) -> bool:
        """Both ways."""
        return min(self.encode_mb_s, self.decode_mb_s) >= self.to_reach


def made(seed: int) -> CompressedModel:
    """A network of LeNet-300-100's shapes whose nonzeros cluster as those of trained ones do; nothing was trained."""
    rng = np.random.default_rng(seed)
    tensors = []
    for name, rows, columns, density in _LENET:
        liking = np.exp(1.5 * rng.normal(size=(rows, 1)) + 1.5 * rng.normal(size=(1, columns)))
        keep = rng.random((rows, columns)) < np.minimum(liking * density / liking.mean(), 1)
        codes = np.where(keep, rng.integers(1, 16, (rows, columns)), 0).astype(np.uint8)
        tensors.append(CompressedTensor.of(f"{name}.weight", codes, _codebook(rng)))
    biases = {f"{name}.bias": rng.normal(size=rows).astype(np.float32) for name, rows, _, _ in _LENET}
    return CompressedModel(tuple(tensors), biases)


def measure(
    networks: Mapping[str, CompressedModel], nncodec: NNCodec | None, progress: Callable[[str], None]
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Rows of all networks and coders, and how NNCodec was called for each (empty without it)."""
    rows: list[Row] = []
    calls: list[dict[str, Any]] = []
    for name, model in networks.items():
        progress(name)
        sizes = {coder: _sizes(model, coder) for coder in CODERS}
        side = _side(sizes["context"])
        anchor, note = None, "not available"
        if nncodec is not None:
            try:
                answer = nncodec.compress(model)
                calls.append({"network": name, **answer})
                anchor, note = answer["bytes"] + side, f"{answer['settings']}"
            except Unavailable as error:
                note = str(error)
        nonzeros = sum(tensor.nonzeros for tensor in model.tensors)
        for coder, size in sizes.items():
            share = None if anchor is None else 1 - size.file_bytes / anchor
            rows.append(
                Row(
                    name, coder, nonzeros, size.dense_bytes, size.file_bytes, size.file_bytes - _side(size),
                    _side(size), size.ratio, share,
                )
            )  # fmt: skip
        total = None if anchor is None else round(anchor)
        ratio = None if anchor is None else model.dense_bytes / anchor
        stream = None if anchor is None else anchor - side
        rows.append(Row(name, "NNCodec", nonzeros, model.dense_bytes, total, stream, side, ratio, None, note))
    return rows, calls


def measure_speed(
    networks: Mapping[str, CompressedModel], seed: int, progress: Callable[[str], None]
) -> list[SpeedRow]:
    """Both coders on each network, and on random matrices of 1 and 16 million weights, 9 % of them nonzero."""
    rng = np.random.default_rng(seed)
    models = dict(networks)
    for shape in ((1000, 1000), (4096, 4096)):
        codes = np.where(rng.random(shape) < 0.09, rng.integers(1, 16, shape), 0).astype(np.uint8)
        models[f"{shape[0]}x{shape[1]}, random"] = CompressedModel(
            (CompressedTensor.of("fc.weight", codes, _codebook(rng)),)
        )
    rows = []
    for name, model in models.items():
        for coder in CODERS:
            progress(f"speed of {coder} on {name}")
            times = []
            for _ in range(4):  # the first may compile
                begin = time.process_time()
                data = compress(model, coder)
                middle = time.process_time()
                decompress(data)
                times.append((middle - begin, time.process_time() - middle))
            rates = model.dense_bytes / 1e6 / np.maximum(np.min(times, axis=0), 1e-9)
            weights = model.dense_bytes // 4
            density = sum(tensor.nonzeros for tensor in model.tensors) / weights
            rows.append(SpeedRow(coder, name, weights, density, float(rates[0]), float(rates[1]), SPEEDS[coder]))
    return rows


def _codebook(rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
    book = np.sort(rng.normal(size=16)).astype(np.float32)
    return np.concatenate([np.zeros(1, np.float32), book[book != 0][:15]])


def _sizes(model: CompressedModel, coder: Any) -> Sizes:
    """Of the file, once it is proven to be lossless."""
    content = decompress(compress(model, coder))
    if model.difference(content.network) is not None:
        raise AssertionError(f"the {coder} coder is not lossless")
    return content.sizes


def _side(sizes: Sizes) -> float:
    """Bytes of codebooks and of values stored one by one."""
    return (sizes.part("codebook") + sizes.part("values")) / 8
