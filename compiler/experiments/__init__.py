"""Experiments: what the algorithms of `compiler.train` do, measured on real data, by recipe and repeatable.

One file for each kind. `runner` runs the trials of any of them in processes, keeps what is finished, and writes
the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from compiler.errors import RecipeError
from compiler.experiments.base import Experiment
from compiler.experiments.consistency import Consistency
from compiler.experiments.consistency_faults import ConsistencyFaults
from compiler.experiments.dsd import DenseSparseDense
from compiler.experiments.few_bits import FewBits
from compiler.experiments.growth import Growth
from compiler.experiments.haq import Haq
from compiler.experiments.hashing import Hashing
from compiler.experiments.hashing_wide import HashingWide
from compiler.experiments.iss import Structures
from compiler.experiments.large_batch import LargeBatch
from compiler.experiments.overlap import Overlap
from compiler.experiments.parallel import Parallel
from compiler.experiments.quantization import Quantization
from compiler.experiments.ssl import StructuredSparsity
from compiler.experiments.terngrad import TernGrad
from compiler.experiments.terngrad_speed import TernGradSpeed
from compiler.experiments.terngrad_traffic import TernGradTraffic
from compiler.experiments.tradeoff import Tradeoff
from compiler.train.table import SEED_LIMIT, Table, read_toml

__all__ = ["KINDS", "load"]

_ALL: tuple[type[Experiment], ...] = (
    Consistency,
    ConsistencyFaults,
    DenseSparseDense,
    FewBits,
    Growth,
    Haq,
    Hashing,
    HashingWide,
    LargeBatch,
    Overlap,
    Parallel,
    Quantization,
    StructuredSparsity,
    Structures,
    TernGrad,
    TernGradSpeed,
    TernGradTraffic,
    Tradeoff,
)

KINDS: dict[str, type[Experiment]] = {cls.kind: cls for cls in _ALL}
"""Kind, as recipes write it → class."""


def load(path: Path, more: Mapping[str, type[Experiment]] | None = None) -> Experiment:
    """Read the recipe of an experiment.

    more : kinds beside `KINDS`: those that need what simulates the array.

    Raises
    ------
    RecipeError
        The file cannot be read or a value is not legal; the message names file, key, value and legal range.
    """
    table = Table(read_toml(path), str(path), "")
    kinds = {**KINDS, **(more or {})}
    cls = kinds[table.choice("kind", kinds)]
    name = table.text("name", default=path.stem)
    seeds = table.integers("seeds", 0, SEED_LIMIT, default=[1])
    if not seeds:
        raise RecipeError(f"{path}: seeds is empty; expected at least one")
    options = cls.options(table)
    table.finish()
    return cls(name=name, seeds=tuple(dict.fromkeys(seeds)), **options)
