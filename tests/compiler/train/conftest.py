"""Tests of training."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(scope="session", autouse=True)
def frozen() -> None:
    """What torch has made by now is not looked through when modules that share a parameter are searched."""
    import torch  # noqa: F401

    gc.collect()
    gc.freeze()
