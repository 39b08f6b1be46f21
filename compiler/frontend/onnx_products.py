"""Translation of ONNX's matrix products with a constant: each is one Linear."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.frontend.onnx_call import Call, Refused, Result, Translation, Value
from compiler.frontend.onnx_moves import ordered, reshaped

__all__ = ["PRODUCTS"]

_BOTH = "not supported: a product of two values that both depend on the input, as in attention"


def _along(call: Call, x: Value, dim: int, weight: NDArray[Any], bias: NDArray[Any] | None = None) -> Value:
    """Replace axis `dim` of a tensor by its product with ``weight`` (out, in)."""
    axis, rank = call.axis(x, dim), call.rank(x) - 1
    if call.builder.shape(x.name)[axis] != weight.shape[1]:
        raise Refused(f"it multiplies {call.builder.shape(x.name)[axis]} values with a matrix for {weight.shape[1]}")
    others = [n for n in range(rank) if n != axis]
    ahead = ordered(call, x.name, [*others, axis])
    tensors = {"weight": np.ascontiguousarray(weight)} | ({} if bias is None else {"bias": bias})
    made = call.emit("Linear", ahead, tensors=tensors)
    return Value(ordered(call, made, [*range(axis), rank - 1, *range(axis, rank - 1)]), x.samples)


def _gemm(call: Call) -> Result:
    """``alpha · A' B' + beta · C``."""
    if isinstance(call.get(1), Value):
        raise Refused(_BOTH if isinstance(call.get(0), Value) else "not supported: the constant is its first input")
    x, matrix = call.value(), call.weight(1, 2)
    if call.attributes.get("transA", 0) or call.rank(x) != 2 or x.samples != 0:
        raise Refused("its input must be (samples, features)")
    weight = matrix if call.attributes.get("transB", 0) else matrix.T
    alpha, beta = call.attributes.get("alpha", 1.0), call.attributes.get("beta", 1.0)
    if alpha != 1:
        weight = weight.astype(np.float64) * alpha
    addend = call.get(2)
    if isinstance(addend, Value):
        raise Refused("not supported: a bias that depends on the input; add it on its own")
    if addend is None:
        return _along(call, x, 1, weight)
    given = addend.astype(np.float64) * beta
    try:
        whole = np.broadcast_to(given, (1, len(weight)) if given.ndim < 2 or len(given) == 1 else given.shape)
        bias = np.broadcast_to(call.same_samples(whole, 0), (len(weight),)).copy()
    except ValueError as error:
        raise Refused(f"its bias has shape {addend.shape} for {len(weight)} outputs") from error
    return _along(call, x, 1, weight, bias)


def _matmul(call: Call) -> Result:
    first, second = call.get(0), call.get(1)
    if isinstance(first, Value) and isinstance(second, Value):
        raise Refused(_BOTH)
    left = isinstance(first, Value)
    x, matrix = call.value(0 if left else 1), call.weight(1 if left else 0)
    while matrix.ndim > 2 and len(matrix) == 1:
        matrix = matrix[0]
    if matrix.ndim not in (1, 2) or call.rank(x) < 2:
        raise Refused(f"not supported: a constant of shape {matrix.shape}; expected one matrix")
    dim = call.rank(x) - (1 if left else 2)
    if matrix.ndim == 2:
        return _along(call, x, dim, matrix.T if left else matrix)
    made = _along(call, x, dim, matrix.reshape(1, -1))
    axis = call.axis(made, dim)
    sample = [size for n, size in enumerate(call.builder.shape(made.name)) if n != axis]
    return Value(reshaped(call, made.name, sample), made.samples - (dim < made.samples))


def _einsum(call: Call) -> Result:
    """A value and a constant matrix that share one letter, which the result lacks."""
    equation = call.attributes.get("equation", "").replace(" ", "")
    terms, arrow, result = equation.partition("->")
    names = terms.split(",")
    values = [n for n, item in enumerate(call.inputs) if isinstance(item, Value)]
    if len(names) != 2 or len(call.inputs) != 2 or len(values) != 1 or "..." in names[1 - values[0]]:
        raise Refused(f"not supported: {equation!r}; expected one value and one constant matrix")
    x, matrix = call.value(values[0]), call.weight(1 - values[0], 1, 2)
    letters, constant = names[values[0]], names[1 - values[0]]
    spare = "".join(chr(code) for code in range(ord("A"), ord("Z") + 1) if chr(code) not in equation)
    dots = spare[: max(0, call.rank(x) - len(letters.replace("...", "")))]
    if not arrow:
        result = "..." * ("..." in letters) + "".join(
            sorted(letter for letter in set(terms) - set(",.") if terms.count(letter) == 1)
        )
    letters, result = letters.replace("...", dots), result.replace("...", dots)
    if matrix.ndim == 1:  # a matrix of one row, whose result is dropped in the end
        matrix, constant, result = matrix[None], f"{spare[-1]}{constant}", f"{result}{spare[-1]}"
    shared = [letter for letter in constant if letter in letters and letter not in result]
    made = [letter for letter in constant if letter not in letters and letter in result]
    after = [made[0] if letter in shared and made else letter for letter in letters]
    once = len(set(letters)) == len(letters) == call.rank(x) and len(constant) == 2
    if not (once and len(shared) == len(made) == 1 and sorted(after) == sorted(result)):
        raise Refused(f"not supported: {equation!r}; expected a sum over one axis that both share")
    weight = matrix.T if constant[0] == shared[0] else matrix
    product = _along(call, x, letters.index(shared[0]), weight)
    keep = [letter for n, letter in enumerate(after) if n != x.samples]
    samples = after[x.samples]
    order = [keep.index(letter) for letter in result if letter != samples]
    value = ordered(call, product.name, order)
    if call.weight(1 - values[0]).ndim == 1:
        value = reshaped(call, value, call.builder.shape(value)[:-1])
    return Value(value, result.index(samples))


PRODUCTS: dict[str, Translation] = {"Gemm": _gemm, "MatMul": _matmul, "Einsum": _einsum}
"""ONNX name → translation."""
