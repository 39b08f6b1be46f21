"""The benches of `sim.testbench` that are not networks, each judged by what it expects itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hw.params import Params
from sim.corner_cases import ENTRIES, MOMENTS, corner_cases, observe, overlap, refused_otherwise
from sim.extent_cases import MOST, observe_edges, observe_extents, wrong_extents
from sim.rtl.build import Build

__all__ = ["BENCHES", "judged"]

BENCHES = {
    "corners": "errors, restarts and refusals",
    "edges": "every offset, bit and header at the port",
    "extents": "runs as long as the fields of a descriptor allow",
    "overlap": "three hosts at once at the port",
}
"""Name of each, and what it tries."""


def judged(
    name: str, built: Build, params: Params, seed: int, folder: Path, plusargs: Sequence[str] = (), *,
    entries: tuple[int, int, int] = ENTRIES, moments: int = MOMENTS, wild: bool = True, most: int = MOST,
) -> str | None:  # fmt: skip
    """Run a bench in `folder`; the first thing that is wrong.

    Corners are judged by their errors here, and fully in `tests/sim/test_corners.py`.

    Parameters
    ----------
    seed : of what the bench draws; edges and extents draw nothing.
    entries, moments, wild : of the corners, see `sim.corner_cases`. most : how far extents go.

    Raises
    ------
    RtlError
        The bench failed.
    """
    wrong: str | None
    match name:
        case "corners":
            cases = corner_cases(params, seed, entries, wild=wild)
            return refused_otherwise(cases, observe(built, cases, folder, plusargs, moments=moments))
        case "edges":
            wrong = observe_edges(built, params, folder, plusargs)["wrong"]
        case "extents":
            observed = observe_extents(built, params, folder, most=most, plusargs=plusargs)
            wrong = next(iter(wrong_extents(params, observed, most=most)), None)
        case "overlap":
            wrong = overlap(built, params, seed, folder, plusargs)["wrong"]
        case _:
            raise KeyError(f"no bench {name!r}; expected one of {', '.join(BENCHES)}")
    return wrong
