"""The table of translations: ATen name → how it becomes operators; and hints for those that are not there."""

from __future__ import annotations

import operator
from typing import Any

from torch.fx import Node

from compiler.frontend.torch_call import Call, Refused, Result, Translation, Value
from compiler.frontend.torch_elementwise import ELEMENTWISE, OF_THE_BATCH
from compiler.frontend.torch_maps import MAPS
from compiler.frontend.torch_moves import MOVES
from compiler.frontend.torch_products import PRODUCTS
from compiler.frontend.torch_recurrent import RECURRENT

__all__ = ["ATTENTION", "KEEP_TAIL", "SUPPORTED", "TRANSLATIONS", "hint"]

ATTENTION = "products of two values that both depend on the input, as in attention"

KEEP_TAIL = frozenset({"clone", "detach", "alias", "_to_copy", "argmax"})
"""What may follow a softmax that is left to the host."""


def _tail(name: str) -> Translation:
    """Softmax at the very end is left to the host: the values are those before it."""

    def translate(call: Call) -> Value:
        x = call.x
        _only_to_output(call.node, name)
        if name == "argmax" and (call["dim"] is None or call["keepdim"]):
            raise Refused("not supported: argmax over all axes, or with keepdim; name one axis")
        axis = x.axis(call["dim"])
        if x.tail and axis != x.tail_axis:
            raise Refused(f"it takes another axis than the {x.tail} before it")
        gone = x.samples - (name == "argmax" and x.dim(call["dim"]) < x.samples)
        return Value(x.name, gone, call.shape, name, axis)

    return translate


def _only_to_output(node: Node, name: str) -> None:
    for user in node.users:
        if user.op == "output":
            continue
        op = str(user.target).split(".")[1] if "." in str(user.target) else ""
        if op not in KEEP_TAIL:
            raise Refused(f"not supported: {name} within the network; only at its very end, where the host computes it")
        _only_to_output(user, name)


def _max(call: Call) -> Result:
    return (ELEMENTWISE["maximum"] if "other" in call.arguments else MAPS["max"])(call)


TRANSLATIONS: dict[str, Translation] = {
    **ELEMENTWISE,
    **MOVES,
    **MAPS,
    **PRODUCTS,
    **RECURRENT,
    "max": _max,
    "softmax": _tail("softmax"),
    "_softmax": _tail("softmax"),
    "log_softmax": _tail("log_softmax"),
    "_log_softmax": _tail("log_softmax"),
    "argmax": _tail("argmax"),
}
"""ATen name, without overload → translation."""

SUPPORTED = (
    "Linear and products with a constant matrix, convolution in one and two dimensions, pooling, batch normalization, "
    "addition and multiplication, ReLU, clamp, sigmoid, tanh, SiLU, GELU and hard variants, cat, split, slices, "
    "reshape, permute, zero padding, Embedding, LSTM, GRU, RNN, and softmax or argmax at the very end"
)

_HINTS = {
    "layer_norm": "normalization at run time; use BatchNorm",
    "group_norm": "normalization at run time; use BatchNorm",
    "instance_norm": "normalization at run time; use BatchNorm",
    "native_batch_norm": OF_THE_BATCH,
    "rms_norm": "normalization at run time; use BatchNorm",
    "scaled_dot_product_attention": ATTENTION,
    "conv_transpose": "transposed convolution; upsample outside the module, or use a strided convolution",
    "conv3d": "convolution in three dimensions",
    "embedding_bag": "use nn.Embedding and the mean or sum over an axis",
    "upsample": "resize outside the module",
    "pixel_shuffle": "use reshape and permute",
    "elu": "use ReLU and retrain",
    "selu": "use ReLU and retrain",
    "celu": "use ReLU and retrain",
    "mish": "use nn.SiLU or ReLU and retrain",
    "log_sigmoid": "apply it to the outputs outside the module",
    "logsigmoid": "apply it to the outputs outside the module",
    "softsign": "use tanh and retrain",
    "where": "write a choice by value as clamp or ReLU",
    "gt": "write a choice by value as clamp or ReLU",
    "lt": "write a choice by value as clamp or ReLU",
    "ge": "write a choice by value as clamp or ReLU",
    "le": "write a choice by value as clamp or ReLU",
    "sqrt": "apply it to the inputs outside the module",
    "rsqrt": "apply it to the inputs outside the module",
    "exp": "apply it outside the module; sigmoid, tanh and softplus are supported",
    "log": "apply it outside the module",
    "topk": "apply it to the outputs outside the module",
    "sort": "apply it to the outputs outside the module",
    "cumsum": "sums over steps are not supported; use a recurrent layer",
    "std": "normalization at run time; use BatchNorm",
    "var": "normalization at run time; use BatchNorm",
    "roll": "use slices and cat",
    "addcmul": "write it as multiplication and addition",
    "lerp": "write it as multiplication and addition",
    "min": "use clamp, or the largest of the negated values",
    "amin": "use the largest of the negated values",
    "dropout": "pass training=self.training, so that evaluation switches it off",
    "native_dropout": "pass training=self.training, so that evaluation switches it off",
    "bernoulli": "pass training=self.training, so that evaluation switches it off",
}
"""ATen name, or how it begins → what to do instead."""


def hint(target: Any) -> str:
    """What to do instead of an operation; "" if nothing is known."""
    if target is operator.getitem:
        return ""
    parts = str(target).split(".")
    op = (parts[1] if len(parts) > 1 else parts[0]).strip("_")
    exact = [name for name in _HINTS if op == name or op.startswith(f"{name}_")]
    begins = [name for name in _HINTS if len(name) > 4 and op.startswith(name)]  # conv_transpose2d, upsample_nearest2d
    return _HINTS[max(exact or begins, key=len)] if exact or begins else ""
