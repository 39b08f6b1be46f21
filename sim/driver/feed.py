"""All streams of one run: what the driver offers to the accelerator and takes from it between two looks at STATUS."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from compiler.image.image import Image
from sim.driver.port import Port
from sim.program import refill_stream
from sim.streams import BEAT, Outside, transfers
from sim.tiles import tile_ends

__all__ = ["OFFERED", "Feed"]

OFFERED = 64
"""Beats that are offered to a stream between two looks at the run."""


class Feed:
    """The streams of a run of `count` samples.

    Parameters
    ----------
    given : beats of the inputs off chip, see `sim.streams.given_maps`.
    """

    def __init__(self, port: Port, image: Image, count: int, given: Mapping[int, NDArray[np.uint8]]) -> None:
        self.port = port
        plan = transfers(image)
        self.outside = Outside(plan, count, given) if plan else None
        self._weights = refill_stream(image, count)
        self._ends = tile_ends(image.params, self._weights)
        self._at = 0

    def ahead(self) -> None:
        """As many beats as are taken, or may wait at the pins, before the run begins."""
        while self._send() | self._give():
            pass

    def step(self) -> bool:
        """Offer what comes next to each stream, and take what has come; whether anything moved."""
        return self._send() | self._give() | self.collect()

    def collect(self) -> bool:
        """Take rows of maps that have come; whether there were any."""
        if self.outside is None or not self.outside.left[1]:
            return False
        found = self.port.take(min(OFFERED, self.outside.left[1]))
        for beat in found:
            self.outside.take(beat.tobytes())
        return bool(len(found))

    def collected(self) -> bool:
        """Take rows of maps that have come; whether all have."""
        self.collect()
        return self.outside is None or not self.outside.left[1]

    @property
    def missing(self) -> str:
        """What was not sent or did not come; empty if nothing is missing."""
        what = []
        if self._at < len(self._weights):
            what.append(f"beat {self._at} of {len(self._weights)} of the refill stream is taken")
        if self.outside is not None:
            sends, takes = self.outside.left
            what += [f"{sends} more activation vectors are taken"] * bool(sends)
            what += [f"{takes} more of its activation vectors come"] * bool(takes)
        return " and ".join(what)

    @property
    def sent(self) -> str:
        """For the message about a run that ended with an error."""
        if not len(self._weights):
            return ""
        return f", when {self._at} of {len(self._weights)} beats of its refill stream were sent"

    def _send(self) -> bool:
        """Offer the next beats of weights; whether any were taken."""
        if self._at == len(self._weights):
            return False
        here = slice(self._at, self._at + OFFERED)
        taken = self.port.send(self._weights[here], self._ends[here])
        self._at += taken
        return taken > 0

    def _give(self) -> bool:
        """Offer the next rows of maps; whether any were taken."""
        beats = np.zeros((0, BEAT), np.uint8) if self.outside is None else self.outside.offers(OFFERED)
        if self.outside is None or not len(beats):
            return False
        taken = self.port.give(beats)
        self.outside.sent(taken)
        return taken > 0
