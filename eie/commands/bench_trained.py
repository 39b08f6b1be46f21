"""``eie bench trained``: trained networks stage by stage, and in integers."""

from __future__ import annotations

from pathlib import Path

import click

from eie.options import array_options, example, json_option, make_params
from eie.output import Output


@click.command(
    "trained",
    epilog=example(
        "eie bench trained build/resnet-8 build/lstm --rtl 2", "eie bench trained build/resnet-8 --samples 1000 --json"
    ),
    short_help="Trained networks stage by stage, and in integers.",
)
@click.argument("runs", metavar="RUN/...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--samples", type=click.IntRange(1), help="Test samples that the golden model computes, the first ones; else all."
)
@click.option(
    "--rtl",
    "rtl_samples",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Run the array's part of the first N test samples as Verilog too; exit code 1 if a bit or a cycle differs.",
)
@array_options
@json_option
def bench_trained(
    runs: tuple[Path, ...],
    samples: int | None,
    rtl_samples: int,
    preset: str,
    settings: tuple[str, ...],
    json_to: str | None,
) -> None:
    """Compile each RUN/ of `eie train` and run its test set by the golden model.

    Beside it stand the accuracies that the network had in floats after its first stage, after pruning, and in the end,
    and in the end on the samples that the golden model computed.
    "shared anew" counts layers that have more values than the array's codebooks hold, so that the compiler had to share
    their weights without training.
    """
    output = Output(json_to)
    params, options = make_params(preset, settings)

    from sim.benchmarks.trained import measure_runs

    rows = list(
        measure_runs(
            runs, params, options=options, samples=samples, rtl_samples=rtl_samples,
            progress=lambda text: output.note(f"eie: {text} …"),
        )
    )  # fmt: skip
    output.table(
        ("run", "weights", "density %", "first stage %", "pruned %", "end %", "floats %", "golden %", "95 % from",
         "to", "shared anew"),
        [
            (
                row["run"], row["weights"], 100 * row["nonzeros"] / row["weights"], 100 * row["stages"][0]["test"],
                next((100 * stage["test"] for stage in reversed(row["stages"]) if stage["kind"] == "prune"), None),
                100 * row["stages"][-1]["test"], 100 * row["floats"], 100 * row["golden"],
                *(100 * end for end in row["interval"]), len(row["shared_anew"]),
            )
            for row in rows
        ],
        title=f"{params.pes} PEs, {params.code_bits} bits a code, accuracy on the test set",
    )  # fmt: skip
    rtl = {row["run"]: row["rtl"] for row in rows if "rtl" in row}
    for name, ran in rtl.items():
        output.text(
            f"{name}: Verilog and models, {ran['samples']} samples, {ran['cycles']:,} cycles: "
            f"{ran['values_different']} of {ran['values']:,} values and {ran['records_different']} of "
            f"{ran['records']:,} times and counters differ; {ran['cycles'] / ran['samples']:,.1f} cycles a sample, "
            f"{100 * ran['utilization']:.1f} % of the multipliers' time for products of two nonzeros"
        )
    output.result({"params": params.asdict(), "options": options.asdict(), "rows": rows})
    if not all(ran["equal"] for ran in rtl.values()):
        raise SystemExit(1)
