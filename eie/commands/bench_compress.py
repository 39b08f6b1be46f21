"""``eie bench compress``: bytes of compressed networks, and speed of the coders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eie.options import example, json_option
from eie.output import Output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compiler.compressed import CompressedModel
    from sim.benchmarks.equal_error import EqualErrorRow
    from sim.benchmarks.nncodec import NNCodec

__all__ = ["compress"]


@click.command(
    epilog=example("eie bench compress run/ --json compress.json", "eie bench compress a.eiez b.eiez --no-nncodec"),
    short_help="Bytes of compressed networks beside NNCodec, speed of the coders.",
)
@click.argument("networks", metavar="[NETWORK]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--nncodec/--no-nncodec", default=True, help="Compare with NNCodec 2.1.3.  [default: nncodec]")
@click.option("--install/--no-install", default=True, help="Install NNCodec where it is missing.  [default: install]")
@click.option("--speed/--no-speed", default=True, help="Measure the speed of coders and sharing.  [default: speed]")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of matrices made here.")
@json_option
def compress(
    networks: tuple[Path, ...], nncodec: bool, install: bool, speed: bool, seed: int, json_to: str | None
) -> None:
    """Compress each NETWORK by both coders and by NNCodec, all bytes counted, at equal values.

    NETWORK is the folder of a training run, a .safetensors or an .eiez file; without any, a random one of the shapes
    of LeNet-300-100, which says little about trained ones. NNCodec gets the shared weights as the integers that they
    are, so all three decode to the same values (checked); codebooks and unshared values, which are not in its
    stream, count for it with the bytes that they take in the kit's file.

    Of a run it also gets the pruned float network as it was before weights were shared, quantizes that itself by
    hundreds of settings, and is compared at matched accuracy: by its smallest file that gets no more validation samples
    wrong than the kit's. It is installed in an environment of its own in the user's cache folder (1.5 GB); where that
    is not possible its figures are null.
    """
    output = Output(json_to)

    from dataclasses import asdict

    from compiler.compressible import load_network
    from sim.benchmarks import sharing
    from sim.benchmarks.compress import made, measure, measure_speed
    from sim.benchmarks.nncodec import Unavailable, prepare
    from sim.benchmarks.versions import versions

    found = {str(path): load_network(path) for path in networks} or {f"made here, seed {seed}": made(seed)}
    anchor = None
    if nncodec:
        try:
            anchor = prepare(lambda what: output.note(f"  {what}"), install)
        except Unavailable as error:
            output.note(f"NNCodec is not available, its figures are missing: {error}")
    rows, calls = measure(found, anchor, lambda what: output.note(f"  {what}"))
    for row in rows:
        if anchor is not None and row.coder == "NNCodec" and row.file_bytes is None:
            output.note(f"{row.network}: no figure of NNCodec: {row.note}")
    output.table(
        ("network", "coder", "nonzeros", "bytes", "of which codebooks, values", "ratio", "smaller than NNCodec, %"),
        [
            (
                row.network, row.coder, row.nonzeros, row.file_bytes, round(row.side_bytes), row.ratio,
                None if row.smaller_than_nncodec is None else 100 * row.smaller_than_nncodec,
            )
            for row in rows
        ],
        title="At equal values: all bytes; every file decodes to the same shared weights",
    )  # fmt: skip
    equal = [] if anchor is None else _equal_error(networks, found, anchor, output)
    speeds = measure_speed(found, seed, lambda what: output.note(f"  {what}")) if speed else []
    shares = sharing.measure_sharing(seed, lambda what: output.note(f"  {what}")) if speed else []
    if speeds:
        output.table(
            ("coder", "network", "weights", "density", "encode MB/s", "decode MB/s", "to reach", "reached"),
            [
                (s.coder, s.network, s.weights, s.density, s.encode_mb_s, s.decode_mb_s, s.to_reach, s.reached)
                for s in speeds
            ],
            title="Speed: MB of dense float32 weights a CPU second, one thread",
        )
        output.table(
            ("weights", "codes", "CPU s", "to reach", "beside", "times faster", "error by error of that",
             "above the optimum, %", "of weights", "reached"),
            [
                (
                    r.distribution, r.codes, r.seconds, r.to_reach_s, r.anchor or "not installed", r.faster,
                    None if r.anchor_objective is None else r.objective / r.anchor_objective, 100 * r.excess,
                    r.compared, r.reached,
                )
                for r in shares
            ],
            title=f"Sharing of {sharing.WEIGHTS} weights",
        )  # fmt: skip
    answer: dict[str, Any] = {
        "rows": [asdict(row) for row in rows],
        "nncodec": calls,
        "equal_error": [asdict(row) for row in equal],
        "speed": [{**asdict(row), "reached": row.reached} for row in speeds],
        "sharing": [{**asdict(row), "faster": row.faster, "reached": row.reached} for row in shares],
        "versions": versions(),
    }
    output.result(answer)


def _equal_error(
    paths: tuple[Path, ...], networks: Mapping[str, CompressedModel], nncodec: NNCodec, output: Output
) -> list[EqualErrorRow]:
    """Rows of the networks that are folders of runs."""
    runs = [path for path in paths if path.is_dir()]
    if not runs:
        return []

    from compiler.errors import EieError
    from compiler.train.runfolder import load_run
    from sim.benchmarks.equal_error import EqualErrorRow, measure_equal_error
    from sim.benchmarks.nncodec import Unavailable

    rows = []
    for path in runs:
        name = str(path)
        for distorting in (False, True):
            output.note(f"  at matched accuracy{', NNCodec may distort' if distorting else ''}: {name}")
            try:
                run = load_run(path)
                row = measure_equal_error(
                    name, run, networks[name], nncodec, lambda what: output.note(f"  {what}"), distorting
                )
            except (EieError, Unavailable) as error:  # a network of the user's own code, for one
                row = EqualErrorRow(name, distorting, note=str(error))
            rows.append(row)
            if row.note:
                output.note(f"{name}: no comparison at matched accuracy: {row.note}")
            if row.kit_bytes is None:
                break
    output.table(
        ("network", "NNCodec", "nonzeros", "kit, bytes", "NNCodec, bytes", "smaller, %", "validation error, %",
         "NNCodec's", "test error, %", "NNCodec's", "validation samples"),
        [
            (
                row.network, "distorting" if row.distorting else "not distorting", row.nonzeros,
                row.kit_bytes, row.nncodec_bytes, _percent(row.smaller),
                _percent(row.kit_validation), _percent(row.nncodec_validation), _percent(row.kit_test),
                _percent(row.nncodec_test), "trained on" if row.trained_on_validation else "held back",
            )
            for row in rows
        ],
        title="At matched accuracy: NNCodec quantizes the pruned float network of the same run itself",
    )  # fmt: skip
    return rows


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
