"""Which modules hold a parameter: tied layers hold the same one, and what is done to it in one is done in all.

A layer does not know the network that it is in, so the places are asked of Python's garbage collector, which knows
every object that refers to another. Nothing is searched where the reference count says that there is one place only.
"""

from __future__ import annotations

import gc
import sys
from typing import Any, cast

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
    if parametrize.is_parametrized(module, name):
        chain = module.get_submodule(f"parametrizations.{name}")
        found = []
        for table, key in _holders(chain, "_modules"):
            found += [(owner, key) for owner, role in _holders(table, "_modules") if role == "parametrizations"]
    else:
        parameter = module._parameters[name]
        if sys.getrefcount(parameter) <= _ALONE:
            return [(module, name)]
        found = _holders(parameter, "_parameters")
    return [(module, name), *((owner, key) for owner, key in found if owner is not module or key != name)]


def _holders(thing: object, attribute: str) -> list[Place]:
    """Modules that hold `thing` in the dictionary `attribute`, and the key there."""
    found: list[Place] = []
    for table in [each for each in gc.get_referrers(thing) if type(each) is dict]:
        for module in _owners(table, attribute):
            found += [(module, key) for key, value in table.items() if value is thing]
    return found


def _owners(table: dict[str, Any], attribute: str) -> list[nn.Module]:
    """Modules whose dictionary `attribute` is `table`; Python names the module itself, or its ``__dict__``."""
    near = gc.get_referrers(table)
    inner = [each for each in near if type(each) is dict and each.get(attribute) is table]
    far = gc.get_referrers(*inner) if inner else []
    owners = {id(each): each for each in (*near, *far) if _owns(each, attribute, table)}
    return [cast(nn.Module, each) for each in owners.values()]


def _owns(thing: object, attribute: str, table: dict[str, Any]) -> bool:
    return isinstance(thing, nn.Module) and thing.__dict__.get(attribute) is table
