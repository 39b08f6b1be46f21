"""What a search found, run as Verilog: its cycles are those that the search counted, and its bits golden's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compiler.errors import InputError
from compiler.lower.pipeline import compile_graph
from sim.compare import compare_networks
from sim.cost import Cost, cost_of
from sim.network import NetworkResult, run_network
from sim.search.spec import Search
from sim.search.trial import Outcome, graph_of

__all__ = ["check", "same"]


def check(search: Search, outcome: Outcome, folder: Path) -> dict[str, Any]:
    """Run a trial's network on the samples of its cost; what was compared.

    Raises
    ------
    InputError
        Cycles, bits or stored bytes are not those of the cost.
    ToolError
        Verilator is missing.
    """
    _, params, options = search.at(outcome.values)
    graph, calibration = graph_of(folder)
    network = compile_graph(graph, params, calibration, options)
    inputs = tuple(data[: search.samples] for data in calibration)
    given = {node.name: data for node, data in zip(network.graph.inputs, inputs, strict=True)}
    model = run_network(network, given, engine="cycles")
    ran = run_network(network, given, engine="rtl")
    if different := next(iter(compare_networks(ran, model).explain()), None):
        raise InputError(f"trial {outcome.number}: the hardware differs from its models: {different}")
    found = cost_of(network, given)
    cycles = same(outcome, ran, found)
    return {"trial": outcome.number, "samples": found.samples, "rtl_cycles": cycles, "cycles": found.cycles,
            "values": sum(raw.size for raw in ran.values.values())}  # fmt: skip


def same(outcome: Outcome, ran: NetworkResult, found: Cost) -> int:
    """Cycles of the hardware for the batch. Raises `InputError` unless they and the trial's figures are the cost's."""
    cycles = sum(part.cycles or 0 for part in ran.runs)
    if cycles != round(found.cycles * found.samples):
        raise InputError(
            f"trial {outcome.number}: the hardware takes {cycles:,} cycles for {found.samples} samples, its cost says "
            f"{found.cycles * found.samples:,.0f}"
        )
    for name, value in (("cycles", found.cycles), ("energy", found.energy), ("bytes", found.stored)):
        if name in outcome.figures and outcome.figures[name] != float(value):
            raise InputError(
                f"trial {outcome.number}: its {name} is {float(value):,} now, and was {outcome.figures[name]:,} when "
                "it was found: the sources of the kit were changed since"
            )
    return cycles
