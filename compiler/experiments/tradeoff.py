"""Error against compression: pruning alone, quantization alone, and both.

Source: Deep Compression (Han et al., ICLR 2016), figure 6: both together compress further at no loss than either.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from compiler.experiments.base import Env, Summary, SummaryTable, Trial
from compiler.experiments.paired import Family
from compiler.experiments.subject import OverNetworks, Subject, networks_of, schedule_of
from compiler.train.layers import make_plain
from compiler.train.packing import compressed_files
from compiler.train.schedule import Schedule
from compiler.train.stages import Prune, Share
from compiler.train.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Tradeoff"]

ALONE, BITS_ALONE, BOTH = "pruning", "quantization", "pruning + quantization"


@dataclass(frozen=True, kw_only=True)
class Tradeoff(OverNetworks):
    """Every network is trained, pruned to every density, and shared at every width, alone and together.

    Attributes
    ----------
    densities : shares of all weights that are kept, by one threshold for the network.
    bits : widths of a code without pruning; both_bits: those after pruning.
    prune, share : the trainings.
    """

    kind: ClassVar[str] = "tradeoff"
    densities: tuple[float, ...]
    bits: tuple[int, ...]
    both_bits: tuple[int, ...]
    prune: Schedule
    share: Schedule

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        """Networks, the operating points, and the trainings."""
        return {
            "networks": networks_of(table),
            "densities": table.numbers("densities", 0, 1),
            "bits": table.integers("bits", 1, 8),
            "both_bits": table.integers("both_bits", 1, 8),
            "prune": schedule_of(table, "prune"),
            "share": schedule_of(table, "share"),
        }

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        """Error and file of every operating point."""
        spec, subject = self.subject(trial, env)
        dense = subject.module
        bytes_dense = 4 * sum(parameter.numel() for parameter in dense.parameters())
        env.note("dense")
        subject.train(dense, spec.dense, 0)
        points: list[dict[str, Any]] = []

        def point(way: str, module: nn.Module, **said: Any) -> None:
            files = {coder: len(file) for coder, file in compressed_files(module).items()}
            points.append({"way": way, **said, **subject.errors(module), "bytes": files})

        numbers = count(1)
        for bits in self.bits:
            env.note(f"{bits} bits")
            point(BITS_ALONE, self._shared(subject, dense, bits, next(numbers)), bits=bits)
        for density in self.densities:
            env.note(f"density {density}")
            pruned = copy.deepcopy(dense)
            stage = Prune(
                kind="prune", name="prune", schedule=self.prune, density=density, scope="global", method="gradual",
                ramp=0.6, rounds=1,
            )  # fmt: skip
            subject.apply(stage, pruned, next(numbers))
            make_plain(pruned)
            point(ALONE, pruned, density=density)
            for bits in self.both_bits:
                env.note(f"density {density}, {bits} bits")
                point(BOTH, self._shared(subject, pruned, bits, next(numbers)), density=density, bits=bits)
        return {"dense": subject.errors(dense), "dense_bytes": bytes_dense, "points": points}

    def _shared(self, subject: Subject, module: nn.Module, bits: int, number: int) -> nn.Module:
        """A plain copy whose nonzero weights share values, trained."""
        shared = copy.deepcopy(module)
        stage = Share(
            kind="share", name="share", schedule=self.share, code_bits=bits, bias_bits=None, start="exact",
            grid="free", labels="fixed",
        )  # fmt: skip
        subject.apply(stage, shared, number)
        make_plain(shared)
        return shared

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        """Means over the seeds at every point, and the greatest ratio of each way at no more than the dense error."""
        figures: dict[str, Any] = {}
        tables, findings, plots = [], [], {}
        compared: dict[str, tuple[list[float], list[float]]] = {}
        for network in self.networks:
            runs = [results[f"{network.name}.{seed}"] for seed in self.seeds]
            dense = fmean([run["dense"]["test"] for run in runs])
            points = [
                _averaged([run["points"][n] for run in runs], runs[0]["dense_bytes"])
                for n in range(len(runs[0]["points"]))
            ]
            best = {
                way: _best(points, way, fmean([run["dense"]["validation"] for run in runs]))
                for way in (ALONE, BITS_ALONE, BOTH)
            }
            compared |= {
                f"{network.name}, {way} at {point['ratio']:.0f}x - dense": (
                    [run["points"][points.index(point)]["test"] for run in runs], [run["dense"]["test"] for run in runs]
                )
                for way, point in best.items() if point
            }  # fmt: skip
            figures[network.name] = {"dense_test_error": dense, "points": points, "no_loss": best}
            rows = [
                [p["way"], p.get("density"), p.get("bits"), p["validation"], p["test"], p["ratio"], p["ratio_huffman"]]
                for p in points
            ]
            tables.append(
                SummaryTable(
                    f"{network.name}: mean of {len(self.seeds)} seeds; dense test error {dense:.2f} %",
                    ["way", "density", "bits", "validation error %", "test error %", "ratio", "ratio (Huffman)"],
                    rows,
                )
            )
            words = [
                f"{way} {point['ratio']:.0f}x (test {point['test']:.2f} %)" if point else f"{way} nowhere"
                for way, point in best.items()
            ]
            findings.append(
                f"{network.name}: no more than the dense network's validation error, on average over the seeds, up to: "
                f"{', '.join(words)}; dense test error {dense:.2f} %."
            )
            plots[f"tradeoff-{network.name}"] = _plot(network.name, points, dense)
        family = Family.of(compared)
        figures["test_error_differences"] = family.asdict()
        said = [family.finding()] if compared else []
        return Summary(figures, [*tables, *family.tables("points of test error")], [*findings, *said], plots)


def _plot(name: str, points: list[dict[str, Any]], dense: float) -> Figure:
    from compiler.train.plots import tradeoff

    curves: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        label = point["way"] if point["way"] != BOTH else f"{BOTH}, {point['bits']} bits"
        curves.setdefault(label, []).append((point["ratio"], point["test"]))
    return tradeoff(curves, dense, name)


def _averaged(points: list[dict[str, Any]], dense_bytes: int) -> dict[str, Any]:
    """One operating point over the seeds."""
    first = points[0]
    said: dict[str, Any] = {key: first[key] for key in ("way", "density", "bits") if key in first}
    best = fmean([min(point["bytes"].values()) for point in points])
    return {
        **said,
        **{key: round(fmean([point[key] for point in points]), 4) for key in ("validation", "test")},
        "bytes": best,
        "ratio": round(dense_bytes / best, 2),
        "ratio_huffman": round(dense_bytes / fmean([point["bytes"]["huffman"] for point in points]), 2),
    }


def _best(points: list[dict[str, Any]], way: str, limit: float) -> dict[str, Any] | None:
    """The point of the greatest ratio whose validation error is not above `limit`."""
    good = [point for point in points if point["way"] == way and point["validation"] <= limit]
    return max(good, key=lambda point: float(point["ratio"]), default=None)
