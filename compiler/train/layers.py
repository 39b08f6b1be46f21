"""Which tensors of a module are compressed: the weights of the layers that multiply, and, if asked, their biases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize

from compiler.errors import ModelError
from compiler.train.parametrized import write_out
from compiler.train.rhn import RHN
from compiler.train.select import Patterns, chosen

__all__ = ["Site", "biases", "density", "make_plain", "named_values", "uncovered", "weights"]

_SINGLE = (
    nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d,
    nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
_RECURRENT = (nn.RNNBase, nn.RNNCellBase, RHN)
_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


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


def weights(module: nn.Module, only: Patterns | None = None, ignore: Patterns = ()) -> Iterator[Site]:
    """The weights of every layer that multiplies, in the module's order; those of tied layers once, at the first.

    Linear, Bilinear, Embedding, EmbeddingBag, convolutions and transposed convolutions; RNN, LSTM, GRU, their cells and
    RHN; the projections of MultiheadAttention. `uncovered` names what else a module has.

    Parameters
    ----------
    only, ignore : patterns of keys or paths that are taken, or left out, see `select.chosen`.

    Raises
    ------
    ModelError
        A pattern matches nothing.
    """
    sites = {site.key: site for site in _once(_weights(module))}
    return (sites[key] for key in chosen(list(sites), only, ignore))


def biases(module: nn.Module) -> Iterator[Site]:
    """The biases of the same layers, where they have any; keys end in the parameter's name ("fc1.bias")."""
    return _once(
        Site(_joined(path, name), layer, name)
        for path, layer in module.named_modules()
        for name in _names(layer, "bias")
    )


def uncovered(module: nn.Module) -> dict[str, int]:
    """Matrices and larger tensors that are trained and not among `weights` → their numbers of elements."""
    known = {id(_identity(site)) for site in _weights(module)}
    found = {}
    for path, layer in module.named_modules():
        if isinstance(layer, parametrize.ParametrizationList):
            continue
        for name, parameter in layer.named_parameters(recurse=False):
            if parameter.dim() > 1 and id(parameter) not in known:
                found[_joined(path, name)] = parameter.numel()
    return found


def density(sites: Iterable[Site]) -> float:
    """Share of the elements of some parameters together that are not zero; 0 if there are none."""
    values = [site.value for site in sites]
    nonzeros = sum(int((value != 0).sum()) for value in values)
    return nonzeros / max(1, sum(value.numel() for value in values))


def named_values(sites: Iterable[Site], values: Mapping[str, Any], what: str) -> None:
    """Raise `ModelError` unless `values` names just the sites; `what` is what it gives them."""
    keys = [site.key for site in sites]
    unknown, missing = [key for key in values if key not in keys], [key for key in keys if key not in values]
    if unknown or missing:
        wrong = [f"names {', '.join(unknown)}"] if unknown else []
        wrong += [f"leaves out {', '.join(missing)}"] if missing else []
        raise ModelError(f"{what} {' and '.join(wrong)}; the weights are {', '.join(keys) or 'none'}")


def make_plain(module: nn.Module, name: str | None = None) -> None:
    """Write parametrized tensors out as plain parameters with the values that they stand for, in place.

    The parameter objects stay, and so does whether they are frozen; tied layers stay tied.

    Parameters
    ----------
    name : of one parameter of `module` itself; None for all parameters of all its layers.
    """
    if name is not None:
        write_out(module, name)
        return
    for layer in list(module.modules()):
        while parametrize.is_parametrized(layer):
            write_out(layer, next(iter(cast(nn.ModuleDict, layer.parametrizations))))


def _weights(module: nn.Module) -> Iterator[Site]:
    for path, layer in module.named_modules():
        for name in _names(layer, "weight"):
            yield Site((path or name) if name == "weight" else _joined(path, name), layer, name)


def _names(layer: nn.Module, start: str) -> list[str]:
    """The weights or biases ("weight" or "bias") of a layer."""
    if isinstance(layer, _SINGLE):
        return [start] if getattr(layer, start, None) is not None else []
    if isinstance(layer, nn.MultiheadAttention):
        names = _PROJECTIONS if start == "weight" else ("in_proj_bias",)
        return [name for name in names if getattr(layer, name) is not None]
    if isinstance(layer, nn.RNNBase):
        return [name for name in layer._flat_weights_names if name.startswith(start)]
    if isinstance(layer, _RECURRENT):
        plain = [name for name, _ in layer.named_parameters(recurse=False)]
        return [name for name in _ordered(layer, plain) if name.startswith(start)]
    return []


def _ordered(layer: nn.Module, plain: list[str]) -> list[str]:
    """Names of a layer's own parameters, plain or not, in an order that does not change when they are parametrized."""
    changed = list(cast(nn.ModuleDict, layer.parametrizations)) if parametrize.is_parametrized(layer) else []
    return sorted([*plain, *changed], key=lambda name: ("_ih" not in name, name))


def _once(sites: Iterable[Site]) -> Iterator[Site]:
    seen: set[int] = set()
    for site in sites:
        number = id(_identity(site))
        if number not in seen:
            seen.add(number)
            yield site


def _identity(site: Site) -> object:
    """What tied layers have in common: the parameter, or what parametrizes it."""
    if parametrize.is_parametrized(site.module, site.name):
        return cast(Any, site.module.parametrizations)[site.name]
    return site.value


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
