"""The golden model: what every value of a network must be, bit for bit.

Written from docs/numerics.md alone. It knows neurons and integers; PEs, positions and memories do not exist here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from sim.golden_ops import HIGH, LOW, OPERATORS, Node, product, wrap, write_back

__all__ = [
    "GoldenValue",
    "Layer",
    "LayerResult",
    "Node",
    "quantize_input",
    "run",
    "run_graph",
    "step",
    "wrap",
    "write_back",
]

Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GoldenValue:
    """What a value of a network is.

    Attributes
    ----------
    raw : int16 (batch, *shape); int64 for indices.
    saturated : int64 (batch,), how many of its numbers did not fit int16, in each sample.
    """

    raw: NDArray[Any]
    saturated: Int


LayerResult = GoldenValue
"""Outputs of a layer, (batch, out)."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One fully connected layer in integers.

    Attributes
    ----------
    name : for reports.
    weight : (out, in) int64 CSR, or dense integers of any width; each within int16.
    bias : int64 (out,), in units of the products.
    shift : right shift of write-back, 0 … 31.
    relu : negative sums become zero.
    """

    name: str
    weight: scipy.sparse.csr_array | NDArray[Any]
    bias: Int
    shift: int
    relu: bool


def run(layers: Sequence[Layer], x: NDArray[np.int16], acc_bits: int) -> list[LayerResult]:
    """Results of every layer of a chain.

    Parameters
    ----------
    layers : the network.
    x : int16 (batch, in), raw activations.
    acc_bits : accumulator width, at most 64; sums wrap modulo ``2**acc_bits``.

    Raises
    ------
    ValueError
        `x` is not int16 or does not have the first layer's width.
    """
    if x.dtype != np.int16 or x.ndim != 2 or x.shape[1] != layers[0].weight.shape[1]:
        raise ValueError(f"x is {x.dtype} {x.shape}; expected int16 (batch, {layers[0].weight.shape[1]})")
    results = []
    for layer in layers:
        total = wrap(product(layer.weight, x) + layer.bias, acc_bits)
        raw, clipped = write_back(total, layer.shift, layer.relu)
        results.append(LayerResult(raw, clipped.sum(axis=1)))
        x = raw
    return results


def run_graph(nodes: Iterable[Node], inputs: Sequence[NDArray[Any]], acc_bits: int) -> dict[str, GoldenValue]:
    """Every value of an integer graph, in order of computation.

    Parameters
    ----------
    nodes : in an order in which every value is made before it is read.
    inputs : for each Input node in order, int16 (batch, *shape); any integers for indices.
    acc_bits : accumulator width, at most 64; sums of products wrap modulo ``2**acc_bits``.

    Returns
    -------
    dict
        By name of the value. Values in the body of a Scan are there as "scan/value", (batch, steps, *shape) in the
        order of the sequence; saturations in a body are counted there and not at the Scan's own results.

    Raises
    ------
    ValueError
        An input or an index is not what the network takes, or an operator is unknown.
    """
    nodes = list(nodes)
    wanted = [node for node in nodes if node.op == "Input"]
    if len(wanted) != len(inputs):
        raise ValueError(f"{len(inputs)} inputs are given; the network reads {len(wanted)}")
    for node, x in zip(wanted, inputs, strict=True):
        _check(node, x)
        if len(x) != len(inputs[0]):
            raise ValueError(f"{node.name}: a batch of {len(x)}; the first input has {len(inputs[0])}")
    return _run(nodes, inputs, acc_bits)


def _check(node: Node, x: NDArray[Any]) -> None:
    index = node.attributes.get("kind", "real") == "index"
    shape = tuple(node.attributes["shape"])
    good = np.issubdtype(x.dtype, np.integer) if index else x.dtype == np.int16
    if not good or x.shape[1:] != shape or not x.ndim:
        form = ", ".join(["batch", *map(str, shape)])
        raise ValueError(f"{node.name}: {x.dtype} {x.shape}; expected {'integers' if index else 'int16'} ({form})")


def _run(nodes: Iterable[Node], inputs: Sequence[NDArray[Any]], acc_bits: int) -> dict[str, GoldenValue]:
    given, batch = iter(inputs), len(inputs[0])
    found: dict[str, GoldenValue] = {}
    for node in nodes:
        if node.op == "Input":
            found[node.outputs[0]] = GoldenValue(next(given), np.zeros(batch, np.int64))
        else:
            found.update(step(node, found, batch, acc_bits))
    return found


def step(node: Node, found: Mapping[str, GoldenValue], batch: int, acc_bits: int) -> dict[str, GoldenValue]:
    """What one node makes of the values that it reads, `found` by name; as `run_graph` gives it."""
    none = np.zeros(batch, np.int64)
    if node.op == "Constant":
        value = node.tensors["value"]
        return {node.outputs[0]: GoldenValue(np.broadcast_to(value, (batch, *value.shape)), none)}
    reads = [found[name].raw for name in node.inputs]
    if node.op == "Scan":
        inner, made = _scan(node, reads, acc_bits)
        values = {f"{node.name}/{name}": value for name, value in inner.items()}
        return values | {name: GoldenValue(raw, none) for name, raw in zip(node.outputs, made, strict=True)}
    if node.op not in OPERATORS:
        raise ValueError(f"{node.name}: no operator {node.op!r}; expected one of {', '.join(OPERATORS)}")
    raw, clipped = OPERATORS[node.op](node, [x.astype(np.int64) for x in reads], acc_bits)
    moved = reads[0].dtype if clipped is None and node.op not in ("Gather", "Indices") else np.dtype(np.int16)
    counts = none if clipped is None else clipped.reshape(batch, -1).sum(axis=1)
    return {node.outputs[0]: GoldenValue(raw.astype(moved), counts)}


def _scan(
    node: Node, reads: Sequence[NDArray[Any]], acc_bits: int
) -> tuple[dict[str, GoldenValue], list[NDArray[Any]]]:
    """What the body made, step by step, and the results of the Scan."""
    assert node.body is not None
    body, count = list(node.body), node.attributes["sequences"]
    ends = [inner.inputs[0] for inner in body if inner.op == "Output"]
    states, first = list(reads[count:]), len(ends) - len(reads) + count
    steps = list(range(reads[0].shape[1]))
    runs: dict[int, dict[str, GoldenValue]] = {}
    for step in reversed(steps) if node.attributes["reverse"] else steps:
        runs[step] = _run(body, [*(x[:, step] for x in reads[:count]), *states], acc_bits)
        states = [runs[step][name].raw for name in ends[first:]]
    inner = {
        name: GoldenValue(
            np.stack([runs[step][name].raw for step in steps], axis=1),
            np.sum([runs[step][name].saturated for step in steps], axis=0),
        )
        for name in runs[0]
    }
    return inner, [inner[name].raw for name in ends[:first]] + states


def quantize_input(x: NDArray[Any], exponent: int) -> tuple[NDArray[np.int16], int]:
    """Raw activations of given inputs, and how many were clipped.

    int16 is taken as it is. Floats are divided by ``2**exponent``, rounded half to even and saturated.

    Raises
    ------
    ValueError
        `x` is neither int16 nor float, or holds a NaN.
    """
    if x.dtype == np.int16:
        return x, 0
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"inputs are {x.dtype}; expected int16 or float")
    if np.isnan(x).any():
        raise ValueError("inputs hold NaN")
    with np.errstate(over="ignore"):  # infinity saturates as well
        rounded = np.rint(np.ldexp(x.astype(np.float64), -exponent))
    clipped = int(np.count_nonzero((rounded > HIGH) | (rounded < LOW)))
    return np.clip(rounded, LOW, HIGH).astype(np.int16), clipped
