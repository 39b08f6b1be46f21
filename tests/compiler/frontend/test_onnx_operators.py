"""Each ONNX operation, alone or with what belongs to it, computes what onnx's reference implementation does."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto

from compiler.errors import ModelError
from compiler.frontend import onnx_ops
from tests.compiler.frontend.onnx_models import check, model, node

Rng = np.random.Generator
Make = Callable[[Rng], onnx.ModelProto]
N = "batch"


def floats(rng: Rng, *shape: int) -> Any:
    return rng.normal(size=shape).astype(np.float32)


def ints(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


def slices(*given: tuple[int, ...]) -> dict[str, Any]:
    return {name: ints(*numbers) for name, numbers in zip(("starts", "ends", "axes", "steps"), given, strict=True)}


def single(op: str, *shape: int, opset: int = 20, extra: dict[str, Any] | None = None, **attributes: Any) -> Make:
    """One operation on one input, with constants behind it."""
    extra = extra or {}
    reads = " ".join(["x", *extra])
    return lambda rng: model([node(op, reads, **attributes)], {"x": [N, *shape]}, extra, opset=opset)


def weighted(op: str, shape: tuple[int, ...], weight: tuple[int, ...], bias: int = 0, **attributes: Any) -> Make:
    def make(rng: Rng) -> onnx.ModelProto:
        weights = {"fc.weight": floats(rng, *weight)} | ({"fc.bias": floats(rng, bias)} if bias else {})
        return model([node(op, " ".join(["x", *weights]), **attributes)], {"x": [N, *shape]}, weights)

    return make


def binary(op: str, shape: tuple[int, ...], constant: tuple[int, ...], first: bool = False) -> Make:
    def make(rng: Rng) -> onnx.ModelProto:
        value = rng.uniform(0.5, 2, constant).astype(np.float32)
        return model([node(op, "c x" if first else "x c")], {"x": [N, *shape]}, {"c": value})

    return make


def both(op: str, first: tuple[int, ...], second: tuple[int, ...]) -> Make:
    return lambda rng: model([node(op, "x z")], {"x": [N, *first], "z": [N, *second]})


def batch_norm(*shape: int) -> Make:
    def make(rng: Rng) -> onnx.ModelProto:
        names = "scale bias mean"
        weights = {name: floats(rng, shape[0]) for name in names.split()} | {
            "var": rng.uniform(0.5, 2, shape[0]).astype("f")
        }
        return model([node("BatchNormalization", f"x {names} var", epsilon=1e-3)], {"x": [N, *shape]}, weights)

    return make


def recurrent(op: str, layout: int = 0, direction: str = "forward", states: str = "", **attributes: Any) -> Make:
    """Over (steps, samples, 3) behind a Transpose, or (samples, steps, 3)."""

    def make(rng: Rng) -> onnx.ModelProto:
        gates, hidden, both = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 4, 2 if direction == "bidirectional" else 1
        weights = {
            "W": floats(rng, both, gates * hidden, 3), "R": floats(rng, both, gates * hidden, hidden),
            "B": floats(rng, both, 2 * gates * hidden),
        }  # fmt: skip
        inputs: dict[str, Any] = {"x": [N, 5, 3]}
        reads = f"{'x' if layout else 't'} W R B"
        before = [] if layout else [node("Transpose", "x", "t", perm=[1, 0, 2])]
        if states == "constant":
            reads += " -" + " h" + " c" * (op == "LSTM")
            weights |= {name: np.repeat(floats(rng, both, 1, hidden), 1, axis=1) for name in "hc"}
        results = "y yh" + " yc" * (op == "LSTM")
        nodes = [
            *before,
            node(op, reads, results, hidden_size=hidden, direction=direction, layout=layout, **attributes),
        ]
        return model(nodes, inputs, weights, results.split())

    return make


def lookup(rng: Rng) -> onnx.ModelProto:
    return model(
        [node("Gather", "table x", "e"), node("MatMul", "e w")],
        {"x": [N, 5]},
        {"table": floats(rng, 7, 4), "w": floats(rng, 4, 2)},
        kinds={"x": TensorProto.INT64},
    )


def shape_arithmetic(rng: Rng) -> onnx.ModelProto:
    """x.view(x.size(0), -1), as torch's older exporter writes it."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "n", axis=0),
        node("Unsqueeze", "n axes", "n1"),
        node("Concat", "n1 minus", "target", axis=0),
        node("Reshape", "x target"),
    ]
    return model(nodes, {"x": [N, 2, 3, 4]}, {"zero": np.array(0), "axes": ints(0), "minus": ints(-1)})


