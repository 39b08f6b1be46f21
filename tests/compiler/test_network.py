"""A network of several images and host operators: cut out of a graph, written, read, and never believed."""

from __future__ import annotations

import contextlib
import dataclasses
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
from compiler.lower.build import build
from compiler.lower.chain import QuantizedLayer
from compiler.lower.partition import partition
from compiler.lower.pipeline import compile_graph
from compiler.network import Network
from hw.params import Params
from sim.network import run_network
from tests.compiler.networks import SMALL, expected, network

WIDTHS = [12, 10, 7]


def linear(layer: QuantizedLayer, source: str, name: str) -> Node:
    attributes = {
        "shift": layer.shift, "weight_exponent": layer.weight_exponent, "exponent": layer.output_exponent,
        "activation": layer.activation, "exact": layer.exact,
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


def assemble(graph: Graph, params: Params = SMALL) -> Network:
    parts = partition(graph, params)
    return Network(params, parts.graph, tuple(build(program, params) for program in parts.programs))


@pytest.fixture
def split(layers: tuple[QuantizedLayer, ...]) -> Network:
    """Input (3, 12) → Linear → Multiply on the host → Linear → Output, and Clamp on the host → Output."""
    first, second = layers
    exponent = 2 * first.output_exponent + 4
    square = Node("square", "Multiply", ("a", "a"), {"shift": 4, "exponent": exponent, "activation": "none"})
    clamp = Node("clamp", "Clamp", ("square",), {"low": -500, "high": 500})
    second = dataclasses.replace(
        second, input_exponent=exponent, output_exponent=exponent + second.weight_exponent + second.shift
    )
    graph = Graph((source((3, 12), first.input_exponent), linear(first, "x", "a"), square, clamp,
                   linear(second, "square", "b"), output("b"),
                   Node("z", "Output", ("clamp",), {"then": "", "axis": 0})))  # fmt: skip
    return assemble(graph, SMALL.replace(elementwise=False))


@pytest.fixture
def path(split: Network, tmp_path: Path) -> Path:
    network_file.save(split, tmp_path / "net.eie")
    return tmp_path / "net.eie"


@pytest.mark.verifies("network-parts-array-cut-out")
def test_a_chain_is_one_image(layers: tuple[QuantizedLayer, ...]) -> None:
    first, second = layers
    made = assemble(
        Graph((source((12,), first.input_exponent), linear(first, "x", "a"), linear(second, "a", "b"), output("b")))
    )
    assert [node.op for node in made.graph] == ["Input", "Array", "Output"]
    assert [info.name for info in made.images[0].layers] == ["a", "b"]
    assert made.host == ()
    assert made.only is made.images[0]


@pytest.mark.verifies("network-parts-array-cut-out")
def test_a_value_with_two_readers_leaves_its_image(layers: tuple[QuantizedLayer, ...]) -> None:
    first, second = layers
    graph = (source((12,), first.input_exponent), linear(first, "x", "a"), linear(second, "a", "b"), output("b"),
             Node("z", "Output", ("a",), {"then": "", "axis": 0}))  # fmt: skip
    [image] = assemble(Graph(graph)).images
    assert [image.maps[number].name for number in image.outputs] == ["a", "b"]


@pytest.mark.verifies("network-parts-array-cut-out")
def test_an_image_has_no_more_codebooks_than_there_are(rng: np.random.Generator) -> None:
    params = SMALL.replace(codebooks=3)
    chain = network(rng, params, [6] * 8, 0.5).layers
    nodes = [source((6,), chain[0].input_exponent)]
    for number, layer in enumerate(chain):
        nodes.append(linear(layer, nodes[-1].name, f"layer{number}"))
    parts = partition(Graph((*nodes, output(nodes[-1].name))), params)
    assert [len(program.layers) for program in parts.programs] == [3, 3, 1]


@pytest.mark.verifies("network-parts-array-cut-out")
def test_a_sum_is_a_layer_of_the_array(rng: np.random.Generator) -> None:
    def matrix(name: str, value: str, relu: bool = False) -> Node:
        tensors = {"weight": rng.normal(size=(5, 5)).astype(np.float32)}
        return make("Linear", name, value, tensors=tensors, activation="relu" if relu else "none")

    graph = run_passes(Graph((
        make("Input", "x", shape=(3, 5)), matrix("a", "x", True), matrix("b", "a"), make("Add", "sum", "b", "x"),
        matrix("c", "sum", True), matrix("d", "c"), make("Output", "y", "d"),
    )))  # fmt: skip
    x = rng.normal(size=(20, 3, 5))
    made = compile_graph(graph, SMALL, x)
    assert [node.op for node in made.graph] == ["Input", "Array", "Output"]
    assert [[layer.name for layer in image.layers] for image in made.images] == [["a", "sum", "c", "d"]]
    result = run_network(made, x, engine="cycles")
    assert np.array_equal(result.raw, run_network(made, x).raw)
    (wanted,) = outputs(graph, [x])
    assert np.sqrt(np.mean((result.value - wanted) ** 2)) < 0.1 * np.sqrt(np.mean(wanted**2))


@pytest.mark.verifies("network-array-cannot-run-host")
def test_the_host_computes_what_the_array_does_not(
    split: Network, layers: tuple[QuantizedLayer, ...], rng: np.random.Generator
) -> None:
    x = rng.integers(-300, 300, (2, 3, 12)).astype(np.int16)
    result = run_network(split, x, engine="cycles")
    (first,) = expected(type(network(rng, SMALL, [2, 2], 1.0))((layers[0],), SMALL), x.reshape(6, 12))
    square = np.clip((first.astype(object) ** 2 + 8) // 16, -32768, 32767).astype(np.int16)
    assert np.array_equal(result.values["square"], square.reshape(2, 3, 10))
    assert np.array_equal(result.values["clamp"], np.clip(square, -500, 500).reshape(2, 3, 10))
    assert [(layer.name, layer.on) for layer in result.layers] == [
        ("a", "array"), ("square", "host"), ("clamp", "host"), ("b", "array"),
    ]  # fmt: skip
    assert [layer.cycles is None for layer in result.layers] == [False, True, True, False]
    assert result.cycles == sum(run.cycles or 0 for run in result.runs)
    assert np.array_equal(result.raw, run_network(split, x).raw)


@pytest.mark.verifies("network-file-saved-comes-back")
def test_what_is_saved_comes_back(split: Network, path: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    back = network_file.load(path)
    network_file.save(back, tmp_path / "again.eie")
    assert (tmp_path / "again.eie").read_bytes() == path.read_bytes()
    x = rng.integers(-300, 300, (2, 3, 12)).astype(np.int16)
    assert np.array_equal(run_network(back, x).raw, run_network(split, x).raw)
    assert [node.name for node in back.host] == ["square", "clamp"]
    with pytest.raises(ImageError, match="2 images of the array, and the host executes square, clamp"):
        _ = back.only


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


@pytest.mark.verifies("network-file-saved-comes-back")
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
        (lambda h: node(h, "x")["attributes"].update(shape=[3, 11]), "in its image"),
        (lambda h: node(h, "x")["attributes"].update(exponent=5), "in its image"),
        (lambda h: node(h, "a")["attributes"].update(image=1), r"the graph runs images \[1, 1\]"),
        (lambda h: node(h, "a")["attributes"].update(image=-1), "image"),
        (lambda h: node(h, "a")["attributes"].update(makes=["CW"]), "in its image"),
        (lambda h: node(h, "a")["attributes"].update(makes=["WH"]), "a result has axes 'WH'"),
        (lambda h: node(h, "a")["attributes"].update(makes=["C"]), "the axes are"),
        (lambda h: node(h, "a")["attributes"].update(makes=[]), r"makes are \(\); expected 1"),
        (lambda h: node(h, "a")["attributes"].update(reads=[]), r"reads are \(\)"),
        (lambda h: node(h, "a")["attributes"].update(reads="WC"), "reads is 'WC'; expected texts"),
        (lambda h: node(h, "a")["attributes"].update(reads=["C"]), "as 'C'; expected one of C, CW"),
        (lambda h: node(h, "a")["attributes"].update(shape=[3, 1 << 30]), "expected sizes of"),
        (lambda h: node(h, "a")["attributes"].update(layouts=["C"]), "layout 'C' is not one of 2 axes"),
        (lambda h: node(h, "a")["attributes"].update(exponents=[1 << 30]), "exponent is 1073741824"),
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
        (lambda h: node(h, "x")["attributes"].update(kind="index"), "it reads index T3xC12"),
        (lambda h: node(h, "y")["attributes"].update(axis="a"), "axis is 'a'; expected an integer"),
        (lambda h: node(h, "a")["attributes"].update(image=0.0), "image is 0.0; expected an integer"),
        (lambda h: node(h, "a")["attributes"].update(image=False), "image is False; expected an integer"),
        (lambda h: h["images"][0]["maps"][1].update(name="clamp"), "a map 'clamp', and the network another value"),
    ],
)
def test_a_graph_that_lies_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.eie").write_bytes(with_header(path.read_bytes(), change))
    with pytest.raises(ImageError, match=message):
        network_file.load(tmp_path / "bad.eie")


@pytest.mark.verifies("network-file-headers-nested-deeply")
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


@pytest.mark.verifies("network-file-saved-comes-back")
@pytest.mark.parametrize("tensor", [np.zeros(3, np.float32), np.zeros(3, np.bool_)])
def test_a_tensor_of_a_foreign_type_is_refused(tensor: NDArray[Any], path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    (tmp_path / "bad.eie").write_bytes(
        save_tensors({**load_tensors(content), "image.0.table": tensor}, metadata=metadata)
    )
    with pytest.raises(ImageError, match=r"image\.0\.table is (F32|BOOL); expected one of"):
        network_file.load(tmp_path / "bad.eie")


@pytest.mark.verifies("robust-headers")
def test_more_axes_than_numpy_knows_are_refused(path: Path) -> None:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["image.0.orders"]["shape"] += [1] * 200
    lying = json.dumps(header).encode()
    path.write_bytes(len(lying).to_bytes(8, "little") + lying + content[8 + size :])
    with pytest.raises(ImageError, match=r"image\.0\.orders has more than 32 axes"):
        network_file.load(path)
