"""CPU time of several things that are compared: taken in turns, so that what disturbs one disturbs all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

__all__ = ["interleaved"]


def interleaved(things: Mapping[str, Callable[[], object]], repeats: int, least: float = 0.02) -> dict[str, float]:
    """Median CPU seconds of one call of each.

    Parameters
    ----------
    repeats : rounds in which each has its turn.
    least : seconds that a turn takes; shorter calls are repeated within it and counted as their mean.
    """
    calls = {}
    for name, call in things.items():
        call()  # what is made at the first call is made before
        began = time.process_time()
        call()
        calls[name] = max(1, round(least / max(time.process_time() - began, 1e-6)))
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for _ in range(repeats):
        for name, call in things.items():
            began = time.process_time()
            for _ in range(calls[name]):
                call()
            seconds[name].append((time.process_time() - began) / calls[name])
    return {name: median(each) for name, each in seconds.items()}
