"""`.npy` and `.npz` files: arrays whose headers, places and archives lie."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from compiler.arrays import read_arrays, read_batch
from compiler.errors import EieError
from compiler.frontend.npz import load_layer
from compiler.graph.operators import types
from compiler.source import rewrite
from sim.fuzz.lies import lie_bytes, number, text
from sim.fuzz.target import Finding, Target

__all__ = ["Batches", "Layers"]

_TYPES = (
    "<f4",
    "<f8",
    ">f4",
    "<i2",
    "|u1",
    "<i8",
    ">i2",
    "|b1",
    "<f2",
    "<c8",
    "|O",
    "|S5",
    "<U7",
    "|V3",
    "<M8[s]",
    "<u4",
)


def _npy(random: Random, array: NDArray[Any]) -> bytes:
    """An `.npy` file, mostly with a header that lies."""
    form, order = array.dtype.str, False
    shape: Any = array.shape
    match random.randrange(8):
        case 0:
            form = random.choice(_TYPES)
        case 1:
            shape = tuple(number(random, size) if random.random() < 0.7 else size for size in shape)
        case 2:
            shape = random.choice(((), (0,), (-1,), (1 << 40,), (1 << 32, 1 << 32), [4], 5, "x", (2.5,), (True,)))
        case 3:
            order = True
        case 4:
            shape = tuple(reversed(shape))
        case _:
            pass
    head = f"{{'descr': {form!r}, 'fortran_order': {order}, 'shape': {shape!r}, }}"
    if random.random() < 0.1:
        head = random.choice((head.replace("shape", "form"), head[:-3], "[" * 500, text(random), head + "\n" * 3))
    coded = head.encode("utf-8", "replace").ljust(random.choice((1, 118))) + b"\n"
    version = random.choice((1, 1, 1, 2, 3, 9))
    size = struct.pack("<H" if version == 1 else "<I", len(coded) & 0xFFFF)
    content = array.tobytes()
    if random.random() < 0.1:
        content = content[: random.randrange(len(content) + 1)] if random.random() < 0.5 else content * 2
    made = b"\x93NUMPY" + bytes([version, 0]) + size + coded + content
    return lie_bytes(random, made) if random.random() < 0.15 else made


def _npz(random: Random, members: dict[str, bytes]) -> bytes:
    """An archive of them; its own checksums are right, unless its bytes are changed."""
    buffer = io.BytesIO()
    how = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name + ".npy" * (random.random() > 0.03), content)
    made = buffer.getvalue()
    return lie_bytes(random, made) if random.random() < 0.15 else made


def _right(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array))
    return buffer.getvalue()


class Batches(Target):
    """Inputs of a network, as `eie run --input` reads them."""

    name = "npy"
    text = "inputs and calibration data as .npy and .npz"
    suffix = ".npy"
    share = 100

    def make(self, random: Random) -> bytes:
        """An array, or an archive of two, whose headers lie."""
        rng = np.random.default_rng(random.getrandbits(32))
        dtype = random.choice(("<f4", "<f8", "<i2", ">f4", "<i8"))
        array = (100 * rng.normal(size=random.choice(((3, 4), (2, 3, 2, 2), (5,), (1, 1))))).astype(dtype)
        if random.random() < 0.6:
            return _npy(random, array)
        return _npz(random, {name: _npy(random, array) for name in random.sample(("x", "y", "z/../w"), 2)})

    def check(self, path: Path, random: Random) -> None:
        """What is read is numbers, of this machine's byte order, and no larger than the file allows."""
        found = read_arrays(path)
        for array in found.values() if isinstance(found, dict) else [found]:
            if not isinstance(array, np.ndarray) or array.dtype.hasobject or not array.dtype.isnative:
                raise Finding(f"an array of {getattr(array, 'dtype', type(array))}")
            if array.size and array.nbytes > 2000 * path.stat().st_size:
                raise Finding(f"{array.nbytes} bytes out of a file of {path.stat().st_size}")
        if not isinstance(found, dict):
            read_batch(path)


class Layers(Target):
    """One layer as `eie compile layer.npz` reads it, dense or sparse."""

    name = "npz"
    text = "layers as .npz, dense and as scipy's sparse matrices"
    suffix = ".npz"
    share = 60

    def prepare(self) -> None:
        """Layers that are right, as the members of their archives."""
        rng = np.random.default_rng(1)
        weight = (rng.normal(size=(6, 8)) * (rng.random((6, 8)) < 0.4)).astype(np.float32)
        bias = rng.normal(size=6)
        self._layers: list[dict[str, NDArray[Any]]] = [
            {"weight": weight, "bias": bias, "activation": np.array("relu")},
            {"weight": weight.astype(np.float16), "activation": np.array(b"none")},
        ]
        for form in ("csr", "csc", "coo", "bsr"):
            matrix = scipy.sparse.coo_array(weight).asformat(form)
            if form == "bsr":
                matrix = scipy.sparse.csr_array(weight).tobsr((2, 2))
            names = ("data", "row", "col") if form == "coo" else ("data", "indices", "indptr")
            fields = {name: getattr(matrix, name) for name in names}
            self._layers.append(
                {**fields, "shape": np.array(matrix.shape), "format": np.array(form.encode()), "bias": bias}
            )

    def make(self, random: Random) -> bytes:
        """One of its arrays lies: in its header, in its numbers, or it is another one's."""
        layer = dict(random.choice(self._layers))
        for _ in range(random.choice((0, 1, 1, 2))):
            name = random.choice(list(layer))
            array = layer[name].copy()
            if array.dtype.kind in "iu" and array.size:
                # Numbers that do not fit are another lie: the field is wider then.
                wide = array.astype(np.int64).reshape(-1)
                wide[random.randrange(len(wide))] = number(random, int(wide[0]), 63)
                layer[name] = wide.reshape(array.shape)
            elif array.dtype.kind == "f" and array.size:
                flat = array.reshape(-1)
                flat[random.randrange(len(flat))] = random.choice((np.nan, np.inf, -0.0, 6e4, 1e-7))
                layer[name] = flat.reshape(array.shape)
            elif random.random() < 0.5:
                layer[name] = np.array(text(random).encode("utf-8", "replace"))
            else:
                del layer[name]
        lying = random.choice((None, *layer)) if layer else None
        members = {name: _npy(random, a) if name == lying else _right(a) for name, a in layer.items()}
        return _npz(random, members)

    def check(self, path: Path, random: Random) -> None:
        """It becomes a graph of one layer, which the passes do not change in what it computes."""
        graph = load_layer(path)
        (linear,) = (node for node in graph if node.op == "Linear")
        weight = linear.tensors["weight"]
        if not np.isfinite(weight).all():
            raise Finding("a weight is not finite")
        if weight.size < 1 << 20:
            types(graph)
            try:
                rewrite(graph)
            except EieError as error:
                if "report" in str(error):
                    raise Finding(str(error)) from None
