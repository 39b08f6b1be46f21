"""Which weights of a module are in which block of its graph: passes fold, sum and rename, so names do not say it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ModelError
from compiler.experiments.policy.network import MARK, graph_of, marked
from compiler.graph.blocks import blocks
from compiler.graph.ir import Graph
from compiler.train.images import Images
from compiler.train.layers import weights

__all__ = ["keys_by_block", "members"]


def keys_by_block(module: Any, lesson: Images) -> dict[str, tuple[str, ...]]:
    """Block → keys of the module's weights that it multiplies by; those that the host multiplies by are in none."""
    keys = [site.key for site in weights(module)]
    numbers = members(graph_of(module, lesson), graph_of(marked(module), lesson))
    return {name: tuple(keys[n] for n in own) for name, own in numbers.items()}


def members(plain: Graph, marked: Graph) -> dict[str, tuple[int, ...]]:
    """Block → numbers, from 0, of the module's weights that its tensors are made of; a weight is in one block.

    Parameters
    ----------
    plain, marked : graphs of a module, and of the same one with its weights marked (`policy.network.marked`).

    Raises
    ------
    ModelError
        The graphs are not of the same form.
    """
    found: dict[str, tuple[int, ...]] = {}
    known: set[int] = set()
    for block, other in zip(blocks(plain), blocks(marked), strict=True):
        if block.name != other.name:
            raise ModelError(f"the block {block.name} is called {other.name} where the weights have other values")
        pairs = zip(_matrices(block.graph), _matrices(other.graph), strict=True)
        numbers = {n for before, after in pairs for n in _marks(before, after)} - known
        known |= numbers
        if numbers:
            found[block.name] = tuple(sorted(numbers))
    return found


def _matrices(graph: Graph) -> Iterator[NDArray[np.float64]]:
    """Constant arrays that are multiplied by, those of loops as well; no biases."""
    for node in graph:
        if node.body is not None:
            yield from _matrices(node.body)
        yield from (np.asarray(each, np.float64) for each in node.tensors.values() if np.ndim(each) > 1)


def _marks(before: NDArray[np.float64], after: NDArray[np.float64]) -> set[int]:
    """Numbers that the ratio of two arrays shows."""
    there = np.abs(before) > 1e-6 * np.abs(before).max(initial=0)
    shown = (after[there] / before[there] - 1) * MARK
    return {int(n) - 1 for n in np.unique(np.rint(shown)) if n >= 1}
