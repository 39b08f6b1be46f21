"""When everything in a run was, by the exact cycle model: for `sim.trace_file`, which writes it for a viewer.

What the model says of layers must equal what the engine recorded, else there is no timeline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.cycles import model
from compiler.cycles.events import Events, Round
from compiler.errors import EieError, InputError
from compiler.image.image import Image
from sim.decode import decode
from sim.program import chunks
from sim.run import check_input, golden_runs
from sim.timing import works

__all__ = ["ArrayRun", "TimelineError", "follow"]

MOST_BYTES = 1 << 31
"""What the selected entries of one run may take in memory."""


class TimelineError(EieError):
    """The cycle model and the engine do not agree on when a layer was."""

    exit_code = 1


@dataclass(frozen=True, eq=False)
class ArrayRun:
    """One run of the array.

    image : what it computed. samples : of the batch, (first, the one after the last). events : of the model.
    records : the record of each layer; if the engine has none, the model's, then without ``saturated``.
    """

    image: Image
    samples: tuple[int, int]
    events: Events
    records: list[dict[str, int]]

    @property
    def begin(self) -> int:
        """The first accept."""
        return min(each.accepted for each in self.events.rounds)

    def name(self, round: Round) -> str:
        """Of the layer or operation of a round."""
        return self.image.layers[self.image.numbers.index(round.number)].name


def follow(
    image: Image, inputs: Mapping[str, NDArray[np.int16]], recorded: Sequence[Sequence[Mapping[str, int]]] = ()
) -> list[ArrayRun]:
    """Every run of a batch through an image, as many samples at a time as fit on chip.

    Parameters
    ----------
    inputs : (batch, H, W, C) by the names of the maps. recorded : `sim.run.Result.records` of the engine, if any.

    Raises
    ------
    TimelineError
        The engine's records are not the model's.
    InputError
        So many vectors that their entries do not fit in memory.
    """
    raw, _ = check_input(image, inputs)
    program, what = decode(image), works(image)
    count = next(iter(chunks(image, raw))).count
    needed = 16 * image.params.pes * model.vectors_of(what, count)
    if needed > MOST_BYTES:
        raise InputError(
            f"a timeline of {count} samples on {image.params.pes} PEs needs up to {needed >> 20:,} MB of memory; "
            "give fewer samples"
        )
    found: list[ArrayRun] = []
    for _, runs in golden_runs(image, program, raw, count, masks=True):
        first = count * len(found)
        masks = [mask for ran in runs for mask in ran.masks]
        events = Events()
        times = [asdict(each) for each in model.run_to_end(image.params, what, masks, events=events)[0]]
        records = [dict(each) for each in recorded[len(found)]] if recorded else times
        for layer, mine, theirs in zip(image.layers, times, records, strict=True):
            if wrong := [name for name, value in mine.items() if theirs[name] != value]:
                raise TimelineError(
                    f"layer {layer.name}, run {len(found)}: {wrong[0]} is {theirs[wrong[0]]:,} in the engine's record "
                    f"and {mine[wrong[0]]:,} in the cycle model; no timeline is written"
                )
        found.append(ArrayRun(image, (first, min(first + count, len(raw[0]))), events, records))
    return found
