"""How often the weights of each row meet an activation that is not zero, from calibration data.

An array that skips zeros takes as long as its busiest PE has products, not weights: two rows of equally many weights
differ where one reads the middle of a picture and the other its border. Rows are given to PEs by what they have to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from compiler.lower.program import RATES, MapForm, ProgramLayer, Segment

__all__ = ["Activity", "Density", "density_of", "parts_of", "rates_of"]

Int = NDArray[np.int64]
Activity = NDArray[np.float32]
"""How often each number of a value is not zero."""

Density = float | Activity
"""How often a number of a value is not zero: whichever number, or for each, (*shape)."""

SURE = 4.0
"""Standard deviations by which the numbers of a value must differ more than chance makes them, to be told apart."""


def density_of(samples: NDArray[np.generic]) -> Density:
    """How often numbers of a value are not zero, from samples (n, *shape), n and shape not zero.

    For each number, unless the samples do not tell numbers apart.

    The share that is counted of each number strays around the true one. By how much is known, and what the numbers
    differ beyond that is theirs: they are moved towards their mean until they differ by that much (James and Stein,
    1961). Nothing is read into chance: numbers that are alike have one density, however few the samples.
    """
    n = len(samples)
    if n < 2 or samples[0].size < 2:
        return float(np.count_nonzero(samples) / samples.size)
    counts = np.count_nonzero(samples, axis=0)
    share, mean = counts / n, float(counts.sum() / samples.size)
    found = float(share.var(ddof=1))
    chance = float((share * (1 - share)).mean()) / (n - 1)
    if found <= chance * (1 + SURE * np.sqrt(2 / share.size)):
        return mean
    moved: Activity = (mean + (1 - chance / found) * (share - mean)).astype(np.float32)
    return moved


def parts_of(density: Density | None, axes: str) -> tuple[float | None, Activity | None]:
    """The density of a value as a whole, and of each number as (channels, height, width) if it has that.

    axes : the order of its axes.
    """
    if not isinstance(density, np.ndarray):
        return density, None
    present = [axes.find(axis) for axis in "CHW"]
    ordered = density.transpose([at for at in present if at >= 0])
    sizes = iter(ordered.shape)
    return float(density.mean()), ordered.reshape([next(sizes) if at >= 0 else 1 for at in present])


def rates_of(layer: ProgramLayer, maps: Sequence[MapForm], activities: Mapping[int, Activity]) -> Int | None:
    """For each channel of a result, of how many of its nonzeros the activation is not zero, in parts of `RATES`.

    activities : (channels, height, width) of maps of which they are known. None: of no map that the layer reads, or
    all activations take part, or all channels have one rate. A segment that a loop moves reads one step after the
    other, so it has the densities of its map's channels; the first state of a loop says nothing of the later ones.
    """
    if layer.maximum or not any(segment.source in activities for segment in layer.segments):
        return None
    made = maps[layer.result]
    single = not layer.moves and made.height == made.width == 1 and layer.pool == (1, 1)
    met = np.zeros(len(layer.bias))
    for segment in layer.segments:
        known = activities.get(segment.source)
        if known is None:
            density = maps[segment.source].density
            met += segment.counts * (1.0 if density is None or segment.moves else density)
            continue
        share = _at_place(segment, known) if single and not segment.moves else known.mean(axis=(1, 2))[segment.channel]
        met += np.diff(np.concatenate([[0.0], np.cumsum(share, dtype=np.float64)])[segment.starts])
    work = layer.work
    rates = np.clip(np.rint(RATES * met / np.maximum(work, 1)), 1, RATES).astype(np.int64)
    rates[work == 0] = int(np.median(rates[work > 0])) if work.any() else RATES
    return None if (rates == rates[0]).all() else rates


def _at_place(segment: Segment, known: Activity) -> NDArray[np.float32]:
    """For each nonzero of a window that stands at one place, how often its activation is not zero."""
    ky, kx = np.divmod(segment.tap, segment.kernel[1])
    y, x = segment.origin[0] + ky * segment.dilation[0], segment.origin[1] + kx * segment.dilation[1]
    inside = (y >= 0) & (y < known.shape[1]) & (x >= 0) & (x < known.shape[2])
    y, x = np.where(inside, y, 0), np.where(inside, x, 0)
    found: NDArray[np.float32] = np.where(inside, known[segment.channel, y, x], np.float32(0))
    return found
