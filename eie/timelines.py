"""``eie run --timeline``: what the array did and when, as a trace for Perfetto."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compiler.errors import InputError
from compiler.image.image import Image
from compiler.network import Network
from eie.output import Output
from sim.network import NetworkResult

__all__ = ["save_timeline"]


def save_timeline(
    output: Output, network: Network, result: NetworkResult, seen: Sequence[tuple[Image, Mapping[str, Any]]],
    file: Path, target: Path, mhz: float, limit: int,
) -> None:  # fmt: skip
    """Write the runs of all images, one behind the other, and say so.

    Parameters
    ----------
    seen : each image that ran, and its inputs (`sim.network.run_network`'s ``watch``). file : of the network.
    mhz : clock at which cycles are shown. limit : bytes.

    Raises
    ------
    InputError
        The array computes nothing of the network.
    TimelineError
        The engine's records are not the cycle model's.
    """
    from sim.timeline import follow
    from sim.trace_file import write_trace_file

    if not seen:
        raise InputError("the array computes nothing of this network, so there is no timeline to write")
    with output.patience("following the run"):
        runs = [
            each for (image, maps), ran in zip(seen, result.runs, strict=True)
            for each in follow(image, maps, ran.records)
        ]  # fmt: skip
    about = {"network": file.name, "hash": network.identity, "engine": result.engine, "batch": len(result.raw)}
    with output.patience(f"writing {target}"):
        written = write_trace_file(target, runs, mhz, about=about, limit=limit)
    if written.cut:
        output.note(f"eie: {target} leaves out {written.cut}: more than {limit / 1e6:g} MB; give fewer inputs or more "
                    "--timeline-limit")  # fmt: skip
    compared = "equal to the engine's records" if result.cycles is not None else "by the cycle model"
    output.text(
        f"timeline: {target}, {sum(run.events.end for run in runs):,} cycles at {mhz:g} MHz, {compared}; "
        "open it in Perfetto (ui.perfetto.dev)"
    )
