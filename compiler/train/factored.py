"""A layer that became several smaller ones in a row, and what a saved state needs to say of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import nn

from compiler.errors import InputError

__all__ = ["Factored", "check_convolution", "convolution", "put", "put_factored"]

_MOST = 1 << 16
_NUMBERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features"),
    nn.Conv2d: ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
    nn.BatchNorm2d: ("num_features",),
    nn.ReLU: (),
    nn.Identity: (),
}
"""Layers that may be in the row → what they are made by, beside whether they have a bias."""


class Factored(nn.Sequential):
    """Layers in the place of one."""

    kind = "factored"

    def describe(self) -> dict[str, Any]:
        """What `structure.rebuild` needs to make the same module; JSON."""
        found = []
        for name, layer in self.named_children():
            cls = next(each for each in _NUMBERS if isinstance(layer, each))
            numbers = {key: getattr(layer, key) for key in _NUMBERS[cls]}
            bias = {"bias": layer.bias is not None} if isinstance(layer, nn.Linear | nn.Conv2d) else {}
            plain = {key: list(value) if isinstance(value, tuple) else value for key, value in numbers.items()}
            found.append({"name": name, "layer": cls.__name__, **plain, **bias})
        return {"kind": self.kind, "layers": found}

    @classmethod
    def described(cls, entry: Mapping[str, Any]) -> Factored:
        """The module that was described, with fresh weights.

        Raises
        ------
        KeyError, TypeError, ValueError
            No module describes itself so.
        """
        classes = {each.__name__: each for each in _NUMBERS}
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for each in entry["layers"]:
            values = {**each}
            name, made = str(values.pop("name")), classes[values.pop("layer")]
            allowed = {*_NUMBERS[made], *(("bias",) if made in (nn.Linear, nn.Conv2d) else ())}
            if values.keys() != allowed or not name.isidentifier():
                raise ValueError(f"{name} is described by {', '.join(values)}")
            layers[name] = made(**{key: _legal(key, value) for key, value in values.items()})
        return cls(layers)


def _legal(key: str, value: Any) -> Any:
    """A number of a layer, or a pair of them; a description may come from anybody."""
    if key == "bias":
        if not isinstance(value, bool):
            raise ValueError(f"bias is {value!r}")
        return value
    numbers = value if isinstance(value, list) else [value]
    least = 0 if key == "padding" else 1
    if len(numbers) > 2 or not all(type(n) is int and least <= n <= _MOST for n in numbers):
        raise ValueError(f"{key} is {value!r}")
    return tuple(numbers) if isinstance(value, list) else value


def put(module: nn.Module, path: str, new: nn.Module) -> None:
    """Put a layer in the place of the one at a path below a module."""
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, new)


def put_factored(module: nn.Module, path: str, entry: Mapping[str, Any], source: str) -> None:
    """Give a fresh module what `Factored.describe` said of the layer at `path`. Raises `InputError`."""
    known = dict(module.named_modules()).get(path)
    try:
        if not path or not isinstance(known, nn.Linear | nn.Conv2d):
            raise ValueError("the network has no Linear or Conv2d there")
        put(module, path, Factored.described(entry))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source} describes {path} as layers in a row, which does not fit: {error}") from error


def check_convolution(layer: nn.Conv2d) -> str:
    """Why a convolution cannot be rewritten, in words; empty if it can."""
    if layer.groups != 1:
        return f"it has {layer.groups} groups; expected 1"
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return f"its padding is {layer.padding_mode} {layer.padding}; expected zeros, as numbers"
    return ""


def convolution(
    like: nn.Conv2d, inputs: int, outputs: int, axes: tuple[bool, bool], bias: bool = False, groups: int = 1
) -> nn.Conv2d:
    """A convolution with the window, stride, padding and dilation of another one along some axes, 1 along the others.

    axes : whether along (rows, columns).
    """

    def along(values: Any, other: int) -> tuple[int, int]:
        rows, columns = (value if axis else other for value, axis in zip(values, axes, strict=True))
        return rows, columns

    return nn.Conv2d(
        inputs, outputs, along(like.kernel_size, 1), along(like.stride, 1), along(like.padding, 0),
        along(like.dilation, 1), groups, bias,
    )  # fmt: skip
