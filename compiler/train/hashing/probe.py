"""Times of the kernels: vectorized against scalar, and two threads against one. Run as ``python -m`` it prints JSON.

Scalar code is the same code with the vectorizers of LLVM off, which numba decides when it is imported: so it runs in
a process of its own, with a cache of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from compiler.train.hashing.kernels import dot_at, step_at
from compiler.train.hashing.network import HashedNetwork, HashSettings
from compiler.train.hashing.wide import back_and_step, dot

__all__ = ["kernels", "scalar", "threads"]

_ROWS, _WIDTH, _ACTIVE = 1000, 128, 200


def kernels(repeats: int = 7) -> dict[str, float]:
    """Least seconds of `_ROWS` rows by each inner loop; no optimizer can drop them, as all write."""
    from compiler.jit import njit

    random = np.random.Generator(np.random.PCG64(1))
    rows = random.normal(size=(_ROWS, _WIDTH)).astype(np.float32)
    values, sums = rows[0].copy(), np.zeros(_WIDTH, np.float32)
    out = np.zeros(_ROWS, np.float32)
    flat = random.normal(size=_ROWS * _ROWS).astype(np.float32)
    indices = np.sort(random.permutation(_ROWS)[:_ACTIVE]).astype(np.int32)
    some = random.normal(size=_ACTIVE).astype(np.float32)

    @njit()
    def dots(rows, values, out):  # type: ignore[no-untyped-def]
        for row in range(len(rows)):
            out[row] = dot(rows, row, values)

    @njit()
    def steps(rows, values, sums):  # type: ignore[no-untyped-def]
        for row in range(len(rows)):
            back_and_step(rows, row, values, np.float32(1e-3), np.float32(1e-6), sums)

    @njit()
    def gathers(flat, indices, some, out):  # type: ignore[no-untyped-def]
        for row in range(len(out)):
            out[row] = dot_at(flat, row * len(out), indices, some, len(some))

    @njit()
    def scatters(flat, indices, some, out):  # type: ignore[no-untyped-def]
        for row in range(len(out)):
            step_at(flat, row * len(out), indices, some, len(some), np.float32(1e-6))

    calls: dict[str, Callable[[], object]] = {
        "product of a row": lambda: dots(rows, values, out),
        "backward and step of a row": lambda: steps(rows, values, sums),
        "product at active inputs": lambda: gathers(flat, indices, some, out),
        "step at active inputs": lambda: scatters(flat, indices, some, out),
    }
    return {name: min(_seconds(call, 50) for _ in range(repeats)) for name, call in calls.items()}


def scalar() -> dict[str, float]:
    """The same with the vectorizers off."""
    with tempfile.TemporaryDirectory(prefix="eie-scalar-") as cache:
        off = {"NUMBA_LOOP_VECTORIZE": "0", "NUMBA_SLP_VECTORIZE": "0", "NUMBA_CACHE_DIR": cache}
        done = subprocess.run(
            [sys.executable, "-m", __spec__.name, "kernels"],
            env={**os.environ, **off}, capture_output=True, check=True, text=True,
        )  # fmt: skip
    return dict(json.loads(done.stdout))


def threads(repeats: int = 9, samples: int = 1500) -> dict[str, float]:
    """Seconds of one training period by one and by two threads, least and median, taken in turns."""
    random = np.random.Generator(np.random.PCG64(1))
    inputs = (random.random((samples, 784)) * (random.random((samples, 784)) < 0.2)).astype(np.float32)
    labels = random.integers(0, 10, samples)
    network = HashedNetwork([784, 1000, 1000, 1000, 10], HashSettings(0.1, pool=4, period=samples), 1)
    order = np.arange(samples)
    network.train(inputs, labels, order[:10], 1e-4)
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for count, seconds in found.items():
            seconds.append(_seconds(lambda count=count: network.train(inputs, labels, order, 1e-4, count)))  # type: ignore[misc]
    return {f"{name} of {n}": one(found[n]) for n in found for name, one in (("least", min), ("median", median))}


def _seconds(call: Callable[[], object], times: int = 1) -> float:
    call()
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times


def main() -> None:
    """Print what `kernels`, `scalar` and `threads` find, or the first alone."""
    fast = kernels()
    if sys.argv[1:] == ["kernels"]:
        print(json.dumps(fast))
        return
    slow: dict[str, Any] = scalar()
    found = {"vectorized times faster": {name: round(slow[name] / fast[name], 2) for name in fast}, "seconds": fast}
    print(json.dumps({**found, "threads": threads()}, indent=2))


if __name__ == "__main__":
    main()
