"""Everything that can be said of a network without running it: sizes, bounds, cycles, and when it pays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.image.image import Image, LayerInfo, row_orders
from compiler.image.steps import Step
from compiler.network import Network
from hw.layouts import ACT_BITS, MEMORIES, WEIGHT_BITS, Memory, descriptor, memory_shape, pointer_block
from sim import cycles, decode, golden, timing
from sim.program import layer_records

__all__ = ["describe", "describe_image", "image_bytes"]

FLOAT_BITS = 32


def describe(network: Network) -> dict[str, Any]:
    """What ``eie info --json`` prints.

    ``layers``, ``bits``, ``cycles`` and the like are those of `describe_image`, over all images; each layer also has
    ``image``, the number of its image, and ``vectors``, how many vectors of one sample go through it. ``memories`` :
    the most that an image uses. ``graph`` : each node with its operator, what it reads and makes, and ``on``, where it
    is computed: "array", "host", or "" where nothing is. ``host`` : the names of those on the host.
    """
    parts = [node for node in network.graph if node.op == "Array"]
    facts = [describe_image(image) for image in network.images]
    layers = []
    for node, fact in zip(parts, facts, strict=True):
        vectors = math.prod(network.types[node.inputs[0]].shape[:-1])
        layers += [{**layer, "image": node["image"], "vectors": vectors} for layer in fact["layers"]]
    host = [node.name for node in network.host]
    on_host = set(host)
    stored = _sums(facts, "bits", ("entries", "pointers", "codebook", "bias", "descriptor"))
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
        "cycles": _sums(facts, "cycles", ("ideal", "busiest", "model", "resident")),
        "tile_bytes": sum(fact["tile_bytes"] for fact in facts),
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

    ``layers`` : for each layer its sizes, formats and

    - ``bits`` : stored bits by part, padding entries included in ``entries``;
    - ``bound_bits`` : bits that the largest possible sum of a row needs, sign included, never above ``acc_bits``;
    - ``cycles`` : for one vector without a zero (the most there can be), ``ideal`` (entries / PEs), ``busiest``
      (entries of the busiest PE), ``model`` (the exact cycle model), and ``resident`` (the same if all tiles were
      in the memories already: what the refill stream costs is the difference);
    - ``break_even`` : weight densities below which the layer gains over a dense one: ``cycles`` against as many
      multipliers that take one weight each cycle, on inputs without zeros; ``codes`` and ``int16`` in storage
      against every weight stored as its code, and as a 16-bit number.

    ``memories`` : used and available words. ``bits``, ``cycles`` : sums over the layers.
    """
    params = image.params
    program = timing.works(image)
    busy_pes = _busy(image, program)
    orders = row_orders(image)
    golden_layers = decode.decode(image)
    times = _times(image, program)
    resident = _times(image, [replace(work, packets=()) for work in program])
    layers: list[dict[str, Any]] = []
    for number, (layer, busy, steps) in enumerate(zip(image.layers, busy_pes, image.steps, strict=True)):
        bits = _bits(image, steps, int(busy.sum()))
        cycle = {
            "ideal": -(-int(busy.sum()) // params.pes),
            "busiest": int(busy.max(initial=0)),
            "model": times[number],
            "resident": resident[number],
        }
        layers.append(
            {
                "name": layer.name,
                "inputs": layer.inputs,
                "outputs": layer.outputs,
                "activation": layer.activation,
                "nonzeros": layer.nonzeros,
                "density": layer.nonzeros / (layer.inputs * layer.outputs),
                "padding": layer.padding,
                "exact": layer.exact,
                "input_exponent": layer.input_exponent,
                "weight_exponent": layer.weight_exponent,
                "shift": layer.shift,
                "output_exponent": layer.output_exponent,
                "bits": bits,
                "bound_bits": _bound_bits(golden_layers[number]),
                "acc_bits": params.acc_bits,
                "fold": bool(steps[0].fold),
                "tiles": sum(step.refill for step in steps),
                "blocks": sum(not step.keep for step in steps),
                "split_rows": _split_rows(image, steps),
                "cycles": cycle,
                "break_even": _break_even(image, layer, bits, cycle["model"]),
            }
        )
    dense = sum(layer.inputs * layer.outputs + layer.outputs for layer in image.layers) * FLOAT_BITS
    stored = {part: sum(layer["bits"][part] for layer in layers) for part in layers[0]["bits"]}
    return {
        "hash": image.identity,
        "params": params.asdict(),
        "options": image.options.asdict(),
        "inputs": image.inputs,
        "outputs": image.outputs,
        "input_exponent": image.input_exponent,
        "output_exponent": image.output_exponent,
        "layers": layers,
        "bits": stored,
        "dense_float32_bits": dense,
        "ratio": dense / sum(stored.values()),
        "cycles": {key: sum(layer["cycles"][key] for layer in layers) for key in layers[0]["cycles"]},
        "tile_bytes": image.tiles.nbytes,
        "memories": _memories(image, [len(order) for order in orders]),
    }


def image_bytes(image: Image) -> int:
    """Bytes that the network's entries, pointers, codebooks and biases take, padding included."""
    bits = 0
    for busy, steps in zip(_busy(image, timing.works(image)), image.steps, strict=True):
        parts = _bits(image, steps, int(busy.sum()))
        bits += sum(parts.values()) - parts["descriptor"]
    return -(-bits // 8)


def _busy(image: Image, program: Sequence[cycles.Work]) -> list[NDArray[np.int64]]:
    """For each layer, the entries of each PE."""
    works = iter(program)
    return [np.sum([next(works).counts.sum(axis=0, dtype=np.int64) for _ in steps], axis=0) for steps in image.steps]


def _split_rows(image: Image, steps: Sequence[Step]) -> int:
    """Places for rows that are split over several PEs."""
    params = image.params
    return sum(step.fragment_slots * params.pes // step.split for step in steps if not step.keep)


def _bits(image: Image, steps: Sequence[Step], entries: int) -> dict[str, int]:
    params = image.params
    outputs = sum(step.outputs(params) for step in steps if not step.keep)
    return {
        "entries": entries * params.entry_bits,
        "pointers": sum(step.pointer_blocks(params) for step in steps) * params.pes * pointer_block(params).size,
        "codebook": WEIGHT_BITS << params.code_bits,
        "bias": outputs * params.groups * params.acc_bits,
        "descriptor": len(steps) * descriptor(params).size,
    }


def _bound_bits(layer: golden.Layer) -> int:
    """Bits, sign included, that hold every sum a row can have on any input."""
    magnitudes = np.asarray(abs(layer.weight).sum(axis=1)).reshape(-1)
    rounding = (1 << layer.shift) >> 1
    largest = max((int(m) << (ACT_BITS - 1)) + abs(int(b)) for m, b in zip(magnitudes, layer.bias, strict=True))
    return (largest + rounding).bit_length() + 1


def _times(image: Image, program: Sequence[cycles.Work]) -> list[int]:
    """Cycles of each layer for a vector that has no zero anywhere."""
    # An unused position holds a zero, and the scan skips it.
    inputs = [np.ones(image.inputs, np.int16), *((order >= 0).astype(np.int16) for order in row_orders(image))]
    active = timing.active_columns(image, inputs[: len(image.layers)])
    (blocks,) = cycles.run(image.params, program, [active])
    (records,) = layer_records(image, [asdict(block) for block in blocks])
    ends = [record["accepted"] for record in records[1:]] + [records[-1]["finished"]]
    return [end - record["accepted"] for end, record in zip(ends, records, strict=True)]


def _break_even(image: Image, layer: LayerInfo, bits: dict[str, int], model_cycles: int) -> dict[str, float]:
    params = image.params
    weights = layer.inputs * layer.outputs
    density = layer.nonzeros / weights
    dense_cycles = -(-layer.outputs // params.pes) * layer.inputs
    overhead = bits["pointers"] + bits["codebook"]
    each = bits["entries"] / layer.nonzeros if layer.nonzeros else float(params.entry_bits)

    def storage(dense_bits: int) -> float:
        return min(1.0, max(0.0, (dense_bits - overhead) / (each * weights)))

    return {
        "cycles": min(1.0, density * dense_cycles / model_cycles) if layer.nonzeros else 1.0,
        "codes": storage(weights * params.code_bits + bits["codebook"]),
        "int16": storage(weights * WEIGHT_BITS),
    }


def _memories(image: Image, positions: list[int]) -> list[dict[str, Any]]:
    params = image.params
    lines = params.lines(image.inputs) + sum(params.lines(count) for count in positions)
    used = {
        Memory.WEIGHTS: image.entries.shape[1],
        Memory.POINTERS: image.pointers.shape[1],
        Memory.CODEBOOK: image.codebooks.size,
        Memory.ACTIVATIONS: lines,
        Memory.BIAS: image.bias.shape[1],
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
