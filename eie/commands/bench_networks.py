"""``eie bench networks``: whole networks from torch and ONNX beside their floats, and published ones layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from eie.options import array_options, example, json_option, make_params
from eie.output import Output

if TYPE_CHECKING:  # numpy and Amaranth are loaded only when the command runs
    from compiler.options import Options
    from hw.params import Params


@click.command(
    "networks",
    epilog=example(
        "eie bench networks --json",
        "eie bench networks --networks resnet-8,ds-cnn --data fashion-mnist",
        "eie bench networks --preset BALANCED_64 --sets vgg-16,resnet-50 --rtl 2",
    ),
    short_help="Whole networks from torch and ONNX, beside their floats.",
)
@click.option("--networks", metavar="A,B", default="", help="Which ones; all if not given.")
@click.option(
    "--sets", metavar="A,B", default="", help="Published networks, layer by layer, instead; `all` for each of them."
)
@click.option(
    "--data", type=click.Choice(["digits", "fashion-mnist"]), default="digits", show_default=True, help="Images."
)
@click.option("--epochs", type=click.IntRange(1), help="Of training, instead of each network's own.")
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the training, or of the random layers."
)
@click.option("--no-onnx", is_flag=True, help="Read the networks from torch only.")
@click.option(
    "--rtl",
    "rtl_samples",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Run the array's part of N samples as Verilog; of each set N layers, on a part of the map.",
)
@array_options
@json_option
def bench_networks(
    networks: str,
    sets: str,
    data: str,
    epochs: int | None,
    seed: int,
    no_onnx: bool,
    rtl_samples: int,
    preset: str,
    settings: tuple[str, ...],
    json_to: str | None,
) -> None:
    """Train the networks of the zoo, compile each from torch and from ONNX, and run the whole test set.

    The golden model computes everything; the table says how much of it the array does, and what is on the host.

    With --sets: random layers of the shapes and densities of published networks, each compiled by itself. The table
    says how many products of two nonzeros the array computes in a cycle of a PE, and where the other cycles go.
    """
    output = Output(json_to)
    params, options = make_params(preset, settings)
    if sets:
        _sets(_names(sets), params, options, seed, rtl_samples, output)
        return

    from sim.benchmarks.networks import measure

    names = _names(networks)
    rows = list(
        measure(
            names, params, options=options, dataset=data, seed=seed, epochs=epochs, onnx=not no_onnx,
            rtl_samples=rtl_samples, progress=lambda text: output.note(f"eie: {text} …"),
        )
    )  # fmt: skip
    output.table(
        ("network", "weights", "measure", "torch", "golden", "from ONNX", "rms error", "on the array %"),
        [
            (
                row["network"], row["weights"], row["measure"], row["torch"], row["golden"], row.get("onnx"),
                row["rms_error"],
                100 * row["array_multiplies"] / max(1, row["array_multiplies"] + row["host_multiplies"]),
            )
            for row in rows
        ],
        title=f"{params.pes} PEs, {params.code_bits} bits a code, {data}",
    )  # fmt: skip
    for row in rows:
        if "rtl" in row:
            output.text(f"{row['network']}: Verilog = models in {row['rtl']['values']:,} values and "
                        f"{row['rtl']['records']:,} times and counters: {row['rtl']['equal']}")  # fmt: skip
    output.result({"params": params.asdict(), "options": options.asdict(), "data": data, "seed": seed, "rows": rows})


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _sets(names: list[str], params: Params, options: Options, seed: int, rtl_layers: int, output: Output) -> None:
    from sim.benchmarks.convolutions import SETS
    from sim.benchmarks.sets import measure_sets, roomy, total

    names = list(SETS) if names == ["all"] else names
    rows = list(
        measure_sets(
            names, params, options=options, seed=seed, rtl_layers=rtl_layers,
            progress=lambda text: output.note(f"eie: {text} …"),
        )
    )  # fmt: skip
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["set"], []).append(row)
        groups.setdefault(f"{row['set']}, {row['kind']}", []).append(row)
    for name in names:
        output.table(
            ("layer", "kind", "tile", "cycles", "used %", "padding %", "beyond %", "starved %", "exposed %",
             "blocked", "dense cycles", "break-even %"),
            [
                (
                    row["layer"] + ("" if row["rows"] == row["of_rows"] else f" ({row['rows']} rows)"), row["kind"],
                    " ".join(dict.fromkeys(f"{y}x{x}" for y, x in row["tiles"])), row["cycles"],
                    *(100 * share for share in row["parts"].values()), row["blocked"], row["dense_cycles"],
                    100 * row["break_even"],
                )
                for row in groups[name]
            ],
            title=f"{name}, {params.pes} PEs",
        )  # fmt: skip
    totals = {name: total(of_group, params.pes) for name, of_group in groups.items()}
    output.table(
        ("layers", "cycles", "used %", "with write-back hidden %", "dense cycles", "models took s"),
        [
            (
                name, each["cycles"], 100 * each["utilization"], 100 * each["hidden"], each["dense_cycles"],
                each["seconds"],
            )
            for name, each in totals.items()
        ],
        title="Together",
    )  # fmt: skip
    for row in rows:
        if "rtl" in row:
            rtl = row["rtl"]
            output.text(
                f"{row['set']} {row['layer']}, {rtl['rows']} of {row['of_rows']} rows: Verilog = models in "
                f"{rtl['values']:,} values and {rtl['records']:,} times and counters: {rtl['equal']}"
            )
    output.result({
        "params": roomy(params).asdict(), "options": options.asdict(), "seed": seed, "rows": rows, "totals": totals,
    })  # fmt: skip
