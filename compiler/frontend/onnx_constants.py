"""Constants of an ONNX model: operations on known numbers, such as the arithmetic on shapes, are worked out here.

Every size is checked before anything is computed; what each operation means is onnx's own reference implementation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.frontend.onnx_call import Refused
from compiler.frontend.onnx_file import MAX_NUMBERS

__all__ = ["FOLDED", "fold"]

Array = NDArray[Any]

_BROADCAST = {
    "Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Equal", "Less", "Greater", "LessOrEqual",
    "GreaterOrEqual", "And", "Or", "Where", "Sum",
}  # fmt: skip
_NO_LARGER = {
    "Neg", "Abs", "Sqrt", "Reciprocal", "Exp", "Log", "Floor", "Ceil", "Round", "Not", "Cast", "Clip", "Relu",
    "Sigmoid", "Tanh", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Concat", "Slice",
    "Split", "ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean", "Shape", "Size", "QuantizeLinear",
    "DequantizeLinear",
}  # fmt: skip
FOLDED = _BROADCAST | _NO_LARGER | {"MatMul", "Gemm", "Gather", "Constant", "ConstantOfShape", "Expand", "Range"}
"""Operations that are worked out when all that they read is known."""


def fold(node: Any, inputs: Sequence[Array | None], version: int) -> list[Array]:
    """Results of an operation on known numbers. Raises `Refused` where they are too many, or make no sense."""
    try:
        size = _size(node.op_type, [np.asarray(0) if given is None else given for given in inputs])
    except ValueError as error:
        raise Refused(f"its constants do not fit each other: {error}") from error
    if size > MAX_NUMBERS:
        raise Refused(f"its result has {size} numbers; expected at most {MAX_NUMBERS}")
    from onnx.reference import ReferenceEvaluator

    feeds = {name: given for name, given in zip(node.input, inputs, strict=True) if name}
    try:
        with np.errstate(all="ignore"):
            made = ReferenceEvaluator(node, opsets={"": version}).run(None, feeds)
    except Exception as error:  # onnx raises dozens of unrelated types here, all of them about the user's model
        raise Refused(f"its constant result cannot be computed: {error}") from error
    return [np.asarray(array) for array in made]


def _size(op: str, inputs: Sequence[Array]) -> int:
    """Numbers that the result can have."""
    shapes = [given.shape for given in inputs]
    if op in _BROADCAST:
        return int(math.prod(np.broadcast_shapes(*shapes)))
    if op == "MatMul":
        return math.prod(shapes[0][:-1]) * math.prod(shapes[1][:-2]) * int((shapes[1] or (1,))[-1])
    if op == "Gemm":
        return math.prod(shapes[0]) * math.prod(shapes[1])
    if op == "Gather":
        return inputs[1].size * inputs[0].size
    if op == "ConstantOfShape":
        return _product(inputs[0])
    if op == "Expand":
        return math.prod(np.broadcast_shapes(shapes[0], tuple(int(n) for n in inputs[1].reshape(-1))))
    if op == "Range":
        start, limit, step = (float(given.reshape(-1)[0]) for given in inputs)
        return max(0, math.ceil((limit - start) / step)) if step else MAX_NUMBERS + 1
    return sum(given.size for given in inputs)


def _product(sizes: Array) -> int:
    if sizes.dtype.kind not in "iu" or bool((sizes < 0).any()):
        raise ValueError(f"a shape of {sizes}")
    return math.prod(int(n) for n in sizes.reshape(-1))
