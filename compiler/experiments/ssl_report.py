"""Tables, findings and plots of the experiment on structured sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from compiler.experiments.base import Summary, SummaryTable
from compiler.experiments.paired import Family
from compiler.experiments.ssl_ways import DENSE, DIRECT, L1, LONGER, MAGNITUDE, SSL
from compiler.experiments.subject import NetworkSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["summarize"]

_WAYS = (DENSE, LONGER, SSL, DIRECT, MAGNITUDE, L1)
_CLOSE = 0.02  # a speed-up of less than this share is none


def summarize(networks: Sequence[NetworkSpec], seeds: Sequence[int], results: Mapping[str, dict[str, Any]]) -> Summary:
    """Means over the seeds; times as the dense network's by theirs, medians over the seeds."""
    figures: dict[str, Any] = {}
    tables: list[SummaryTable] = []
    findings: list[str] = []
    plots: dict[str, Figure] = {}
    compared: dict[str, tuple[list[float], list[float]]] = {}
    for network in networks:
        runs = [results[f"{network.name}.{seed}"] for seed in seeds]
        ways = {way: _way([run["points"][way] for run in runs]) for way in _WAYS if way in runs[0]["points"]}
        tried = [_way([run["points"][way] for run in runs]) | {"way": way} for way in _strengths(runs[0])]
        tests = {way: [run["points"][way]["errors"]["test"] for run in runs] for way in ways}
        compared |= {f"{network.name}, {SSL} - {way}": (tests[SSL], tests[way]) for way in ways if way != SSL}
        speed = {
            batch: {way: median(run["times"][batch][DENSE] / run["times"][batch][way] for run in runs) for way in times}
            for batch, times in runs[0]["times"].items()
        }
        by_density = [
            {"density": point["density"], **_speed_at([run["by_density"][number] for run in runs])}
            for number, point in enumerate(runs[0]["by_density"])
        ]
        figures[network.name] = {"ways": ways, "tried": tried, "speed_up": speed, "by_density": by_density}
        tables += _tables(network.name, runs, ways, tried, speed, by_density)
        findings += _findings(network.name, runs, ways, speed, by_density)
        plots[f"ssl-{network.name}"] = _plot(network.name, ways, tried)
        if by_density:
            plots[f"ssl-{network.name}-time"] = _time_plot(network.name, ways, speed, by_density)
    family = Family.of(compared)
    figures["test_error_differences"] = family.asdict()
    return Summary(figures, [*tables, *family.tables("points of test error")], [*findings, family.finding()], plots)


