"""The passes in order: float network in, image out."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from compiler.image.image import Image
from compiler.ir import Graph
from compiler.lower.calibrate import quantize_calibrated
from compiler.lower.encode import encode
from compiler.lower.pack import pack
from hw.params import Params

__all__ = ["compile_graph"]


def compile_graph(graph: Graph, params: Params, calibration: NDArray[Any] | None = None) -> Image:
    """Image of a float network for an array.

    Parameters
    ----------
    graph : the network.
    params : the array that the image is for.
    calibration : (n, in) float or raw int16 inputs that decide the fixed-point ranges; see `quantize_calibrated`.

    Raises
    ------
    ModelError
        The network or the calibration data is not well-formed.
    ImageError
        The network does not fit the array's memories.
    """
    quantized = quantize_calibrated(graph, params, calibration)
    image = pack(quantized, encode(quantized))
    image.verify()
    return image
