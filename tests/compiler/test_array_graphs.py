"""Images of graphs compute what the graph says: read back and run by `tests.compiler.array_reader`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from compiler.errors import ImageError
from compiler.graph.ir import Graph, Node
from compiler.graph.operators import make
from compiler.graph.passes import run_passes
from compiler.lower import draft_segments, outputs
from compiler.lower.layout import Placement
from compiler.options import DEFAULT, Options
from hw.params import Params
from tests.compiler.array_runs import Ran, run_float
from tests.random_graphs import random_graph

PARAMS = Params(pes=16, rows=64)


def options_of(rng: np.random.Generator) -> tuple[Params, Options]:
    params = Params(
        pes=1 << int(rng.integers(0, 6)), rows=int(rng.choice([16, 64, 256])), index_bits=int(rng.integers(4, 7))
    )
    options = Options(
        balanced=bool(rng.integers(4)), skip_empty=bool(rng.integers(4)), fragments=int(rng.integers(1, 9))
    )
    return params, options


@pytest.mark.verifies("convolutions-pooling-residual-sums-concatenation")
def test_random_graphs(request: pytest.FixtureRequest) -> None:
    first = 1000 * request.config.getoption("seed")
    layers, joins, host = 0, 0, Counter[str]()
    for seed in range(first, first + 40):
        graph, data = random_graph(seed)
        ran = run_float(run_passes(graph), data, *options_of(np.random.default_rng(seed)))
        assert not ran.wrong, f"seed {seed}"
        layers += sum(len(image.layers) for image in ran.images)
        joins += sum(len(layer.sources) > 1 for image in ran.images for layer in image.layers)
        host.update(ran.host)
    assert layers > 40
    assert joins > 2


class Net:
    """A float graph, grown node by node."""

    def __init__(self, seed: int, *shape: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Node] = [make("Input", "x", shape=shape)]
        self.data = self.rng.normal(size=(6, *shape))

    def add(self, op: str, *reads: str, **rest: Any) -> str:
        self.nodes.append(make(op, f"n{len(self.nodes)}", *reads, **rest))
        return self.nodes[-1].output

    def conv(self, source: str, shape: tuple[int, ...], density: float = 0.5, **rest: Any) -> str:
        weight = self.rng.normal(size=shape) * (self.rng.random(shape) < density)
        axes = len(shape) - 2
        window = {"stride": (1,) * axes, "padding": (0,) * (2 * axes), "dilation": (1,) * axes, "groups": 1}
        tensors = {"weight": weight.astype(np.float32), "bias": self.rng.normal(size=shape[0])}
        return self.add("Conv", source, tensors=tensors, **{**window, "activation": "relu", **rest})

    def linear(self, source: str, outputs: int, inputs: int) -> str:
        weight = self.rng.normal(size=(outputs, inputs)) * (self.rng.random((outputs, inputs)) < 0.5)
        return self.add("Linear", source, tensors={"weight": weight.astype(np.float32)}, activation="none")

    def pool(self, source: str, op: str, kernel: int, stride: int, padding: int = 0) -> str:
        return self.add(op, source, kernel=(kernel,) * 2, stride=(stride,) * 2, padding=(padding,) * 4, dilation=(1, 1))

    def run(self, params: Params = PARAMS, options: Options = DEFAULT) -> Ran:
        read = {name for node in self.nodes for name in node.inputs}
        ends = [node.output for node in self.nodes if node.output not in read]
        outputs = [make("Output", f"y{n}", name) for n, name in enumerate(ends)]
        return run_float(Graph((*self.nodes, *outputs)), [self.data], params, options)


def names(ran: Ran) -> list[list[str]]:
    return [[image.maps[layer.result].name for layer in image.layers] for image in ran.images]


@pytest.mark.verifies("convolutions-pooling-residual-sums-concatenation")
@pytest.mark.parametrize("pes", [1, 8, 32])
@pytest.mark.parametrize(
    "rest",
    [
        {"padding": (1, 1, 1, 1)},
        {"stride": (2, 3), "padding": (2, 0, 1, 2)},
        {"dilation": (2, 3), "padding": (2, 3, 2, 3)},
        {"stride": (4, 4)},  # pixels in between are read by nobody
        {"groups": 3, "padding": (1, 1, 1, 1)},
        {"groups": 6},
    ],
    ids=str,
)
def test_convolutions(pes: int, rest: dict[str, Any]) -> None:
    net = Net(1, 6, 9, 10)
    net.conv(net.conv("x", (12, 6 // rest.get("groups", 1), 3, 3), **rest), (5, 12, 1, 1))
    ran = net.run(PARAMS.replace(pes=pes))
    assert not ran.wrong
    assert not ran.host


@pytest.mark.verifies("convolutions-pooling-residual-sums-concatenation")
def test_pooling_of_whole_windows_is_part_of_the_convolution() -> None:
    net = Net(2, 3, 13, 14)
    fused = net.pool(net.conv("x", (10, 3, 3, 3)), "MaxPool", 2, 2)
    skipping = net.pool(net.conv(fused, (9, 10, 2, 2)), "MaxPool", 1, 2)
    ran = net.run()
    assert not ran.wrong
    assert names(ran) == [[fused, skipping]]
    (image,) = ran.images
    assert not any(step.maximum for steps in image.steps for step in steps)


@pytest.mark.verifies("convolutions-pooling-residual-sums-concatenation")
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (3, 1, 0), (2, 2, 1)])
def test_other_pooling_is_a_layer_of_maxima(kernel: int, stride: int, padding: int) -> None:
    net = Net(3, 3, 11, 9)
    made = net.conv("x", (20, 3, 3, 3), activation="none")
    net.conv(net.pool(made, "MaxPool", kernel, stride, padding), (4, 20, 1, 1))
    ran = net.run(PARAMS.replace(pes=8, index_bits=4))
    assert not ran.wrong
    (image,) = ran.images
    assert [steps[0].maximum for steps in image.steps] == [0, 1, 0]
    assert image.layers[1].padding == 0


def test_a_convolution_that_others_read_is_not_pooled_away() -> None:
    net = Net(4, 3, 8, 8)
    made = net.conv("x", (6, 3, 3, 3))
    pooled = net.pool(made, "MaxPool", 2, 2)
    net.conv(made, (4, 6, 1, 1))
    ran = net.run()
    assert not ran.wrong
    assert sorted(names(ran)[0]) == sorted([made, pooled, "n3"])


@pytest.mark.verifies("convolutions-pooling-residual-sums-concatenation")
def test_residual_concat_slice_and_pad_take_no_layers() -> None:
    net = Net(5, 8, 6, 6)
    left = net.conv("x", (8, 8, 1, 1))
    joined = net.add("Concat", left, "x", axis=0)
    part = net.add("Slice", joined, axis=0, begin=3, end=13, step=2)
    padded = net.add("Pad", part, before=(0, 1, 2), after=(0, 0, 1))
    right = net.conv(padded, (8, 5, 2, 4))
    added = net.add("Add", right, left, activation="relu")
    mean = net.add("AveragePool", added, kernel=(6, 6), stride=(1, 1), padding=(0,) * 4, dilation=(1, 1))
    flat = net.add("Reshape", mean, shape=(8,))
    net.linear(flat, 5, 8)
    ran = net.run()
    assert not ran.wrong
    assert not ran.host
    assert len(ran.images) == 1
    sources = {layer.name: len(layer.sources) for layer in ran.images[0].layers}
    assert sources[right] == sources[added] == 2


@pytest.mark.verifies("convolutions-pooling-residual-sums-concatenation")
@pytest.mark.parametrize("channels", [3, 16])
def test_a_map_is_flattened_in_the_window_of_the_next_layer(channels: int) -> None:
    net = Net(6, 2, 6, 5)
    made = net.conv("x", (channels, 2, 3, 3))
    flat = net.add("Reshape", made, shape=(channels * 4 * 3,))
    net.linear(net.linear(flat, 20, channels * 12), 3, 20)
    ran = net.run()
    assert not ran.wrong
    assert not ran.host
    (step,) = ran.images[0].steps[1]
    assert (step.wy, step.wx) == (4, 3)


@pytest.mark.verifies("convolutions-pooling-residual-sums-concatenation")
@pytest.mark.parametrize("read_as_map", [False, True])
def test_an_input_that_is_only_flattened_comes_as_a_vector(read_as_map: bool) -> None:
    """Its numbers fill all lanes then; as a map of one channel each would take an activation vector of its own."""
    net = Net(6, 1, 8, 8)
    flat = net.add("Reshape", "x", shape=(64,))
    net.linear(flat, 20, 64)
    if read_as_map:
        net.conv("x", (3, 1, 3, 3))
    ran = net.run()
    assert not ran.wrong
    assert ran.host == ([] if read_as_map else ["Reshape"])
    sizes = [step.wy * step.wx * step.vectors for steps in ran.images[0].steps for step in steps]
    assert max(sizes) == (64 if read_as_map else 8)


@pytest.mark.verifies("convolutions-pooling-residual-sums-concatenation")
def test_sequences_have_channels_first_or_last() -> None:
    net = Net(7, 9, 6)
    made = net.linear("x", 10, 6)  # nine places of six features
    turned = net.add("Transpose", made, order=(1, 0))
    net.conv(turned, (4, 10, 3), padding=(1, 1))
    ran = net.run()
    assert not ran.wrong
    assert not ran.host
    (array,) = (node for node in ran.graph if node.op == "Array")
    assert (array["reads"], array["makes"]) == (("WC",), ("CW",))


@pytest.mark.verifies("images-host-turn-several-outputs")
@pytest.mark.parametrize("there", [True, False])
def test_the_host_stands_between_two_images(there: bool) -> None:
    """Without tables and the elementwise unit; with them all is one image."""
    net = Net(8, 7)
    first = net.linear("x", 12, 7)
    gate = net.add("Activation", first, function="sigmoid")
    product = net.add("Multiply", gate, first, activation="none")
    second = net.linear(product, 5, 12)
    net.add("Concat", second, first, axis=0)
    ran = net.run(PARAMS if there else PARAMS.replace(tables=0, elementwise=False))
    assert not ran.wrong
    assert ran.host == (["Concat"] if there else ["Table", "Multiply", "Concat"])
    assert names(ran) == ([[first, gate, product, second]] if there else [[first], [second]])


@pytest.mark.verifies("images-host-turn-several-outputs")
def test_several_outputs_leave_an_image() -> None:
    net = Net(9, 4, 5, 5)
    made = net.conv("x", (6, 4, 3, 3))
    for channels in (3, 5):
        net.conv(made, (channels, 6, 2, 2), activation="none")
    ran = net.run()
    assert not ran.wrong
    (array,) = (node for node in ran.graph if node.op == "Array")
    assert array.outputs == ("n2", "n3")
    assert array["shape"] == (3, 2, 2, 5, 2, 2)


@pytest.mark.verifies("images-host-turn-several-outputs")
def test_rows_beyond_the_accumulators_are_blocks() -> None:
    net = Net(10, 5, 4, 4)
    net.conv(net.conv("x", (70, 5, 2, 2)), (6, 70, 1, 1))
    ran = net.run(Params(pes=8, rows=4, acc_bits=40))
    assert not ran.wrong
    (image,) = ran.images
    assert [layer.name for layer in image.layers] == ["n1#0", "n1#1", "n1#2", "n2"]
    assert {layer.result for layer in image.layers[:3]} == {image.layers[0].result}
    assert [steps[0].chained for steps in image.steps] == [0, 0, 0, 1]


@pytest.mark.verifies("images-host-turn-several-outputs")
@pytest.mark.parametrize("pes", [4, 16])
def test_layers_larger_than_the_memories_are_streamed(pes: int) -> None:
    net = Net(11, 3, 5, 5)
    made = net.conv("x", (10, 3, 2, 2))
    flat = net.add("Reshape", made, shape=(160,))
    net.linear(net.linear(flat, 60, 160), 9, 60)
    ran = net.run(Params(pes=pes, weight_words=384 // pes, pointer_blocks=64, rows=64))
    assert not ran.wrong
    (image,) = ran.images
    steps = [step for of_layer in image.steps for step in of_layer]
    assert sum(step.refill for step in steps) > 3
    assert not steps[0].refill
    assert [step.buffer for step in steps if step.refill] == [n % 2 for n in range(sum(s.refill for s in steps))]


def _changed(function: Any, name: str, change: Any) -> Any:
    def run(*args: Any, **rest: Any) -> Any:
        return function(*args, **{**rest, name: change(rest[name])})

    return run


@pytest.mark.verifies("planted-faults-window-order-part")
@pytest.mark.parametrize("fault", ["origin", "stride", "order"])
def test_a_wrong_window_or_order_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(12, 8, 6, 7)
    net.conv(net.conv("x", (10, 8, 3, 3)), (5, 10, 3, 3))
    assert not net.run().wrong
    if fault == "order":
        place = Placement.place
        monkeypatch.setattr(Placement, "place", property(lambda self: place.__get__(self)[::-1]))
    else:
        wrong = _changed(draft_segments.segment_of, fault, lambda at: (at[0], at[1] + 1))
        monkeypatch.setattr(draft_segments, "segment_of", wrong)
    assert net.run().wrong


@pytest.mark.verifies("planted-faults-window-order-part")
def test_a_part_of_a_row_that_is_not_read_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(13, 400)
    net.linear("x", 10, 400)
    ran = net.run(PARAMS.replace(pes=8))
    assert not ran.wrong
    assert ran.images[0].steps[0][0].words > 10  # rows are split
    reads = outputs._reads
    monkeypatch.setattr(
        outputs, "_reads", lambda rows, assignment: tuple(each[:-1] for each in reads(rows, assignment))
    )
    with pytest.raises(ImageError, match="an entry stands at an accumulator that no word reads"):
        net.run(PARAMS.replace(pes=8))
