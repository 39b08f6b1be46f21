"""What a network costs on an array: cycles, energy and bytes of a sample, layer by layer, exact and kept by content.

Cycles are those of the exact cycle model on real activations, so they are the hardware's; energy is exact counts of
accesses times what one takes (`sim.energy`); bytes are what the layers have in the memories. A search asks for the same
network again and again, and for networks that differ in one layer: what was found is kept in the user's cache folder
under a hash of all that it depends on, so that only what changed is compiled and timed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NewType

from numpy.typing import NDArray

from compiler.caches import cache_folder
from compiler.errors import InputError
from compiler.files import write_file
from compiler.graph.blocks import blocks
from compiler.graph.evaluate import values
from compiler.graph.ir import Graph
from compiler.lower.pipeline import compile_graph
from compiler.network import Network
from compiler.network_file import graph_tensors, graph_text
from compiler.options import DEFAULT, Options
from hw.params import Params
from sim.describe import stored_bits
from sim.energy import report
from sim.energy_table import Table, load_table
from sim.network import check_inputs
from sim.trials import kit

__all__ = ["BlockCosts", "Bytes", "Cost", "Cycles", "LayerCost", "Picojoules", "block_costs", "cost", "cost_of"]

Array = NDArray[Any]

Cycles = NewType("Cycles", float)
"""Clock cycles of one sample: the mean over the samples that were run."""

Picojoules = NewType("Picojoules", float)
"""Energy of one sample: the mean over the samples that were run."""

Bytes = NewType("Bytes", int)
"""What is stored in the memories of the array: entries, pointers, codebooks, output tables and descriptors."""

SAMPLES = 8
"""Samples of the calibration data that are run if no others are given."""

MHZ = 800.0
"""Clock that a report of energy wants; a cost does not depend on it."""


@dataclass(frozen=True)
class LayerCost:
    """What one layer of the array costs."""

    name: str
    cycles: Cycles
    energy: Picojoules
    stored: Bytes


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes
    ----------
    layers : of the array, in order; their cycles and energies sum up to those of the network.
    samples : that were run, as one batch. host : operators that the host computes, which cost nothing here.
    table : name of the table of energies. key : hash of all that the cost depends on.
    """

    layers: tuple[LayerCost, ...]
    samples: int
    host: tuple[str, ...]
    table: str
    key: str

    @property
    def cycles(self) -> Cycles:
        """Of one sample, what the end of the batch costs included."""
        return Cycles(sum(layer.cycles for layer in self.layers))

    @property
    def energy(self) -> Picojoules:
        """Of one sample."""
        return Picojoules(sum(layer.energy for layer in self.layers))

    @property
    def stored(self) -> Bytes:
        """Of the whole network."""
        return Bytes(sum(layer.stored for layer in self.layers))

    def asdict(self) -> dict[str, Any]:
        """Plain numbers, with the sums."""
        return {**dataclasses.asdict(self), "cycles": self.cycles, "energy": self.energy, "stored": self.stored}


@dataclass(frozen=True)
class BlockCosts:
    """What the blocks of a network cost, each by itself on what it reads in the whole network.

    Attributes
    ----------
    blocks : by the names of their operators with weights.
    """

    blocks: Mapping[str, Cost]

    @property
    def cycles(self) -> Cycles:
        """Sum over the blocks: an estimate of the whole network, in which layers overlap and share lines."""
        return Cycles(sum(each.cycles for each in self.blocks.values()))

    @property
    def energy(self) -> Picojoules:
        """Sum over the blocks."""
        return Picojoules(sum(each.energy for each in self.blocks.values()))

    @property
    def stored(self) -> Bytes:
        """Sum over the blocks."""
        return Bytes(sum(each.stored for each in self.blocks.values()))

    def error(self, whole: Cost) -> float:
        """How far the sum of cycles is from those of the whole network, as a share of these, with its sign.

        0 where the array computes nothing.
        """
        return self.cycles / whole.cycles - 1.0 if whole.cycles else 0.0


