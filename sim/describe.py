"""Everything that can be said of a network without running it: sizes, bounds, cycles, and when it pays."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from compiler.cycles import model as cycles
from compiler.image.image import Image, LayerInfo
from compiler.image.rings import Streamed, off_chip
from compiler.image.steps import Step
from compiler.jit import interpreted
from compiler.network import Network
from hw.layouts import ACT_BITS, MEMORIES, WEIGHT_BITS, Memory, descriptor, memory_shape, output_word, pointer_block
from hw.params import PIECES
from sim import timing
from sim.decode import StepColumns, columns, decode
from sim.golden_array import Layer, Operation, Program, run_layers
from sim.program import frames
from sim.run import summarize
from sim.streams import BEAT

__all__ = ["dense_weights", "describe", "describe_image", "stored_bits"]

FLOAT_BITS = 32

FEW = 4000
"""Vectors times PEs of a run that plain Python models in less time than numba takes to load."""

PARTS = ("entries", "pointers", "codebook", "outputs", "descriptor")
"""What a layer takes in the memories."""


def describe(network: Network) -> dict[str, Any]:
    """What ``eie info --json`` prints.

    ``layers``, ``maps``, ``bits``, ``cycles`` and the like are those of `describe_image`, over all images; each layer
    and map also has ``image``, the number of its image. ``memories`` : the most that an image uses. ``graph`` : each
    node with its operator, what it reads and makes, and ``on``, where it is computed: "array", "host", or "" where
    nothing is. ``host`` : the names of those on the host.
    """
    parts = [node for node in network.graph if node.op == "Array"]
    facts = [describe_image(image) for image in network.images]
    layers = []
    for node, fact in zip(parts, facts, strict=True):
        layers += [{**layer, "image": node["image"]} for layer in fact["layers"]]
    host = [node.name for node in network.host]
    on_host = set(host)
    stored = _sums(facts, "bits", PARTS)
    dense = sum(fact["dense_float32_bits"] for fact in facts)
    first, last = network.inputs[0], network.outputs[0]
    return {
        "hash": network.identity,
        "params": network.params.asdict(),
        "options": network.options.asdict(),
        "inputs": math.prod(first.shape),
        "outputs": math.prod(last.shape),
        "input_shape": list(first.shape),
        "output_shape": list(last.shape),
        "input_exponent": first.exponent,
        "output_exponent": last.exponent,
        "layers": layers,
        "graph": [
            {
                "name": node.name, "op": node.op, "reads": list(node.inputs),
                "makes": [str(network.types[name]) for name in node.outputs],
                "on": "array" if node.op == "Array" else "host" if node.name in on_host else "", "source": node.source,
            }
            for node in network.graph
        ],
        "host": host,
        "bits": stored,
        "dense_float32_bits": dense,
        "ratio": dense / sum(stored.values()) if dense else None,
        "cycles": (taken := _sums(facts, "cycles", ("ideal", "busiest", "model", "resident", "stream", "refill"))),
        "utilization": sum(fact["useful"] for fact in facts) / max(1, network.params.pes * taken["model"]),
        "tile_bytes": sum(fact["tile_bytes"] for fact in facts),
        "maps": [{**each, "image": node["image"]} for node, fact in zip(parts, facts, strict=True)
                 for each in fact["maps"]],
        "memories": _most_used(facts),
    }  # fmt: skip


def _sums(facts: Sequence[dict[str, Any]], key: str, names: Sequence[str]) -> dict[str, int]:
    return {name: sum(fact[key][name] for fact in facts) for name in names}


def _most_used(facts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The memory map with the most that any image uses of each."""
    return [
        {**memories[0], "used": max(memory["used"] for memory in memories)}
        for memories in zip(*(fact["memories"] for fact in facts), strict=True)
    ]


