"""Compressed models that tests make."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from compiler.compressed import CompressedModel, CompressedTensor


def codebook(rng: np.random.Generator, bits: int) -> NDArray[np.float32]:
    book = np.sort(rng.normal(size=1 << bits)).astype(np.float32)
    book[0] = 0
    return book


def tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...], bits: int, density: float) -> CompressedTensor:
    codes = rng.integers(1, 1 << bits, shape).astype(np.uint8)
    codes[rng.uniform(size=shape) >= density] = 0
    return CompressedTensor.of(name, codes, codebook(rng, bits))


def floats(rng: np.random.Generator, count: int, form: int) -> NDArray[np.float32]:
    values = rng.normal(size=count).astype(np.float32)
    if form == 1:
        return values.astype(np.float16).astype(np.float32)
    if form == 2:
        return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    if form == 3:
        return np.ldexp(np.rint(values * 50), -7).astype(np.float32)
    if form == 4:
        return values[rng.integers(0, min(count, 5), count)] if count else values
    return values


@st.composite
def models(draw: st.DrawFn) -> CompressedModel:
    """Small models of every form of value, with dead rows and columns."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tensors = []
    for number in range(draw(st.integers(0, 3))):
        shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
        density = draw(st.sampled_from([0.0, 0.02, 0.2, 0.6, 1.0]))
        made = tensor(rng, f"layer{number}.weight", shape, draw(st.integers(1, 8)), density)
        made.codes[rng.uniform(size=made.codes.shape[0]) < 0.2] = 0
        made.codes[:, rng.uniform(size=made.codes.shape[1]) < 0.2] = 0
        tensors.append(made)
    names = draw(st.lists(st.text(max_size=12), min_size=0 if tensors else 1, max_size=3, unique=True))
    dense = {
        name + ".bias": floats(rng, draw(st.integers(0, 40)), draw(st.integers(0, 4))) for name in names
    }  # fmt: skip
    for number in range(draw(st.integers(0, 2))):  # pruned, not shared; negative zeros are values
        shape = tuple(draw(st.lists(st.integers(1, 9), min_size=2, max_size=4)))
        values = rng.normal(size=shape).astype(np.float32)
        values[rng.uniform(size=shape) < draw(st.sampled_from([0.05, 0.3, 0.95, 1.0]))] = 0
        values[rng.uniform(size=shape) < 0.05] = np.float32(-0.0)
        dense[f"pruned{number}.weight"] = values
    return CompressedModel(tuple(tensors), dense, draw(st.dictionaries(st.text(max_size=5), st.text(max_size=9))))


def assert_equal(a: CompressedModel, b: CompressedModel) -> None:
    """Equal in every bit."""
    assert [t.name for t in a.tensors] == [t.name for t in b.tensors]
    for one, other in zip(a.tensors, b.tensors, strict=True):
        assert one.shape == other.shape
        np.testing.assert_array_equal(one.codes, other.codes)
        np.testing.assert_array_equal(one.codebook.view(np.uint32), other.codebook.view(np.uint32))
    assert list(a.dense) == list(b.dense)
    for name, array in a.dense.items():
        assert array.shape == b.dense[name].shape
        np.testing.assert_array_equal(array.view(np.uint32), b.dense[name].view(np.uint32))
    assert dict(a.metadata) == dict(b.metadata)
