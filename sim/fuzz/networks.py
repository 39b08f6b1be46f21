"""`.eie` files: damaged, or with lies under checksums that are right."""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from amaranth.lib import data
from numpy.typing import NDArray

from compiler.network import Network, network_of
from compiler.network_file import load, to_file
from hw.layouts import Op, descriptor, elementwise, fields, loop, output_word, pointer_block
from hw.params import Params
from sim.cases import random_case
from sim.fuzz.lies import lie_bytes, lie_value, number, parse_tensors, write_tensors
from sim.fuzz.target import Finding, Target
from sim.graph_cases import random_graph_case
from sim.network import NetworkResult, run_network
from sim.programs import program_of
from sim.stream_cases import random_stream_case

__all__ = ["ARRAY", "Networks", "lie_words", "run_both", "small_networks"]

ARRAY = Params(
    pes=2, rows=32, queue_depth=8, weight_words=512, pointer_blocks=512, act_lines=256, output_words=512,
    codebooks=8, descriptors=64,
)  # fmt: skip
"""An array with every unit, for networks of a few layers."""

_TILED = ARRAY.replace(weight_words=16, pointer_blocks=8, codebooks=4)
_WIDE = ARRAY.replace(pes=16, act_lines=128)
_NARROW = ARRAY.replace(pes=4, act_lines=200, weight_words=2048, pointer_blocks=2048, output_words=2048, codebooks=16)


@cache
def small_networks() -> tuple[Network, ...]:
    """Networks that use every unit of the array: windows, pools, sums, operations, loops, streamed weights and maps."""
    layers = [network_of(random_case(seed, params).image) for seed, params in ((3, ARRAY), (8, _TILED), (5, _WIDE))]
    graphs = [random_graph_case(seed, params).network for seed, params in ((1, ARRAY), (2, ARRAY), (6, ARRAY))]
    return (*layers, *graphs, random_stream_case(1, _NARROW).network)


def run_both(network: Network, random: Random) -> NetworkResult:
    """Golden's values of random inputs, which have the shapes that the network says; with times of the cycle model.

    Raises
    ------
    Finding
        They have not.
    """
    x: dict[str, NDArray[Any]] = {}
    batch = random.choice((1, 1, 1, 2))
    rng = np.random.default_rng(random.getrandbits(32))
    for node, kind in zip(network.graph.inputs, network.inputs, strict=True):
        shape = (batch, *kind.shape)
        if kind.kind == "index":
            x[node.name] = rng.integers(0, 2, shape)
        else:
            x[node.name] = (rng.integers(-32768, 32768, shape) * (rng.random(shape) < 0.5)).astype(np.int16)
    result = run_network(network, x, engine="cycles")
    for name, kind in network.types.items():
        raw = result.values.get(name)
        if raw is not None and raw.shape[1:] != tuple(kind.shape):
            raise Finding(f"{name} has shape {raw.shape}; the file says {kind.shape}")
    return result


def lie_words(random: Random, words: NDArray[np.uint8], layouts: tuple[data.Layout, ...]) -> NDArray[np.uint8]:
    """Packed words (…, bytes), with a field of one of them, or another one, changed.

    layouts : what a word may be; descriptors say with their first four bits which one.
    """
    made = words.copy()
    flat = made.reshape(-1, made.shape[-1])
    if not len(flat):
        return made
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        at = random.randrange(len(flat))
        if random.random() < 0.1:
            flat[at] = flat[random.randrange(len(flat))]
            continue
        value = int.from_bytes(flat[at].tobytes(), "little")
        kinds = {Op.ELEMENTWISE.value: 1, Op.LOOP.value: 2}
        layout = layouts[kinds.get(value & 15, 0) if len(layouts) > 1 else 0]
        _, first, width = random.choice(fields(layout))
        found = value >> first & (1 << width) - 1
        wrong = number(random, found, width)
        if random.random() < 0.3:
            wrong = random.getrandbits(width)
        value ^= (found ^ wrong) << first
        flat[at] = np.frombuffer(value.to_bytes(flat.shape[-1], "little"), np.uint8)
    return made


