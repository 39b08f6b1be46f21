"""``eie bench compress``: bytes of compressed networks, and speed of the coders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from eie.options import example, json_option
from eie.output import Output

__all__ = ["compress"]


@click.command(
    epilog=example("eie bench compress run/ --json compress.json", "eie bench compress a.eiez b.eiez --no-nncodec"),
    short_help="Bytes of compressed networks beside NNCodec, speed of the coders.",
)
@click.argument("networks", metavar="[NETWORK]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--nncodec/--no-nncodec", default=True, help="Compare with NNCodec 2.1.3.  [default: nncodec]")
@click.option("--install/--no-install", default=True, help="Install NNCodec where it is missing.  [default: install]")
@click.option("--speed/--no-speed", default=True, help="Measure the speed of the coders.  [default: speed]")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of matrices made here.")
@json_option
def compress(
    networks: tuple[Path, ...], nncodec: bool, install: bool, speed: bool, seed: int, json_to: str | None
) -> None:
    """Compress each NETWORK by both coders and by NNCodec, all bytes counted, at equal values.

    NETWORK is the folder of a training run, a .safetensors or an .eiez file; without any, a random one of the shapes
    of LeNet-300-100, which says little about trained ones. NNCodec gets the shared weights as the integers that they
    are, so all three decode to the same values (checked); codebooks and unshared values, which are not in its
    stream, count for it with the bytes that they take in the kit's file. It is installed in an environment of its own
    in the user's cache folder (1.5 GB); where that is not possible its figures are null.
    """
    output = Output(json_to)

    from dataclasses import asdict

    from eie.compressible import load_network
    from sim.bench.compress import made, measure, measure_speed
    from sim.bench.nncodec import Unavailable, prepare
    from sim.bench.versions import versions

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
        title="All bytes; every file decodes to the same values",
    )  # fmt: skip
    speeds = measure_speed(seed, lambda what: output.note(f"  {what}")) if speed else []
    if speeds:
        output.table(
            ("coder", "matrix", "density", "encode MB/s", "decode MB/s", "to reach", "reached"),
            [
                (s.coder, f"{s.shape[0]}x{s.shape[1]}", s.density, s.encode_mb_s, s.decode_mb_s, s.to_reach, s.reached)
                for s in speeds
            ],
            title="Speed: MB of dense float32 weights a CPU second, one thread",
        )
    answer: dict[str, Any] = {
        "rows": [asdict(row) for row in rows],
        "nncodec": calls,
        "speed": [{**asdict(row), "reached": row.reached} for row in speeds],
        "versions": versions(),
    }
    output.result(answer)