def cost(
    graph: Graph,
    params: Params,
    calibration: Sequence[Array],
    samples: Sequence[Array] | None = None,
    *,
    options: Options = DEFAULT,
    table: Table | None = None,
    kept: Path | None = None,
) -> Cost:
    """What a float graph costs on an array once it is compiled for it.

    Parameters
    ----------
    graph : after its passes. calibration : float (n, *shape) for each input, which decides number formats.
    samples : float or raw int16 (n, *shape) for each input, run as one batch; the first `SAMPLES` of the calibration
        data if not given.
    options : how the compiler lays it out. table : of energies; the kit's at 45 nm if not given.
    kept : folder of what is known; below the user's cache folder if not given.

    Raises
    ------
    ModelError, ImageError
        The network cannot be compiled for the array, or does not fit it.
    InputError
        The data does not fit the network.
    """
    given = tuple(data[:SAMPLES] for data in calibration) if samples is None else tuple(samples)
    prices = load_table() if table is None else table
    key = _key(graph, params, calibration, given, options, prices)
    file = (cache_folder() / "cost" if kept is None else kept) / key[:2] / f"{key}.json"
    known = _read(file, key)
    if known is None:
        network = compile_graph(graph, params, calibration, options)
        inputs = {node.name: data for node, data in zip(network.graph.inputs, given, strict=True)}
        known = cost_of(network, inputs, prices, key)
        with contextlib.suppress(OSError):  # what cannot be kept is found again
            file.parent.mkdir(parents=True, exist_ok=True)
            write_file(file, json.dumps(dataclasses.asdict(known), sort_keys=True).encode())
    return known


def cost_of(network: Network, samples: Any, table: Table | None = None, key: str = "") -> Cost:
    """What a compiled network costs; `samples` as `sim.network.check_inputs` takes them. Errors as `cost`.

    A network of which the array computes nothing has no layers, and costs nothing.
    """
    prices = load_table() if table is None else table
    if not network.images:
        raw, _ = check_inputs(network, samples)
        return Cost((), len(raw[0]), tuple(node.name for node in network.host), prices.name, key)
    found = report(network, samples, prices, MHZ)
    bits = [sum(parts.values()) for image in network.images for parts in stored_bits(image)]
    layers = tuple(
        LayerCost(layer["name"], Cycles(layer["cycles"]), Picojoules(layer["total_pj"]), Bytes(-(-stored // 8)))
        for layer, stored in zip(found["layers"], bits, strict=True)
    )
    return Cost(layers, found["samples"], tuple(found["host"]), prices.name, key)


def block_costs(
    graph: Graph,
    params: Params,
    calibration: Sequence[Array],
    *,
    count: int = SAMPLES,
    options: Options = DEFAULT,
    table: Table | None = None,
    kept: Path | None = None,
) -> BlockCosts:
    """What each block of a float graph costs, on what it reads when the float network runs on the calibration data.

    A network in which one layer is another one costs that layer again, and those behind it whose inputs it changes.
    Parameters and errors as for `cost`; `count`: samples of the calibration data that each block is run on.
    """
    known = values(graph, calibration)
    found: dict[str, Cost] = {}
    for block in blocks(graph):
        data = [known[name] for name in block.reads]
        if any(len(each) < count for each in data):
            raise InputError(
                f"{block.name}: {min(map(len, data))} samples of calibration data; expected {count} or more"
            )
        own = [each[:count] for each in data]
        found[block.name] = cost(block.graph, params, data, own, options=options, table=table, kept=kept)
    return BlockCosts(found)


def _key(
    graph: Graph, params: Params, calibration: Sequence[Array], samples: Sequence[Array], options: Options, table: Table
) -> str:
    """A hash of all that a cost depends on, the sources of the kit among them."""
    made = hashlib.sha256(graph_text(graph))
    texts = (
        kit(),
        json.dumps(params.asdict(), sort_keys=True),
        json.dumps(options.stored(), sort_keys=True),
        repr(table),
    )
    for text in texts:
        made.update(hashlib.sha256(text.encode()).digest())
    tensors = graph_tensors(graph)
    for each in (*(tensors[name] for name in sorted(tensors)), *calibration, *samples):
        made.update(f"{each.dtype.str}{each.shape}".encode())
        made.update(hashlib.sha256(each.tobytes()).digest())
    return made.hexdigest()


def _read(file: Path, key: str) -> Cost | None:
    """What a file keeps; None if there is none, or it is no cost of this key."""
    try:
        fields = json.loads(file.read_bytes())
        layers = tuple(
            LayerCost(
                str(layer["name"]), Cycles(float(layer["cycles"])), Picojoules(float(layer["energy"])),
                Bytes(int(layer["stored"])),
            )
            for layer in fields["layers"]
        )  # fmt: skip
        found = Cost(
            layers, int(fields["samples"]), tuple(map(str, fields["host"])), str(fields["table"]), fields["key"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.key == key else None
