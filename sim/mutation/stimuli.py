"""Stimuli: runs of the existing regressions and benches through the pins, recorded from the array without a fault.

Each run is checked when it is recorded, by what checks it in its regression, so that a recording holds what is right.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ToolError
from compiler.image.image import Image
from hw.params import Params
from sim import run as engines
from sim.corner_cases import corner_cases, observe, overlap, refused_otherwise
from sim.decode import decode
from sim.extent_cases import observe_edges, observe_extents, wrong_extents
from sim.mutation.record import parse
from sim.network import run_network
from sim.program import flat
from sim.rtl.build import Build
from sim.rtl.engine import run_rtl
from sim.suites import SUITES

__all__ = ["Stimulus", "record"]

_BENCHES = ("corners", "edges", "extents", "overlap")
_LONG = 1000


@dataclass(frozen=True)
class Stimulus:
    """A run: the regression or bench that it is of (`sim.verify.SUITES`, or one of `_BENCHES`), its seed.

    Of extents the seed is how far they go (`sim.extent_cases`).
    """

    suite: str
    seed: int

    @property
    def name(self) -> str:
        """Of its recording."""
        return f"{self.suite}-{self.seed}"

    @property
    def long(self) -> bool:
        """It is replayed only for mutants that nothing before it has made another bit than the array's."""
        return self.suite == "extents" and self.seed > _LONG


def record(built: Build, params: Params, stimulus: Stimulus) -> NDArray[np.uint8]:
    """The recording of a stimulus, uint8 (rows, `sim.mutation.record.BYTES`).

    Raises
    ------
    ToolError
        The array without a fault does not do what the regression expects: what is recorded would be wrong.
    """
    with tempfile.TemporaryDirectory(prefix="eie-mutation-") as name:
        folder = Path(name)
        if stimulus.suite in _BENCHES:
            files = [folder / "record"]
            _bench(built, params, stimulus, folder, files[0])
        else:
            files = []
            for n, (image, x) in enumerate(_images(params, stimulus)):
                files.append(folder / f"record_{n}")
                _run(built, image, x, stimulus, files[-1])
        return np.concatenate([parse(file.read_text()) for file in files])


def _images(params: Params, stimulus: Stimulus) -> list[tuple[Image, Mapping[str, NDArray[np.int16]]]]:
    """Images of a case, each with its inputs."""
    suite = SUITES[stimulus.suite]
    make = suite.graphs
    if make is None:
        case = suite.layers(stimulus.seed, params, suite.batch)
        return [(case.image, case.x)]
    network = make(stimulus.seed, params)
    found: list[tuple[Image, Mapping[str, NDArray[np.int16]]]] = []
    run_network(network.network, network.x, engine="golden", watch=lambda image, maps: found.append((image, maps)))
    return found


def _run(built: Build, image: Image, x: Mapping[str, Any], stimulus: Stimulus, file: Path) -> None:
    raw, _ = engines.check_input(image, x)
    model = engines.run(image, x, engine="cycles")
    ran = run_rtl(
        image, raw, decode(image), bus=True, built=built, seed=stimulus.seed, plusargs=(f"+eie_record={file}",)
    )  # fmt: skip
    values = flat(ran.values)
    wrong = [name for name in model.values if not np.array_equal(model.values[name], values[name])]
    if wrong or ran.records != model.records:
        raise ToolError(f"{stimulus.name}: the array is not the model ({wrong or 'records'}); run eie verify first")


def _bench(built: Build, params: Params, stimulus: Stimulus, folder: Path, file: Path) -> None:
    """Corners are judged by their errors here, and fully in `tests/sim/test_corners.py`; others as in their tests.

    The networks of the corners are smaller here: most of a longer run would be the loading of its memories.
    """
    plusargs: tuple[str, ...] = (f"+eie_record={file}",)
    if stimulus.suite == "corners":
        cases = corner_cases(params, stimulus.seed, (300, 100, 600), wild=False)
        wrong: Any = refused_otherwise(cases, observe(built, cases, folder, plusargs, moments=3))
    elif stimulus.suite == "edges":
        wrong = observe_edges(built, params, folder, plusargs)["wrong"]
    elif stimulus.suite == "extents":
        observed = observe_extents(built, params, folder, most=stimulus.seed, plusargs=plusargs)
        wrong = wrong_extents(params, observed, most=stimulus.seed)
    else:
        plusargs = (f"+verilator+seed+{stimulus.seed}", *plusargs)
        wrong = overlap(built, params, stimulus.seed, folder, plusargs)["wrong"]
    if wrong:
        raise ToolError(f"{stimulus.name}: the bench found something wrong ({wrong}); run its test first")
