"""The table of a compressed file's bits by part."""

from __future__ import annotations

from pathlib import Path

from compiler.coding.container import decompress_any
from compiler.coding.sizes import PARTS
from compiler.compressible import naming, read_file
from eie.output import Output

__all__ = ["show_sizes"]


def show_sizes(file: Path, output: Output) -> None:
    """Print bits by part, as the tables of Deep Compression do, and give all of it as JSON."""
    with naming(file):
        sizes = decompress_any(read_file(file)).sizes
    what = "network of an array" if sizes.kind == "fixed" else "trained network"
    output.text(
        f"{file}: {what}, {sizes.coder} coder, {sizes.file_bytes:,} bytes; "
        f"dense float32 {sizes.dense_bytes:,} bytes, {sizes.ratio:.1f} times smaller"
    )
    output.text()
    output.table(
        ("tensor", "shape", "elements", "nonzeros", "density", "code bits", "gap bits", "fillers"),
        [
            (
                t.name, "x".join(map(str, t.shape)), t.weights, t.nonzeros, t.nonzeros / t.weights, t.code_bits or None,
                t.gap_bits or None, t.fillers if t.gap_bits else None,
            )
            for t in sizes.tensors
        ],
        title="Tensors",
    )  # fmt: skip
    rows: list[tuple[object, ...]] = [
        (
            t.name, *(round(getattr(t, part)) for part in PARTS), round(t.bits), t.bits / t.weights,
            t.bits / t.nonzeros if t.nonzeros else None, 32 * t.weights / t.bits if t.bits else None,
        )
        for t in sizes.tensors
    ]  # fmt: skip
    whole, nonzeros = 8 * sizes.file_bytes, sum(t.nonzeros for t in sizes.tensors)
    empty: tuple[None, ...] = (None,) * len(PARTS)
    rows.append(("header", *empty, round(sizes.header), None, None, None))
    rows.append(
        (
            "all", *(round(sizes.part(part)) for part in PARTS), whole, 32 * whole / (8 * sizes.dense_bytes),
            whole / nonzeros if nonzeros else None, sizes.ratio,
        )
    )  # fmt: skip
    output.table(("tensor", *PARTS, "all", "bits a weight", "bits a nonzero", "ratio"), rows, title="Bits by part")
    output.result({"file": str(file), **sizes.asdict()})
