"""Optuna, which only an extra brings: loaded at one place, without its warnings of what is experimental."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from typing import Any

from compiler.errors import ToolError

__all__ = ["optuna_quiet"]


@contextlib.contextmanager
def optuna_quiet(*samplers: str) -> Iterator[Any]:
    """The package Optuna, while nothing is warned of.

    Parameters
    ----------
    samplers : names of those that will be used; cmaes needs a package of its own.

    Raises
    ------
    ToolError
        A package is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for package in ["optuna", *(["cmaes"] if "cmaes" in samplers else [])]:
            try:
                importlib.import_module(package)
            except ImportError:
                raise ToolError(f"this needs the package {package}; run: pip install 'eie-kit[search]'") from None
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        yield optuna
