"""Which batch normalization follows a layer: its scale and shift are part of what the layer gives."""

from __future__ import annotations

from torch import Tensor, nn

from compiler.train.evaluating import evaluating

__all__ = ["NORMS", "norms_after"]

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

_BEFORE_NORMS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def norms_after(module: nn.Module, inputs: Tensor) -> dict[str, str]:
    """Path of each layer whose output goes straight into a batch normalization → that one's path.

    inputs : a few samples, for one run of the module in evaluation mode.
    """
    made: list[tuple[Tensor, str]] = []  # holds the tensors, so that no other one gets their place
    found: dict[str, str] = {}
    kinds = (*_BEFORE_NORMS, *NORMS)
    handles = []
    for path, layer in module.named_modules():
        if not isinstance(layer, kinds):
            continue

        def note(layer: nn.Module, taken: tuple[Tensor, ...], given: Tensor, path: str = path) -> None:
            if isinstance(layer, NORMS):
                read = next(iter(taken), None)
                found.update({maker: path for tensor, maker in made if tensor is read})
            else:
                made.append((given, path))

        handles.append(layer.register_forward_hook(note))
    with evaluating(module, handles):
        module(inputs)
    return found
