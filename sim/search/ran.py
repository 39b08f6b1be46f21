"""A network that a search found, in hardware: its cycles are those that were counted, and its values golden's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph.ir import Graph
from compiler.lower.pipeline import compile_graph
from compiler.options import DEFAULT, Options
from hw.params import Params
from sim.network import run_network

__all__ = ["in_words", "ran"]


def ran(
    graph: Graph, params: Params, calibration: NDArray[Any], few: NDArray[Any], cycles: float, engine: str = "rtl",
    options: Options = DEFAULT,
) -> dict[str, Any]:  # fmt: skip
    """Compile a network, and run it on an engine and on the golden model.

    Parameters
    ----------
    calibration : samples by which number formats are chosen, (n, …). few : those that run.
    cycles : of a sample, as they were counted. engine : one of `sim.run.ENGINES`.

    Returns
    -------
    dict
        ``samples``; ``cycles`` of all of them, and ``counted``; whether both and all values are ``equal``.
    """
    network = compile_graph(graph, params, [calibration], options)
    run, right = (run_network(network, few, engine=each) for each in (engine, "golden"))
    counted = round(cycles * len(few))
    return {
        "samples": len(few),
        "cycles": run.cycles,
        "counted": counted,
        "equal": run.cycles == counted and bool(np.array_equal(run.raw, right.raw)),
    }


def in_words(rows: Iterable[Mapping[str, Any]]) -> str:
    """One sentence on all that `ran`: what rows of an experiment have as ``verilog``, if they have it."""
    found = [row["verilog"] for row in rows if row.get("verilog")]
    if not found:
        return "No network ran in Verilog."
    right = sum(each["equal"] for each in found)
    return (
        f"{right} of {len(found)} networks found that ran in Verilog take the cycles of the model, with equal outputs."
    )
