"""Which tensors of a module are compressed: the weights of the layers that multiply, and, if asked, their biases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["Site", "biases", "density", "make_plain", "weights"]

_SINGLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding)
_RECURRENT = (nn.LSTM, nn.GRU)


@dataclass(frozen=True, eq=False)
class Site:
    """One parameter of one layer.

    Attributes
    ----------
    key : what recipes call it: the layer's path for ``weight`` ("fc1"), else path and name ("rnn.weight_hh_l0").
    module : the layer; name: the parameter's name in it.
    """

    key: str
    module: nn.Module
    name: str

    @property
    def value(self) -> Tensor:
        """What the layer computes with: masks applied, shared weights written out."""
        return cast(Tensor, getattr(self.module, self.name))


def weights(module: nn.Module) -> Iterator[Site]:
    """The weights of every Linear, Conv1d, Conv2d, Embedding, LSTM and GRU, in the module's order."""
    for path, layer in module.named_modules():
        if isinstance(layer, _SINGLE):
            yield Site(path or "weight", layer, "weight")
        elif isinstance(layer, _RECURRENT):
            names = [name for name in layer._flat_weights_names if name.startswith("weight_")]
            yield from (Site(f"{path}.{name}" if path else name, layer, name) for name in names)


def biases(module: nn.Module) -> Iterator[Site]:
    """The biases of the same layers, where they have any; keys end in the parameter's name ("fc1.bias")."""
    for path, layer in module.named_modules():
        names: list[str] = []
        if isinstance(layer, _SINGLE):
            names = ["bias"] if getattr(layer, "bias", None) is not None else []
        elif isinstance(layer, _RECURRENT):
            names = [name for name in layer._flat_weights_names if name.startswith("bias_")]
        yield from (Site(f"{path}.{name}" if path else name, layer, name) for name in names)


def density(sites: Iterable[Site]) -> float:
    """Share of the elements of some parameters together that are not zero; 0 if there are none."""
    values = [site.value for site in sites]
    nonzeros = sum(int((value != 0).sum()) for value in values)
    return nonzeros / max(1, sum(value.numel() for value in values))


def make_plain(module: nn.Module, name: str | None = None) -> None:
    """Write parametrized tensors out as plain parameters with the values that they stand for, in place.

    Parameters
    ----------
    name : of one parameter of `module` itself; None for all parameters of all its layers.
    """
    if name is not None:
        _write_out(module, name)
        return
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer):
            for each in list(layer.parametrizations):  # type: ignore[arg-type, unused-ignore]
                _write_out(layer, each)


def _write_out(layer: nn.Module, name: str) -> None:
    value = cast(Tensor, getattr(layer, name)).detach().clone()
    # torch's own removal keeps the storage of the original, which for shared weights has another shape.
    order = list(layer.parametrizations)  # type: ignore[arg-type, unused-ignore]
    assert name in order
    parametrize.remove_parametrizations(layer, name, leave_parametrized=_keeps(layer, name))
    setattr(layer, name, nn.Parameter(value))


def _keeps(layer: nn.Module, name: str) -> bool:
    """Whether the parametrization has one original, which torch may then leave in place for a moment."""
    chain = layer.parametrizations[name]  # type: ignore[index, unused-ignore]
    return not hasattr(chain, "original")
