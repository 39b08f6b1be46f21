"""Times of the kernels: vectorized against scalar, two threads against one, and what follows for more.

Run as ``python -m`` it prints JSON.

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
from dataclasses import asdict
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.train.hashing.conflicts import Conflicts, overlap
from compiler.train.hashing.kernels import REHASH, UPDATE, add_at, add_rows, dot_at, step_at
from compiler.train.hashing.network import HashedNetwork, HashSettings
from compiler.train.hashing.wide import back_and_step, dot

__all__ = ["conflicts", "kernels", "scalar", "threads"]

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

    @njit()
    def sums_at(flat, indices, out):  # type: ignore[no-untyped-def]
        for row in range(len(out)):
            add_at(flat, row * len(out), indices, len(indices), np.float32(1e-6), out)

    @njit()
    def whole(flat, rows, values, out):  # type: ignore[no-untyped-def]
        add_rows(flat, 0, rows, values, len(rows), out)

    every, small = np.arange(_ROWS, dtype=np.int32), np.full(_ROWS, 1e-6, np.float32)
    calls: dict[str, Callable[[], object]] = {
        "product of a row": lambda: dots(rows, values, out),
        "backward and step of a row": lambda: steps(rows, values, sums),
        "forward, all neurons": lambda: whole(flat, every, small, out),
        "forward, chosen neurons": lambda: sums_at(flat, indices, out),
        "backward, active neurons": lambda: gathers(flat, indices, some, out),
        "step, active neurons": lambda: scatters(flat, indices, some, out),
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
    network, inputs, labels = _network(samples)
    order = np.arange(samples)
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for count, seconds in found.items():
            seconds.append(_seconds(lambda count=count: network.train(inputs, labels, order, 1e-4, count)))  # type: ignore[misc]
    return {f"{name} of {n}": one(found[n]) for n in found for name, one in (("least", min), ("median", median))}


def conflicts(one: float, two: float, samples: int = 200) -> dict[str, Any]:
    """What `Conflicts` makes of the seconds of a period of `threads` by one and by two, and predicts of more.

    Alone a thread lays out tables. It writes for as large a share of its time as updates are of multiplications.
    """
    network, inputs, labels = _network(samples)
    network.counts[:] = 0
    network.train(inputs, labels, np.arange(samples), 1e-4)

    def lay_out() -> None:
        for layer in range(network.hidden):
            network.lay_out(layer)

    serial = _seconds(lay_out, 20) / one
    met = overlap([network.active(sample) for sample in inputs])
    of_samples = network.counts.sum() - network.counts[REHASH]  # tables are hashed once a period
    writing = float(network.counts[UPDATE] / of_samples)
    model = Conflicts.fit(serial, met, writing, one / two)
    return {**asdict(model), "speedup": {n: round(model.speedup(n), 2) for n in (2, 4, 8, 16)}}


def _network(samples: int) -> tuple[HashedNetwork, NDArray[np.float32], NDArray[np.int64]]:
    """A network whose kernel is compiled, and inputs of which a fifth is not zero."""
    random = np.random.Generator(np.random.PCG64(1))
    inputs = (random.random((samples, 784)) * (random.random((samples, 784)) < 0.2)).astype(np.float32)
    labels = random.integers(0, 10, samples)
    network = HashedNetwork([784, 1000, 1000, 1000, 10], HashSettings(0.1, pool=4, period=samples), 1)
    network.train(inputs, labels, np.arange(10), 1e-4)
    return network, inputs, labels


def _seconds(call: Callable[[], object], times: int = 1) -> float:
    call()
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times


def main() -> None:
    """Print what `kernels`, `scalar`, `threads` and `conflicts` find, or the first alone."""
    fast = kernels()
    if sys.argv[1:] == ["kernels"]:
        print(json.dumps(fast))
        return
    slow: dict[str, Any] = scalar()
    found = {"vectorized times faster": {name: round(slow[name] / fast[name], 2) for name in fast}, "seconds": fast}
    times = threads()
    predicted = conflicts(times["least of 1"], times["least of 2"])
    print(json.dumps({**found, "threads": times, "conflicts": predicted}, indent=2))


if __name__ == "__main__":
    main()
