"""The steps in order: float graph in, compiled network out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.graph.ir import Graph
from compiler.lower.activity import Density
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


def compile_graph(
    graph: Graph, params: Params, calibration: Calibration = None, options: Options = DEFAULT,
    densities: Mapping[str, Density] | None = None,
) -> Network:  # fmt: skip
    """A network for an array; see `lower`, which also reports what became of each node."""
    return lower(graph, params, calibration, options, densities)[0]


def lower(
    graph: Graph, params: Params, calibration: Calibration = None, options: Options = DEFAULT,
    densities: Mapping[str, Density] | None = None,
) -> tuple[Network, tuple[NodeReport, ...]]:  # fmt: skip
    """Quantize, cut out what the array computes, encode and pack it.

    Parameters
    ----------
    graph : the float network, after the passes of `compiler.graph.passes`.
    params : the array that the images are for.
    calibration : float or raw int16 inputs (n, *shape) that decide the fixed-point ranges, one array for each input
        (or the array itself, if there is one input); see `quantize_calibrated`.
    options : how the images are laid out.
    densities : of values, the share of numbers that are not zero, if the calibration data does not say it. It decides
        on the tiles: of inputs that nothing is known of every number counts, behind a ReLU every other one.

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
    known = {**quantized.densities, **(densities or {})}
    parts = partition(quantized.graph, params, known)
    try:
        images = tuple(build(program, params, options) for program in parts.programs)
    except ImageError:
        if not any(node.op == "Indices" for node in parts.graph):
            raise
        # Without the rows of tables it may fit.
        parts = partition(quantized.graph, params, known, tables=False)
        images = tuple(build(program, params, options) for program in parts.programs)
    network = Network(params, parts.graph, images)
    check_network(network)
    return network, quantized.report
