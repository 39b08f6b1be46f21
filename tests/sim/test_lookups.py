"""Rows of tables that the array looks up: networks with a Gather, against the integer graph and the hardware."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler.errors import InputError
from compiler.frontend.builder import Builder
from compiler.frontend.cells import Weights, scan
from compiler.graph.ir import Graph
from compiler.lower import lookups, pipeline
from compiler.lower.calibrate import quantize_calibrated
from compiler.lower.partition import partition
from compiler.lower.pipeline import compile_graph
from compiler.network import Network
from hw.params import Params
from sim import golden
from sim.network import run_network
from tests.arrays import COMMON

SHAPES = [(), (1,), (4,), (2, 3)]
PARAMS = Params(pes=8, rows=64, index_bits=5, pointer_blocks=2048, queue_depth=8)


def tagged(rng: np.random.Generator, shape: tuple[int, ...], rows: int, *, few: bool = False) -> tuple[Graph, Any]:
    """Tokens, a table, a matrix behind it; calibration data."""
    features = int(rng.integers(1, 20))
    table = rng.normal(size=(rows, features)) * (rng.random((rows, features)) < rng.uniform(0.3, 1))
    if few:
        table = np.round(table).clip(-3, 3) / 4
    build = Builder()
    tokens = build.add("Input", "tokens", shape=shape, kind="index")
    words = build.add("Gather", "words", tokens, tensors={"table": table.astype(np.float32)})
    weight = rng.normal(size=(5, features)).astype(np.float32)
    build.add("Output", "tags", build.add("Linear", "fc", words, tensors={"weight": weight}))
    build.add("Output", "rows", words)
    return build.graph(), rng.integers(0, rows, (12, *shape))


def looped(rng: np.random.Generator, rows: int) -> tuple[Graph, Any]:
    """Tokens, a table, an LSTM."""
    build = Builder()
    tokens = build.add("Input", "tokens", shape=(4,), kind="index")
    table = rng.normal(size=(rows, 5)).astype(np.float32)
    words = build.add("Gather", "words", tokens, tensors={"table": table})
    gates = [rng.normal(size=size) * 0.5 for size in ((24, 5), (24, 6), (24,))]
    start = [build.add("Constant", name, tensors={"value": np.zeros(6)}) for name in ("h0", "c0")]
    outs = scan(build, "lstm", "lstm", words, start, Weights(*gates), reverse=False)
    build.add("Output", "states", outs[0])
    return build.graph(), rng.integers(0, rows, (12, 4))


def right(graph: Graph, params: Params, data: Any, x: Any) -> dict[str, Any]:
    """All values as the integer graph has them."""
    made = quantize_calibrated(graph, params, [data]).graph
    return {name: value.raw for name, value in golden.run_graph(made, [x], params.acc_bits).items()}


def differs(seed: int, params: Params = PARAMS) -> list[str]:
    """Values that are not what the integer graph makes."""
    rng = np.random.default_rng(seed)
    rows = int(rng.choice([1, 2, 9, 40, 300]))
    few = bool(rng.integers(2))
    graph, data = tagged(rng, SHAPES[int(rng.integers(len(SHAPES)))], rows, few=few)
    network = compile_graph(graph, params, data)
    assert [node.op for node in network.host] == []
    found, expected = run_network(network, data[:3]).values, right(graph, params, data, data[:3])
    return [name for name in ("words", "fc") if not np.array_equal(found[name], expected[name])]


@pytest.mark.verifies("rows-tables-array-random-tables")
def test_rows_are_those_of_the_table(seed: int) -> None:
    assert [n for n in range(12) if differs(1000 * seed + n)] == []


@pytest.mark.verifies("rows-tables-array-random-tables")
@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_digits_of_every_width(bits: int, seed: int) -> None:
    params = PARAMS.replace(code_bits=bits)
    assert [n for n in range(4) if differs(1000 * seed + n, params)] == []


@pytest.mark.verifies("rows-tables-array-random-tables")
def test_every_number_is_the_sum_of_its_digits(seed: int) -> None:
    every = np.arange(-(1 << 15), 1 << 15).astype(np.int16).reshape(256, 256)
    for bits in range(2, 9):
        found = lookups._digits(every, bits)
        assert found is not None
        assert np.array_equal(sum(book[codes].astype(np.int64) for codes, book in found), every.T)
        assert all(book[0] == 0 for _, book in found)


@pytest.mark.verifies("rows-tables-array-random-tables")
def test_a_table_of_few_numbers_is_one_segment(seed: int) -> None:
    graph, data = tagged(np.random.default_rng(seed), (4,), 20, few=True)
    (image,) = compile_graph(graph, PARAMS, data).images
    assert [len(layer.sources) for layer in image.layers][:2] == [1, 1]


@pytest.mark.verifies("planted-faults-peak-digits-bias")
@pytest.mark.parametrize("fault", ["peak", "digits", "bias"])
def test_faults_are_caught(fault: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = lookups._lookup

    def wrong(*given: Any) -> Any:
        made = plain(*given)
        difference, one, row = made.layers
        if fault == "peak":
            one = one.replace(attributes={**one.attributes, "left": 6})
        elif fault == "bias":
            difference = difference.replace(tensors={**difference.tensors, "bias": difference.tensors["bias"] + 1})
        else:
            row = row.replace(tensors={**row.tensors, "codebook0": -row.tensors["codebook0"]})
        return lookups.Lookup(made.gather, made.index, (difference, one, row))

    monkeypatch.setattr(lookups, "_lookup", wrong)
    assert any(differs(1000 * seed + n) for n in range(12))


@pytest.mark.verifies("rows-tables-front-loop-core")
def test_a_table_in_front_of_a_loop_is_in_its_image(seed: int) -> None:
    graph, data = looped(np.random.default_rng(seed), 30)
    network = compile_graph(graph, PARAMS, data)
    assert len(network.images) == 1
    assert not network.host
    found = run_network(network, data[:2]).values["lstm"]
    assert np.array_equal(found, right(graph, PARAMS, data, data[:2])["lstm"])


@pytest.mark.verifies("rows-tables-front-loop-core")
@pytest.mark.rtl
@pytest.mark.parametrize("kind", ["plain", "loop"])
def test_hardware_looks_up_in_the_cycles_of_the_model(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph, data = looped(rng, 12) if kind == "loop" else tagged(rng, (3,), 20)
    network = compile_graph(graph, COMMON, data)
    model = run_network(network, data[:2], engine="cycles")
    found = run_network(network, data[:2], engine="rtl")
    assert all(np.array_equal(found.values[name], raw) for name, raw in model.values.items())
    assert [ran.records for ran in found.runs] == [ran.records for ran in model.runs]
    name = "lstm" if kind == "loop" else "fc"
    assert np.array_equal(found.values[name], right(graph, COMMON, data, data[:2])[name])


def operators(network: Network) -> list[str]:
    return [node.op for node in network.graph if node.op not in ("Input", "Output", "Constant")]


@pytest.mark.verifies("rows-tables-large-alone-do")
def test_large_tables_stay_on_the_host(seed: int) -> None:
    graph, data = tagged(np.random.default_rng(seed), (4,), 40)
    assert operators(compile_graph(graph, PARAMS, data)) == ["Indices", "Array"]
    for small in ({"pointer_blocks": 64}, {"tables": 0}, {"act_lines": 64}):
        network = compile_graph(graph, PARAMS.replace(**small), data)
        assert operators(network) == ["Gather", "Array"]
        found, expected = run_network(network, data[:2]).values, right(graph, PARAMS, data, data[:2])
        assert np.array_equal(found["fc"], expected["fc"])


@pytest.mark.verifies("rows-tables-large-alone-do")
def test_a_table_alone_stays_on_the_host(seed: int) -> None:
    build = Builder()
    tokens = build.add("Input", "tokens", shape=(4,), kind="index")
    words = build.add("Gather", "words", tokens, tensors={"table": np.ones((9, 3), np.float32)})
    build.add("Output", "rows", words)
    assert operators(compile_graph(build.graph(), PARAMS, np.zeros((2, 4), np.int64))) == ["Gather"]


@pytest.mark.verifies("rows-tables-large-alone-do")
def test_what_does_not_fit_is_tried_without_tables(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, data = tagged(np.random.default_rng(seed), (4,), 40)
    monkeypatch.setattr(lookups, "_roomy", lambda *given: True)
    params = PARAMS.replace(act_lines=24)
    made = quantize_calibrated(graph, params, [data]).graph
    assert any(node.op == "Indices" for node in partition(made, params).graph)
    assert operators(pipeline.compile_graph(graph, params, data)) == ["Gather", "Array"]


@pytest.mark.verifies("rows-tables-large-alone-do")
def test_an_index_beyond_the_table_is_refused(seed: int) -> None:
    graph, data = tagged(np.random.default_rng(seed), (4,), 40)
    network = compile_graph(graph, PARAMS, data)
    with pytest.raises(InputError, match="its table has 40 rows"):
        run_network(network, data[:1] + 40)
