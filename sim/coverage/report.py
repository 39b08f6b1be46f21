"""What a campaign came to: percentages by kind and file, points that are open, bins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.coverage.bins import bins
from sim.coverage.points import KINDS, Point, merge
from sim.coverage.waivers import Waiving, apply, source_lines, waivers
from sim.rtl.collect import read_cases, read_counts

__all__ = ["CoverageReport", "Share", "report_of"]


@dataclass(frozen=True)
class Share:
    """Of `total` points, so many are reached and waived."""

    reached: int
    waived: int
    total: int

    @property
    def open(self) -> int:
        """Neither reached nor waived."""
        return self.total - self.reached - self.waived

    @property
    def percent(self) -> float:
        """Reached, of those that are not waived."""
        return 100.0 * self.reached / max(1, self.total - self.waived)


@dataclass(frozen=True)
class CoverageReport:
    """Points and bins of a campaign.

    points : of the source, with their counts. waiving : what the waivers make of them. bins : with their counts.
    """

    points: Mapping[Point, int]
    waiving: Waiving
    bins: Mapping[str, int]

    def share(self, kind: str, file: str | None = None) -> Share:
        """Of a kind, in one file or all."""
        chosen = [
            (point, count) for point, count in self.points.items()
            if point.kind == kind and file in (None, point.file)
        ]  # fmt: skip
        return Share(
            sum(count > 0 for _, count in chosen),
            sum(not count and point in self.waiving.of for point, count in chosen), len(chosen),
        )  # fmt: skip

    @property
    def files(self) -> list[str]:
        """Files with points."""
        return sorted({point.file for point in self.points})

    @property
    def open(self) -> list[Point]:
        """Points that are neither reached nor waived."""
        return [point for point, count in self.points.items() if not count and point not in self.waiving.of]

    @property
    def empty(self) -> list[str]:
        """Bins that nothing was in."""
        return [name for name, count in self.bins.items() if not count]

    @property
    def problems(self) -> list[str]:
        """What is not as it should be after a whole campaign, a line each."""
        by_kind = Counter(point.kind for point in self.open)
        found = [f"{count:,} points of kind {kind} are neither reached nor waived" for kind, count in by_kind.items()]
        found += [f"bin {name} is empty" for name in self.empty]
        return [*found, *self.waiving.problems]

    def asdict(self) -> dict[str, Any]:
        """Percentages, open points and bins as plain data."""

        def row(file: str | None) -> dict[str, Any]:
            shares = {kind: self.share(kind, file) for kind in KINDS}
            return {
                kind: {"reached": share.reached, "waived": share.waived, "points": share.total,
                       "percent": round(share.percent, 2)}
                for kind, share in shares.items() if share.total
            }  # fmt: skip

        return {
            "all": row(None),
            "files": {file: row(file) for file in self.files},
            "open": [list(point) for point in self.open],
            "waived": dict(Counter(waiver.reason for waiver in self.waiving.of.values())),
            "bins": dict(self.bins),
            "problems": self.problems,
        }


def report_of(raw: Path) -> CoverageReport:
    """Merge what was collected in the folder `raw`: counts of points and bins, and traits of the programs that ran."""
    traits: Counter[str] = sum((Counter(case["bins"]) for case in read_cases(raw)), Counter())
    points = merge(read_counts(raw))
    counted = [(point.what, count) for point, count in points.items() if point.kind == "bin"]
    points = {point: count for point, count in points.items() if point.kind != "bin"}
    lines = source_lines(sorted({point.file for point in points}))
    return CoverageReport(points, apply(points, waivers(), lines), bins([*counted, *traits.items()]))
