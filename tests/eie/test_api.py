"""`eie.compile` and `eie.run` answer wrong arguments with errors of the kit."""

from __future__ import annotations

import numpy as np
import pytest

import eie
from compiler.errors import EieError, InputError
from compiler.graph.dense import Dense, dense_graph
from hw.params import ParamsError

GRAPH = dense_graph([Dense("a", np.eye(4, dtype=np.float32))])
X = np.arange(8, dtype=np.int16).reshape(2, 4)


@pytest.mark.verifies("python-names-kit-wrong-parameters")
def test_params_are_a_preset_by_name_or_refused() -> None:
    assert eie.compile(GRAPH, params="BALANCED_4", calibration=X).params.pes == 4
    with pytest.raises(InputError, match="params is a dict"):
        eie.compile(GRAPH, params={"pes": 4}, calibration=X)  # type: ignore[arg-type]
    with pytest.raises(ParamsError, match="BALANCED_16"):
        eie.compile(GRAPH, params="BALANCED4", calibration=X)


@pytest.mark.verifies("python-names-kit-wrong-parameters")
def test_calibration_in_any_byte_order_is_raw() -> None:
    native, swapped = (eie.compile(GRAPH, params="BALANCED_2", calibration=x) for x in (X, X.astype(">i2")))
    np.testing.assert_array_equal(
        *(eie.run(network, X.astype(">i2"), engine="golden").raw for network in (native, swapped))
    )


@pytest.mark.verifies("python-names-kit-wrong-parameters")
def test_empty_batches_are_refused() -> None:
    with pytest.raises(EieError, match="at least 1"):
        eie.compile(GRAPH, params="BALANCED_2", calibration=X[:0])
    network = eie.compile(GRAPH, params="BALANCED_2", calibration=X)
    with pytest.raises(EieError, match="empty"):
        eie.run(network, X[:0], engine="golden")


def test_an_empty_batch_of_examples_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(EieError, match="at least one"):
        eie.compile(torch.nn.Linear(4, 2), torch.zeros(0, 4))
