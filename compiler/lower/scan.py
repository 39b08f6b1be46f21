"""What a loop carries from step to step, in floats: the data to which its integers are fitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.graph.evaluate import outputs
from compiler.graph.ir import Node

__all__ = ["float_states"]


Floats = list[NDArray[np.float64]]


def float_states(node: Node, reads: Sequence[NDArray[Any]]) -> tuple[Floats, Floats]:
    """Each state as every step begins with it, and as the last step leaves it.

    Returns
    -------
    (batch · steps, *shape), a sample's steps in order of the sequence; (batch, *shape).
    """
    assert node.body is not None
    count, steps = node["sequences"], reads[0].shape[1]
    batch = max(len(read) for read in reads)
    states = [np.broadcast_to(read, (batch, *read.shape[1:])) for read in reads[count:]]
    found: dict[int, Floats] = {}
    for step in reversed(range(steps)) if node["reverse"] else range(steps):
        found[step] = [np.asarray(state, np.float64) for state in states]
        made = outputs(node.body, [*(read[:, step] for read in reads[:count]), *states])
        states = made[len(made) - len(states) :]
    begins = [
        np.stack([found[step][n] for step in range(steps)], axis=1).reshape(-1, *state.shape[1:])
        for n, state in enumerate(states)
    ]
    return begins, states