def describe_image(image: Image) -> dict[str, Any]:
    """What can be said of one image.

    ``layers`` : for each layer its shapes (C, H, W) and

    - ``products`` and ``weights`` of the dense layer, for one sample; ``nonzeros`` of its weights;
    - ``bits`` : stored bits by part, padding entries included in ``entries``;
    - ``bound_bits`` : bits that the largest possible sum of a row needs, sign included, never above ``acc_bits``;
    - ``tile`` : pixels of a tile (rows, columns), ``tiles`` of the layer; ``expected`` : cycles that the compiler
      estimated or judged when it chose it, ``other`` : the tile that was next best (rows, columns) and its cycles;
      ``copies`` : entries over nonzeros, since the weights are stored once for each pixel of a tile; ``streamed`` :
      descriptors whose weights are streamed in;
    - ``off_chip`` : names of the maps whose rows stream in (``reads``) and out (``writes``), ``ring_rows`` of the ring
      of the former and ``out_rows`` rows of tiles of the latter; None if all of its maps are on chip;
    - ``cycles`` : for one sample without a zero (the most there can be), ``ideal`` (products / PEs), ``busiest``
      (entries that the busiest PE multiplies), ``model`` (the exact cycle model), ``resident`` (the same if all weights
      and maps were in the memories: what the streams cost is the difference), ``stream`` and ``refill`` (what the
      streams of maps and of weights need at least, see `sim.timing.Bounds`); ``utilization`` : products of a nonzero
      weight and a nonzero activation over PEs x cycles, for that sample;
    - ``break_even`` : weight densities below which the layer gains over a dense one: ``cycles`` against as many
      multipliers that take one weight each cycle, on inputs without zeros; ``codes`` and ``int16`` in storage
      against every weight stored as its code, and as a 16-bit number.

    ``maps`` : those off chip, with shape (C, H, W) and bytes of a sample. ``memories`` : used and available words.
    ``bits``, ``cycles`` : sums over the layers. ``useful`` : products of a nonzero weight and a nonzero activation.
    """
    params = image.params
    stored, program = columns(image), decode(image)
    rounds = Counter(n for n, _ in program.rounds)
    times, work = _times(image, program)
    streams = timing.bounds(image)
    resident = _times(image, program, resident=True)[0] if any(asdict(each) != _NONE for each in streams) else times
    transfers = {each.layer: each for each in off_chip(image)}
    busy_pes = _busy(image, stored, rounds)
    layers: list[dict[str, Any]] = []
    every_bits = stored_bits(image, stored)
    for number, (layer, steps) in enumerate(zip(image.layers, image.steps, strict=True)):
        golden = program.layers[number]
        if isinstance(golden, Operation):
            continue
        weights = dense_weights(image, layer, golden, rounds[number])
        bits = every_bits[number]
        result = image.maps[layer.result]
        cycle = {
            "ideal": -(-work[number] // params.pes), "busiest": busy_pes[number], "model": times[number],
            "resident": resident[number], **asdict(streams[number]),
        }  # fmt: skip
        sources = [image.maps[source] for source in layer.sources]
        layers.append(
            {
                "name": layer.name,
                "reads": [[info.channels, info.height, info.width] for info in sources],
                "makes": [result.channels, result.height, result.width],
                "limits": [steps[0].low, steps[0].high],
                "maximum": bool(steps[0].maximum),
                "products": layer.products,
                "weights": weights,
                "density": layer.nonzeros / max(1, weights),
                "dense_float32_bits": (weights + result.channels) * FLOAT_BITS,
                "nonzeros": layer.nonzeros,
                "copies": (layer.entries - layer.padding) / layer.nonzeros if layer.nonzeros else 1.0,
                "padding": layer.padding,
                "exact": layer.exact,
                "input_exponents": [info.exponent for info in sources],
                "output_exponent": result.exponent,
                "shifts": [int(golden.outputs.shift.min()), int(golden.outputs.shift.max())],
                "bits": bits,
                "bound_bits": _bound_bits(golden),
                "acc_bits": params.acc_bits,
                "tile": [layer.tile_y, layer.tile_x],
                "tiles": steps[0].tiles,
                "expected": layer.expected,
                "other": list(layer.other),
                "segments": len(layer.sources),
                "streamed": sum(step.refill for step in steps),
                "off_chip": _off_chip(image, transfers.get(number), steps[0]),
                "cycles": cycle,
                "utilization": work[number] / (params.pes * times[number]) if times[number] else 0.0,
                "break_even": _break_even(image, layer, weights, bits, cycle),
            }
        )
    dense = sum(layer["dense_float32_bits"] for layer in layers)
    parts = {part: sum(layer["bits"][part] for layer in layers) for part in PARTS}
    return {
        "hash": image.identity,
        "params": params.asdict(),
        "options": image.options.asdict(),
        "inputs": [image.maps[number].name for number in image.inputs],
        "outputs": [image.maps[number].name for number in image.outputs],
        "layers": layers,
        "bits": parts,
        "dense_float32_bits": dense,
        "ratio": dense / sum(parts.values()),
        "cycles": {key: sum(layer["cycles"][key] for layer in layers) for key in layers[0]["cycles"]},
        "useful": sum(work),
        "tile_bytes": image.tiles.nbytes,
        "maps": [
            {
                "name": each.name,
                "shape": [each.channels, each.height, each.width],
                "bytes": each.lines * params.groups * BEAT,
            }
            for each in image.maps
            if each.off_chip
        ],
        "memories": _memories(image),
    }


def dense_weights(image: Image, layer: LayerInfo, decoded: Layer, rounds: int) -> int:
    """Weights of the dense layer: its products, each used at every pixel before pooling or in every round."""
    result = image.maps[layer.result]
    uses = rounds if rounds > 1 else result.height * result.width * decoded.outputs.pooled
    return max(layer.nonzeros, -(-layer.products // uses))


def _busy(image: Image, stored: Sequence[StepColumns], rounds: Mapping[int, int]) -> list[int]:
    """For each layer, the entries that the busiest PE multiplies for a sample without zeros."""
    totals, at = [], 0
    for number, steps in enumerate(image.steps):
        own = np.zeros(image.params.pes, np.int64)
        for step in steps:
            own += (
                stored[at].counts.sum(axis=(0, 1), dtype=np.int64)
                * step.tiles
                * (step.positions if step.uniform else 1)
            )
            at += 1
        totals.append(int(own.max(initial=0)) * rounds[number])
    return totals


def stored_bits(image: Image, stored: Sequence[StepColumns] | None = None) -> list[dict[str, int]]:
    """What each layer of an image has in the memories: bits by part, padding entries included in ``entries``.

    stored : the columns of its segments, if they are known (`sim.decode.columns`).
    """
    stored = columns(image) if stored is None else stored
    ends = np.cumsum([len(steps) for steps in image.steps]).tolist()
    own = [stored[end - len(steps) : end] for end, steps in zip(ends, image.steps, strict=True)]
    entries = [sum(int(each.counts.sum()) for each in of_layer) for of_layer in own]
    return [_bits(image, steps, number) for steps, number in zip(image.steps, entries, strict=True)]


def _bits(image: Image, steps: Sequence[Step], entries: int) -> dict[str, int]:
    params = image.params
    words = sum(step.words for step in steps if step.first)
    return {
        "entries": entries * params.entry_bits,
        "pointers": sum(step.pointer_blocks for step in steps) * params.pes * pointer_block(params).size,
        "codebook": len({step.codebook for step in steps}) * WEIGHT_BITS << params.code_bits,
        "outputs": words * params.groups * output_word(params).size,
        "descriptor": len(steps) * descriptor(params).size,
    }


def _bound_bits(layer: Layer) -> int:
    """Bits, sign included, that hold every sum a row can have on any input."""
    if layer.maximum:
        return ACT_BITS + 1
    terms = sum(np.asarray(abs(segment.weight).sum(axis=1)).reshape(-1) for segment in layer.segments)
    outputs = layer.outputs
    largest = (np.asarray(terms)[: len(outputs.bias)] << (ACT_BITS - 1)) + abs(outputs.bias)
    for step in outputs.rounds:
        part = (np.asarray(terms)[step.terms] << (ACT_BITS - 1)) + abs(step.bias)
        before = largest[step.outputs]
        largest[step.outputs] = np.where(step.maximum, np.maximum(before, part), before + part)
    rounding = (np.int64(1) << outputs.shift) >> 1
    return int((largest + rounding).max(initial=0)).bit_length() + 1


_NONE = asdict(timing.Bounds(0, 0))


def _off_chip(image: Image, streams: Streamed | None, step: Step) -> dict[str, Any] | None:
    """What a layer reads and writes off chip."""
    if streams is None:
        return None
    return {
        "reads": [image.maps[number].name for number in streams.reads],
        "writes": image.maps[streams.writes].name if streams.writes >= 0 else "",
        "ring_rows": step.ring_rows, "out_rows": step.out_rows,
    }  # fmt: skip


def _times(image: Image, program: Program, resident: bool = False) -> tuple[list[int], list[int]]:
    """Cycles, and products of nonzeros, of each layer for a sample that has no zero anywhere."""
    inputs = [
        np.ones((1, info.height, info.width, info.channels), np.int16)
        for info in (image.maps[number] for number in image.inputs)
    ]
    # Every result is 1.
    full = [
        replace(each, step=replace(each.step, low=1, high=1), function=None)
        if isinstance(each, Operation)
        else replace(each, outputs=replace(each.outputs, low=1, high=1, functions=()))
        for each in program.layers
    ]
    ones = replace(program, layers=tuple(full))
    runs = list(run_layers(ones, frames(image, inputs), image.params.acc_bits, masks=True))
    works = timing.works(image, resident=resident)
    few = cycles.vectors_of(works, 1) * image.params.pes < FEW
    with interpreted(few):
        times = cycles.run(image.params, works, [mask for ran in runs for mask in ran.masks])
    records = [{**asdict(each), "saturated": 0} for each in times]
    _, _, stats = summarize(image, [records])
    return [each.cycles or 0 for each in stats], [record["entries"] - record["padding"] for record in records]


def _break_even(
    image: Image, layer: LayerInfo, weights: int, bits: dict[str, int], cycle: dict[str, int]
) -> dict[str, float]:
    params = image.params
    density = layer.nonzeros / weights if weights else 0.0
    dense_cycles = -(-layer.products // params.pes)
    overhead = bits["pointers"] + bits["codebook"]
    each = bits["entries"] / layer.nonzeros if layer.nonzeros else float(params.entry_bits)

    def storage(dense_bits: int) -> float:
        return min(1.0, max(0.0, (dense_bits - overhead) / (each * weights))) if weights else 0.0

    return {
        "cycles": min(1.0, density * dense_cycles / cycle["model"]) if layer.nonzeros and cycle["model"] else 1.0,
        "codes": storage(weights * params.code_bits + bits["codebook"]),
        "int16": storage(weights * WEIGHT_BITS),
    }


def _memories(image: Image) -> list[dict[str, Any]]:
    params = image.params
    used = {
        Memory.WEIGHTS: image.entries.shape[1],
        Memory.POINTERS: image.pointers.shape[1],
        Memory.CODEBOOK: image.codebooks.size,
        Memory.ACTIVATIONS: image.rings + image.frame,
        Memory.OUTPUTS: image.table.shape[1],
        Memory.TABLES: len(image.functions) * PIECES,
        Memory.DESCRIPTORS: len(image.descriptors),
        Memory.RECORDS: len(image.descriptors) - 1,
    }
    table = []
    for memory in MEMORIES:
        units, words, width = memory_shape(params, memory)
        table.append(
            {"name": memory.name.lower(), "units": units, "words": words, "used": used[memory], "word_bits": width}
        )
    return table
