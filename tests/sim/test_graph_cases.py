"""Networks of all operators: hardware and models against the integer graph."""

from __future__ import annotations

from collections import Counter

import pytest

from compiler.lower import descriptors
from sim.graph_cases import random_graph_case
from sim.verify import SUITES, run_graph_case, verify

ARRAYS = SUITES["networks"].arrays


def test_networks_equal_their_graphs(seed: int) -> None:
    counts: Counter[str] = Counter()
    for n in range(20):
        case_seed = 1000 * seed + n
        found, counted = run_graph_case(random_graph_case(case_seed, ARRAYS[n]), "golden")
        assert found is None, f"seed {case_seed}"
        counts.update(counted)
    assert counts["values"] > 1000
    assert counts["windows"] > 5
    assert counts["segments"] > 2
    assert counts["tiled"] > 2


def test_a_case_replays_from_its_seed() -> None:
    one, other = (random_graph_case(3, ARRAYS[0]) for _ in range(2))
    assert (one.x == other.x).all()
    assert [each.entries.tobytes() for each in one.network.images] == [
        each.entries.tobytes() for each in other.network.images
    ]


def test_a_wrong_image_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = descriptors._layer_fields
    monkeypatch.setattr(
        descriptors, "_layer_fields", lambda *args: {**fields(*args), "high": fields(*args)["high"] // 4}
    )
    wrong = [run_graph_case(random_graph_case(n, ARRAYS[0]), "golden")[0] for n in range(6)]
    assert any(wrong)


@pytest.mark.rtl
@pytest.mark.slow
def test_networks_on_verilog_equal_graph_and_models(seed: int) -> None:
    report = verify("networks", seed, trials=SUITES["networks"].sample)
    assert report.failures == []
    assert report.trials == SUITES["networks"].sample
    assert report.values > 200
    assert report.records > 8
