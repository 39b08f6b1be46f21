"""Experiments that ask what networks cost on the array."""

from __future__ import annotations

from compiler.experiments.base import Experiment
from sim.auto.experiment import AutoTrial
from sim.nas.experiment import Nas
from sim.search.amc import Amc
from sim.search.fronts import Fronts
from sim.search.haq import ArrayHaq
from sim.search.smaller import Smaller

__all__ = ["KINDS"]

KINDS: dict[str, type[Experiment]] = {cls.kind: cls for cls in (Amc, ArrayHaq, AutoTrial, Fronts, Nas, Smaller)}
"""Kind, as recipes write it → class; beside `compiler.experiments.KINDS`."""
