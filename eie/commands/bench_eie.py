"""``eie bench eie``: efficiency on the nine layers of the publication."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eie.options import example, json_option, make_params
from eie.output import Output

if TYPE_CHECKING:
    from sim.benchmarks.efficiency import Measurement, NetworkLayer, Row
    from sim.benchmarks.layers import Shape

__all__ = ["eie", "layers_option", "matrices_option", "numbers", "scale_option", "seeds_option", "shapes"]

ENGINES = ("cycles", "rtl", "amaranth")


def numbers(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Comma-separated numbers, each at least 0; "none" is none.

    Raises
    ------
    click.BadParameter
        One of them is not a number.
    """
    if value.strip().lower() == "none":
        return ()
    try:
        found = tuple(dict.fromkeys(int(part) for part in value.split(",") if part.strip()))
    except ValueError:
        raise click.BadParameter(f"{value!r}: expected numbers separated by commas, as in 1,2,3") from None
    if not found or min(found) < 0:
        raise click.BadParameter(f"{value!r}: expected one or more numbers from 0 up, as in 1,2,3")
    return found


def engine_names(ctx: click.Context, parameter: click.Parameter, value: str) -> str | None:
    """The hardware named beside the cycle model, or None.

    Raises
    ------
    click.BadParameter
        An engine is unknown, or more than one is hardware.
    """
    names = list(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    if not names or set(names) - set(ENGINES):
        raise click.BadParameter(f"{value!r}: expected cycles, or cycles and one of rtl, amaranth")
    hardware = [name for name in names if name != "cycles"]
    if len(hardware) > 1:
        raise click.BadParameter(f"{value!r} names two kinds of hardware; expected one of rtl, amaranth")
    return hardware[0] if hardware else None


def shapes(text: str | None) -> tuple[Shape, ...]:
    """The layers named; all nine without an answer, none for "none"."""
    from sim.benchmarks.layers import choose

    if text is None or text.strip().lower() == "all":
        return choose(None)
    return choose([] if text.strip().lower() == "none" else [part.strip() for part in text.split(",") if part.strip()])


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
seeds_option: Decorator = click.option(
    "--seeds", metavar="N,…", default="1,2,3", show_default=True, callback=numbers, help="One run of all layers each."
)
layers_option: Decorator = click.option("--layers", metavar="NAME,…|none", help="Some of the nine. [default: all]")
scale_option: Decorator = click.option(
    "--scale",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Divide both sides of each layer by this: a quick try, not the benchmark.",
)
matrices_option: Decorator = click.option(
    "--matrices",
    type=click.Choice(["uniform", "skewed"]),
    default="uniform",
    show_default=True,
    help="skewed: rows and columns of uneven density, lognormal(0, 0.5) factors on both.",
)


@click.command(
    epilog=example(
        "eie bench eie --json eie.json",
        "eie bench eie --engines cycles --layers NT-We,VGG-6 --seeds 7",
        "eie bench eie --layers none --network lenet.eie --input x.npy",
    ),
    short_help="Efficiency on the nine layers of the EIE publication.",
)
@seeds_option
@layers_option
@click.option("--preset", metavar="P", default="BALANCED_64", show_default=True, help="Parameter set.")
@click.option("--set", "settings", metavar="K=V", multiple=True, help="Change one parameter; may be repeated.")
@matrices_option
@click.option(
    "--engines", metavar="A,…", default="cycles,rtl", show_default=True, callback=engine_names,
    help="cycles alone, or with rtl or amaranth, which are then compared with it and with golden.",
)  # fmt: skip
@click.option("--network", metavar="NET.eie", type=click.Path(path_type=Path), help="Rows of a compiled network too.")
@click.option("--input", "source", metavar="X.npy", type=click.Path(path_type=Path), help="Its batch (n, in).")
@scale_option
@json_option
@click.pass_context
def eie(
    ctx: click.Context,
    seeds: tuple[int, ...],
    layers: str | None,
    preset: str,
    settings: tuple[str, ...],
    matrices: str,
    engines: str | None,
    network: Path | None,
    source: Path | None,
    scale: int,
    json_to: str | None,
) -> None:
    """Run the nine fully connected layers of the EIE publication at full size and print how much is useful work.

    Efficiency is nonzeros on active columns / PEs / cycles, over a batch of four different vectors back to back,
    without the write-back exposed at the end, which stands beside its bound. Every output is compared with the golden
    model, every time and counter with the cycle model: ends with 1 if one differs. The columns are explained in
    docs/benchmarks.md.
    """
    output = Output(json_to)
    if (network is None) != (source is None):
        raise click.UsageError("--network and --input belong together")
    chosen, (params, options) = shapes(layers), make_params(preset, settings)
    if not chosen and network is None:
        raise click.UsageError("--layers none leaves nothing to run without --network and --input")
    if chosen and not seeds:
        raise click.UsageError("--seeds none leaves nothing to run; expected numbers, as in 1,2,3")

    from sim.benchmarks.efficiency import measure
    from sim.benchmarks.versions import versions

    with output.progress("layers") as progress:
        measured = measure(
            params, chosen, seeds, matrices=matrices, scale=scale, hardware=engines, options=options, progress=progress,
        )  # fmt: skip
    if measured.rows:
        _print(output, measured, f"{preset}, {params.pes} PEs, {matrices} matrices" + _scaled(scale))
    rows, differences = list(measured.rows), measured.differences
    answer: dict[str, Any] = {
        "rows": [_plain(row) for row in rows],
        "geomean": measured.geomean,
        "geomean_by_seed": measured.geomean_by_seed,
        "matrices": matrices,
        "scale": scale,
        "engines": ["golden", "cycles", *([engines] if engines else [])],
        "params": params.asdict(),
        "options": options.asdict(),
        "versions": versions(params),
    }
    if network is not None and source is not None:
        answer["network"], wrong = _network(output, network, source, engines)
        differences += wrong
    answer["differences"] = differences
    for difference in differences:
        output.text(f"DIFFER: {difference}")
    if engines and not differences:
        output.text(f"{engines} = golden model in every bit, = cycle model in every cycle and counter")
    output.result(answer)
    ctx.exit(1 if differences else 0)


def _plain(row: Row | NetworkLayer) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(row)


def _scaled(scale: int) -> str:
    return "" if scale == 1 else f", sides divided by {scale}: not the benchmark"


def _print(output: Output, measured: Measurement, title: str) -> None:
    output.table(
        ("layer", "seed", "nonzeros", "padding", "ideal", "RTL", "model", "efficiency", "EIE sim", "µs", "EIE µs"),
        [
            (
                row.layer, str(row.seed), row.nnz_active, row.padding, round(row.ideal_cycles), row.rtl_cycles,
                row.model_cycles, f"{row.efficiency:.4f}", row.simulator, f"{row.us:.2f}", row.paper_us,
            )
            for row in measured.rows
        ],
        title=title,
    )  # fmt: skip
    output.table(
        ("layer", "seed", "useful %", "padding %", "starved %", "blocked", "skipped", "drain", "bound"),
        [
            (
                row.layer, str(row.seed), f"{100 * row.efficiency:.2f}", *(f"{100 * x:.2f}" for x in row.lost.values()),
                row.counters["blocked"], row.counters["skipped"], row.drain_cycles, row.drain_bound,
            )
            for row in measured.rows
        ],
        title="Where the multiplier cycles went",
    )  # fmt: skip
    worst = min(measured.rows, key=lambda row: row.efficiency)
    seeds = ", ".join(f"seed {seed} {mean:.4f}" for seed, mean in measured.geomean_by_seed.items())
    output.text(f"geometric mean {measured.geomean:.4f} ({seeds}); lowest {worst.layer} {worst.efficiency:.4f}")
    output.text("exposed write-back beyond its bound: " + (", ".join(measured.late) or "none"))


def _network(output: Output, network: Path, source: Path, hardware: str | None) -> tuple[dict[str, Any], list[str]]:
    """Rows of a compiled network."""
    from compiler.arrays import read_batch
    from compiler.errors import InputError
    from compiler.network_file import load
    from sim.benchmarks.efficiency import measure_network

    images, x = load(network).images, read_batch(source)
    if len(images) != 1:
        raise InputError(f"{network} has {len(images)} images of the array; expected one: a chain of Linear")
    (image,) = images
    rows, whole = measure_network(image, x, network.stem, hardware)
    shown: list[NetworkLayer | Row] = [*rows, whole]
    output.table(
        ("layer", "nonzeros", "padding", "ideal", "RTL", "model", "starved", "blocked"),
        [
            (
                row.layer, row.nnz_active, row.padding, round(row.ideal_cycles), row.rtl_cycles, row.model_cycles,
                row.counters["starved"], row.counters["blocked"],
            )
            for row in shown
        ],
        title=f"{network}, {image.params.pes} PEs, {len(x)} vectors",
    )  # fmt: skip
    output.text(f"efficiency of the whole {whole.efficiency:.4f} (layers overlap)")
    output.text(f"exposed write-back {whole.drain_cycles} cycles, bound {whole.drain_bound}")
    answer = {
        "file": str(network), "pes": image.params.pes, "batch": len(x),
        "layers": [_plain(row) for row in rows], **_plain(whole),
    }  # fmt: skip
    return answer, [f"{network}: {text}" for text in whole.differences]
