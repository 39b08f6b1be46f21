"""What differs between two results counts, whichever of both has it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compiler.errors import InputError
from compiler.graph.dense import Dense, dense_graph
from compiler.lower.pipeline import compile_graph
from hw.params import preset
from sim.compare import MISSING, compare, compare_networks
from sim.network import NetworkResult, run_network


@pytest.fixture(scope="module")
def result() -> NetworkResult:
    x = np.arange(8, dtype=np.int16).reshape(2, 4)
    network = compile_graph(dense_graph([Dense("a", np.eye(4, dtype=np.float32))]), preset("BALANCED_2"), x)
    return run_network(network, x, engine="cycles")


def test_a_result_equals_itself(result) -> None:
    assert compare_networks(result, result).equal
    assert compare(result.runs[0], result.runs[0]).equal


@pytest.mark.verifies("record-value-only-results")
def test_a_field_that_only_one_has_is_a_difference(result) -> None:
    one = result.runs[0]
    more = replace(one, records=[[{**layer, "extra": 5} for layer in vector] for vector in one.records])
    for pair, values in (((one, more), (MISSING, 5)), ((more, one), (5, MISSING))):
        found = compare(*pair)
        assert not found.equal
        assert found.records_different == 1  # one run of the array
        assert found.first_record is not None
        assert (found.first_record.field, found.first_record.values) == ("extra", values)


@pytest.mark.verifies("record-value-only-results")
def test_a_value_that_only_one_has_is_no_comparison(result) -> None:
    fewer = replace(result, values={name: raw for name, raw in result.values.items() if name != "a"})
    for pair in ((result, fewer), (fewer, result)):
        with pytest.raises(InputError, match="different networks"):
            compare_networks(*pair)


def test_batches_of_different_lengths_are_no_comparison(result) -> None:
    shorter = replace(result, values={name: raw[:1] for name, raw in result.values.items()})
    with pytest.raises(InputError, match="different networks or batches"):
        compare_networks(result, shorter)
