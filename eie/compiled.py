"""What ``eie compile`` says of a network that it compiled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eie.output import Output

if TYPE_CHECKING:
    from compiler.lower.quantize import NodeReport

__all__ = ["form", "host_lines", "show_compiled"]


def show_compiled(output: Output, target: Path, facts: dict[str, Any], reports: Sequence[NodeReport]) -> None:
    """Layers on the array, operators on the host, and what quantization did; `facts` as `sim.describe.describe`."""
    if facts["layers"]:
        output.table(
            ("layer", "makes", "tile", "nonzeros", "density", "padding", "exact"),
            [
                (
                    layer["name"], form(layer["makes"]), form(layer["tile"]), layer["nonzeros"], layer["density"],
                    layer["padding"], layer["exact"],
                )
                for layer in facts["layers"]
            ],
        )  # fmt: skip
    for line in host_lines(facts):
        output.note(f"eie: {line}")
    if facts["tile_bytes"]:
        streamed = [layer["name"] for layer in facts["layers"] if layer["streamed"]]
        output.note(
            f"eie: {', '.join(streamed)}: larger than the memories, so {facts['tile_bytes']:,} bytes of weights are "
            f"streamed in for each sample: {facts['cycles']['model']:,} cycles for one without zeros, "
            f"{facts['cycles']['resident']:,} if all were resident"
        )
    for line in _rounding(facts, reports):
        output.note(f"eie: {line}")
    size = f"{-(-sum(facts['bits'].values()) // 8):,} bytes for the array"
    its = " its layers as" if facts["host"] else ""  # weights of the host are in neither figure
    ratio = "" if facts["ratio"] is None else f", {facts['ratio']:.1f} times smaller than{its} dense float32"
    output.text(f"{target}: {size}{ratio}; hash {facts['hash']}")


def form(shape: Sequence[int]) -> str:
    """A shape as text, without axes of size 1 behind the channels."""
    kept = shape[:1] if all(size == 1 for size in shape[1:]) else shape
    return "x".join(map(str, kept))


def host_lines(facts: dict[str, Any]) -> list[str]:
    """The operators that the array cannot run yet, with their module path, one a line; none if it runs all."""
    nodes = [node for node in facts["graph"] if node["on"] == "host"]
    if not nodes:
        return []
    where = [f"  {node['name']} ({node['op']}){' from ' + node['source'] if node['source'] else ''}" for node in nodes]
    return ["\n".join([f"the array cannot run {len(nodes)} of the operators yet; the host computes them:", *where])]


def _rounding(facts: dict[str, Any], reports: Sequence[NodeReport]) -> list[str]:
    lines = []
    clustered = [report.name for report in reports if report.clustered]
    if clustered:
        lines.append(
            f"{', '.join(clustered)}: more distinct weights than the codebook holds, so each became the nearest of "
            f"{(1 << facts['params']['code_bits']) - 1} shared values; `eie train` shares them with retraining"
        )
    acc_bits = facts["params"]["acc_bits"]
    lines += [
        f"{report.name}: the codebook was halved {report.halved} time{'s' * (report.halved > 1)}, so that no sum can "
        f"overflow {acc_bits} bits"
        for report in reports
        if report.halved
    ]
    return lines
