"""A network of several images and host operators: cut out of a graph, written, read, and never believed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from compiler import network_file
from compiler.errors import ImageError
from compiler.graph.evaluate import outputs
from compiler.graph.ir import Graph, Node
from compiler.graph.operators import make
from compiler.graph.passes import run_passes
from compiler.lower.chain import QuantizedLayer
from compiler.lower.encode import encode
from compiler.lower.pack import pack
from compiler.lower.partition import partition
from compiler.lower.pipeline import compile_graph
from compiler.network import Network
from sim.network import run_network
from tests.compiler.networks import SMALL, expected, network

WIDTHS = [12, 10, 7]


def linear(layer: QuantizedLayer, source: str, name: str) -> Node:
    attributes = {
        "shift": layer.shift, "weight_exponent": layer.weight_exponent, "exponent": layer.output_exponent,
        "activation": layer.activation, "exact": layer.exact, "fold": layer.fold,
    }  # fmt: skip
    tensors = {"codes": layer.codes, "codebook": layer.codebook, "bias": layer.bias}
    return Node(name, "Linear", (source,), attributes, tensors)


def source(shape: tuple[int, ...], exponent: int) -> Node:
    return Node("x", "Input", (), {"shape": shape, "layout": "", "kind": "real", "exponent": exponent})


def output(value: str) -> Node:
    return Node("y", "Output", (value,), {"then": "", "axis": 0})


@pytest.fixture
def layers(rng: np.random.Generator) -> tuple[QuantizedLayer, ...]:
    return network(rng, SMALL, WIDTHS, 0.4).layers


def assemble(graph: Graph) -> Network:
    parts = partition(graph, SMALL)
    return Network(SMALL, parts.graph, tuple(pack(chain, encode(chain)) for chain in parts.chains))


@pytest.fixture
def split(layers: tuple[QuantizedLayer, ...]) -> Network:
    """Input (3, 12) → Linear → Clamp on the host → Linear → Output."""
    first, second = layers
    clamp = Node("clamp", "Clamp", ("a",), {"low": -500, "high": 500})
    graph = Graph((source((3, 12), first.input_exponent), linear(first, "x", "a"), clamp, linear(second, "clamp", "b"),
                   output("b")))  # fmt: skip
    return assemble(graph)


@pytest.fixture
def path(split: Network, tmp_path: Path) -> Path:
    network_file.save(split, tmp_path / "net.eie")
    return tmp_path / "net.eie"


def test_a_chain_is_one_image(layers: tuple[QuantizedLayer, ...]) -> None:
    first, second = layers
    made = assemble(
        Graph((source((12,), first.input_exponent), linear(first, "x", "a"), linear(second, "a", "b"), output("b")))
    )
    assert [node.op for node in made.graph] == ["Input", "Array", "Output"]
    assert [info.name for info in made.images[0].layers] == ["a", "b"]
    assert made.host == ()
    assert made.chain is made.images[0]


def test_a_chain_ends_where_a_value_has_two_readers(layers: tuple[QuantizedLayer, ...]) -> None:
    first, second = layers
    graph = (source((12,), first.input_exponent), linear(first, "x", "a"), linear(second, "a", "b"), output("b"),
             Node("z", "Output", ("a",), {"then": "", "axis": 0}))  # fmt: skip
    assert [len(image.layers) for image in assemble(Graph(graph)).images] == [1, 1]


def test_a_chain_is_no_longer_than_there_are_codebooks(rng: np.random.Generator) -> None:
    params = SMALL.replace(codebooks=3)
    chain = network(rng, params, [6] * 8, 0.5).layers
    nodes = [source((6,), chain[0].input_exponent)]
    for number, layer in enumerate(chain):
        nodes.append(linear(layer, nodes[-1].name, f"layer{number}"))
    parts = partition(Graph((*nodes, output(nodes[-1].name))), params)
    assert [len(chain.layers) for chain in parts.chains] == [3, 3, 1]


def test_chains_end_and_begin_at_a_sum(rng: np.random.Generator) -> None:
    def matrix(name: str, value: str, relu: bool = False) -> Node:
        tensors = {"weight": rng.normal(size=(5, 5)).astype(np.float32)}
        return make("Linear", name, value, tensors=tensors, activation="relu" if relu else "none")

    graph = run_passes(Graph((
        make("Input", "x", shape=(3, 5)), matrix("a", "x", True), matrix("b", "a"), make("Add", "sum", "b", "x"),
        matrix("c", "sum", True), matrix("d", "c"), make("Output", "y", "d"),
    )))  # fmt: skip
    x = rng.normal(size=(20, 3, 5))
    made = compile_graph(graph, SMALL, x)
    assert [node.op for node in made.graph] == ["Input", "Array", "Accumulate", "Array", "Output"]
    assert [node.name for node in made.host] == ["sum"]
    assert [[layer.name for layer in image.layers] for image in made.images] == [["a"], ["c", "d"]]
    result = run_network(made, x, engine="cycles")
    assert np.array_equal(result.raw, run_network(made, x).raw)
    (wanted,) = outputs(graph, [x])
    assert np.sqrt(np.mean((result.value - wanted) ** 2)) < 0.1 * np.sqrt(np.mean(wanted**2))


def test_the_host_computes_what_the_array_does_not(
    split: Network, layers: tuple[QuantizedLayer, ...], rng: np.random.Generator
) -> None:
    x = rng.integers(-300, 300, (2, 3, 12)).astype(np.int16)
    result = run_network(split, x, engine="cycles")
    (first,) = expected(type(network(rng, SMALL, [2, 2], 1.0))((layers[0],), SMALL), x.reshape(6, 12))
    values = np.clip(first, -500, 500).astype(np.int16)
    assert np.array_equal(result.values["clamp"], values.reshape(2, 3, 10))
    assert [(layer.name, layer.on) for layer in result.layers] == [("a", "array"), ("clamp", "host"), ("b", "array")]
    assert [layer.cycles is None for layer in result.layers] == [False, True, False]
    assert result.cycles == sum(run.cycles or 0 for run in result.runs)
    assert len(result.runs[0].records) == 6  # a vector for each place of each sample
    assert np.array_equal(result.raw, run_network(split, x).raw)


def test_what_is_saved_comes_back(split: Network, path: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    back = network_file.load(path)
    network_file.save(back, tmp_path / "again.eie")
    assert (tmp_path / "again.eie").read_bytes() == path.read_bytes()
    x = rng.integers(-300, 300, (2, 3, 12)).astype(np.int16)
    assert np.array_equal(run_network(back, x).raw, run_network(split, x).raw)
    assert [node.name for node in back.host] == ["clamp"]
    with pytest.raises(ImageError, match="2 images of the array, and the host executes clamp"):
        _ = back.chain


def with_header(content: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The file with its header changed and the header's checksum right again."""
    length = int.from_bytes(content[:8], "little")
    outer = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["eie"])
    change(outer["header"])
    outer["crc32"] = network_file._header_crc(outer["header"])
    return save_tensors(load_tensors(content), metadata={"eie": json.dumps(outer)})


