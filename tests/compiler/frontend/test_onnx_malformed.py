"""Models that are damaged, hostile or not supported: one clear error each, which names what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto, helper, numpy_helper

from compiler.errors import ModelError
from compiler.frontend.onnx import from_onnx
from tests.compiler.frontend.onnx_models import model, node, read

X: dict[str, Any] = {"x": ["batch", 4]}
W = {"w": np.ones((4, 3), np.float32)}


def with_weight(change: Callable[[onnx.TensorProto], None]) -> onnx.ModelProto:
    given = model([node("MatMul", "x w")], X, W)
    change(given.graph.initializer[0])
    return given


def set_dims(tensor: onnx.TensorProto, *dims: int) -> None:
    del tensor.dims[:]
    tensor.dims.extend(dims)


def outside(location: str, **entries: str) -> onnx.ModelProto:
    def change(tensor: onnx.TensorProto) -> None:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **entries}.items():
            tensor.external_data.add(key=key, value=value)

    return with_weight(change)


def sequence_input() -> onnx.ModelProto:
    given = model([node("Relu", "x")], X)
    given.graph.input[0].type.Clear()
    given.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    return given


def no_shape() -> onnx.ModelProto:
    given = model([node("Relu", "x")], X)
    given.graph.input[0].type.tensor_type.ClearField("shape")
    return given


def branch() -> onnx.ModelProto:
    then = helper.make_graph([node("Relu", "x")], "then", [], [helper.make_tensor_value_info("y", 1, None)])
    return model([node("If", "c", then_branch=then, else_branch=then)], X, {"c": np.array(True)})


def quantizers(*scales: float) -> onnx.ModelProto:
    nodes, at, weights = [], "x", {"z": np.int8(0)}
    for n, scale in enumerate(scales):
        weights[f"s{n}"] = np.float32(scale)
        nodes += [node("QuantizeLinear", f"{at} s{n} z", f"q{n}"), node("DequantizeLinear", f"q{n} s{n} z", f"d{n}")]
        nodes.append(node("Relu", f"x d{n}"[2:], f"r{n}"))
        at = "x" if n + 1 < len(scales) else f"r{n}"
    ends = [f"r{n}" for n in range(len(scales))]
    return model(nodes, X, weights, ends)


def functions(depth: int) -> onnx.ModelProto:
    """Each function calls the next twice: 2 ** depth nodes in a few bytes."""
    given = model([helper.make_node("f0", ["x"], ["y"], domain="own")], X)
    for n in range(depth):
        inner = ("Relu", "") if n + 1 == depth else (f"f{n + 1}", "own")
        calls = [helper.make_node(inner[0], ["a"], [f"b{k}"], domain=inner[1]) for k in range(2)]
        made = helper.make_node("Add", ["b0", "b1"], ["b"])
        sets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
        given.functions.append(helper.make_function("own", f"f{n}", ["a"], ["b"], [*calls, made], sets))
    given.opset_import.append(helper.make_opsetid("own", 1))
    return given


MALFORMED: dict[str, tuple[Callable[[], onnx.ModelProto], list[str]]] = {
    "cycle": (
        lambda: model([node("Add", "x b", "a", "first"), node("Relu", "a", "b", "second"), node("Relu", "b")], X),
        ["the nodes first (Add), second (Relu), the_Relu_y (Relu) read each other in a cycle"],
    ),
    "missing input": (
        lambda: model([node("Add", "x nowhere", name="sum")], X),
        ["sum (Add): it reads nowhere, which nothing makes"],
    ),
    "missing output": (lambda: model([node("Relu", "x", "z")], X), ["output 'y': nothing makes it"]),
    "value made twice": (
        lambda: model([node("Relu", "x"), node("Tanh", "x", name="again")], X),
        ["again (Tanh): it makes 'y', which exists already"],
    ),
    "value named as an input": (
        lambda: model([node("Relu", "x", "x", "over")], X, outputs=("x",)),
        ["over (Relu): it makes 'x', which exists already"],
    ),
    "no shape": (no_shape, ["input 'x' has no shape"]),
    "open size": (
        lambda: model([node("Relu", "x")], {"x": ["batch", 3, "height"]}),
        ["input 'x' leaves axis 2 (height) open", "update_model_dims"],
    ),
    "size of 0": (lambda: model([node("Relu", "x")], {"x": ["batch", 0]}), ["input 'x' leaves axis 1 (unknown) open"]),
    "huge input": (lambda: model([node("Relu", "x")], {"x": ["batch", 1 << 40]}), ["input 'x'", "268435456"]),
    "inputs of different batches": (
        lambda: model([node("Add", "x z")], {"x": [2, 4], "z": [3, 4]}),
        ["the inputs have [2, 3] samples"],
    ),
    "sequence": (sequence_input, ["input 'x' is a sequence; expected a tensor"]),
    "no input": (lambda: model([node("Identity", "w")], {}, W), ["the model has no input"]),
    "constant output": (
        lambda: model([node("Identity", "w")], X, W),
        ["output 'y' does not depend on the input"],
    ),
    "unknown operators, all at once": (
        lambda: model([node("Erf", "x", "a", "e"), node("Relu", "a", "b"), node("NonZero", "b", "c", "n"),
                       node("Attention", "x", "y", "at")], X, outputs=("c", "y")),
        ["3 problems:", "e (Erf): Erf is not supported: for GELU export with opset_version=20",
         "n (NonZero): NonZero is not supported", "at (Attention): Attention is not supported"],
    ),
    "unknown domain": (
        lambda: model([node("FusedMatMul", "x w", name="f", domain="com.microsoft")], X, W),
        ["f (FusedMatMul): the operator com.microsoft.FusedMatMul is not supported"],
    ),
    "old operators": (lambda: model([node("Relu", "x")], X, opset=6), ["version 6", "expected 7 to"]),
    "operators of the future": (
        lambda: model([node("Relu", "x")], X, opset=999),
        ["version 999", "update the package"],
    ),
    "branch": (branch, ["the_If_y (If): If is not supported: control flow must not depend on values"]),
    "fewer numbers than dimensions": (
        lambda: with_weight(lambda tensor: set_dims(tensor, 4, 300)),
        ["initializer 'w': it has 48 bytes; its dimensions (4, 300) need 4800"],
    ),
    "huge dimensions": (
        lambda: with_weight(lambda tensor: set_dims(tensor, 1 << 40, 1 << 40)),
        ["initializer 'w': its dimensions are (1099511627776, 1099511627776)"],
    ),
    "negative dimension": (
        lambda: with_weight(lambda tensor: set_dims(tensor, -4, -3)),
        ["initializer 'w': its dimensions are (-4, -3)"],
    ),
    "type of text": (
        lambda: with_weight(lambda tensor: setattr(tensor, "data_type", TensorProto.STRING)),
        ["initializer 'w': its type is STRING"],
    ),
    "unknown type": (
        lambda: with_weight(lambda tensor: setattr(tensor, "data_type", 99)),
        ["initializer 'w': its type is unknown"],
    ),
    "NaN": (
        lambda: model([node("MatMul", "x w")], X, {"w": np.full((4, 3), np.nan, np.float32)}),
        ["initializer 'w': 12 of its 12 numbers are NaN"],
    ),
    "infinite weight": (
        lambda: model([node("MatMul", "x w", name="m")], X, {"w": np.full((4, 3), np.inf, np.float32)}),
        ["m (MatMul): weight is not finite everywhere"],
    ),
    "initializer twice": (
        lambda: (m := model([node("MatMul", "x w")], X, W), m.graph.initializer.append(m.graph.initializer[0]), m)[2],
        ["initializer 'w' is there 2 times"],
    ),
    "input twice": (
        lambda: (m := model([node("Relu", "x")], X), m.graph.input.append(m.graph.input[0]), m)[2],
        ["input 'x' is there 2 times"],
    ),
    "shapes that do not fit": (
        lambda: model([node("MatMul", "x w", name="m")], X, {"w": np.ones((5, 3), np.float32)}),
        ["m (MatMul): it multiplies 4 values with a matrix for 5"],
    ),
    "huge constant": (
        lambda: model([node("ConstantOfShape", "s", "c", "big"), node("Add", "x c")], X, {"s": np.array([1 << 40])}),
        ["big (ConstantOfShape): its result has 1099511627776 numbers"],
    ),
    "huge sum of constants": (
        lambda: model([node("Add", "a b", "c", "wide"), node("Add", "x c")], X,
                      {"a": np.ones((1 << 15, 1), "f"), "b": np.ones((1, 1 << 15), "f")}),
        ["wide (Add): its result has 1073741824 numbers"],
    ),
    "huge repetition": (
        lambda: model([node("Expand", "x s", name="e")], {"x": ["batch", 1]}, {"s": np.array([1, 1 << 40])}),
        ["e (Expand): it repeats its input to (N, 1099511627776)"],
    ),
    "huge kernel": (
        lambda: model([node("MaxPool", "x", name="p", kernel_shape=[1 << 30])], {"x": ["batch", 1, 4]}),
        ["p (MaxPool): its kernel_shape are [1073741824]"],
    ),
    "samples mixed": (
        lambda: model([node("Reshape", "x s", name="r")], X, {"s": np.array([-1, 3, 4])}),
        ["r (Reshape)", "of (N, 4)", "expected the samples to stay an axis"],
    ),
    "along the samples": (
        lambda: model([node("Concat", "x x", name="c", axis=0)], X),
        ["c (Concat): it works along axis 0, on which the samples lie"],
    ),
    "softmax inside": (
        lambda: model([node("Softmax", "x", "s"), node("Relu", "s", name="r")], X),
        ["r (Relu): it works on the result of a softmax, which is only supported at the end"],
    ),
    "training mode": (
        lambda: model([node("BatchNormalization", "x a a a a", name="bn", training_mode=1)], X, {"a": np.ones(4, "f")}),
        ["bn (BatchNormalization): it is in training mode"],
    ),
    "text for a number": (
        lambda: model([node("MaxPool", "x", name="p", kernel_shape="wide")], {"x": ["batch", 1, 4]}),
        ["p (MaxPool): its kernel_shape are wide; expected 1 numbers"],
    ),
    "a list for a number": (
        lambda: model([node("Flatten", "x", name="f", axis=[1, 2])], {"x": ["batch", 1, 4]}),
        ["f (Flatten): its attributes or inputs are malformed"],
    ),
    "too few inputs": (lambda: model([node("Gemm", "x", name="g")], X), ["g (Gemm): its input 1 is missing"]),
    "product of values": (
        lambda: model([node("MatMul", "x z", name="m")], {"x": ["batch", 3, 3], "z": ["batch", 3, 3]}),
        ["m (MatMul): not supported: a product of two values"],
    ),
    "scales that are no powers of two make one message": (
        lambda: quantizers(0.1, 0.3, 0.25),
        ["1 problem:", "(QuantizeLinear): its scale 0.1 is not a power of two (and 1 more); use scales that are"],
    ),
    "integer operators": (
        lambda: model([node("QLinearMatMul", "x w w w w w w w", name="q")], X, W),
        ["quantized model: q (QLinearMatMul): QLinearMatMul is not supported; export quantized models as"],
    ),
    "functions of functions": (lambda: functions(40), ["the model's own functions make more than 1048576 nodes"]),
    "external data of bytes": (lambda: outside("w.bin"), ["in the file 'w.bin', and a model given as bytes has no"]),
}  # fmt: skip


@pytest.mark.verifies("onnx-malformed-hostile-unsupported-models")
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_model_is_refused_with_a_message(name: str) -> None:
    make, parts = MALFORMED[name]
    with pytest.raises(ModelError) as caught:
        read(make())
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.verifies("onnx-malformed-hostile-unsupported-models")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xff\xff\xff no model", "does not parse"),
        (b"", "has no graph with outputs"),
    ],
)
def test_bytes_that_are_no_model(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        from_onnx(content)
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        from_onnx(tmp_path / "m.onnx")


@pytest.mark.verifies("onnx-malformed-hostile-unsupported-models")
def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx cannot be read: No such file"):
        from_onnx(tmp_path / "none.onnx")


@pytest.mark.verifies("onnx-random-damage-ends-error")
def test_damaged_files_end_with_an_error_of_the_family(rng: np.random.Generator) -> None:
    weights = {"w": rng.normal(size=(6, 4, 3, 3)).astype(np.float32), "b": np.ones(6, np.float32)}
    nodes = [node("Conv", "x w b", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "r"), node("Flatten", "r")]
    content = model(nodes, {"x": ["batch", 4, 5, 5]}, weights).SerializeToString()
    refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(int(rng.integers(1, 4))):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        try:
            from_onnx(bytes(damaged[: rng.integers(len(damaged))] if rng.random() < 0.2 else damaged))
        except ModelError:
            refused += 1
    assert refused > 20


def write(folder: Path, given: onnx.ModelProto) -> Path:
    path = folder / "model" / "m.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(given.SerializeToString())
    return path


@pytest.mark.verifies("onnx-external-data-only-model")
def test_external_data_beside_the_model_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    weight = rng.normal(size=(4, 3)).astype(np.float32)
    path = write(tmp_path, outside("w.bin", offset="8", length="48"))
    (path.parent / "w.bin").write_bytes(b"12345678" + weight.tobytes())
    (linear,) = (item for item in from_onnx(path) if item.op == "Linear")
    assert np.array_equal(linear.tensors["weight"], weight.T)


@pytest.mark.verifies("onnx-external-data-only-model")
@pytest.mark.parametrize(
    ("location", "entries", "message"),
    [
        ("../secret.bin", {}, "expected a file in the folder of the model"),
        ("link.bin", {}, "expected a file in the folder of the model"),
        ("/etc/passwd", {}, "expected a file in the folder of the model"),
        ("", {}, "expected a file in the folder of the model"),
        ("none.bin", {}, "which is not there"),
        ("short.bin", {}, r"it takes 48 bytes from byte 0 of 'short.bin', which has 10"),
        ("secret\0.bin", {}, "initializer 'w'"),
        ("short.bin", {"offset": "-5"}, "from byte -5"),
        ("short.bin", {"offset": "many"}, "its external data is not sound"),
        ("short.bin", {"length": "4"}, "it takes 4 bytes"),
    ],
)
def test_external_data_elsewhere_is_refused(
    location: str, entries: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, outside(location, **entries))
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    (path.parent / "short.bin").write_bytes(bytes(10))
    (path.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelError, match=message):
        from_onnx(path)


@pytest.mark.verifies("onnx-malformed-hostile-unsupported-models")
def test_raw_numbers_in_their_own_field_are_counted() -> None:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, (4, 3), np.ones(12, np.float32))
    assert not tensor.HasField("raw_data")
    tensor.float_data.append(1.0)
    given = model([node("MatMul", "x w")], X, W)
    given.graph.initializer[0].CopyFrom(tensor)
    with pytest.raises(ModelError, match=r"it has 13 numbers; its dimensions \(4, 3\) need 12"):
        read(given)
    assert numpy_helper.to_array(model([], X, W).graph.initializer[0]).shape == (4, 3)