class Networks(Target):
    """Files of `eie compile`, read and run."""

    name = "eie"
    text = "compiled networks, checksums mended; what is accepted runs on golden and cycle model"
    suffix = ".eie"
    share = 4

    def prepare(self) -> None:
        """Files of small networks."""
        self._files = [to_file(network) for network in small_networks()]
        for network in small_networks():
            run_both(network, Random(0))  # compiles the cycle model, which is not the first case's time

    def make(self, random: Random) -> bytes:
        """A file of which the header or a tensor lies, or whose bytes are damaged."""
        whole = random.choice(self._files)
        if random.random() < 0.1:
            return lie_bytes(random, whole)
        outer, content = parse_tensors(whole)
        header = json.loads(outer["__metadata__"]["eie"])["header"]
        del outer["__metadata__"]
        tensors = {
            name: np.frombuffer(content[entry["data_offsets"][0] : entry["data_offsets"][1]], np.uint8)
            for name, entry in outer.items()
        }
        shapes = {name: list(entry["shape"]) for name, entry in outer.items()}
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            if random.random() < 0.5:
                header = self._header(random, header)
            else:
                self._tensor(random, tensors, shapes)
        return self._sealed(random, header, outer, tensors, shapes)

    @staticmethod
    def _header(random: Random, header: Any) -> Any:
        """A lie in one part of the header, which all have the same chance of."""
        if not isinstance(header, dict) or not header or random.random() < 0.1:
            return lie_value(random, header)
        part = random.choice((*sorted(header), "images", "images", "graph"))
        return {**header, part: lie_value(random, header[part])} if part in header else header

    @staticmethod
    def _tensor(random: Random, tensors: dict[str, NDArray[np.uint8]], shapes: dict[str, list[int]]) -> None:
        """A lie in the values of a tensor, or in its shape together with its values."""
        name = random.choice(sorted(tensors))
        if random.random() < 0.4:
            name = random.choice([each for each in sorted(tensors) if each.endswith("descriptors")])
        shape, values = shapes[name], tensors[name]
        kind = name.rsplit(".", 1)[-1]
        layouts: dict[str, tuple[data.Layout, ...]] = {
            "descriptors": (descriptor(ARRAY), elementwise(ARRAY), loop(ARRAY)),
            "table": (output_word(ARRAY),), "pointers": (pointer_block(ARRAY),),
        }  # fmt: skip
        if random.random() < 0.15 and shape and values.size:
            axis = random.randrange(len(shape))
            array = values.reshape(*shape, -1)
            index = [random.randrange(max(1, n)) for n in shape]
            grown = np.concatenate([array, array], axis)
            made = random.choice((array.take(range(index[axis]), axis), grown, np.flip(array, axis)))
            tensors[name], shapes[name] = np.ascontiguousarray(made).reshape(-1), list(made.shape[:-1])
        elif kind in layouts and len(shape) > 1 and shape[-1] * 8 >= layouts[kind][0].size and values.size:
            tensors[name] = lie_words(random, values.reshape(shape), layouts[kind]).reshape(-1)
        elif values.size:
            changed = values.copy()
            for _ in range(random.choice((1, 2, 4))):
                at = random.randrange(len(changed))
                changed[at] = random.choice((changed[at] ^ 1 << random.randrange(8), 0, 255, random.randrange(256)))
            tensors[name] = changed

    @staticmethod
    def _sealed(
        random: Random, header: Any, outer: dict[str, Any], tensors: dict[str, NDArray[np.uint8]],
        shapes: dict[str, list[int]],
    ) -> bytes:  # fmt: skip
        """The file, with checksums of what it holds."""
        if isinstance(header, dict) and isinstance(header.get("crc32"), dict):
            crcs = {name: f"{zlib.crc32(array.tobytes()):08x}" for name, array in tensors.items()}
            header = {**header, "crc32": {**header["crc32"], **crcs}}
        crc = f"{zlib.crc32(json.dumps(header, sort_keys=True).encode()):08x}"
        text = json.dumps({"header": header, "crc32": crc}, sort_keys=True)
        at, parts, entries = 0, [], {}
        for name, entry in outer.items():
            raw = tensors[name].tobytes()
            entries[name] = {"dtype": entry["dtype"], "shape": shapes[name], "data_offsets": [at, at + len(raw)]}
            at += len(raw)
            parts.append(raw)
        whole: Any = {"__metadata__": {"eie": text}, **entries}
        if random.random() < 0.05:
            whole = lie_value(random, whole)
        return write_tensors(whole, b"".join(parts))

    def check(self, path: Path, random: Random) -> None:
        """It is read, written as it is read, and run."""
        network = load(path)
        written = to_file(network)
        path.write_bytes(written)
        if to_file(load(path)) != written:
            raise Finding("what is written of it is read as another network")
        run_both(network, random)
        if random.random() < 0.1:
            for image in network.images:
                program_of(image)
