"""What a search found: a table of the best trials, the front as a plot, and sentences that follow from the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.experiments import document
from compiler.experiments.base import Summary, SummaryTable
from sim.search.spec import OBJECTIVES, Search
from sim.search.study import front
from sim.search.trial import Outcome, key_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write_report"]

_ROWS = 40


def write_report(
    search: Search, outcomes: Mapping[int, Outcome], checked: Sequence[Mapping[str, Any]], out: Path
) -> dict[str, Any]:
    """Write ``report.json``, ``report.md`` and the plot; returns the report, in the form of an experiment's."""
    best = front(outcomes.values())
    summary = Summary(
        {"search": _figures(search, outcomes, best), "checked": list(checked)},
        [_table(search, best)],
        _findings(search, outcomes, best, checked),
        {"search": _plot(search, outcomes, best)},
    )
    settings = {"name": search.name, "kind": "search", "seeds": [search.seed], **search.asdict()}
    spent = {key_of(number): (each.seconds, each.cpu) for number, each in outcomes.items()}
    return document.write_report(out, settings, summary, spent, {"optuna": version("optuna")})


def _figures(search: Search, outcomes: Mapping[int, Outcome], best: Sequence[Outcome]) -> dict[str, Any]:
    numbers = {each.number for each in best}
    return {
        "objectives": list(search.objectives),
        "front": [
            {"trial": each.number, "values": dict(each.values), "figures": dict(each.figures)} for each in best
        ],
        "tried": [
            {"trial": each.number, "values": dict(each.values), "state": each.state,
             "objectives": list(each.objectives), "front": each.number in numbers, "message": each.message,
             "epochs": len(each.curve)}
            for each in outcomes.values()
        ],
    }  # fmt: skip


def _table(search: Search, best: Sequence[Outcome]) -> SummaryTable:
    """The front; of one objective it has one row."""
    measured = list(dict.fromkeys([*search.objectives, *(name for each in best for name in each.figures)]))
    rows = [
        [each.number, *(each.figures[name] for name in measured), *(each.values[v.path] for v in search.variables)]
        for each in best[:_ROWS]
    ]
    title = "The best trial" if len(search.objectives) == 1 else "Trials that no other beats in all objectives"
    named = [OBJECTIVES.get(name, "test error, %" if name == "test_error" else name) for name in measured]
    plain = [[str(cell) if isinstance(cell, bool) else cell for cell in row] for row in rows]
    return SummaryTable(title, ["trial", *named, *(v.path for v in search.variables)], plain)


def _findings(
    search: Search, outcomes: Mapping[int, Outcome], best: Sequence[Outcome], checked: Sequence[Mapping[str, Any]]
) -> list[str]:
    states = Counter(each.state for each in outcomes.values())
    epochs = sum(len(each.curve) for each in outcomes.values())
    words = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    found = [f"{len(outcomes)} trials by {search.sampler}: {words}; {epochs:,} epochs trained."]
    for name in search.objectives:
        number = search.objectives.index(name)
        least = min(best, key=lambda each: each.objectives[number])
        found.append(f"Least {name}: trial {least.number} with {least.objectives[number]:,.6g} ({OBJECTIVES[name]}).")
    found += [
        f"Trial {each['trial']} ran as Verilog: {each['rtl_cycles']:,} cycles for {each['samples']} samples, as "
        f"counted; {each['values']:,} values equal bit for bit."
        for each in checked
    ]
    return found


def _plot(search: Search, outcomes: Mapping[int, Outcome], best: Sequence[Outcome]) -> Figure:
    """The first objective over each other one; of a single objective, over the trials."""
    from matplotlib.figure import Figure

    done = [each for each in outcomes.values() if each.state == "complete"]
    others = range(1, len(search.objectives))
    figure = Figure(figsize=(4.5 + 2.5 * max(1, len(others)), 4.2), layout="constrained")
    axes = figure.subplots(1, max(1, len(others)), squeeze=False)[0]
    if not others:
        axes[0].plot([each.number for each in done], [each.objectives[0] for each in done], "o", markersize=3)
        least: list[float] = []
        for each in done:
            least.append(min([each.objectives[0], *least[-1:]]))
        axes[0].step([each.number for each in done], least, where="post", label="least so far")
        axes[0].set_xlabel("trial")
        axes[0].set_ylabel(OBJECTIVES[search.objectives[0]])
        axes[0].legend()
    for axis, number in zip(axes, others, strict=False):
        axis.plot(
            [e.objectives[number] for e in done], [e.objectives[0] for e in done], "o", markersize=3, label="trial"
        )
        axis.plot([e.objectives[number] for e in best], [e.objectives[0] for e in best], "o", label="not beaten")
        axis.set_xlabel(OBJECTIVES[search.objectives[number]])
        axis.set_ylabel(OBJECTIVES[search.objectives[0]])
        axis.legend()
    figure.suptitle(search.name)
    return figure
