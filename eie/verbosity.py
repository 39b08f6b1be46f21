"""How much a command says: ``eie -q`` the answer alone, ``eie -v`` all tables, and where a fault happened."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

import click

__all__ = ["Verbosity", "verbosity", "verbosity_options"]

_KEY = "eie.verbosity"

Command = TypeVar("Command", bound=Callable[..., Any])


class Verbosity(Enum):
    """What the user asked for."""

    QUIET = "quiet"
    NORMAL = "normal"
    VERBOSE = "verbose"


def verbosity() -> Verbosity:
    """That of the command that runs; normal outside of one."""
    context = click.get_current_context(silent=True)
    found = None if context is None else context.meta.get(_KEY)
    return found if isinstance(found, Verbosity) else Verbosity.NORMAL


def verbosity_options(command: Command) -> Command:
    """``-q`` and ``-v`` of a group of commands."""

    def keep(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            ctx.meta[_KEY] = Verbosity.QUIET if parameter.name == "quiet" else Verbosity.VERBOSE

    quiet = click.option(
        "-q", "--quiet", is_flag=True, expose_value=False, callback=keep, help="No notes and no progress."
    )
    verbose = click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=keep, help="All tables; where a fault happened."
    )
    return quiet(verbose(command))
