"""Write down everything a run computed, layer by layer, for tools that look closer."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from eie.output import write_whole
from sim.run import Result

__all__ = ["write_trace"]


def write_trace(result: Result, folder: Path) -> list[Path]:
    """Write ``layer_NN.npy`` (int16 (batch, outputs), neuron order) and ``trace.json``; returns their paths.

    ``trace.json`` names the layers and, for an engine that has cycles, holds for each vector and layer the
    layer record: ``accepted``, ``finished`` and ``written`` in cycles since the run began, and the counters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, raw in enumerate(result.layer_raw):
        buffer = io.BytesIO()
        np.save(buffer, raw)
        paths.append(folder / f"layer_{number:02d}.npy")
        write_whole(paths[-1], buffer.getvalue())
    names = [layer.name for layer in result.layers]
    files = [path.name for path in paths]
    content = {"engine": result.engine, "layers": names, "files": files, "records": result.records}
    paths.append(folder / "trace.json")
    write_whole(paths[-1], (json.dumps(content, indent=1) + "\n").encode())
    return paths
