"""Write down everything a run computed, layer by layer, for tools that look closer."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from compiler.files import write_file
from sim.network import NetworkResult

__all__ = ["write_trace"]


def write_trace(result: NetworkResult, folder: Path) -> list[Path]:
    """Write ``layer_NN.npy`` (int16 (batch, *shape)) and ``trace.json``; returns their paths.

    ``trace.json`` names the values, those of the host among them, and, for an engine that has cycles, holds for each
    image, run of the array and layer the layer record: ``accepted``, ``finished`` and ``written`` in cycles since the
    run began, and the counters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    names = [name for name in result.saturated if name in result.values]
    for number, name in enumerate(names):
        buffer = io.BytesIO()
        np.save(buffer, result.values[name])
        paths.append(folder / f"layer_{number:02d}.npy")
        write_file(paths[-1], buffer.getvalue())
    files = [path.name for path in paths]
    content = {
        "engine": result.engine,
        "layers": names,
        "files": files,
        "records": [ran.records for ran in result.runs],
    }
    paths.append(folder / "trace.json")
    write_file(paths[-1], (json.dumps(content, indent=1) + "\n").encode())
    return paths
