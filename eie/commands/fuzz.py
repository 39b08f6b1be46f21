"""``eie fuzz``: files and bus traffic that lie, many of them, each refused in words or right."""

from __future__ import annotations

from pathlib import Path

import click

from eie.failure import harmless
from eie.options import example, json_option
from eie.output import Output, check_writable_folder


@click.command(
    epilog=example(
        "eie fuzz --list",
        "eie fuzz --cases 100000 --jobs 2 -o build/fuzz",
        "eie fuzz eie onnx --cases 5000 --seed 7 -o build/fuzz-7",
        "eie fuzz eiez --seed 7 --case 123 -o build/again",
        "eie fuzz onnx --file model.onnx",
    )
)
@click.argument("names", nargs=-1, metavar="[TARGET]...")
@click.option("--cases", type=click.IntRange(min=1), default=10_000, show_default=True,
              help="Together; targets whose cases are cheap get more of them.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of everything that is random.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes to share the work.")
@click.option("-o", "--output", "folder", metavar="DIR", type=click.Path(path_type=Path), default=Path("build/fuzz"),
              show_default=True, help="For a line about each case that fails, and its file.")  # fmt: skip
@click.option("--case", "number", type=click.IntRange(min=0), help="Run this case of one TARGET again, and keep it.")
@click.option("--file", "given", type=click.Path(path_type=Path), help="Judge this file as a case of one TARGET.")
@click.option("--list", "names_only", is_flag=True, help="Name the targets.")
@json_option
@click.pass_context
def fuzz(
    ctx: click.Context, names: tuple[str, ...], cases: int, seed: int, jobs: int, folder: Path, number: int | None,
    given: Path | None, names_only: bool, json_to: str | None,
) -> None:  # fmt: skip
    """Give the kit files, and the array traffic, that lie; by default to all targets.

    Each case is made from what is right, with its checksums mended, and must be refused in words or give a right
    result, within 10 seconds of processor time and 1 GiB of memory. A campaign that was stopped goes on where it was
    if the same command is given again. Ends with 1 if a case fails.
    """
    output = Output(json_to)

    from eie.packaged import recipe_folder
    from sim.fuzz.campaign import campaign, targets
    from sim.fuzz.worker import Failure

    known = targets(recipe_folder())
    if names_only:
        for target in known.values():
            output.text(f"{target.name:12}  {target.text}")
        output.result({target.name: target.text for target in known.values()})
        return
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(f"unknown target {unknown[0]!r}; expected one of {', '.join(known)}")
    chosen = list(dict.fromkeys(names)) or list(known)
    if number is not None or given is not None:
        if len(names) != 1:
            raise click.UsageError("--case and --file belong to one TARGET; name it")
        ctx.exit(_one(output, known, names[0], seed, number or 0, given, folder))
    check_writable_folder(folder, "-o")

    def told(failure: Failure) -> None:
        output.text(harmless(f"{failure.target} case {failure.case}: {failure.kind}: {failure.what:.300}"))

    with output.progress("fuzz") as progress:
        report = campaign(known, chosen, cases, seed, jobs, folder, progress, told)
    output.table(
        ("target", "cases", "refused", "accepted", "failed", "CPU s", "slowest s", "MiB more"),
        [
            (name, each.cases, each.refused, each.accepted, each.failed, round(each.seconds, 1), round(each.slowest, 2),
             each.largest >> 20)
            for name, each in report.totals.items()
        ],
        title=f"seed {seed}",
    )  # fmt: skip
    if report.before:
        output.note(f"eie: {report.before:,} of these cases were run before; {folder} holds them")
    output.text(
        f"{'passed' if report.passed else 'FAILED'}: {report.cases:,} cases, {len(report.failures):,} failed; {folder}"
    )
    output.result(report.asdict())
    ctx.exit(0 if report.passed else 1)


def _one(output: Output, known: dict, name: str, seed: int, number: int, given: Path | None, folder: Path) -> int:  # type: ignore[type-arg]
    """One case again; its exit code."""
    from compiler.errors import InputError
    from compiler.files import write_file
    from sim.fuzz.campaign import replay

    if given is not None and not given.is_file():
        raise InputError(f"{given}: no such file")
    content, failure, reason = replay(known, name, seed, number, given)
    kept = given
    if kept is None:
        check_writable_folder(folder, "-o")
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / f"{name}-{seed}-{number}{known[name].suffix}"
        write_file(kept, content)
    output.text(f"{kept}: {len(content):,} bytes")
    if failure is not None:
        output.text(harmless(f"FAILED: {failure.kind}: {failure.what}"))
        output.text(harmless(f"at {failure.where}"))
    else:
        output.text(harmless(f"refused: {reason}") if reason else "accepted, and right")
    output.result({
        "target": name, "seed": seed, "case": number, "file": str(kept), "refused": reason,
        "failed": None if failure is None else {"kind": failure.kind, "what": failure.what, "where": failure.where},
    })  # fmt: skip
    return 0 if failure is None else 1