def node(header: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in header["graph"] if entry["name"] == name)
    return found


def deep(depth: int) -> Any:
    entry: Any = None
    for _ in range(depth):
        entry = [{"name": "s", "op": "Scan", "inputs": [], "outputs": [], "attributes": {}, "tensors": [],
                  "body": entry, "source": ""}]  # fmt: skip
    return entry


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(graph={}), "the graph is not a list"),
        (lambda h: h.update(graph=[]), "the graph has no Input"),
        (lambda h: h["graph"].append(3), "a node is described by 3"),
        (lambda h: h["graph"][0].pop("body"), "a node is described by"),
        (lambda h: node(h, "clamp").update(op="Chop"), "unknown operator 'Chop'"),
        (lambda h: node(h, "clamp").update(inputs=["b"]), "not made before it"),
        (lambda h: node(h, "clamp").update(inputs="a"), "expected a list of names"),
        (lambda h: node(h, "clamp").update(inputs=[3]), "a name is not a text"),
        (lambda h: node(h, "clamp")["attributes"].update(low=1 << 20), "low is 1048576"),
        (lambda h: node(h, "clamp")["attributes"].update(low=None), "an attribute is None"),
        (lambda h: node(h, "clamp")["attributes"].update(spare=1), "unknown attributes spare"),
        (lambda h: node(h, "clamp").update(tensors=["table"]), "missing .*table"),
        (lambda h: node(h, "x")["attributes"].update(shape=[1 << 40, 12]), "more than"),
        (lambda h: node(h, "x")["attributes"].update(shape=[3, 11]), "widths, exponents and layers"),
        (lambda h: node(h, "x")["attributes"].update(exponent=5), "widths, exponents and layers"),
        (lambda h: node(h, "a")["attributes"].update(image=1), r"the graph runs images \[1, 1\]"),
        (lambda h: node(h, "a")["attributes"].update(image=-1), "image"),
        (lambda h: node(h, "a")["attributes"].update(layers=2), "widths, exponents and layers"),
        (lambda h: node(h, "a")["attributes"].update(width=1 << 30), "width is"),
        (lambda h: h["images"].pop(), "the header and the tensors differ"),
        (lambda h: h["images"].append(h["images"][0]), "the header and the tensors differ"),
        (lambda h: h["graph"][0].update(body=deep(9)), "not a list of nodes"),
        (lambda h: node(h, "clamp")["attributes"].update(low="a"), "low is 'a'; expected a number"),
        (lambda h: node(h, "clamp")["attributes"].update(low=float("nan")), "low is nan; expected a number"),
        (lambda h: node(h, "clamp")["attributes"].update(low=[[1]]), r"an attribute is \[\[1\]\]"),
        (lambda h: node(h, "x")["attributes"].update(shape=3), "shape is 3; expected integers"),
        (lambda h: node(h, "x")["attributes"].update(shape=[1] * 17 + [12]), "expected at most 16"),
        (lambda h: node(h, "x")["attributes"].update(layout=True), "layout is True; expected a text"),
        (lambda h: node(h, "x")["attributes"].update(exponent=1 << 70), "exponent is 1180591620717411303424"),
        (lambda h: node(h, "x")["attributes"].update(kind="index"), "it reads indices"),
        (lambda h: node(h, "y")["attributes"].update(axis="a"), "axis is 'a'; expected an integer"),
        (lambda h: node(h, "a")["attributes"].update(image=0.0), "image is 0.0; expected an integer"),
        (lambda h: node(h, "a")["attributes"].update(image=False), "image is False; expected an integer"),
        (lambda h: h["images"][0][0].update(name="x"), "a layer 'x', and the network another value of that name"),
        (lambda h: h["images"][1][0].update(name="a"), "a layer 'a', and the network another value of that name"),
    ],
)
def test_a_graph_that_lies_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.eie").write_bytes(with_header(path.read_bytes(), change))
    with pytest.raises(ImageError, match=message):
        network_file.load(tmp_path / "bad.eie")


