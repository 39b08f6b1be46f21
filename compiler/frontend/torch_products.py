"""Translation of matrix products with a constant: each is one Linear, between transposes where its axis is not last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compiler.frontend.torch_call import Call, Refused, Translation, Value, array, number
from compiler.frontend.torch_moves import reshaped, transposed

__all__ = ["PRODUCTS", "expanded", "tensors_of", "weight_of"]

_BOTH = "not supported: a product of two values that both depend on the input, as in attention"


def weight_of(tensor: Any) -> NDArray[Any]:
    """A weight as it is: float32, or float64 where that would round."""
    if not isinstance(tensor, Tensor):
        raise Refused("its weights depend on the input")
    given = tensor.detach().cpu()
    if not given.is_floating_point():
        given = given.to(torch.float64)
    single = given.to(torch.float32)
    exact = given.dtype != torch.float64 or bool((single.to(torch.float64) == given).all())
    return np.ascontiguousarray((single if exact else given).numpy())


def tensors_of(weight: Any, bias: Any) -> dict[str, NDArray[Any]]:
    """Of a Linear or Conv."""
    if isinstance(bias, Value):
        raise Refused("its bias depends on the input")
    tensors = {"weight": weight_of(weight)}
    if bias is not None:
        tensors["bias"] = np.broadcast_to(array(bias).reshape(-1), (len(tensors["weight"]),)).copy()
    return tensors


def _linear_along(
    call: Call, x: Value, dim: int, weight: NDArray[Any], bias: NDArray[Any] | None = None, suffix: str = ""
) -> str:
    """Replace axis `dim` of a tensor by its product with ``weight`` (out, in)."""
    axis, rank = x.axis(dim), x.rank - 1
    others = [n for n in range(rank) if n != axis]
    ahead = transposed(call, x.name, [*others, axis], f"{suffix}.before")
    tensors = {"weight": np.ascontiguousarray(weight)} | ({} if bias is None else {"bias": bias})
    made = call.emit("Linear", ahead, tensors=tensors, suffix=suffix)
    return transposed(call, made, [*range(axis), rank - 1, *range(axis, rank - 1)], f"{suffix}.after")


def expanded(call: Call, x: Value, shape: Sequence[int], suffix: str = ".wide") -> Value:
    """Repeat a tensor along its axes of one place: each is a Linear whose weights are ones."""
    if len(shape) != x.rank:
        raise Refused(f"it widens a value of shape {x.shape} to {tuple(shape)}; expected as many axes")
    for dim, (size, wanted) in enumerate(zip(x.shape, shape, strict=True)):
        if size != wanted:
            name = _linear_along(call, x, dim, np.ones((wanted, 1), np.float32), suffix=suffix)
            x = Value(name, x.samples, (*x.shape[:dim], wanted, *x.shape[dim + 1 :]))
    return x


def _expand(call: Call) -> Value:
    wide = expanded(call, call.x, call.shape)
    return call.value(wide.name, wide.samples)


def _linear(call: Call) -> Value:
    x = call["input"]
    if not isinstance(x, Value):
        raise Refused("its weights depend on the input")
    tensors = tensors_of(call["weight"], call["bias"])
    if tensors["weight"].ndim == 1:
        raise Refused("its weight is a vector; expected a matrix")
    return call.value(_linear_along(call, x, -1, tensors["weight"], tensors.get("bias")), x.samples)


def _product(call: Call, first: Any, second: Any, bias: NDArray[Any] | None = None) -> Value:
    """``first @ second`` as torch.matmul defines it, where one of them is a constant matrix or vector."""
    if isinstance(first, Value) and isinstance(second, Value):
        raise Refused(_BOTH)
    left = isinstance(first, Value)
    x, constant = (first, second) if left else (second, first)
    matrix = weight_of(constant)
    while matrix.ndim > 2 and matrix.shape[0] == 1:
        matrix = matrix[0]
    if matrix.ndim > 2:
        raise Refused(f"not supported: a constant of shape {tuple(constant.shape)}; expected one matrix")
    dim = x.rank - 1 if left or x.rank == 1 else x.rank - 2
    vector = matrix.ndim == 1
    weight = matrix.reshape(1, -1) if vector else matrix.T if left else matrix
    made = _linear_along(call, x, dim, weight, bias)
    samples = x.samples
    if vector:  # the axis is gone
        kept = list(call.builder.shape(made))
        del kept[x.axis(dim)]
        made, samples = reshaped(call, made, kept, ".flat"), samples - (dim < samples)
    extra = len(call.shape) - x.rank + vector  # axes of one ahead, from the constant
    if extra:
        made, samples = reshaped(call, made, (1,) * extra + call.builder.shape(made), ".wide"), samples + extra
    return call.value(made, samples)


def _matmul(call: Call) -> Value:
    second = next(call.arguments[key] for key in ("other", "mat2", "vec", "tensor") if key in call.arguments)
    return _product(call, call["self"], second)


def _addmm(call: Call) -> Value:
    """``beta · self + alpha · mat1 @ mat2``."""
    if isinstance(call["self"], Value):
        raise Refused("not supported: a bias that depends on the input; add it on its own")
    if (number(call["beta"]), number(call["alpha"])) != (1, 1):
        raise Refused("beta and alpha must be 1")
    bias = array(call["self"])
    first = call["mat1"]
    if isinstance(first, Value) and bias.ndim and bias.shape[-1] == call.shape[-1] and bias.size == bias.shape[-1]:
        return _product(call, first, call["mat2"], bias.reshape(-1))
    raise Refused(f"not supported: a bias of shape {bias.shape} for a product of shape {call.shape}")


def _inner(call: Call) -> Value:
    """The last axes of both contracted."""
    constant = call["other"]
    if not isinstance(constant, Tensor) or constant.dim() > 2 or not isinstance(call["self"], Value):
        raise Refused("not supported: expected a value and a constant matrix")
    return _product(call, call["self"], constant.t() if constant.dim() == 2 else constant)


def _tensordot(call: Call) -> Value:
    x, constant = call["self"], call["other"]
    if (
        not isinstance(x, Value)
        or not isinstance(constant, Tensor)
        or constant.dim() != 2
        or len(call["dims_self"]) != 1
    ):
        raise Refused("not supported: expected a value, a constant matrix, and one axis of each")
    dim, here = x.dim(call["dims_self"][0]), call["dims_other"][0] % 2
    letters = "".join(chr(ord("a") + n) for n in range(x.rank))
    matrix = [letters[dim], "z"] if here == 0 else ["z", letters[dim]]
    return _contract(call, x, letters, constant, "".join(matrix), letters.replace(letters[dim], "") + "z")


def _einsum(call: Call) -> Value:
    operands = call["tensors"]
    if len(operands) != 2 or sum(isinstance(operand, Value) for operand in operands) != 1:
        raise Refused("not supported: expected one value and one constant" if len(operands) != 2 else _BOTH)
    terms, _, result = call["equation"].replace(" ", "").partition("->")
    names = terms.split(",")
    spare = [letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter not in call["equation"]]
    for n, (term, operand) in enumerate(zip(names, operands, strict=True)):
        if "..." in term:  # the same spare letters stand for the dots everywhere
            count = (operand.rank if isinstance(operand, Value) else operand.dim()) - len(term.replace("...", ""))
            dots = "".join(spare[:count])
            names[n], result = term.replace("...", dots), result.replace("...", dots)
    if "->" not in call["equation"]:
        joined = "".join(names)
        result = "".join(sorted(letter for letter in joined if joined.count(letter) == 1))
    value, constant = (0, 1) if isinstance(operands[0], Value) else (1, 0)
    return _contract(call, operands[value], names[value], operands[constant], names[constant], result)


def _contract(call: Call, x: Value, letters: str, constant: Tensor, matrix: str, result: str) -> Value:
    """Einsum of a value and a constant matrix that share one letter, which the result lacks."""
    summed = [letter for letter in matrix if letter in letters and letter not in result]
    made = [letter for letter in matrix if letter not in letters and letter in result]
    kept = [letter for letter in letters if letter not in summed]
    once = len(set(letters)) == len(letters) and len(set(matrix)) == len(matrix)
    fits = len(summed) == 1 and len(matrix) == len(summed) + len(made) <= 2 and sorted(result) == sorted(kept + made)
    if not (once and fits):
        raise Refused(
            f"not supported: {letters},{matrix}->{result}; expected a sum over one axis, which the value and a "
            "constant matrix share"
        )
    weight = weight_of(constant)
    weight = weight.reshape(1, -1) if len(matrix) == 1 else weight.T if matrix.index(summed[0]) == 0 else weight
    product = _linear_along(call, x, letters.index(summed[0]), weight)
    after = letters.replace(summed[0], made[0] if made else summed[0])
    order = [letter for letter in after if letter != after[x.samples]]
    wanted = [letter for letter in result if letter != after[x.samples]]
    if not made:
        left = [letter for letter in order if letter != summed[0]]
        size = dict(zip(order, call.builder.shape(product), strict=True))
        product, order = reshaped(call, product, [size[letter] for letter in left], ".flat"), left
    product = transposed(call, product, [order.index(letter) for letter in wanted], ".order")
    return call.value(product, result.index(after[x.samples]))


PRODUCTS: dict[str, Translation] = {
    "linear": _linear,
    "mm": _matmul,
    "bmm": _matmul,
    "mv": _matmul,
    "matmul": _matmul,
    "addmm": _addmm,
    "expand": _expand,
    "inner": _inner,
    "tensordot": _tensordot,
    "einsum": _einsum,
}
"""ATen name → translation."""
