"""The steps in order: float graph in, compiled network out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from compiler.graph.ir import Graph
from compiler.lower.build import build
from compiler.lower.calibrate import quantize_calibrated
from compiler.lower.partition import partition
from compiler.lower.quantize import NodeReport
from compiler.network import Network
from compiler.network_check import check_network
from compiler.options import DEFAULT, Options
from hw.params import Params

__all__ = ["compile_graph", "lower"]

Calibration = NDArray[Any] | Sequence[NDArray[Any]] | None


def compile_graph(graph: Graph, params: Params, calibration: Calibration = None, options: Options = DEFAULT) -> Network:
    """A network for an array; see `lower`, which also reports what became of each node."""
    return lower(graph, params, calibration, options)[0]


def lower(
    graph: Graph, params: Params, calibration: Calibration = None, options: Options = DEFAULT
) -> tuple[Network, tuple[NodeReport, ...]]:
    """Quantize, cut out what the array computes, encode and pack it.

    Parameters
    ----------
    graph : the float network, after the passes of `compiler.graph.passes`.
    params : the array that the images are for.
    calibration : float or raw int16 inputs (n, *shape) that decide the fixed-point ranges, one array for each input
        (or the array itself, if there is one input); see `quantize_calibrated`.
    options : how the images are laid out.

    Returns
    -------
    network, and for each node with weights or rounding what quantization did to it.

    Raises
    ------
    ModelError
        The network or the calibration data is not well-formed.
    ImageError
        A part for the array does not fit its memories.
    """
    given = calibration if calibration is None or isinstance(calibration, (list, tuple)) else (calibration,)
    quantized = quantize_calibrated(graph, params, given)
    parts = partition(quantized.graph, params)
    images = tuple(build(program, params, options) for program in parts.programs)
    network = Network(params, parts.graph, images)
    check_network(network)
    return network, quantized.report
