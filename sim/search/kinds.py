"""Experiments that ask what networks cost on the array."""

from __future__ import annotations

from compiler.experiments.base import Experiment
from sim.search.amc import Amc

__all__ = ["KINDS"]

KINDS: dict[str, type[Experiment]] = {Amc.kind: Amc}
"""Kind, as recipes write it → class; beside `compiler.experiments.KINDS`."""
