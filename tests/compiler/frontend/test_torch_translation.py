"""Every module of the zoo, translated, computes what torch computes, on inputs that the translation never saw."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from compiler.frontend.torch_call import Translation
from compiler.frontend.torch_export import from_torch
from compiler.frontend.torch_ops import TRANSLATIONS
from compiler.graph.evaluate import outputs, tails
from tests.compiler.zoo import ZOO, Case


def test_zoo_is_large_and_its_names_are_unique() -> None:
    counted = Counter(case.name for case in ZOO)
    assert len(counted) == len(ZOO) >= 60


@pytest.mark.verifies("torch-frontend-row-table-translations")
@pytest.mark.slow
def test_every_row_of_the_table_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, used = dict(TRANSLATIONS), set()

    def noting(name: str) -> Translation:
        return lambda call: used.add(name) or rows[name](call)  # type: ignore[func-returns-value]

    for name in rows:
        monkeypatch.setitem(TRANSLATIONS, name, noting(name))
    for case in ZOO:
        if not used.issuperset(rows):
            from_torch(*case.make())
    assert rows.keys() - used == {"bmm"}  # a product by a batch of matrices is refused by its row


@pytest.mark.verifies("torch-frontend-160-small-modules")
@pytest.mark.parametrize("case", ZOO, ids=str)
def test_graph_computes_what_the_module_computes(case: Case, seed: int) -> None:
    module, example = case.make()
    graph = from_torch(module, example)
    _, fresh = case.make(seed + 1)
    with torch.no_grad():
        expected = module(*(x.clone() for x in fresh))
    leaves = [leaf for leaf in pytree.tree_leaves(expected) if leaf is not None]
    found = tails(graph, outputs(graph, [x.numpy() for x in fresh]))
    assert len(found) == len(leaves)
    for made, wanted in zip(found, leaves, strict=True):
        tensor = wanted.numpy()
        if made.shape != tensor.shape:  # final states of recurrent layers have their samples along axis 1
            tensor = np.moveaxis(tensor, 1, 0)
        np.testing.assert_allclose(made, tensor, rtol=0, atol=2e-6 * max(1.0, np.abs(tensor).max()))
