"""Vectors on their way through a processing element, cycle by cycle: recorded from the hardware, and drawn.

Written into docs/ by ``python -m sim.waveform docs`` (`make docs`); a test compares the recording with the
table of stages in docs/architecture.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from compiler.files import write_file
from compiler.graph.dense import Dense, dense_graph
from compiler.image.image import Image
from compiler.lower.pipeline import compile_graph
from compiler.options import Options
from hw.core import Core
from hw.params import Params, preset
from sim.amaranth_engine import run_amaranth
from sim.decode import decode
from sim.run import check_input

__all__ = ["BROADCAST", "DONE", "STAGES", "draw", "network", "record"]

BROADCAST = "vector sent"
DONE = "vector done with this sum"
Get = Callable[[Any], int]

STAGES: dict[str, Callable[[Core, Get], int]] = {
    BROADCAST: lambda core, get: get(core.scan.o.valid) & get(core.scan.o.ready),
    "pointer memory addressed": lambda core, get: get(core.pes[0].pointer_read.memory.r_en),
    "written into the queue": lambda core, get: get(core.pes[0].pointer_read.o.valid),
    "dropped: no work": lambda core, get: get(core.pes[0].pointer_read.dropped),
    "queue's memory read": lambda core, get: get(core.pes[0].queue.memory.r_en),
    "vector taken": lambda core, get: get(core.pes[0].expander.i.valid) & get(core.pes[0].expander.i.ready),
    "column taken": lambda core, get: get(core.pes[0].weight_read.i.valid) & get(core.pes[0].weight_read.i.ready),
    "weight word requested": lambda core, get: get(core.pes[0].weight_read.memory.r_en),
    "codebook addressed": lambda core, get: get(core.pes[0].weight_decode.memory.r_en),
    "weight × activation": lambda core, get: get(core.pes[0].mac.i.valid),
    DONE: lambda core, get: get(core.pes[0].mac.done),
}
"""What is watched, in the first PE: 1 in the cycles in which it happens."""


def network(params: Params, options: Options) -> tuple[Image, Any]:
    """Three activation vectors, and their batch of one, for two PEs.

    The first vector has two columns with weights in the first PE: three, and ten, which is more than a word holds. The
    second has weights in the other PE only. The third has one column of two.
    """
    first = np.zeros((16, 24), np.float32)
    first[[2, 5, 6], 1] = 3, 7, 3
    first[1:11, 6] = 7
    first[[0, 9], 16] = 3
    x = np.zeros((1, 24), np.int16)
    x[0, [1, 6, 12, 16]] = 100, 300, 200, 400
    weight = np.zeros((32, 24), np.float32)
    weight[0::2], weight[1, 12] = first, 3
    return compile_graph(dense_graph([Dense("layer", weight)]), params, x, options).only, x


def record() -> dict[str, list[int]]:
    """Values of `STAGES` from the cycle before the first vector is sent to the one after the last sum."""
    image, x = network(preset("BALANCED_2"), Options(balanced=False, fragments=1))
    cycles: list[dict[str, int]] = []
    run_amaranth(
        image,
        check_input(image, x)[0],
        decode(image),
        watch=lambda core, get: cycles.append({name: int(see(core, get)) for name, see in STAGES.items()}),
    )
    first = next(n for n, cycle in enumerate(cycles) if cycle[BROADCAST])
    last = max(n for n, cycle in enumerate(cycles) if cycle[DONE])
    return {name: [cycle[name] for cycle in cycles[first - 1 : last + 2]] for name in STAGES}


def draw(waves: dict[str, list[int]]) -> bytes:
    """An SVG of the recording, a row a signal, the first broadcast in the cycle called F."""
    import io

    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    length = len(waves[BROADCAST])
    figure = Figure(figsize=(0.42 * length + 2.6, 0.42 * len(waves) + 0.8), layout="constrained")
    FigureCanvasSVG(figure)
    axis = figure.subplots()
    edges = np.arange(length + 1)
    for n, values in enumerate(waves.values()):
        base = len(waves) - 1 - n
        level = base + 0.7 * np.array([*values, values[-1]])
        axis.step(edges, level, where="post", color="C0", linewidth=1.5)
        axis.fill_between(edges, base, level, step="post", color="C0", alpha=0.25, linewidth=0)
    axis.set_yticks([len(waves) - 0.65 - n for n in range(len(waves))], list(waves))
    axis.set_xticks(edges[:-1] + 0.5, ["F" if n == 1 else f"{n - 1:+d}" for n in range(length)])
    axis.set_xticks(edges, minor=True)
    axis.grid(axis="x", which="minor", alpha=0.4)
    axis.tick_params(axis="x", which="minor", length=0)
    axis.tick_params(axis="y", length=0)
    axis.set_xlim(0, length)
    axis.spines[:].set_visible(False)
    buffer = io.BytesIO()
    # Neither date nor random names: the same recording gives the same bytes.
    with mpl.rc_context({"svg.hashsalt": "waveform", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def main(folder: Path) -> None:
    waves = record()
    lines = (f" {json.dumps(name, ensure_ascii=False)}: {json.dumps(values)}" for name, values in waves.items())
    write_file(folder / "waveform.json", ("{\n" + ",\n".join(lines) + "\n}\n").encode())
    write_file(folder / "waveform.svg", draw(waves))
    print(f"{folder}/waveform.json and {folder}/waveform.svg written")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
