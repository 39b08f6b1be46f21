"""``eie bench array``: trained networks on the array, structured ones against unstructured ones."""

from __future__ import annotations

from pathlib import Path

import click

from eie.options import example, json_option
from eie.output import Output, check_writable_folder

__all__ = ["array"]

FOLDER = Path("recipes/experiments/array")


@click.command(
    epilog=example("eie bench array --json array.json", "eie bench array --pes 16 --densities 0.1,0.05,0.02"),
    short_help="Cycles of structured against unstructured networks at equal accuracy.",
)
@click.option("--recipes", "folder", default=FOLDER, show_default=True, type=click.Path(path_type=Path), help="Folder.")
@click.option("--structured", default="ssl", show_default=True, metavar="NAME", help="What others are compared with.")
@click.option(
    "--densities", default="0.1,0.04,0.02", show_default=True, metavar="D,...", help="Of the recipes that only prune."
)
@click.option("--pes", multiple=True, type=click.IntRange(1, 256), default=(4, 16), show_default=True,
              help="PEs of the arrays; may be repeated.")  # fmt: skip
@click.option("--engine", type=click.Choice(["rtl", "amaranth"]), default="rtl", show_default=True, help="Hardware.")
@click.option("--samples", type=click.IntRange(1), default=100, show_default=True, help="That cycles are counted on.")
@click.option("--checked", type=click.IntRange(1), default=4, show_default=True, help="Of them run on the hardware.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True, help="Of the samples' choice.")
@click.option(
    "-o", "--output", "out", default=Path("build/bench-array"), show_default=True, type=click.Path(path_type=Path),
    help="Folder of the trained networks; may be new.",
)  # fmt: skip
@json_option
def array(
    folder: Path, structured: str, densities: str, pes: tuple[int, ...], engine: str, samples: int, checked: int,
    seed: int, out: Path, json_to: str | None,
) -> None:  # fmt: skip
    """Train the networks of a folder of recipes, run each on the array, and compare cycles at equal accuracy.

    Each is compiled, run on the hardware for some samples (every output, time and counter is compared with the golden
    and the cycle model; exit code 1 if one differs), counted by the cycle model on more, and its accuracy is that
    of the golden model on all test samples. Trained networks are kept in the output folder and used again.
    """
    output = Output(json_to)
    check_writable_folder(out, "--output")
    recipes = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    if structured not in recipes:
        raise click.UsageError(f"--structured {structured}: expected one of {', '.join(recipes) or 'no recipes found'}")
    try:
        wanted = [float(text) for text in densities.split(",") if text]
    except ValueError:
        raise click.UsageError(f"--densities {densities}: expected numbers with commas, as in 0.1,0.04") from None
    if any(not 0 < density <= 1 for density in wanted):
        raise click.UsageError(f"--densities {densities}: expected each above 0 and at most 1")

    from hw.params import preset
    from sim.benchmarks.train_array import findings, measure, train_all
    from sim.benchmarks.versions import versions

    def note(what: str) -> None:
        output.note(f"  {what}")

    runs = train_all(recipes, out, densities=wanted, progress=note)
    rows = [
        row
        for count in pes
        for row in measure(
            runs, preset(f"BALANCED_{count}"), samples=samples, engine=engine, checked=checked, seed=seed, progress=note
        )
    ]
    output.table(
        ("network", "PEs", "shape", "weights", "test error %", "multiplications", "cycles", "differ"),
        [
            (row.name, row.pes, row.shape, row.nonzeros, row.test_error, row.work, row.cycles, row.different)
            for row in rows
        ],
        title=f"A sample, mean of {samples}; engine {engine}",
    )
    sentences = findings(rows, structured)
    for sentence in sentences:
        output.text(f"- {sentence}")
    output.result({"rows": [row.asdict() for row in rows], "findings": sentences, "versions": versions()})
    if any(row.different for row in rows):
        raise SystemExit(1)
