"""``eie bench networks``: whole networks from torch and ONNX, beside their floats."""

from __future__ import annotations

import click

from eie.options import array_options, example, json_option, make_params
from eie.output import Output


@click.command(
    "networks",
    epilog=example("eie bench networks --json", "eie bench networks --networks resnet-8,ds-cnn --data fashion-mnist"),
    short_help="Whole networks from torch and ONNX, beside their floats.",
)
@click.option("--networks", metavar="A,B", default="", help="Which ones; all if not given.")
@click.option(
    "--data", type=click.Choice(["digits", "fashion-mnist"]), default="digits", show_default=True, help="Images."
)
@click.option("--epochs", type=click.IntRange(1), help="Of training, instead of each network's own.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the training.")
@click.option("--no-onnx", is_flag=True, help="Read the networks from torch only.")
@click.option(
    "--rtl",
    "rtl_samples",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Run the array's part of N samples as Verilog.",
)
@array_options
@json_option
def bench_networks(
    networks: str,
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
    """
    output = Output(json_to)
    params, options = make_params(preset, settings)

    from sim.benchmarks.networks import measure

    names = [name.strip() for name in networks.split(",") if name.strip()]
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
