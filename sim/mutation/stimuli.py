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
from sim.benches import BENCHES, judged
from sim.decode import decode
from sim.mutation.record import parse
from sim.program import flat
from sim.rtl.build import Build
from sim.rtl.engine import run_rtl
from sim.trials import images_of

__all__ = ["Stimulus", "record"]

_LONG = 1000


@dataclass(frozen=True)
class Stimulus:
    """A run: the regression or bench that it is of (`sim.verify.SUITES`, or one of `sim.benches`), its seed.

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
        if stimulus.suite in BENCHES:
            files = [folder / "record"]
            _bench(built, params, stimulus, folder, files[0])
        else:
            files = []
            for n, (image, x) in enumerate(images_of(stimulus.suite, stimulus.seed, params)):
                files.append(folder / f"record_{n}")
                _run(built, image, x, stimulus, files[-1])
        return np.concatenate([parse(file.read_text()) for file in files])


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
    """The networks of the corners are smaller here: most of a longer run would be the loading of its memories."""
    plusargs: tuple[str, ...] = (f"+eie_record={file}",)
    if stimulus.suite == "overlap":
        plusargs = (f"+verilator+seed+{stimulus.seed}", *plusargs)
    wrong = judged(
        stimulus.suite, built, params, stimulus.seed, folder, plusargs,
        entries=(300, 100, 600), moments=3, wild=False, most=stimulus.seed,
    )  # fmt: skip
    if wrong:
        raise ToolError(f"{stimulus.name}: the bench found something wrong ({wrong}); run its test first")
