"""Networks of all operators: hardware and models against the integer graph."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from compiler.lower import descriptors, lookups
from sim.graph_cases import random_graph_case
from sim.verify import SUITES, run_graph_case, verify

ARRAYS = [each for each in SUITES["networks"].arrays if each is not None]


@pytest.mark.verifies("networks-operators-forty-arrays-golden")
def test_networks_equal_their_graphs(seed: int) -> None:
    counts: Counter[str] = Counter()
    for n in range(40):
        case_seed = 1000 * seed + n
        found, counted = run_graph_case(random_graph_case(case_seed, ARRAYS[n]), "golden")
        assert found is None, f"seed {case_seed}"
        counts.update(counted)
    assert counts["values"] > 1000
    assert counts["windows"] > 5
    assert counts["segments"] > 2
    assert counts["tiled"] > 2
    assert counts["operations"] > 2
    assert counts["lookups"] + counts["shared"] > 0


def test_a_case_replays_from_its_seed() -> None:
    one, other = (random_graph_case(3, ARRAYS[0]) for _ in range(2))
    assert (one.x == other.x).all()
    assert [each.entries.tobytes() for each in one.network.images] == [
        each.entries.tobytes() for each in other.network.images
    ]


@pytest.mark.verifies("networks-operators-forty-arrays-golden")
def test_a_wrong_image_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = descriptors._layer_fields
    monkeypatch.setattr(
        descriptors, "_layer_fields", lambda *args: {**fields(*args), "high": fields(*args)["high"] // 4}
    )
    wrong = [run_graph_case(random_graph_case(n, ARRAYS[0]), "golden")[0] for n in range(6)]
    assert any(wrong)


def _first_difference(feature: str) -> str | None:
    """What the first cases with a feature show of a planted fault."""
    left = 12
    for n in range(400):
        found, counted = run_graph_case(random_graph_case(n, ARRAYS[n % len(ARRAYS)]), "golden")
        left -= counted.get(feature, 0) > 0
        if found is not None or not left:
            return found
    raise AssertionError(f"no case has {feature}")


@pytest.mark.verifies("planted-faults-random-networks-rows")
def test_rows_of_tables_one_further_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = lookups._digits

    def turned(*args: Any) -> Any:
        found = digits(*args)
        return found and [(np.roll(codes, 1, axis=1), book) for codes, book in found]

    monkeypatch.setattr(lookups, "_digits", turned)
    assert _first_difference("lookups") is not None


@pytest.mark.verifies("planted-faults-random-networks-rows")
def test_products_of_a_map_with_itself_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: the second factor is the first one."""
    fields = descriptors._operation_fields

    def square(*args: Any) -> dict[str, int]:
        found = fields(*args)
        return {**found, "b": found["a"]} if found["has_b"] else found

    monkeypatch.setattr(descriptors, "_operation_fields", square)
    assert _first_difference("operations") is not None


@pytest.mark.verifies("planted-faults-random-networks-rows")
def test_functions_read_half_as_far_out_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = descriptors._function_fields

    def half(*args: Any) -> dict[str, int]:
        return {name: number + (name == "right_1") for name, number in fields(*args).items()}

    monkeypatch.setattr(descriptors, "_function_fields", half)
    assert _first_difference("operations") is not None


@pytest.mark.verifies("same-networks-operators-values-also")
@pytest.mark.rtl
@pytest.mark.slow
def test_networks_on_verilog_equal_graph_and_models(seed: int) -> None:
    report = verify("networks", seed, trials=SUITES["networks"].sample)
    assert report.failures == []
    assert report.trials == SUITES["networks"].sample
    assert report.values > 200
    assert report.records > 8
