"""Batch normalization moved into the layers before it, so that these hold the weights that an array multiplies with.

The compiler folds every normalization that is left, each channel by a factor of its own. The few values that the
weights of a layer share would be torn apart by that, and shared anew without training: so networks that share weights
are folded before.

Source: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference (Jacob et al., CVPR
2018), section 3.2.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compiler.errors import InputError, ModelError
from compiler.train import prune, quantize
from compiler.train.norms import NORMS, norms_after
from compiler.train.optimizers import changed
from compiler.train.ties import places

__all__ = ["Folded", "fold", "put_folded"]

_TOLERANCE = 1e-4
"""Of outputs, as a share of the largest one: what float32 leaves of two orders of the same products, and no more."""


class Folded(nn.Identity):
    """What is left of a batch normalization that was folded.

    layer : path of the layer that it was folded into, and that has a bias since.
    """

    kind = "folded"

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer

    def describe(self) -> dict[str, str]:
        """What `structure.rebuild` needs to make the same module."""
        return {"kind": self.kind, "layer": self.layer}


def fold(module: nn.Module, inputs: Tensor) -> dict[str, str]:
    """Fold each batch normalization that follows a layer into it, in place; path of each such layer → that of the norm.

    The function in evaluation mode stays, to float rounding. Masks stay; the layers get biases where they had none, and
    optimizers that hold their weights train those as well.

    Parameters
    ----------
    inputs : a few samples, to run the module on.

    Raises
    ------
    ModelError
        No normalization follows a layer, one cannot be folded, or what the layer gives is read elsewhere too. Nothing
        is changed then.
    """
    found = norms_after(module, inputs)
    if not found:
        raise ModelError(
            f"{type(module).__name__} has no batch normalization right behind a Linear or a convolution; "
            "expected at least one to fold"
        )
    for layer, norm in found.items():
        _check(module, layer, norm)
    trial = copy.deepcopy(module).eval()
    with torch.no_grad():
        before = _outputs(trial(inputs))
        for layer, norm in found.items():
            _fold(trial, layer, norm)
        after = _outputs(trial(inputs))
    if any((new - old).abs().max() > _TOLERANCE * old.abs().max() for new, old in zip(after, before, strict=True)):
        raise ModelError(
            f"folding {', '.join(found.values())} changes what {type(module).__name__} computes: the output of one of "
            f"the layers {', '.join(found)} is read elsewhere too, or a layer is used twice; leave out the fold"
        )
    with torch.no_grad():
        for layer, norm in found.items():
            _fold(module, layer, norm)
    return found


def put_folded(module: nn.Module, path: str, entry: Mapping[str, Any], source: str) -> None:
    """Give a fresh module what `Folded.describe` said of the normalization at `path`; values are arbitrary.

    Raises
    ------
    InputError
        The module has no such normalization or layer; `source` is what messages call the description.
    """
    known = dict(module.named_modules())
    norm, layer = known.get(path), known.get(str(entry.get("layer")))
    # In a layer that became several, the description of these has put an Identity there already.
    if not isinstance(norm, (*NORMS, nn.Identity)) or layer is None or not hasattr(layer, "weight"):
        raise InputError(
            f"{source} describes {path} as folded into {entry.get('layer')!r}; expected a batch normalization and a "
            "layer of this network"
        )
    if getattr(layer, "bias", None) is None:
        weight = cast(Tensor, layer.weight)
        layer.bias = nn.Parameter(weight.new_zeros(len(weight)))
    _replace(module, path, Folded(str(entry["layer"])))


def _check(module: nn.Module, path: str, norm_path: str) -> None:
    layer, norm = cast(Any, module.get_submodule(path)), cast(Any, module.get_submodule(norm_path))
    if norm.running_mean is None:
        raise ModelError(f"{norm_path} keeps no running mean and variance; expected a batch normalization that does")
    if quantize.find(layer) is not None:
        raise ModelError(
            f"the weights of {path} are shared, and {norm_path} scales each channel by another factor; expected the "
            "fold before weights are shared"
        )
    if parametrize.is_parametrized(layer, "weight") and prune.find(layer) is None:
        raise ModelError(
            f"the weights of {path} are parametrized, and {norm_path} cannot be folded into them; expected plain ones "
            "or masks of this kit: write them out first, with layers.make_plain"
        )
    if len(places(layer, "weight")) > 1:
        raise ModelError(f"{path} is tied to another layer, so {norm_path} cannot be folded into it; untie them")


def _fold(module: nn.Module, path: str, norm_path: str) -> None:
    layer, norm = cast(Any, module.get_submodule(path)), cast(Any, module.get_submodule(norm_path))
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    before = -norm.running_mean.double() if layer.bias is None else layer.bias.double() - norm.running_mean.double()
    shift = before * scale if norm.bias is None else before * scale + norm.bias.double()
    trained = prune.trained(layer)
    trained.copy_(trained.double() * scale.view(-1, *[1] * (trained.dim() - 1)))
    if layer.bias is None:
        layer.bias = nn.Parameter(shift.to(trained.dtype), requires_grad=trained.requires_grad)
        changed(trained, beside=(layer.bias,))
    else:
        layer.bias.copy_(shift)
    _replace(module, norm_path, Folded(path).train(norm.training))


def _replace(module: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, new)


def _outputs(result: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