def test_a_header_that_is_nested_deeply_is_refused(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    for depth in range(400, 1000, 20):  # somewhere below, what reads it is deeper in the stack than what parsed it
        deep_text = json.dumps({"header": 0}).replace("0", "[" * depth + "]" * depth)
        (tmp_path / "bad.eie").write_bytes(save_tensors(load_tensors(content), metadata={"eie": deep_text}))
        with pytest.raises(ImageError):
            network_file.load(tmp_path / "bad.eie")
        nested: Any = 0
        for _ in range(depth):
            nested = [nested]
        with contextlib.suppress(RecursionError):  # then there is no such file
            bad = with_header(content, lambda h, nested=nested: node(h, "clamp")["attributes"].update(low=nested))
            (tmp_path / "bad.eie").write_bytes(bad)
        with pytest.raises(ImageError):
            network_file.load(tmp_path / "bad.eie")


@pytest.mark.parametrize("tensor", [np.zeros(3, np.float32), np.zeros(3, np.bool_)])
def test_a_tensor_of_a_foreign_type_is_refused(tensor: NDArray[Any], path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    (tmp_path / "bad.eie").write_bytes(
        save_tensors({**load_tensors(content), "image.0.bias": tensor}, metadata=metadata)
    )
    with pytest.raises(ImageError, match=r"image\.0\.bias is (F32|BOOL); expected one of"):
        network_file.load(tmp_path / "bad.eie")
