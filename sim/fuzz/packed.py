"""`.eiez` and `.net` files: bytes that lie under a checksum that is right, so that the decoders must see it."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from random import Random

import numpy as np

from compiler.coding.container import CODERS, FixedContent, compress, compress_fixed, decompress, decompress_any
from compiler.compressed import CompressedModel, CompressedTensor
from compiler.dcnet import read_net, write_net
from compiler.lower.partition import Partition
from compiler.network_file import load
from sim.fuzz.lies import lie_bytes
from sim.fuzz.networks import run_both, small_networks
from sim.fuzz.target import Finding, Target
from sim.packed import restore_image
from sim.programs import program_of

__all__ = ["Nets", "Packed", "small_model"]

_CODED_AGAIN = 1 << 24  # elements up to which what was decoded is coded again


def small_model(seed: int) -> CompressedModel:
    """A trained network of two layers."""
    rng = np.random.default_rng(seed)
    tensors = []
    for name, shape in (("a.weight", (8, 3, 2, 2)), ("b.weight", (5, 32))):
        codes = (rng.integers(1, 16, shape) * (rng.random(shape) < 0.3)).astype(np.uint8)
        book = np.concatenate([np.zeros(1), np.sort(rng.normal(size=15))]).astype(np.float32)
        tensors.append(CompressedTensor.of(name, codes, book))
    biases = {f"{name}.bias": rng.normal(size=size).astype(np.float32) for name, size in (("a", 8), ("b", 5))}
    return CompressedModel(tuple(tensors), biases)


class Packed(Target):
    """Files of `eie compress`, decoded; what is accepted becomes a network that runs."""

    name = "eiez"
    text = "compressed networks of both kinds and coders, checksums mended"
    suffix = ".eiez"
    share = 20

    def prepare(self) -> None:
        """Files of small networks, of integers and of floats."""
        model = small_model(1)
        described = dataclasses.replace(
            model, metadata={"made": "by a test"}, integers={"n.count": np.arange(3, dtype=np.int64)}
        )
        self._files = [compress(each, coder) for each in (model, described) for coder in CODERS]
        for each in self._files:
            decompress(each)  # compiles the coders, which is not the first case's time
        for network in small_networks():
            parts = Partition(network.graph, tuple(program_of(image) for image in network.images))
            self._files += [compress_fixed(parts, network.params, network.options, 0, coder) for coder in CODERS]

    def make(self, random: Random) -> bytes:
        """Some bytes changed behind the name of the format; nine times out of ten the checksum is right."""
        changed = lie_bytes(random, random.choice(self._files)[:-4], 4, random.choice((1, 1, 3)))
        if random.random() < 0.1:
            return changed
        return changed + zlib.crc32(changed).to_bytes(4, "little")

    def check(self, path: Path, random: Random) -> None:
        """It is decoded, coded and decoded again, or restored to a file that runs.

        A few bytes may hold hundreds of millions of zeros, which are read in a second. Coders take longer for as many.
        """
        content = decompress_any(path.read_bytes())
        if not isinstance(content, FixedContent):
            content.network.verify()
            if sum(tensor.codes.size for tensor in content.network.tensors) > _CODED_AGAIN:
                return
            coder = random.choice(CODERS)
            name = content.network.difference(decompress(compress(content.network, coder)).network)
            if name is not None:
                raise Finding(f"{name} is another one after it is compressed by {coder}")
            return
        path.write_bytes(restore_image(dataclasses.replace(content, image_crc=None)))
        run_both(load(path), random)


class Nets(Target):
    """Files in the layout of Deep Compression, read with the layers that they had."""

    name = "net"
    text = "networks in Deep Compression's .net layout"
    suffix = ".net"
    share = 150

    def prepare(self) -> None:
        """Files of small networks."""
        self._files = []
        for seed in range(3):
            content, self._forms = write_net(small_model(seed))
            self._files.append(content)

    def make(self, random: Random) -> bytes:
        """Some bytes changed."""
        return lie_bytes(random, random.choice(self._files))

    def check(self, path: Path, random: Random) -> None:
        """It is read, written and read again."""
        model = read_net(path.read_bytes(), self._forms)
        written, forms = write_net(model)
        if (name := model.difference(read_net(written, forms))) is not None:
            raise Finding(f"{name} is another one after it is written and read")
