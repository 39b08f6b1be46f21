"""The float network that a compiled one was made from, and how far fixed point is from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.graph.evaluate import values
from compiler.graph.operators import types
from compiler.network import Network
from compiler.source import Source
from sim.network import NetworkResult, check_inputs

__all__ = ["float_inputs", "float_values", "quantization_errors"]

Float = NDArray[np.float64]


def float_inputs(network: Network, x: Any) -> list[NDArray[Any]]:
    """Inputs as the float network takes them: what is given as int16 is raw, at the exponent of the input."""
    raw, _ = check_inputs(network, x)
    given = list(x.values()) if isinstance(x, Mapping) else list(x) if isinstance(x, (list, tuple)) else [x]
    if isinstance(x, Mapping):
        given = [x[node.name] for node in network.graph.inputs]
    if len(given) != len(raw):
        given = [x]
    return [
        np.asarray(array, np.float64).reshape(quantized.shape)
        if np.asarray(array).dtype.kind == "f"
        else quantized if kind.kind == "index"
        else np.ldexp(quantized.astype(np.float64), kind.exponent or 0)
        for array, quantized, kind in zip(given, raw, network.inputs, strict=True)
    ]  # fmt: skip


def float_values(source: Source, network: Network, x: Any) -> dict[str, Float]:
    """Float values (batch, *shape) by name; what leaves the graph comes from torch itself where there is a module.

    Parameters
    ----------
    x : inputs of the network, see `sim.network.check_inputs`.

    Raises
    ------
    InputError
        The network is not the one that was compiled, as far as names and shapes tell.
    """
    _check_same(source, network)
    inputs = float_inputs(network, x)
    found = values(source.graph, inputs)
    outputs = source.graph.outputs
    if source.module is not None and all(node["then"] == "" for node in outputs):
        from compiler.train import foreign

        for node, value in zip(outputs, foreign.all_outputs(source.module, inputs), strict=True):
            found[node.inputs[0]] = value.reshape(found[node.inputs[0]].shape)
    return found


def _check_same(source: Source, network: Network) -> None:
    """Names and shapes of the inputs, of the layers on the array, and of the outputs."""
    known = types(source.graph)
    given = {node.output: network.types[node.output].shape for node in network.graph.inputs}
    made = {
        image.maps[layer.result].name: image.maps[layer.result] for image in network.images for layer in image.layers
    }
    compiled = given | {
        name: info.shape for name, info in made.items()
    }  # fmt: skip
    # What the compiler itself puts between operators has no counterpart.
    wanted = [name for name in compiled if name in known or name in given or not known.keys() & made.keys()]
    for name in wanted:
        shape = compiled[name]
        if name not in known or math.prod(known[name].shape) != math.prod(shape):
            found = f"{name} of shape {known[name].shape}" if name in known else f"no {name}"
            raise InputError(f"--model has {found}; the compiled network has {name} of shape {shape}")
    if len(source.graph.outputs) != len(network.graph.outputs):
        raise InputError(
            f"--model has {len(source.graph.outputs)} outputs; the compiled network has {len(network.graph.outputs)}"
        )


def quantization_errors(reference: Mapping[str, Float], result: NetworkResult) -> list[dict[str, Any]]:
    """Error of every value against float, in order of computation; it includes what the operators before it add.

    ``max_abs`` and ``rms`` are in units of the values, ``relative`` is rms error over rms value (None where the
    values are all zero), ``step`` is the weight of the lowest bit, ``saturated`` counts clipped values.
    """
    errors = []
    for name in _shared(reference, result):
        expected = reference[name]
        error = result.real(name) - expected
        rms, size = (float(np.sqrt(np.mean(np.square(v)))) for v in (error, expected))
        errors.append({
            "layer": name,
            "max_abs": float(np.abs(error).max()),
            "rms": rms,
            "relative": rms / size if size else None,
            "step": float(np.exp2(float(result.types[name].exponent or 0))),
            "saturated": result.saturated.get(name, 0),
        })  # fmt: skip
    return errors


def _shared(reference: Mapping[str, Float], result: NetworkResult) -> Sequence[str]:
    """Values that both have and that something computed: layers of the array, operators of the host, and outputs."""
    computed = set(result.saturated) | set(result.names)
    return [
        name for name, raw in result.values.items()
        if name in computed and name in reference and reference[name].shape == raw.shape
        and result.types[name].kind == "real"
    ]  # fmt: skip
