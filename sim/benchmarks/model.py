"""The cycle model with everything prepared: the one place of the benchmarks that looks below `sim.run`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from compiler.cycles import model as cycles
from compiler.image.image import Image
from sim.decode import columns, decode
from sim.golden_array import run_layers
from sim.program import frames
from sim.run import check_input
from sim.timing import works

__all__ = ["column_counts", "prepared"]


def column_counts(image: Image) -> NDArray[np.int64]:
    """(columns, pes) entries of each column of a network of one segment in each PE, padding entries included.

    The entries of a PE lie one behind the other, so sums of these counts are their places.
    """
    (only,) = columns(image)
    return only.counts.reshape(-1, image.params.pes).astype(np.int64)


def prepared(image: Image, raw: NDArray[np.int16]) -> Callable[[], int]:
    """A function that runs the cycle model, and nothing else.

    It returns the cycles of the batch without the exposed write-back. Column counts and nonzero activations are worked
    out here, once; the model's code is compiled by its first call.

    Parameters
    ----------
    image : of a network. raw : int16 (batch, ...), as `sim.run.run` takes it; the batch must fit on chip (one run).
    """
    program = works(image)
    inputs, _ = check_input(image, raw)
    runs = run_layers(decode(image), frames(image, inputs), image.params.acc_bits, masks=True)
    masks = [mask for ran in runs for mask in ran.masks]

    def run() -> int:
        times = cycles.run(image.params, program, masks)
        return max(each.finished for each in times) - times[0].accepted

    return run
