"""``eie bench ablation``: what each difference to the published array is worth."""

from __future__ import annotations

import json
from pathlib import Path

import click

from eie.commands.bench_eie import layers_option, matrices_option, numbers, scale_option, seeds_option, shapes
from eie.options import example, json_option
from eie.output import Output, check_writable_folder

__all__ = ["ablation"]


@click.command(
    epilog=example("eie bench ablation -o docs/results", "eie bench ablation --layers NT-We --seeds 1 --rtl none"),
    short_help="From EIE_64 to BALANCED_64, one change a row.",
)
@click.option("-o", "--output", "folder", metavar="DIR", type=click.Path(path_type=Path),
              help="Write DIR/ablation.md and DIR/ablation.json.")  # fmt: skip
@seeds_option
@layers_option
@matrices_option
@click.option("--rtl", metavar="N,…|none", default="none", show_default=True, callback=numbers,
              help="Rows (0 is the first) that run in hardware as well.")  # fmt: skip
@click.option("--pes", type=int, default=64, show_default=True, help="PEs of every array.")
@scale_option
@json_option
@click.pass_context
def ablation(
    ctx: click.Context,
    folder: Path | None,
    seeds: tuple[int, ...],
    layers: str | None,
    matrices: str,
    rtl: tuple[int, ...],
    pes: int,
    scale: int,
    json_to: str | None,
) -> None:
    """Measure every array between the published one and the balanced one: each row makes one change more.

    By the cycle model; the rows of --rtl in Verilator too, where each is a build of about a minute. Ends with 1 if
    the hardware differs from a model.
    """
    output = Output(json_to)
    chosen = shapes(layers)
    if not chosen or not seeds:
        raise click.UsageError("nothing to run; expected at least one layer and one seed")
    if folder is not None:
        check_writable_folder(folder, "--output")

    from compiler.files import write_file
    from sim.benchmarks.ablation import STEPS, ablate, markdown
    from sim.benchmarks.versions import versions

    if rtl and max(rtl) > len(STEPS):
        raise click.UsageError(f"--rtl {max(rtl)}: there are rows 0 to {len(STEPS)}")
    with output.progress("arrays × layers") as progress:
        steps = ablate(
            chosen, seeds, pes=pes, scale=scale, matrices=matrices, rtl=rtl, progress=progress
        )  # fmt: skip
    command = "eie bench ablation" + "".join(
        f" --{name} {value}"
        for name, value, usual in (
            ("seeds", ",".join(map(str, seeds)), "1,2,3"), ("layers", layers, None), ("matrices", matrices, "uniform"),
            ("rtl", ",".join(map(str, rtl)), ""), ("pes", pes, 64), ("scale", scale, 1),
        )
        if value != usual
    )  # fmt: skip
    output.table(
        ("step", "change", "geometric mean", "lowest", "by"),
        [
            (
                step.what, ", ".join(f"{name}={value}" for name, value in step.changes.items()),
                f"{step.measurement.geomean:.4f}", f"{min(row.efficiency for row in step.measurement.rows):.4f}",
                "model and RTL" if step.rtl else "model",
            )
            for step in steps
        ],
    )  # fmt: skip
    differences = [f"{step.what}: {text}" for step in steps for text in step.measurement.differences]
    for difference in differences:
        output.text(f"DIFFER: {difference}")
    answer = {
        "steps": [step.asdict() for step in steps],
        "command": command,
        "differences": differences,
        "versions": versions(),
    }
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / "ablation.md", markdown(steps, command).encode())
        # The rows of each layer and seed are for --json: the means of them stand in ablation.md.
        short = {**answer, "steps": [{**step.asdict(), "rows": len(step.measurement.rows)} for step in steps]}
        write_file(folder / "ablation.json", (json.dumps(short, indent=1, allow_nan=False) + "\n").encode())
    output.result(answer)
    ctx.exit(1 if differences else 0)
