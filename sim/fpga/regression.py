"""Random layers on the design of a board, through its serial pins, against the models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from compiler.caches import cache_folder
from compiler.claim import alone
from compiler.errors import EieError
from hw.layouts import identity
from hw.params import PRESETS
from sim import run as engines
from sim.cases import random_case
from sim.compare import compare
from sim.fpga.boards import BOARDS
from sim.fpga.equivalence import prove_pe
from sim.fpga.netlist import netlist_plan, pins_port

__all__ = ["ARRAYS", "BOARD", "pe_proof", "stage_cases"]

BOARD = "colorlight-5a75b"
"""The smallest part that holds an array and that place and route is through with in minutes."""
ONE_PE = PRESETS["BOARD_MIN"]
ARRAYS = {"rtl": ONE_PE, "synthesized": ONE_PE.replace(pes=2, hops=1), "placed": ONE_PE}
"""The array of each stage. PEs of an array with hops are set in after synthesis (record 111), those of the others not:
both ways are verified."""
BATCH = 2


def stage_cases(
    stage: str, seeds: Sequence[int], note: Callable[[str], None], mutate: Callable[[str], str] = lambda text: text
) -> Iterator[tuple[int, str | None, engines.Result | None, Any]]:
    """Run the case of each seed on the board's design at a stage (`sim.fpga.netlist.STAGES`).

    One simulator serves all, so a case also shows that the one before left nothing behind.

    Yields
    ------
    tuple
        Seed; the first difference or why it could not run, None if all is equal; the result; its image.
    """
    params = ARRAYS[stage]
    plan = netlist_plan(BOARDS[BOARD], params)
    with pins_port(plan, stage, note, mutate) as port:
        for seed in seeds:
            case = random_case(seed, params, max_batch=BATCH)
            model = engines.run(case.image, case.x, engine="cycles")
            note(f"{BOARD}, {stage}: case {seed} …")
            try:
                result = engines.run(case.image, case.x, engine="board", port=port)
            except EieError as error:
                yield seed, f"{stage}: {error}", None, case.image
                return  # the port may be out of step
            found = next(iter(compare(result, model).explain()), None)
            yield seed, found and f"{stage}: {found}", result, case.image


def pe_proof(note: Callable[[str], None]) -> str | None:
    """Prove one PE equal to its netlist; what is not proven, None if all is."""
    params = ONE_PE
    folder: Path = cache_folder() / "fpga" / f"proof-{identity(params)}"
    with alone(folder):
        proof = prove_pe(params, folder, note)
    if proof.holds:
        note(f"one PE equals its netlist: {proof.proven:,} pairs of bits proven")
        return None
    return f"one PE and its netlist: {proof.unproven:,} pairs of bits not proven, of {', '.join(proof.first)}"