def split(rng: Rng) -> onnx.ModelProto:
    nodes = [node("Split", "x parts", "a b c", axis=-1), node("Concat", "c a b", axis=2)]
    return model(nodes, {"x": [N, 2, 7]}, {"parts": ints(1, 2, 4)})


def quantized(rng: Rng) -> onnx.ModelProto:
    weights = {
        "s": np.float32(0.125), "z": np.uint8(100), "w": rng.integers(-9, 9, (3, 4)).astype(np.int8),
        "ws": rng.uniform(0.1, 1, 3).astype(np.float32), "wz": np.zeros(3, np.int8),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("DequantizeLinear", "w ws wz", "weight", axis=0),
        node("Gemm", "d weight", transB=1),
    ]
    return model(nodes, {"x": [N, 4]}, weights)


def tail(*nodes: onnx.NodeProto, opset: int = 20) -> Make:
    return lambda rng: model(nodes, {"x": [N, 6]}, opset=opset)


MODELS: dict[str, Make] = {
    "Gemm": weighted("Gemm", (4,), (4, 3), 3),
    "Gemm with factors": weighted("Gemm", (4,), (3, 4), 3, transB=1, alpha=0.5, beta=2.0),
    "Gemm without bias": weighted("Gemm", (4,), (3, 4), transB=1),
    "MatMul": weighted("MatMul", (5, 4), (4, 3)),
    "MatMul by a vector": weighted("MatMul", (5, 4), (4,)),
    "MatMul from the left": lambda rng: model([node("MatMul", "w x")], {"x": [N, 4, 5]}, {"w": floats(rng, 3, 4)}),
    "Einsum": weighted("Einsum", (5, 4), (4, 3), equation="bti,io->bto"),
    "Einsum turned": weighted("Einsum", (5, 4), (3, 5), equation="bti,ot->boi"),
    "Conv": weighted("Conv", (4, 7, 6), (6, 2, 3, 2), 6, group=2, strides=[2, 1], pads=[1, 0, 2, 1], dilations=[1, 2]),
    "Conv 1-D": weighted("Conv", (4, 7), (6, 4, 3), 6, pads=[0, 2]),
    "Conv same upper": weighted("Conv", (3, 7, 6), (2, 3, 4, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    "Conv same lower": weighted("Conv", (3, 7, 6), (2, 3, 4, 2), auto_pad="SAME_LOWER"),
    "Conv valid": weighted("Conv", (3, 7, 6), (2, 3, 4, 2), auto_pad="VALID"),
    "BatchNormalization": batch_norm(3, 4, 5),
    "BatchNormalization of features": batch_norm(6),
    "Add": binary("Add", (3, 4), (4,)),
    "Add channels": binary("Add", (3, 4), (1, 3, 1)),
    "Add wider": binary("Add", (3, 1), (1, 5)),
    "Sub": binary("Sub", (4,), (4,)),
    "Sub from a constant": binary("Sub", (4,), (), first=True),
    "Mul": binary("Mul", (4,), (4,), first=True),
    "Div": binary("Div", (4,), (4,)),
    "Add of values": both("Add", (3, 4), (3, 4)),
    "Sub of values": both("Sub", (3, 4), (3, 4)),
    "Mul of values": both("Mul", (3, 4), (3, 4)),
    "Mul of a channel and a map": both("Mul", (3, 1, 1), (3, 4, 5)),
    "Mul of a map and one channel": both("Mul", (3, 4, 5), (1, 4, 5)),
    "Sum": both("Sum", (4,), (4,)),
    "Pow": single("Pow", 4, extra={"two": np.float32(2)}),
    "Neg": single("Neg", 4),
    "Relu": single("Relu", 4),
    "Sigmoid": single("Sigmoid", 4),
    "LeakyRelu": single("LeakyRelu", 4, alpha=0.1),
    "PRelu": single("PRelu", 3, 4, extra={"slope": np.float32([[0.5], [0.1], [-1]])}),
    "Abs": single("Abs", 4),
    "Tanh": single("Tanh", 4),
    "Softplus": single("Softplus", 4),
    "HardSwish": single("HardSwish", 4),
    "HardSigmoid": single("HardSigmoid", 4),
    "HardSigmoid as torch has it": single("HardSigmoid", 4, alpha=1 / 6),
    "Gelu": single("Gelu", 4),
    "Gelu by tanh": single("Gelu", 4, approximate="tanh"),
    "Clip": single("Clip", 4, extra={"low": np.float32(-0.5), "high": np.float32(0.5)}),
    "Clip below": single("Clip", 4, extra={"low": np.float32(0)}),
    "Clip of old": single("Clip", 4, opset=9, min=-0.5, max=0.25),
    "Max": single("Max", 4, extra={"low": np.float32(0.25)}),
    "Min": single("Min", 4, extra={"high": np.float32([0.25])}),
    "MaxPool": single("MaxPool", 2, 7, 6, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]),
    "MaxPool rounded up": single("MaxPool", 2, 7, 6, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "MaxPool 1-D": single("MaxPool", 2, 7, kernel_shape=[3]),
    "AveragePool": single("AveragePool", 2, 7, 6, kernel_shape=[3, 2], strides=[2, 1]),
    "AveragePool with padding": single("AveragePool", 2, 7, 6, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "AveragePool that counts padding": single(
        "AveragePool", 2, 7, 6, kernel_shape=[3, 3], pads=[1, 1, 0, 1], count_include_pad=1
    ),
    "AveragePool 1-D with padding": single("AveragePool", 2, 7, kernel_shape=[3], pads=[1, 1]),
    "AveragePool rounded up": single("AveragePool", 2, 6, 6, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "GlobalAveragePool": single("GlobalAveragePool", 3, 4, 5),
    "GlobalMaxPool": single("GlobalMaxPool", 3, 4, 5),
    "ReduceMean": single("ReduceMean", 3, 4, 5, extra={"axes": ints(2, 3)}, keepdims=0),
    "ReduceMean of old": single("ReduceMean", 3, 4, 5, opset=13, axes=[-1], keepdims=1),
    "ReduceSum": single("ReduceSum", 3, 4, extra={"axes": ints(1)}, keepdims=0),
    "ReduceMax": single("ReduceMax", 3, 4, extra={"axes": ints(2)}),
    "Concat": lambda rng: model(
        [node("Concat", "x z c", axis=1)], {"x": [1, 2, 3], "z": [1, 4, 3]}, {"c": floats(rng, 1, 2, 3)}
    ),
    "Slice": single("Slice", 6, 5, extra=slices((1, -4), (99, -1), (1, 2), (2, 1))),
    "Slice backwards": single("Slice", 6, extra=slices((-1,), (-99,), (1,), (-1,))),
    "Tile": single("Tile", 2, 3, extra={"repeats": ints(1, 2, 3)}),
    "OneHot": lambda rng: model(
        [node("OneHot", "x depth values")], {"x": [N, 5]}, {"depth": np.array(4), "values": np.float32([-1, 2])},
        kinds={"x": TensorProto.INT64},
    ),
    "Einsum with dots": weighted("Einsum", (5, 4), (4, 3), equation="...i,io->...o"),
    "Einsum of a vector": weighted("Einsum", (5, 4), (5,), equation="bti,t->ib"),
    "Slice of old": single("Slice", 6, 5, opset=9, starts=[1], ends=[3], axes=[2]),
    "Split": split,
    "Split of old": lambda rng: model(
        [node("Split", "x", "a b", axis=1, split=[1, 3]), node("Identity", "b")], {"x": [N, 4]}, opset=11
    ),
    "Split evenly": lambda rng: model(
        [node("Split", "x", "a b", axis=1, num_outputs=2), node("Sub", "a b")], {"x": [N, 4]}
    ),
    "Gather of a table": lookup,
    "Gather of a table of matrices": lambda rng: model(
        [node("Gather", "table x")], {"x": [N, 5]}, {"table": floats(rng, 3, 4, 2)}, kinds={"x": TensorProto.INT64}
    ),
    "Gather of numbers": lambda rng: model(
        [node("Gather", "table x")], {"x": [N, 5]}, {"table": floats(rng, 3)}, kinds={"x": TensorProto.INT64}
    ),
    "Gather one place": single("Gather", 4, 3, extra={"place": np.array(-1)}, axis=1),
    "Gather several places": single("Gather", 4, 3, extra={"places": ints(3, 0, 2)}, axis=1),
    "GatherND": lambda rng: model(
        [node("Transpose", "x", "t", perm=[1, 0, 2]), node("GatherND", "t places", "g"),
         node("Transpose", "g", perm=[1, 0, 2])],
        {"x": [N, 4, 3]}, {"places": np.array([[2], [0]])},
    ),
    "GatherND of a table": lambda rng: model(
        [node("GatherND", "table x")], {"x": [N, 5, 1]}, {"table": floats(rng, 3, 4)}, kinds={"x": TensorProto.INT64}
    ),
    "Reshape": single("Reshape", 4, 3, extra={"shape": ints(0, -1)}),
    "Reshape apart": single("Reshape", 12, extra={"shape": ints(-1, 2, 6)}),
    "Flatten": single("Flatten", 2, 3, 4),
    "Squeeze": single("Squeeze", 1, 4, extra={"axes": ints(1)}),
    "Squeeze of old": single("Squeeze", 4, 1, opset=11, axes=[2]),
    "Unsqueeze": single("Unsqueeze", 4, extra={"axes": ints(0, -1)}),
    "Unsqueeze of old": single("Unsqueeze", 4, opset=11, axes=[1]),
    "Transpose": single("Transpose", 2, 3, 4, perm=[0, 3, 1, 2]),
    "Transpose of all": single("Transpose", 4),
    "Pad": single("Pad", 2, 4, 5, extra={"pads": ints(0, 0, 1, 0, 0, 1, 2, 3)}),
    "Pad of old": single("Pad", 4, opset=9, pads=[0, 1, 0, 2]),
    "Expand": single("Expand", 3, 1, extra={"shape": ints(1, 3, 4)}),
    "Identity, Dropout, Cast": lambda rng: model(
        [node("Identity", "x", "a"), node("Dropout", "a", "b"), node("Cast", "b", to=TensorProto.FLOAT)], {"x": [N, 4]}
    ),
    "shape arithmetic": shape_arithmetic,
    "ArgMax": tail(node("ArgMax", "x", axis=1, keepdims=0)),
    "ArgMax, axis kept": tail(node("ArgMax", "x", axis=-1)),
    "Softmax": tail(node("Softmax", "x")),
    "Softmax of old": tail(node("Softmax", "x", axis=1), opset=11),
    "LogSoftmax": tail(node("LogSoftmax", "x", axis=1)),
    "ArgMax of Softmax": tail(node("Softmax", "x", "s"), node("ArgMax", "s", axis=1, keepdims=0)),
    "LSTM": recurrent("LSTM"),
    "LSTM both ways": recurrent("LSTM", direction="bidirectional"),
    "LSTM backwards": recurrent("LSTM", direction="reverse"),
    "LSTM with states": recurrent("LSTM", states="constant"),
    "GRU": recurrent("GRU", linear_before_reset=1),
    "GRU, reset first": recurrent("GRU"),
    "GRU both ways": recurrent("GRU", direction="bidirectional", linear_before_reset=1),
    "RNN": recurrent("RNN"),
    "RNN with samples first": recurrent("RNN", layout=1),
    "LSTM with samples first": recurrent("LSTM", layout=1),
    "quantized": quantized,
}  # fmt: skip


ONE_SAMPLE = {"Concat", "LSTM with states"}
"""A constant beside the samples fixes their number."""


@pytest.mark.verifies("onnx-operation-before-after-passes")
@pytest.mark.parametrize("name", MODELS)
def test_operation_computes_what_the_reference_does(name: str, rng: Rng) -> None:
    check(MODELS[name](rng), rng, batch=1 if name in ONE_SAMPLE else 3)


FAULTS: list[tuple[str, str, str, str]] = [
    # module, what stands there, the fault, a model that shows it
    ("onnx_recurrent", '"LSTM": (0, 2, 3, 1)', '"LSTM": (0, 1, 2, 3)', "LSTM"),
    ("onnx_recurrent", '"GRU": (1, 0, 2)', '"GRU": (0, 1, 2)', "GRU"),
    ("onnx_recurrent", "both[place, len(rows) :]", "both[place, : len(rows)]", "GRU"),
    ("onnx_recurrent", '"bidirectional": (False, True)', '"bidirectional": (True, False)', "LSTM both ways"),
    ("onnx_recurrent", 'if call.attributes.get("linear_before_reset", 0)', "if True", "GRU, reset first"),
    ("onnx_maps", 'if auto == "SAME_UPPER" else', 'if auto == "SAME_LOWER" else', "Conv same upper"),
    ("onnx_maps", 'if auto == "SAME_UPPER" else', "if True else", "Conv same lower"),
    ("onnx_maps", 'given if call.attributes.get("count_include_pad", 0) else', "given if True else",
     "AveragePool with padding"),
    ("onnx_maps", '(at < size + known[1])', "(at < size + 99)", "AveragePool rounded up"),
    ("onnx_maps", 'groups=call.attributes.get("group", 1)', "groups=1", "Conv"),
    ("onnx_maps", 'call.attributes.get("ceil_mode", 0)', "0", "MaxPool rounded up"),
    ("onnx_maps", "if total:", "if False:", "ReduceSum"),
    ("onnx_products", "* beta", "", "Gemm with factors"),
    ("onnx_products", "if alpha != 1", "if False", "Gemm with factors"),
    ("onnx_products", 'call.attributes.get("transB", 0)', "0", "Gemm without bias"),
    ("onnx_products", "else 2", "else 1", "MatMul from the left"),
    ("onnx_products", "if constant[0] == shared[0] else matrix", "", "Einsum turned"),
    ("onnx_elementwise", "(bias - mean * scale)", "(bias - mean)", "BatchNormalization"),
    ("onnx_elementwise", "1.0, sign * np.asarray", "1.0, np.asarray", "Sub"),
    ("onnx_elementwise", "affine(call, second, sign, first)", "affine(call, second, 1.0, first)",
     "Sub from a constant"),
    ("onnx_elementwise", 'get("alpha", 0.2)', 'get("alpha", 1 / 6)', "HardSigmoid"),
    ("onnx_elementwise", "low=low - zero, high=high - zero", "low=low, high=high", "quantized"),
    ("onnx_elementwise", 'else "gelu")', 'else "gelu_tanh")', "Gelu"),
    ("onnx_elementwise", "-negative, 0.0", "negative, 0.0", "LeakyRelu"),
    ("onnx_moves", "order.index(x.samples))", "x.samples)", "LSTM"),
    ("onnx_gather", "n % size for n in wanted", "abs(n) for n in wanted", "Gather one place"),
    ("onnx_moves", "begin=a, end=b", "begin=a, end=a + 1", "Split"),
    ("onnx_moves", "first or last", "first", "Pad"),
]  # fmt: skip


@pytest.mark.verifies("planted-faults-translation-onnx")
@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[f"{fault[3]}:{fault[2]}" for fault in FAULTS])
def test_planted_fault_is_caught(number: int, rng: Rng, monkeypatch: pytest.MonkeyPatch) -> None:
    module, right, wrong, name = FAULTS[number]
    source = Path(onnx_ops.__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    assert right in source, "the fault cannot be planted any more"
    planted = types.ModuleType("planted")
    exec(compile(source.replace(right, wrong), f"{module}.py with a fault", "exec"), planted.__dict__)
    table = planted.__dict__[module.removeprefix("onnx_").upper()]
    given = MODELS[name](rng)
    check(given, rng)
    for key, translation in table.items():
        monkeypatch.setitem(onnx_ops.TRANSLATIONS, key, translation)
    with pytest.raises((AssertionError, ModelError)):
        check(given, rng)