def _way(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the seeds."""
    costs = {key: mean(point["costs"][key] for point in points) for key in points[0]["costs"]}
    run_dense = [point.get("after_removal", point["costs"])["multiplies"] for point in points]
    return {
        **{name: round(mean(point["errors"][name] for point in points), 4) for name in ("validation", "test")},
        "worst_test": max(point["errors"]["test"] for point in points),
        **{key: round(value, 1) for key, value in costs.items()},
        "multiplies_without_dead_structure": round(mean(run_dense), 1),
    }


def _strengths(run: Mapping[str, Any]) -> list[str]:
    return [way for way in run["points"] if way.startswith(f"{SSL} ")]


def _speed_at(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    times = points[0]["times"]
    return {
        batch: {
            form: median(point["times"][batch][DENSE] / point["times"][batch][form] for point in points)
            for form in times[batch]
            if form != DENSE
        }
        for batch in times
    }


def _tables(
    name: str,
    runs: Sequence[Mapping[str, Any]],
    ways: Mapping[str, Any],
    tried: Sequence[Mapping[str, Any]],
    speed: Mapping[str, Mapping[str, float]],
    by_density: Sequence[Mapping[str, Any]],
) -> list[SummaryTable]:
    rows: list[list[str | int | float | None]] = []
    for way, point in [*ways.items(), *((point["way"], point) for point in tried)]:
        rows.append(
            [
                way, point["validation"], point["test"], point["worst_test"], point["layers"], point["filters"],
                point["nonzeros"], point["multiplies_without_dead_structure"], point["nonzero_multiplies"],
            ]
        )  # fmt: skip
    columns = [
        "way", "validation error %", "test error %", "worst test %", "layers", "filters", "nonzero weights",
        "multiplies, dead structure removed", "multiplies with nonzero weights",
    ]  # fmt: skip
    found = [SummaryTable(f"{name}: means of {len(runs)} seeds", columns, rows)]
    shapes = [
        [seed, layer, *(_sizes(point, layer) for point in (run["points"][DENSE], run["points"][SSL]))]
        for seed, run in enumerate(runs, start=1)
        for layer in run["points"][DENSE]["shapes"]
    ]
    found.append(SummaryTable(f"{name}: outputs x inputs of the layers", ["run", "layer", "dense", "SSL"], shapes))
    batches = list(speed)
    found.append(
        SummaryTable(
            f"{name}: how many times as fast as the dense network, one thread (batch size)",
            ["run as", *batches],
            [[way, *(round(speed[batch][way], 3) for batch in batches)] for way in speed[batches[0]]],
        )
    )
    if by_density:
        forms = list(by_density[0][batches[0]])
        found.append(
            SummaryTable(
                f"{name}: unstructured at a density, how many times as fast as dense",
                ["density", *(f"{form}, batch {batch}" for form in forms for batch in batches)],
                [
                    [point["density"], *(round(point[batch][form], 3) for form in forms for batch in batches)]
                    for point in by_density
                ],
            )
        )
    return found


def _sizes(point: Mapping[str, Any], layer: str) -> str:
    return "x".join(map(str, point["shapes"][layer])) if layer in point["shapes"] else "gone"


def _findings(
    name: str,
    runs: Sequence[Mapping[str, Any]],
    ways: Mapping[str, Any],
    speed: Mapping[str, Mapping[str, float]],
    by_density: Sequence[Mapping[str, Any]],
) -> list[str]:
    dense, longer, ssl, direct = (ways[way] for way in (DENSE, LONGER, SSL, DIRECT))
    kept = sum(bool(run["points"][SSL]["no_loss"]) for run in runs)
    blocks = [len(run["points"][SSL]["removed"]["blocks"]) for run in runs]
    found = [
        (
            f"{name}: no loss on the validation samples (to one standard error) in {kept} of {len(runs)} runs. Test "
            f"error {ssl['test']:.2f} %, dense {dense['test']:.2f} %, dense trained as long {longer['test']:.2f} %."
        ),
        (
            f"{name}: SSL leaves {dense['multiplies'] / ssl['multiplies']:.1f}x fewer multiplications and "
            f"{dense['nonzeros'] / ssl['nonzeros']:.1f}x fewer weights, {ssl['filters']:.0f} of "
            f"{dense['filters']:.0f} filters, {ssl['layers']:.1f} of {dense['layers']:.0f} layers."
        ),
        (
            f"{name}: the small network trained from fresh weights as long as all of SSL: {direct['test']:.2f} % "
            f"({_more(direct['test'] - ssl['test'])} SSL)."
        ),
    ]
    if any(blocks):
        found.append(
            f"{name}: residual blocks that are only their shortcut now, by run: {', '.join(map(str, blocks))}."
        )
    for way in (MAGNITUDE, L1):
        if way in ways:
            point = ways[way]
            found.append(
                f"{name}: {way} with as many weights: test error {point['test']:.2f} % "
                f"({_more(point['test'] - ssl['test'])} SSL); multiplications against SSL's: "
                f"{point['nonzero_multiplies'] / ssl['multiplies']:.1f}x if zeros cost nothing, "
                f"{point['multiplies_without_dead_structure'] / ssl['multiplies']:.1f}x if only dead structure goes."
            )
    for batch, ratios in speed.items():
        words = f"{name}, batch {batch}: SSL runs {ratios[SSL]:.2f}x as fast as dense"
        sparse = {way: ratio for way, ratio in ratios.items() if way.startswith(MAGNITUDE)}
        if sparse:
            best = max(sparse, key=lambda way: sparse[way])
            words += (
                f"; magnitude pruning with as many weights, by the better sparse kernel ({best.split()[-1]}), "
                f"{sparse[best]:.2f}x: SSL is {ratios[SSL] / sparse[best]:.2f}x as fast as it"
            )
        found.append(f"{words}.")
    for batch in speed if by_density else ():
        slower = [point["density"] for point in by_density if max(point[batch].values()) < 1 + _CLOSE]
        faster = [point["density"] for point in by_density if point["density"] not in slower]
        holds = "holds at the former only" if slower and faster else "holds" if slower else "does not hold"
        found.append(
            f"{name}, batch {batch}: unstructured sparsity by the better kernel gains nothing at densities "
            f"{_list(slower)}, and something at {_list(faster)}: the published claim, little or negative speed-up of "
            f"unstructured sparsity on CPUs, {holds} here."
        )
    return found


def _more(difference: float) -> str:
    return f"{abs(difference):.2f} points {'above' if difference > 0 else 'below'}"


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "none"


def _plot(name: str, ways: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> Figure:
    from compiler.train.plots import canvas

    dense = ways[DENSE]["multiplies"]
    figure, axes = canvas(f"{name}: error against multiplications left")
    axes.plot(
        [dense / point["multiplies"] for point in tried], [point["test"] for point in tried], marker="o",
        label="SSL, each strength",
    )  # fmt: skip
    for way, point in ways.items():
        left = point["multiplies"] if way in (DENSE, LONGER, SSL, DIRECT) else point["nonzero_multiplies"]
        label = way if way not in (MAGNITUDE, L1) else f"{way}, if zeros cost nothing"
        axes.plot([dense / left], [point["test"]], marker="*", markersize=10, linestyle="none", label=label)
    axes.set(xscale="log", xlabel="dense multiplications / those left", ylabel="test error, %")
    axes.legend()
    return figure


def _time_plot(
    name: str,
    ways: Mapping[str, Any],
    speed: Mapping[str, Mapping[str, float]],
    by_density: Sequence[Mapping[str, Any]],
) -> Figure:
    from compiler.train.plots import canvas

    figure, axes = canvas(f"{name}: speed on one thread, dense = 1")
    density = ways[SSL]["nonzeros"] / ways[DENSE]["nonzeros"]
    for batch in speed:
        for form in by_density[0][batch]:
            places = [point["density"] for point in by_density]
            axes.plot(places, [point[batch][form] for point in by_density], marker=".", label=f"{form}, batch {batch}")
        axes.plot(
            [density], [speed[batch][SSL]], marker="*", markersize=11, linestyle="none", label=f"SSL, batch {batch}"
        )
    axes.axhline(1, color="gray", linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="share of the weights left", ylabel="times as fast as dense")
    axes.legend(fontsize="small")
    return figure
