"""Pages of a coverage report: a table of files and bins, and each file with its lines and their points."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from compiler.files import write_file
from sim.coverage.bins import every_bin
from sim.coverage.points import KINDS, Point
from sim.coverage.report import CoverageReport
from sim.coverage.waivers import source_lines

__all__ = ["write_pages"]


@dataclass(frozen=True)
class _Line:
    """A source line: what its points say. number 0: the interface of the block."""

    number: int
    text: str
    state: str
    least: int | None
    summary: str
    points: list[dict[str, Any]]


def _line(report: CoverageReport, number: int, text: str, points: list[Point]) -> _Line:
    if not points:
        return _Line(number, text, "", None, "", [])
    counts = [report.points[point] for point in points]
    waived = [point in report.waiving.of for point in points]
    missing = [not count for count in counts]
    is_open = any(lacks and not excused for lacks, excused in zip(missing, waived, strict=True))
    state = "open" if is_open else "waived" if any(missing) else "reached"
    kinds = {kind: [c for p, c in zip(points, counts, strict=True) if p.kind == kind] for kind in KINDS}
    summary = ", ".join(f"{kind} {sum(c > 0 for c in found)} of {len(found)}" for kind, found in kinds.items() if found)
    worst = sorted(zip(points, counts, strict=True), key=lambda each: (each[1] > 0, each[0]))
    listed = [
        {"kind": point.kind, "what": point.what, "count": count,
         "reason": report.waiving.of[point].reason if point in report.waiving.of else ""}
        for point, count in worst
    ]  # fmt: skip
    return _Line(number, text, state, min(counts), summary, listed)


def write_pages(report: CoverageReport, folder: Path, head: str) -> Path:
    """Write index.html and a page for each file; the path of the index.

    head : a sentence below the title: what ran.
    """
    text = (resources.files("sim") / "coverage" / "page.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined).from_string(text)
    texts = every_bin()
    rows = [("all", "", [report.share(kind) for kind in KINDS])]
    lines = source_lines(report.files)
    nothing: dict[str, Any] = {"rows": [], "bins": [], "problems": [], "lines": [], "kinds": KINDS}
    folder.mkdir(parents=True, exist_ok=True)
    for file in report.files:
        link = file.replace("/", "-") + ".html"
        rows.append((file, link, [report.share(kind, file) for kind in KINDS]))
        places: dict[int, list[Point]] = {}
        for point in report.points:
            if point.file == file:
                places.setdefault(point.line, []).append(point)
        shown = [_line(report, 0, "(interface of the block)", places[0])] if 0 in places else []
        shown += [_line(report, n, source, places.get(n, [])) for n, source in enumerate(lines[file], 1)]
        page = template.render({**nothing, "title": file, "head": "", "lines": shown})
        write_file(folder / link, page.encode())
    found = [(name, count, texts.get(name, "")) for name, count in report.bins.items()]
    page = template.render({
        **nothing, "title": "Coverage of the hardware", "head": head, "rows": rows, "bins": found,
        "problems": report.problems,
    })  # fmt: skip
    index = folder / "index.html"
    write_file(index, page.encode())
    return index
