"""The float network that an image was compiled from, and how far fixed point is from it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.image.image import Image
from compiler.ir import Graph
from compiler.source import Source
from sim.run import Result

__all__ = ["float_outputs", "quantization_errors"]

Float = NDArray[np.float64]


def float_outputs(source: Source, image: Image, x: NDArray[Any]) -> list[Float]:
    """Float outputs (batch, outputs) of every layer; those of the last come from torch itself where there is a module.

    Parameters
    ----------
    x : (batch, inputs); int16 is taken as raw inputs of the image.

    Raises
    ------
    InputError
        The network is not the one that the image was compiled from, as far as names and shapes tell.
    """
    _check_same(source.graph, image)
    value: Float = x * 2.0**image.input_exponent if x.dtype == np.int16 else x.astype(np.float64)
    outputs = []
    current = value
    for layer in source.graph.layers:
        current = current @ layer.weight.T.astype(np.float64)
        if layer.bias is not None:
            current = current + layer.bias
        if layer.activation == "relu":
            current = np.maximum(current, 0)
        outputs.append(current)
    if source.module is not None:
        from compiler.train import foreign

        outputs[-1] = foreign.outputs(source.module, value, source.sample_shape)
    return outputs


def _check_same(graph: Graph, image: Image) -> None:
    model = [(layer.name, *layer.weight.shape[::-1]) for layer in graph.layers]
    compiled = [(layer.name, layer.inputs, layer.outputs) for layer in image.layers]
    if model != compiled:

        def text(layers: list[Any]) -> str:
            return ", ".join(f"{name} {inputs}x{outputs}" for name, inputs, outputs in layers)

        raise InputError(f"--model has the layers {text(model)}; the image has {text(compiled)}")


def quantization_errors(image: Image, reference: list[Float], result: Result) -> list[dict[str, Any]]:
    """Error of each layer's outputs against float, which includes what the layers before it add.

    ``max_abs`` and ``rms`` are in units of the outputs, ``relative`` is rms error over rms output (None where the
    outputs are all zero), ``step`` is the weight of the lowest bit, ``saturated`` counts clipped outputs.
    """
    errors = []
    for layer, expected, raw, stats in zip(image.layers, reference, result.layer_raw, result.layers, strict=True):
        error = raw * 2.0**layer.output_exponent - expected
        rms, size = (float(np.sqrt(np.mean(np.square(v)))) for v in (error, expected))
        errors.append({
            "layer": layer.name,
            "max_abs": float(np.abs(error).max()),
            "rms": rms,
            "relative": rms / size if size else None,
            "step": 2.0**layer.output_exponent,
            "saturated": stats.counters["saturated"],
        })  # fmt: skip
    return errors
