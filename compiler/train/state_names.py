"""Names of a saved state that carry the prefix of a wrapper around the module."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TypeVar

from compiler.errors import InputError

__all__ = ["unwrapped"]

_ANYWHERE = "_orig_mod."  # torch.compile, around the module or parts of it
_IN_FRONT = "module."  # DataParallel and DistributedDataParallel

Value = TypeVar("Value")


def unwrapped(state: Mapping[str, Value], own: Set[str]) -> dict[str, Value]:
    """The state under the names of the module itself.

    If more names are then the module's, ``_orig_mod.`` (of torch.compile) is dropped wherever it stands, and
    ``module.`` (of DataParallel) in front.

    Parameters
    ----------
    own : names of the module's state.

    Raises
    ------
    InputError
        The names would be the module's but for another prefix that all of them have.
    """
    bare = {name.replace(_ANYWHERE, "").removeprefix(_IN_FRONT): value for name, value in state.items()}
    if len(bare) == len(state) and len(own & set(bare)) > len(own & set(state)):
        return bare
    fronts = {name.partition(".")[0] for name in state}
    if len(fronts) == 1 and not own & set(state):
        (front,) = fronts
        if own & {name.partition(".")[2] for name in state}:
            raise InputError(
                f"all names of the state begin with {front!r}, which the module's do not: save the state of the inner "
                f"module, model.{front}.state_dict(), or return that module's wrapper from the function"
            )
    return dict(state)
