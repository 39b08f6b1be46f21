"""Which modules hold a parameter: tied layers hold the same one, and what is done to it in one is done in all.

A layer does not know the network that it is in, so its modules are asked of Python's garbage collector, which knows
all of them. Nothing is searched where the reference count says that there is one place only.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

__all__ = ["places"]

Place = tuple[nn.Module, str]

_ALONE = 3
"""References to a parameter that nothing else knows: its module's dictionary, a variable, and that of the count."""


def places(module: nn.Module, name: str) -> list[Place]:
    """Every module that has the parameter `name` of `module`, and its name there; (module, name) is the first.

    Plain or parametrized: what is shared then is the parametrization.
    """
    parametrized = parametrize.is_parametrized(module, name)
    table = module.get_submodule("parametrizations")._modules if parametrized else module._parameters
    thing = table[name]
    if not parametrized and sys.getrefcount(thing) <= _ALONE:
        return [(module, name)]
    # One look at who refers to it is much cheaper than at every module; a variable or an optimizer is no dictionary.
    if not any(type(each) is dict and each is not table for each in gc.get_referrers(thing)):
        return [(module, name)]
    found = [
        (owner, key)
        for owner in _modules()
        for key, value in (
            _held(_held(owner, "_modules").get("parametrizations"), "_modules")
            if parametrized
            else _held(owner, "_parameters")
        ).items()
        if value is thing
    ]
    return [(module, name), *((owner, key) for owner, key in found if owner is not module or key != name)]


def _modules() -> list[nn.Module]:
    """Every module there is."""
    # By type: `isinstance` would ask proxies of other libraries what they stand for.
    return [each for each in gc.get_objects() if issubclass(type(each), nn.Module)]


def _held(module: nn.Module | None, attribute: str) -> dict[str, Any]:
    """A dictionary of a module; empty while the module is being made or copied."""
    held: dict[str, Any] = {} if module is None else module.__dict__.get(attribute, {})
    return held
