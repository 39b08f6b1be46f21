"""From the published array to the balanced one, one change at a time: what each is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compiler.options import Options, preset_options
from hw.params import Params, preset
from sim.benchmarks.efficiency import Measurement, measure
from sim.benchmarks.layers import Shape

__all__ = ["STEPS", "Step", "ablate", "arrays", "markdown"]

START, END = "EIE_64", "BALANCED_64"

STEPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("6-bit index: no padding", {"index_bits": 6}),
    ("empty columns skipped", {"skip_empty": True}),
    ("deeper queues", {"queue_depth": preset(END).queue_depth}),
    ("rows balanced (LPT)", {"balanced": True}),
    ("row fragments", {"fragments": 8}),
)
"""What is changed, in this order; each step keeps those before. All of them broadcast vectors of eight activations
where the published array broadcasts single ones: this array has no other way, so there is no step for it."""


@dataclass(frozen=True)
class Step:
    """One array of the chain and its measurement. `rtl`: the hardware ran too."""

    what: str
    changes: dict[str, Any]
    rtl: bool
    measurement: Measurement

    def asdict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "step": self.what,
            "changes": self.changes,
            "rtl": self.rtl,
            "geomean": self.measurement.geomean,
            "geomean_by_seed": self.measurement.geomean_by_seed,
            "rows": [asdict(row) for row in self.measurement.rows],
        }


def arrays(pes: int = 64) -> list[tuple[str, dict[str, Any], Params, Options]]:
    """Name, changes, parameters and options of each step, the published array first.

    What differs between both ends beside the steps (memory sizes, the refill port) costs these layers no cycle; it is
    set from the beginning so that the end is exactly the balanced array.
    """
    start, end = preset(START), preset(END)
    stepped = {name for _, changes in STEPS for name in changes}
    rest = {name: value for name, value in end.asdict().items() if name not in stepped}
    params, options = start.replace(**rest).replace(pes=pes), preset_options(START)
    chain: list[tuple[str, dict[str, Any], Params, Options]] = [
        ("the published array, with vector broadcast", {}, params, options)
    ]
    for what, changes in STEPS:
        told = {name: value for name, value in changes.items() if name in options.asdict()}
        options = options.replace(**told)
        params = params.replace(**{name: value for name, value in changes.items() if name not in told})
        chain.append((what, changes, params, options))
    return chain


def ablate(
    shapes: Sequence[Shape],
    seeds: Sequence[int],
    *,
    pes: int = 64,
    scale: int = 1,
    matrices: str = "uniform",
    rtl: Sequence[int] = (),
    hardware: str = "rtl",
    progress: Callable[[int, int], None] | None = None,
) -> list[Step]:
    """Measure every array of the chain: by the cycle model, the steps with a number in `rtl` in hardware as well."""
    chain = arrays(pes)
    each = len(shapes) * len(seeds)
    steps = []
    for number, (what, changes, params, options) in enumerate(chain):

        def report(done: int, total: int, number: int = number) -> None:
            if progress:
                progress(number * each + done, len(chain) * each)

        engine = hardware if number in rtl else None
        measured = measure(
            params, shapes, seeds, matrices=matrices, scale=scale, hardware=engine, options=options, progress=report
        )
        steps.append(Step(what, changes, engine is not None, measured))
    return steps


def markdown(steps: Sequence[Step], command: str) -> str:
    """The table of docs/results/ablation.md: a row a step, a column a layer (mean over seeds), geometric mean last."""
    layers = list(dict.fromkeys(row.layer for row in steps[0].measurement.rows))
    seeds = list(dict.fromkeys(str(row.seed) for row in steps[0].measurement.rows))
    lines = [
        "# From the published array to the balanced one",
        "",
        f"Efficiency (nonzeros on active columns / PEs / cycles, batch of four), mean over seeds {', '.join(seeds)}.",
        "Each row keeps the changes of those above. All of them broadcast vectors of eight activations. Written by",
        "",
        f"    {command}",
        "",
        "| step | " + " | ".join(layers) + " | geometric mean | by |",
        "|---|" + "---|" * (len(layers) + 2),
    ]
    for step in steps:
        means = []
        for layer in layers:
            found = [row.efficiency for row in step.measurement.rows if row.layer == layer]
            means.append(f"{sum(found) / len(found):.3f}")
        by = "RTL = model" if step.rtl and not step.measurement.differences else "RTL DIFFERS" if step.rtl else "model"
        changes = ", ".join(f"{name}={value}" for name, value in step.changes.items())
        what = step.what + (f" (`{changes}`)" if changes else "")
        lines.append(f"| {what} | " + " | ".join(means) + f" | {step.measurement.geomean:.4f} | {by} |")
    return "\n".join(lines) + "\n"
