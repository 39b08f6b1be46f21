"""Energy of a run of a network on the array: exact counts of accesses times what one access takes.

Counts are `sim.accesses`'; figures and their scaling `sim.energy_table`'s. Beside it stands the same network dense:
every weight there, with 16 bits, and every product made, whatever the activations are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.image.image import Image
from compiler.network import Network
from hw.layouts import WEIGHT_BITS
from hw.params import Params
from sim.accesses import ACCESSES, Counts, count
from sim.decode import decode
from sim.describe import dense_weights
from sim.energy_table import Cost, Table, costs, memories
from sim.golden_array import Layer
from sim.network import run_network

__all__ = ["EIE_ARRAY_MW", "EIE_PE_MW", "PARTS", "random_inputs", "report"]

PARTS = (
    "weights", "pointers", "queue", "codebook", "arithmetic", "accumulators", "activations", "write-back", "control",
    "registers, logic", "clock", "off chip",
)  # fmt: skip
"""What the energy is divided into."""

EIE_PE_MW = 9.157
"""Power of one PE of the published array at 800 MHz (EIE, ISCA 2016, table II)."""

EIE_ARRAY_MW = 590.0
"""Power of its 64 PEs at 800 MHz (table V)."""


def random_inputs(network: Network, density: float, samples: int, seed: int) -> dict[str, NDArray[np.int16]]:
    """Raw inputs of which this share is not zero, by name.

    Raises
    ------
    InputError
        An input is an index, of which nothing says how large it may be.
    """
    rng = np.random.default_rng(seed)
    made = {}
    for node, kind in zip(network.graph.inputs, network.inputs, strict=True):
        if kind.kind == "index":
            raise InputError(f"{node.name} is an index; give the inputs of the network with --input")
        shape = (samples, *kind.shape)
        values = rng.integers(1, 1 << 15, shape) * rng.choice([-1, 1], shape)
        made[node.name] = np.where(rng.random(shape) < density, values, 0).astype(np.int16)
    return made


def report(network: Network, x: Any, table: Table, mhz: float) -> dict[str, Any]:
    """Energy of a batch, for one sample of it.

    Parameters
    ----------
    x : inputs, see `sim.network.check_inputs`. table : of energies. mhz : clock that power is said at.

    Returns
    -------
    dict
        All numbers are for one sample (means over the batch). ``layers``: each with ``cycles``, ``counts`` by access,
        ``pj`` by part of the array, ``total_pj``, and ``dense_pj`` with weights from "sram" and from "dram". The same
        names for the network; ``accesses``: of each its count, the energy of one, how that follows and its source;
        ``power_mw`` at ``clock_mhz``, ``uj_dense``. ``host``: operators that the host computes, which are not counted.

    Raises
    ------
    InputError
        The input does not fit, or the array computes nothing of the network.
    """
    counted: list[tuple[Image, Counts]] = []
    result = run_network(network, x, watch=lambda image, maps: counted.append((image, count(image, maps))))
    if not counted:
        raise InputError("the array computes nothing of this network, so there is no energy to report")
    params, samples = network.params, len(result.raw)
    price = costs(params, table)
    dense_product = _dense_product(params, table, price)
    layers: list[dict[str, Any]] = []
    for image, counts in counted:
        program = decode(image)
        rounds = Counter(number for number, _ in program.rounds)
        for number, (info, found) in enumerate(zip(image.layers, counts.layers, strict=True)):
            pj = {part: 0.0 for part in PARTS}
            for name, times in found.items():
                pj[price[name].part] += times * price[name].pj / samples
            decoded = program.layers[number]
            products = weights = 0
            if isinstance(decoded, Layer) and not decoded.maximum:
                products = info.products
                weights = dense_weights(image, info, decoded, rounds[number]) * rounds[number]
            # Activations, write-back and beats of maps are those of the sparse run.
            sram = products * dense_product + sum(pj[part] for part in ("activations", "write-back"))
            sram += found["map_beats"] * price["map_beats"].pj / samples
            layers.append({
                "name": info.name,
                "cycles": found["pe_cycles"] / params.pes / samples,
                "counts": {name: times / samples for name, times in found.items()},
                "pj": pj,
                "total_pj": sum(pj.values()),
                "products": products,
                "dense_pj": {"sram": sram, "dram": sram + weights * table.linear("dram", WEIGHT_BITS)},
            })  # fmt: skip
    return {
        "params": params.asdict(),
        "samples": samples,
        "table": table.name,
        "clock_mhz": mhz,
        "layers": layers,
        "host": [node.name for node in network.host],
        **_whole(layers, price, mhz),
    }  # fmt: skip


def _whole(layers: Sequence[Mapping[str, Any]], price: Mapping[str, Cost], mhz: float) -> dict[str, Any]:
    """Sums over the layers."""
    counts = {name: sum(layer["counts"][name] for layer in layers) for name in ACCESSES}
    pj = {part: sum(layer["pj"][part] for layer in layers) for part in PARTS}
    total, cycles = sum(pj.values()), sum(layer["cycles"] for layer in layers)
    return {
        "cycles": cycles,
        "counts": counts,
        "accesses": [
            {
                "name": name, "what": what, "count": counts[name], "pj": price[name].pj,
                "nj": counts[name] * price[name].pj / 1000, "part": price[name].part, "rule": price[name].rule,
                "source": price[name].source,
            }
            for name, what in ACCESSES.items()
        ],
        "pj": pj,
        "total_pj": total,
        "nj": total / 1000,
        "share": {part: energy / total for part, energy in pj.items()},
        # pJ a cycle times cycles a second: 1 pJ x 1 MHz = 1 µW.
        "power_mw": total / cycles * mhz / 1000,
        "us": cycles / mhz,
        "dense_pj": {kind: sum(layer["dense_pj"][kind] for layer in layers) for kind in ("sram", "dram")},
    }  # fmt: skip


def _dense_product(params: Params, table: Table, price: Mapping[str, Cost]) -> float:
    """One product of a dense layer in a PE: a 16-bit weight from a weight memory as large as the array's."""
    bits, words = memories(params)["weights"]
    each = ("multiplications", "additions", "accumulator_reads", "accumulator_writes", "working_cycles", "pe_cycles")
    return table.sram(WEIGHT_BITS, bits * words / 8) + sum(price[name].pj for name in each)
